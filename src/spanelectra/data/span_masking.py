"""Which tokens of a packed row are masked: spans of whole words, their clean boundaries, and decoy spans.

Span masking follows SpanBERT (Joshi et al., 2020, https://arxiv.org/abs/1907.10529): span lengths in words are
geometric, and a span's boundaries are the nearest tokens outside it. Three things are stricter here. Spans never touch
one another nor a special token, so that every boundary is an original, unmasked token of the same document. Masked
tokens never exceed the row's budget, and fall short of it by less than one word (or the row is counted in
``rows_below_budget``). And a row's masks are a function of (seed, epoch, row number) alone, never of its batch.

How, for a whole batch at once, without rejection and without a Python loop over rows, words or spans:

1. Words are gathered into *segments*, the runs of tokens between special tokens. A segment of W words draws candidate
   spans until they cover what masks and decoys need, while n spans still leave their n + 1 gaps of a word or more.
2. The words left over are shared out among the gaps by sorted uniform numbers: a random composition.
3. In random order of priority, the row's candidates become masks until its budget is spent; the span that would
   exceed it is cut at the end of a word. The candidates after that one become decoys in the same way, with a budget of
   the same size: as many on average, and of the same law, the cut included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from spanelectra.data.counter_random import Stream, UInt64Array, random_bits, to_uniform
from spanelectra.data.span_placement import (
    BoolArray,
    IntArray,
    RowKeys,
    find_words,
    place_candidates,
    share_out,
    tokens_of_spans,
)
from spanelectra.errors import UserError, did_you_mean

Masking = Literal["span", "token"]


@dataclass(frozen=True)
class SpanMaskingPolicy:
    """How rows are masked; checked when made.

    Attributes:
        mask_ratio: masked tokens over a row's non-special tokens, at most; 0.15 to 0.35 is sensible.
        span_length_probability: p of the geometric law of span lengths in words, in (0, 1]; SpanBERT's is 0.2.
        max_span_words: longest span in words; the law is cut here and renormalised, as SpanBERT's code does.
        max_span_length: longest span in tokens. A longer word is treated as several words of this many tokens.
        masking: ``"span"``, or ``"token"`` for BERT's choice of single tokens, without boundaries or decoys.
        decoys: whether to choose, besides the masked spans, unmasked spans by the same law and within the same budget:
            as many on average, fewer where a row has no room.

    Raises:
        UserError: for a value out of range.
    """

    mask_ratio: float = 0.15
    span_length_probability: float = 0.2
    max_span_words: int = 10
    max_span_length: int = 20
    masking: Masking = "span"
    decoys: bool = True

    def __post_init__(self) -> None:
        if not self.mask_ratio > 0:
            raise UserError(f"mask_ratio is {self.mask_ratio}: it must be above 0; 0.15 to 0.35 is sensible")
        if self.mask_ratio > 0.5:
            raise UserError(f"mask_ratio {self.mask_ratio} leaves no boundary: at most 0.5; 0.15 to 0.35 is sensible")
        if not 0 < self.span_length_probability <= 1:
            raise UserError(f"span_length_probability is {self.span_length_probability}: it must be in (0, 1]")
        for name in ("max_span_words", "max_span_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.masking not in get_args(Masking):
            hint = did_you_mean(str(self.masking), get_args(Masking))
            raise UserError(f"masking is {self.masking!r}: it must be 'span' or 'token'.{hint}")

    def capacity(self, row_length: int) -> int:
        """Return P, the most tokens that a row of ``row_length`` with [CLS] and [SEP] can have masked.

        Raises:
            UserError: if that is none.
        """
        capacity = int(token_budget(self.mask_ratio, max(row_length - 2, 0)))
        if capacity < 1:
            raise UserError(
                f"mask_ratio {self.mask_ratio} masks no token of a row of {row_length} tokens: "
                "take longer rows or a higher ratio"
            )
        return capacity


@dataclass(frozen=True)
class MaskStatistics:
    """Counts over one batch. ``rows_below_budget``: rows without room for spans enough (nothing was cut, yet masked
    tokens stayed below the budget). ``span_words_histogram``: masked spans by words as masked, (max_span_words + 1,).
    """

    rows: int
    rows_below_budget: int
    budget_tokens: int
    masked_tokens: int
    masked_spans: int
    decoy_tokens: int
    decoy_spans: int
    span_words_histogram: IntArray


@dataclass(frozen=True)
class SpanMasks:
    """Masked and decoy tokens of B rows, P slots a row, from left to right; the slots left over hold 0.

    P depends on the policy and the row length only, so that shapes are static. Each array is (B, P): int64 positions in
    the row, except the bool ``masked_valid`` and ``decoy_valid``. ``left_boundaries`` and ``right_boundaries`` are the
    tokens just before and after the token's span, ``span_positions`` its place in the span from 0 (below
    ``max_span_length``). With token masking, boundaries and span positions are 0 and there are no decoys.
    """

    masked_positions: IntArray
    left_boundaries: IntArray
    right_boundaries: IntArray
    span_positions: IntArray
    masked_valid: BoolArray
    decoy_positions: IntArray
    decoy_left_boundaries: IntArray
    decoy_right_boundaries: IntArray
    decoy_span_positions: IntArray
    decoy_valid: BoolArray
    statistics: MaskStatistics


def mask_rows(
    word_starts: BoolArray,
    special: BoolArray,
    row_numbers: npt.ArrayLike,
    epochs: npt.ArrayLike,
    seed: int,
    policy: SpanMaskingPolicy,
    *,
    mask_ratio: float | None = None,
    max_span_words: int | None = None,
) -> SpanMasks:
    """Choose the masked and the decoy tokens of a batch of rows.

    Args:
        word_starts: (B, L) bool, whether a token starts a word. The first token of a segment always does.
        special: (B, L) bool, whether a token is special ([CLS], [SEP], [PAD], ...): never masked, ends a segment.
        row_numbers: (B,) integer, the rows' numbers in the data set.
        epochs: integer, scalar or (B,).
        seed: any integer.
        policy: the law of the masks.
        mask_ratio, max_span_words: for schedules, in place of the policy's own and never above them.

    Returns:
        :class:`SpanMasks` with P = ``policy.capacity(L)``, whatever the overrides. A row's budget is ``mask_ratio``
        times its non-special tokens, rounded down, and never above P.

    Raises:
        UserError: for an override out of range, or rows too short for the policy.
        ValueError: if the shapes do not agree.
    """
    row_numbers = np.asarray(row_numbers)
    if word_starts.ndim != 2 or special.shape != word_starts.shape or row_numbers.shape != word_starts.shape[:1]:
        raise ValueError(
            f"word_starts {word_starts.shape} and special {special.shape} must be (B, L), row_numbers "
            f"{row_numbers.shape} (B,)"
        )
    mask_ratio = policy.mask_ratio if mask_ratio is None else mask_ratio
    max_span_words = policy.max_span_words if max_span_words is None else max_span_words
    if not 0 < mask_ratio <= policy.mask_ratio * (1 + 1e-9):  # a schedule's last value may be off by rounding
        raise UserError(f"a scheduled mask_ratio of {mask_ratio} must be above 0 and at most {policy.mask_ratio}")
    if not 1 <= max_span_words <= policy.max_span_words:
        raise UserError(f"scheduled max_span_words {max_span_words} must be from 1 to {policy.max_span_words}")

    capacity = policy.capacity(word_starts.shape[1])
    budgets = np.minimum(token_budget(mask_ratio, np.count_nonzero(~special, axis=1)), capacity)
    keys = RowKeys(seed, epochs, row_numbers)
    if policy.masking == "token":
        return _mask_tokens(special, budgets, capacity, keys.of(Stream.TOKEN_CHOICE), policy)

    shape = word_starts.shape
    words = find_words(word_starts, special, policy.max_span_length)
    wanted_ratio = mask_ratio * (2 if policy.decoys else 1)
    candidates = place_candidates(
        words, keys, wanted_ratio, policy.span_length_probability, max_span_words, policy.max_span_length
    )
    decoy_budgets = budgets if policy.decoys else np.zeros_like(budgets)
    masked_lengths, decoy_lengths, candidate_tokens = share_out(candidates, words, budgets, decoy_budgets)
    masked, decoy = masked_lengths > 0, decoy_lengths > 0
    starts = candidates.starts
    span_words = words.words_before[starts[masked] + masked_lengths[masked]] - words.words_before[starts[masked]]
    statistics = MaskStatistics(
        rows=shape[0],
        rows_below_budget=int(np.count_nonzero(candidate_tokens < budgets)),
        budget_tokens=int(budgets.sum()),
        masked_tokens=int(masked_lengths.sum()),
        masked_spans=int(np.count_nonzero(masked)),
        decoy_tokens=int(decoy_lengths.sum()),
        decoy_spans=int(np.count_nonzero(decoy)),
        span_words_histogram=np.bincount(span_words, minlength=policy.max_span_words + 1),
    )
    return SpanMasks(
        *tokens_of_spans(starts[masked], masked_lengths[masked], shape, capacity),
        *tokens_of_spans(starts[decoy], decoy_lengths[decoy], shape, capacity),
        statistics=statistics,
    )


def apply_mask_tokens(
    input_ids: npt.NDArray[np.integer],
    masks: SpanMasks,
    *,
    mask_token_id: int,
    special_ids: BoolArray,
    seed: int,
    epochs: npt.ArrayLike,
    row_numbers: npt.ArrayLike,
    mask_token_ratio: float = 1.0,
    random_token_ratio: float = 0.0,
    per_span: bool = True,
) -> npt.NDArray[np.integer]:
    """Hide the masked tokens: [MASK], a random token, or the token itself (BERT's 80/10/10 is 0.8 and 0.1).

    Args:
        input_ids: (B, L) integer; left as it is.
        masks: what :func:`mask_rows` gave for these rows.
        mask_token_id: the id of [MASK].
        special_ids: (V,) bool, whether an id is special; random tokens are uniform over the others.
        seed, epochs, row_numbers: as for :func:`mask_rows`.
        mask_token_ratio, random_token_ratio: probabilities; the rest keeps its token.
        per_span: one decision for a whole span, as SpanBERT, or one for each token, as BERT. Which random token is
            always drawn for each token. Token masks have no spans, hence need ``per_span=False``.

    Returns:
        (B, L), a copy of ``input_ids`` with the masked positions changed.

    Raises:
        UserError: if the ratios are not probabilities, or there is no ordinary token to draw from.
        ValueError: for token masks with ``per_span``.
    """
    if per_span and masks.statistics.masked_tokens and not masks.statistics.masked_spans:
        raise ValueError("token masks have no spans to decide on: per_span must be False")
    if not (mask_token_ratio >= 0 and random_token_ratio >= 0 and mask_token_ratio + random_token_ratio <= 1):
        raise UserError(
            f"mask_token_ratio {mask_token_ratio} and random_token_ratio {random_token_ratio} must be probabilities "
            "that add up to at most 1"
        )
    rows, slots = np.nonzero(masks.masked_valid)
    positions = masks.masked_positions[rows, slots]
    hidden = np.full(positions.shape, mask_token_id, dtype=input_ids.dtype)
    if mask_token_ratio < 1:
        keys = RowKeys(seed, epochs, np.asarray(row_numbers))
        # a span is known by its left boundary
        counters = masks.left_boundaries[rows, slots] if per_span else positions
        kind = to_uniform(random_bits(keys.of(Stream.MASK_KIND)[rows], counters))
        ordinary_ids = np.flatnonzero(~special_ids)
        if random_token_ratio > 0 and not ordinary_ids.size:
            raise UserError("random_token_ratio is above 0, but the vocabulary holds nothing but special tokens")
        draw = to_uniform(random_bits(keys.of(Stream.RANDOM_TOKEN)[rows], positions))
        hidden = np.where(kind < mask_token_ratio, hidden, input_ids[rows, positions])
        is_random = (kind >= mask_token_ratio) & (kind < mask_token_ratio + random_token_ratio)
        hidden[is_random] = ordinary_ids[(draw[is_random] * ordinary_ids.size).astype(np.int64)]
    corrupted = input_ids.copy()
    corrupted[rows, positions] = hidden
    return corrupted


def _mask_tokens(
    special: BoolArray, budgets: IntArray, capacity: int, keys: UInt64Array, policy: SpanMaskingPolicy
) -> SpanMasks:
    """Mask exactly ``budgets`` tokens of each row, every choice of ordinary tokens equally likely."""
    row_count, row_length = special.shape
    order = random_bits(keys[:, None], np.arange(row_length))
    order[special] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, :capacity]
    valid = np.arange(capacity) < budgets[:, None]
    masked = np.zeros_like(special)
    np.put_along_axis(masked, chosen, valid, axis=1)
    positions = np.zeros(valid.shape, dtype=np.int64)
    positions[valid] = np.nonzero(masked)[1]
    total = int(budgets.sum())
    histogram = np.zeros(policy.max_span_words + 1, dtype=np.int64)
    no_spans = tokens_of_spans(np.empty(0, np.int64), np.empty(0, np.int64), special.shape, capacity)
    _, left, right, span_positions, _ = (array.copy() for array in no_spans)
    statistics = MaskStatistics(row_count, 0, total, total, 0, 0, 0, histogram)
    return SpanMasks(positions, left, right, span_positions, valid, *no_spans, statistics=statistics)


def token_budget(mask_ratio: float, tokens: npt.ArrayLike) -> IntArray:
    """Most masked tokens of rows with so many tokens that are not special, of any shape."""
    # 0.29 * 100 is 28.999…: a share that is whole in decimals must not lose a token to binary
    return np.floor(mask_ratio * np.asarray(tokens) + 1e-9).astype(np.int64)
