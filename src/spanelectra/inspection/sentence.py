"""Text -> one row, its words, and the batch in which a person's spans, or spans drawn as in training, are masked."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.span_masking import MaskStatistics, SpanMaskingPolicy, SpanMasks
from spanelectra.data.span_placement import find_words, tokens_of_spans
from spanelectra.data.training_rows import RowBatch
from spanelectra.data.word_starts import WordStartTable
from spanelectra.errors import UserError, did_you_mean
from spanelectra.schedules import Schedule

_ATTEMPTS = 10


@dataclass(frozen=True)
class Sentence:
    """A text as the model reads it.

    Attributes:
        row: (1, length) uint32, [CLS] … [SEP].
        words: first and last position of each word; one longer than the longest span is cut into several.
        cut_tokens: tokens that did not fit and are left out.
        text: what was read.
        offsets: for each token between [CLS] and [SEP] its first character in the text and the one after its last.
    """

    row: NDArray[np.uint32]
    words: tuple[tuple[int, int], ...]
    cut_tokens: int
    text: str
    offsets: tuple[tuple[int, int], ...]

    def words_of(self, phrases: Sequence[str]) -> list[int]:
        """Numbers of the words that make up phrases, wherever these stand in the text.

        Raises:
            UserError: for a phrase that the text, as far as it is shown, has not.
        """
        numbers: set[int] = set()
        for phrase in phrases:
            found = {
                number
                for occurrence in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", self.text)
                for number, (first, last) in enumerate(self.words)
                for start, end in self.offsets[first - 1 : last]
                if start < occurrence.end() and occurrence.start() < end
            }
            if not phrase.strip() or not found:
                raise UserError(f"'{phrase}' does not stand in the text.{did_you_mean(phrase, self.text.split())}")
            numbers |= found
        return sorted(numbers)

    def spans(self, masked_words: Collection[int]) -> list[tuple[int, int]]:
        """First and last positions of the spans that words make; words side by side are one span.

        Raises:
            UserError: for a number that no word has.
        """
        spans: list[tuple[int, int]] = []
        for number in sorted(set(masked_words)):
            if not 0 <= number < len(self.words):
                raise UserError(f"there is no word {number}: the text has {len(self.words)}, counted from 0.")
            first, last = self.words[number]
            if spans and spans[-1][1] + 1 == first:
                first = spans.pop()[0]
            spans.append((first, last))
        return spans


def read_sentence(
    tokenizer: PreTrainedTokenizerBase,
    word_starts: WordStartTable,
    text: str,
    longest_input: int,
    max_span_length: int,
) -> Sentence:
    """Tokenize a text as ``spanelectra prepare`` does: "[SEP]" in it is text.

    Args:
        tokenizer: the model's.
        word_starts: its table of word starts.
        text: anything.
        longest_input: tokens that the model takes, [CLS] and [SEP] included.
        max_span_length: longest span in tokens.

    Raises:
        UserError: for a text without a token, or that is no Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the text holds half a character (bytes that are not UTF-8, or a lone surrogate).") from None
    # a copy, whose settings are ours
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    encoding = backend.encode(text, add_special_tokens=False)
    ids = encoding.ids
    if not ids:
        raise UserError("the text is empty; give some words.")
    room = longest_input - 2
    row = np.array([[tokenizer.cls_token_id, *ids[:room], tokenizer.sep_token_id]], dtype=np.uint32)
    special = word_starts.special_ids[row]
    words = find_words(word_starts.word_starts(row), special, max_span_length)
    # a position belongs to the last word that starts at or before it
    numbers = np.searchsorted(words.first_tokens, np.arange(row.shape[1]), side="right")
    groups = itertools.groupby(np.flatnonzero(~special[0]).tolist(), key=lambda position: numbers[position])
    positions = [list(group) for _, group in groups]
    spread = tuple((group[0], group[-1]) for group in positions)
    return Sentence(row, spread, max(0, len(ids) - room), text, tuple(encoding.offsets[:room]))


def random_words(sentence: Sentence, word_starts: WordStartTable, policy: SpanMaskingPolicy, seed: int) -> list[int]:
    """The words that training would mask in a row like this one.

    Args:
        sentence: what to mask.
        word_starts: the tokenizer's table of word starts.
        policy: how much of it, in spans of which lengths.
        seed: of the draw.

    Raises:
        UserError: for a text too short to mask a span of it.
    """
    tokens = sentence.row.shape[1] - 2
    collator = DataCollatorForSpanElectra(**_settings(sentence, word_starts, policy, seed), mask_token_id=0)
    # a first span that is cut to nothing, as training may cut one, is no picture: the next epoch draws another
    for epoch in range(_ATTEMPTS if policy.mask_ratio * tokens >= 1 else 0):
        masks = collator.mask(*collator.read(_one_row(epoch)))
        masked = set(masks.masked_positions[masks.masked_valid].tolist())
        if masked:
            return [number for number, (first, _) in enumerate(sentence.words) if first in masked]
    raise UserError(
        f"the text has {tokens} tokens, too few to mask a span of {policy.mask_ratio:.0%} with a word left on either "
        f"side; give a longer text{' or a higher mask_ratio' if tokens > 2 else ''}."
    )


@dataclass
class _ChosenSpansCollator(DataCollatorForSpanElectra):
    """The collator of training, but for the spans, which are given as first and last positions."""

    masked_spans: Sequence[tuple[int, int]] = ()
    decoy_spans: Sequence[tuple[int, int]] = ()

    def mask(self, original_ids: NDArray[np.int64], batch: RowBatch) -> SpanMasks:
        masked, decoys = (_token_arrays(spans, original_ids.shape) for spans in (self.masked_spans, self.decoy_spans))
        masked_tokens, decoy_tokens = int(masked[-1].sum()), int(decoys[-1].sum())
        statistics = MaskStatistics(
            rows=1,
            rows_below_budget=0,
            budget_tokens=masked_tokens,
            masked_tokens=masked_tokens,
            masked_spans=len(self.masked_spans),
            decoy_tokens=decoy_tokens,
            decoy_spans=len(self.decoy_spans),
            span_words_histogram=np.zeros(1, np.int64),
        )
        return SpanMasks(*masked, *decoys, statistics=statistics)


def masked_batch(
    sentence: Sentence,
    word_starts: WordStartTable,
    masked_words: Sequence[int],
    mask_token_id: int,
    seed: int,
    *,
    hide: bool,
) -> dict[str, Tensor]:
    """Lay out the sentence as a batch of one row, by the collator of training.

    Args:
        sentence: the text.
        word_starts: the tokenizer's table of word starts.
        masked_words: numbers of the words to mask.
        mask_token_id: id of [MASK].
        seed: of what is drawn for the spans.
        hide: put [MASK] there; else random tokens, for a model without a generator.

    Returns:
        What :class:`~spanelectra.data.data_collator.DataCollatorForSpanElectra` gives, with as many slots as there are
        masked tokens. The decoys are the words that are not masked, each a span of its own.
    """
    others = [span for number, span in enumerate(sentence.words) if number not in set(masked_words)]
    collator = _ChosenSpansCollator(
        **_settings(sentence, word_starts, SpanMaskingPolicy(), seed),
        mask_token_id=mask_token_id,
        mask_token_ratio=float(hide),
        random_token_ratio=float(not hide),
        masked_spans=sentence.spans(masked_words),
        decoy_spans=others,
    )
    return collator(_one_row(epoch=0))


def _one_row(epoch: int) -> RowBatch:
    return RowBatch(np.zeros(1, np.int64), np.full(1, epoch, np.int64), 1.0)


def _settings(sentence: Sentence, word_starts: WordStartTable, policy: SpanMaskingPolicy, seed: int) -> dict[str, Any]:
    """What both collators take."""
    return {
        "input_ids": sentence.row,
        "word_starts": word_starts,
        "policy": policy,
        "seed": seed,
        "mask_ratio": Schedule.parse(policy.mask_ratio, "mask_ratio"),
        "max_span_words": Schedule.parse(policy.max_span_words, "max_span_words"),
    }


def _token_arrays(
    spans: Sequence[tuple[int, int]], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    starts = np.array([first for first, _ in spans], np.int64)
    lengths = np.array([last - first + 1 for first, last in spans], np.int64)
    return tokens_of_spans(starts, lengths, shape, int(lengths.sum()))
