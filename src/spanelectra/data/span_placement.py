"""Where spans may go: words, segments, span lengths, places and priorities, for a whole batch of rows at once.

The arithmetic under :mod:`spanelectra.data.span_masking`, which says what the masks are for. Nothing is drawn and then
rejected, and there is no Python loop over rows, words or spans; a segment's draws are keyed by its row and its place in
the row, so that the rest of the batch cannot change them.

All arrays are flat over the batch: position b * L + t is token t of row b.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spanelectra.data.counter_random import Stream, UInt64Array, random_bits, row_keys, to_uniform

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Candidates aim at this much more than is wanted: words differ in tokens, and the span that spends a budget is cut.
_SLACK_FACTOR = 1.25
_SLACK_WORDS = 4


def draw_span_lengths(uniforms: npt.NDArray[np.floating], probability: float, max_words: int) -> IntArray:
    """Turn uniform numbers into span lengths in words: geometric, cut at ``max_words`` and renormalised.

    P(length = k) is proportional to (1 - p)^(k - 1) p for k from 1 to ``max_words`` (SpanBERT's mean is 3.8 words).

    Args:
        uniforms: any shape, in [0, 1).
        probability: p, in (0, 1].
        max_words: the longest length.

    Returns:
        int64 of the same shape, from 1 to ``max_words``.
    """
    mass = probability * (1 - probability) ** np.arange(max_words)
    cumulative = np.cumsum(mass[:-1]) / mass.sum()  # the last length takes what is left, so rounding cannot overflow
    return np.searchsorted(cumulative, uniforms, side="right") + 1


class RowKeys(NamedTuple):
    """What the random numbers of a batch's rows depend on: (B,) row numbers, and epochs as a scalar or (B,)."""

    seed: int
    epochs: npt.ArrayLike
    row_numbers: npt.NDArray[np.integer]

    def of(self, stream: Stream) -> UInt64Array:
        """Return each row's key for one stream, (B,) uint64."""
        return row_keys(self.seed, self.epochs, self.row_numbers, stream)


class Words(NamedTuple):
    """Words and segments of a batch: N words, S segments, B * L tokens."""

    row_length: int
    first_tokens: IntArray  # (N,) flat position of each word's first token
    segment_first_words: IntArray  # (S,) index into first_tokens
    segment_words: IntArray  # (S,) number of words
    word_ends: IntArray  # (B * L,) nearest position, at or before each one, where a word starts or a segment has ended
    words_before: IntArray  # (B * L,) number of words that start before each position


class Candidates(NamedTuple):
    """C candidate spans from left to right."""

    rows: IntArray  # (C,) index into the batch
    starts: IntArray  # (C,) flat position of the first token
    lengths: IntArray  # (C,) tokens, at least 1
    priorities: IntArray  # (C,) random, 32 bits; lower comes first


def find_words(word_starts: BoolArray, special: BoolArray, max_span_length: int) -> Words:
    """Gather tokens into words, cutting those longer than ``max_span_length`` into pieces, and words into segments.

    Args:
        word_starts, special: (B, L) bool, as for :func:`spanelectra.data.span_masking.mask_rows`.
        max_span_length: the longest word in tokens.
    """
    segment_starts = ~special
    segment_starts[:, 1:] &= special[:, :-1]
    boundary = (word_starts | segment_starts | special).ravel()
    flat = np.arange(boundary.size)
    token_in_word = flat - np.maximum.accumulate(np.where(boundary, flat, 0))
    token_in_word %= max_span_length
    starts = (token_in_word == 0) & ~special.ravel()
    first_tokens = np.flatnonzero(starts)
    segment_first_words = np.flatnonzero(segment_starts.ravel()[first_tokens])
    return Words(
        row_length=special.shape[1],
        first_tokens=first_tokens,
        segment_first_words=segment_first_words,
        segment_words=np.diff(segment_first_words, append=first_tokens.size),
        word_ends=flat - token_in_word,
        words_before=np.cumsum(starts) - starts,
    )


def place_candidates(
    words: Words,
    keys: RowKeys,
    wanted_ratio: float,
    span_length_probability: float,
    max_span_words: int,
    max_span_length: int,
) -> Candidates:
    """Draw candidate spans in every segment and place them by a random composition of the words left over.

    Args:
        words: the batch's words, of ``max_span_length`` tokens at most.
        keys: of the batch's rows.
        wanted_ratio: the part of a segment's words that candidates should cover; they aim at somewhat more.
        span_length_probability, max_span_words: the law of the lengths in words, see :func:`draw_span_lengths`.
        max_span_length: the longest span in tokens; a longer one ends at the last word end before.

    Returns:
        Candidates that leave out the first and the last word of their segment and never touch one another.
    """
    roomy = words.segment_words >= 3  # one word for the span, one on either side
    segment_words = words.segment_words[roomy]
    segment_first_words = words.segment_first_words[roomy]
    rows, positions = np.divmod(words.first_tokens[segment_first_words], words.row_length)

    def random_draw(stream: Stream, segment: IntArray, draw: IntArray) -> UInt64Array:
        # a segment is known by where it starts in its row, which no other row of the batch can change
        return random_bits(random_bits(keys.of(stream)[rows], positions)[segment], draw)

    # Lengths: draws are kept while those before fall short of the target and a word of room is left; the draw that
    # takes the last room is shortened to it, and then every later one finds less than a word.
    targets = (wanted_ratio * _SLACK_FACTOR * segment_words).astype(np.int64) + _SLACK_WORDS
    counts = np.minimum(targets, (segment_words - 1) // 2)
    segment, draw = _expand_groups(counts)
    uniforms = to_uniform(random_draw(Stream.SPAN_LENGTH, segment, draw))
    lengths = draw_span_lengths(uniforms, span_length_probability, max_span_words)
    drawn_before = _sum_before(lengths, counts)
    room = segment_words[segment] - drawn_before - draw - 2
    kept = (drawn_before < targets[segment]) & (room >= 1)
    segment, draw, lengths = segment[kept], draw[kept], np.minimum(lengths, room)[kept]
    counts = np.bincount(segment, minlength=counts.size)

    # Places: 32 bits fit beside the segment's index in one sorting key, and floor(uniform * choices) is exact.
    offset_bits = (random_draw(Stream.SPAN_OFFSET, segment, draw) >> np.uint64(32)).astype(np.int64)
    priorities = (random_draw(Stream.SPAN_PRIORITY, segment, draw) >> np.uint64(32)).astype(np.int64)
    left_to_right = np.argsort((segment << 32) | offset_bits, kind="stable")
    lengths, offset_bits, priorities = lengths[left_to_right], offset_bits[left_to_right], priorities[left_to_right]
    # n spans have n + 1 gaps of one word at least; the words beyond that go before, between and after the spans
    choices = segment_words - _sum_by_group(lengths, segment, counts.size) - counts
    offsets = (offset_bits * choices[segment]) >> 32
    gaps_before = _expand_groups(counts)[1] + 1
    first_words = segment_first_words[segment] + offsets + _sum_before(lengths, counts) + gaps_before

    # A segment's last word is never in a span, so the word after the span's last one is of the same segment.
    starts = words.first_tokens[first_words]
    ends = words.first_tokens[first_words + lengths]
    ends = words.word_ends[np.minimum(ends, starts + max_span_length)]
    return Candidates(rows[segment], starts, ends - starts, priorities)


def share_out(
    candidates: Candidates, words: Words, mask_budgets: IntArray, decoy_budgets: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Make masks of a row's candidates, in order of priority, until its budget is spent; then decoys, likewise.

    The span that would exceed a budget is cut at a word end, possibly to nothing; what is cut off is plain text. Decoys
    start after it, so they come about exactly as masks do and have the same law.

    Args:
        candidates: C spans.
        words: the words they are made of.
        mask_budgets, decoy_budgets: (B,) int64, the most tokens of each row.

    Returns:
        Masked tokens of each candidate (C,), decoy tokens of each (C,), and the tokens of all candidates of a row (B,).
    """
    order = np.argsort((candidates.rows << 32) | candidates.priorities, kind="stable")
    rows, starts, lengths = candidates.rows[order], candidates.starts[order], candidates.lengths[order]
    counts = np.bincount(rows, minlength=mask_budgets.size)

    left = mask_budgets[rows] - _sum_before(lengths, counts)
    masked = _cut_at_word_end(words, starts, np.clip(left, 0, lengths))
    spare_lengths = np.where(left <= 0, lengths, 0)
    decoy_left = decoy_budgets[rows] - _sum_before(spare_lengths, counts)
    decoy = _cut_at_word_end(words, starts, np.clip(decoy_left, 0, spare_lengths))

    masked_lengths, decoy_lengths = np.empty_like(masked), np.empty_like(decoy)
    masked_lengths[order], decoy_lengths[order] = masked, decoy
    return masked_lengths, decoy_lengths, _sum_by_group(lengths, rows, mask_budgets.size)


def tokens_of_spans(
    starts: IntArray, lengths: IntArray, shape: tuple[int, ...], capacity: int
) -> tuple[IntArray, IntArray, IntArray, IntArray, BoolArray]:
    """List the tokens of spans, each with its span's boundaries and its place in the span.

    Args:
        starts, lengths: (C,) int64 flat positions, from left to right, and tokens.
        shape: (B, L).
        capacity: P, at least the tokens of any row.

    Returns:
        Positions, left boundaries, right boundaries and span positions, (B, P) int64 and 0 where nothing is left to
        list, and whether a slot holds a token, (B, P) bool.
    """
    span, span_position = _expand_groups(lengths)
    row, start = np.divmod(starts[span], shape[1])
    counts = np.bincount(row, minlength=shape[0])
    valid = np.arange(capacity) < counts[:, None]
    columns = (start + span_position, start - 1, start + lengths[span], span_position)
    filled = [np.zeros(valid.shape, dtype=np.int64) for _ in columns]
    for array, column in zip(filled, columns, strict=True):
        array[valid] = column  # both run through the batch row by row
    return filled[0], filled[1], filled[2], filled[3], valid


def _expand_groups(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For groups of ``counts`` members one after another, return each member's group and its place in the group."""
    group = np.repeat(np.arange(counts.size), counts)
    return group, np.arange(group.size) - (np.cumsum(counts) - counts)[group]


def _cut_at_word_end(words: Words, starts: IntArray, allowed: IntArray) -> IntArray:
    """Return the tokens of the whole words that fit into ``allowed`` tokens from ``starts``, possibly none."""
    return words.word_ends[starts + allowed] - starts


def _sum_before(values: IntArray, counts: IntArray) -> IntArray:
    """For groups of ``counts`` members one after another, return the sum of the values before each in its group."""
    before = np.concatenate(([0], np.cumsum(values)))
    return before[:-1] - np.repeat(before[np.cumsum(counts) - counts], counts)


def _sum_by_group(values: IntArray, group: IntArray, group_count: int) -> IntArray:
    """Return the sum of each group's values; exact, since float64 holds integers up to 2**53."""
    return np.bincount(group, weights=values, minlength=group_count).astype(np.int64)
