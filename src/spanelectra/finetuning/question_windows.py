"""Questions and contexts -> windows of tokens that overlap, so that a context of any length is read whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from spanelectra.errors import UserError
from spanelectra.finetuning.squad_files import Answer, Question
from spanelectra.finetuning.task import Feature

_QUESTIONS_AT_ONCE = 1000


@dataclass(frozen=True)
class Windows:
    """All windows of some questions.

    Attributes:
        features: ``[CLS] question [SEP] part of the context [SEP]``, in the order of the questions, with what the model
            reads; ``example``, the question's index; ``context_start``, the position of the first token of the context;
            and ``offsets``, (context tokens, 2) int32: for each the first character and the one after the last, without
            whitespace around it; twice the same number for a token that holds nothing else.
        cut: indices of the questions that were cut, for they were longer than half of a window.
        narrowed: indices of those so long that windows overlap by less than was asked for.
    """

    features: list[Feature]
    cut: list[int]
    narrowed: list[int]


def make_windows(
    examples: Sequence[Question], tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int
) -> Windows:
    """Cut every context into windows.

    Args:
        examples: with questions and contexts of any length.
        tokenizer: a fast one.
        max_length: the most tokens of a window, special tokens included.
        doc_stride: tokens of the context by which windows overlap. At least a quarter of a window's context is new.

    Raises:
        UserError: a window has no room for context, or the tokenizer does not put special tokens around a pair.
    """
    _check_pairs(tokenizer)
    limit = max_length // 2
    special_tokens = tokenizer.num_special_tokens_to_add(pair=True)
    if limit + special_tokens >= max_length:
        raise UserError(f"max_length {max_length} leaves no room for the context; pass a larger --max_length.")
    questions, lengths, cut = _fit_questions([example.question for example in examples], tokenizer, limit)
    overlaps = [min(doc_stride, 3 * (max_length - special_tokens - length) // 4) for length in lengths]
    windows: list[list[Feature]] = [[] for _ in examples]
    for overlap in sorted(set(overlaps)):
        members = [index for index, value in enumerate(overlaps) if value == overlap]
        for first in range(0, len(members), _QUESTIONS_AT_ONCE):
            chunk = members[first : first + _QUESTIONS_AT_ONCE]
            encoded = tokenizer(
                [questions[index] for index in chunk],
                [examples[index].context for index in chunk],
                truncation="only_second",
                max_length=max_length,
                stride=overlap,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            samples, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
            for row, sample in enumerate(samples):
                parts = encoded.sequence_ids(row)
                size = parts.count(1)
                start = parts.index(1) if size else 0
                feature: Feature = {name: values[row] for name, values in encoded.items()}
                feature["example"] = chunk[sample]
                feature["context_start"] = start
                characters = np.array(offsets[row][start : start + size], dtype=np.int32).reshape(size, 2)
                feature["offsets"] = _without_whitespace(characters, examples[chunk[sample]].context)
                windows[chunk[sample]].append(feature)
    # the tokenizer remembers it, and would be saved with it
    tokenizer.backend_tokenizer.no_truncation()
    narrowed = [index for index, overlap in enumerate(overlaps) if overlap < doc_stride]
    return Windows([feature for features in windows for feature in features], cut, narrowed)


def answer_positions(feature: Feature, answer: Answer) -> tuple[int, int] | None:
    """Positions of an answer's first and last token in a window, or ``None`` if the window does not hold all of it."""
    offsets = feature["offsets"]
    if answer.start is None or not len(offsets):
        return None
    end = answer.start + len(answer.text)
    if answer.start < offsets[0, 0] or offsets[-1, 1] < end:
        return None
    # also tokens that hold more than the answer
    touching = np.flatnonzero((offsets[:, 1] > answer.start) & (offsets[:, 0] < end))
    if not len(touching):
        return None
    return feature["context_start"] + int(touching[0]), feature["context_start"] + int(touching[-1])


def _without_whitespace(offsets: NDArray[np.int32], context: str) -> NDArray[np.int32]:
    """Offsets without the whitespace that tokens bring: byte-level ones hold the space before a word."""
    places = np.flatnonzero(~np.fromiter(map(str.isspace, context), dtype=bool, count=len(context)))
    first, last = np.searchsorted(places, offsets[:, 0]), np.searchsorted(places, offsets[:, 1]) - 1
    holds_text = first <= last
    trimmed = offsets[:, [0, 0]]
    trimmed[holds_text, 0] = places[first[holds_text]]
    trimmed[holds_text, 1] = places[last[holds_text]] + 1
    return trimmed


def _fit_questions(
    questions: list[str], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[list[str], list[int], list[int]]:
    """Cut questions to ``limit`` tokens; returns them, their lengths in tokens, and which were cut."""

    def tokenise(texts: list[str]) -> list[list[tuple[int, int]]]:
        return tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]

    lengths, cut = [], []
    questions = list(questions)
    for index, offsets in enumerate(tokenise(questions)):
        if len(offsets) > limit:
            cut.append(index)
        while len(offsets) > limit:
            # a word that is cut may take more tokens than it had; then the text is cut once more
            end = min(offsets[limit - 1][1], len(questions[index]) - 1)
            questions[index] = questions[index][:end]
            offsets = tokenise([questions[index]])[0]
        lengths.append(len(offsets))
    return questions, lengths, cut


def _check_pairs(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise :class:`UserError` for a tokenizer that does not make ``[CLS] question [SEP] context [SEP]`` of a pair."""
    encoded = tokenizer("a", "b")
    parts = encoded.sequence_ids(0)
    special = [position for position, part in enumerate(parts) if part is None]
    if 0 not in special or len(parts) - 1 not in special or len(special) < 3:
        tokens = " ".join(tokenizer.convert_ids_to_tokens(encoded["input_ids"]))
        raise UserError(
            f"the tokenizer puts question a and context b together as '{tokens}'; it must be [CLS] a [SEP] b [SEP]. "
            "Give its tokenizer.json a post-processor for pairs."
        )
