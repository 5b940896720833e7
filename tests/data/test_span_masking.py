"""Span masking against a slow reference, its promises on random rows, and the law of what it draws."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanelectra.data.counter_random import Stream, random_bits, row_keys, uniform
from spanelectra.data.span_masking import SpanMaskingPolicy, SpanMasks, apply_mask_tokens, mask_rows
from spanelectra.data.span_placement import RowKeys, draw_span_lengths, find_words, place_candidates
from spanelectra.errors import UserError

SEED = 11


def text_rows(row_count: int, length: int, documents: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Word starts and specials of rows like packed text: 1.35 tokens a word, documents of random length."""
    generator = np.random.default_rng(seed)
    word_starts = generator.random((row_count, length)) < 1 / 1.35
    special = np.zeros((row_count, length), dtype=bool)
    special[:, [0, -1]] = True
    for row in special:
        row[generator.integers(1, length - 1, documents - 1)] = True
    return word_starts, special


@st.composite
def any_rows(draw, max_rows: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one length with any words and segments: also one-word documents, one huge word, no special at all."""
    length = draw(st.integers(12, 60))
    row_count = draw(st.integers(1, max_rows))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    words, specials = np.empty((2, row_count, length), dtype=bool)
    for word_starts, special in zip(words, specials, strict=True):
        word_starts[:] = generator.random(length) < draw(st.sampled_from([0, 0.1, 0.3, 0.7, 1]))
        special[:] = generator.random(length) < draw(st.sampled_from([0, 0.05, 0.2, 0.6, 1]))
        special[[0, -1]] |= draw(st.booleans())
    return words, specials


policies = st.builds(
    SpanMaskingPolicy,
    mask_ratio=st.sampled_from([0.15, 0.2, 0.3, 0.35, 0.5]),
    span_length_probability=st.sampled_from([0.05, 0.2, 0.6, 1.0]),
    max_span_words=st.integers(1, 12),
    max_span_length=st.integers(1, 20),
    decoys=st.booleans(),
)


def words_of_row(word_starts: np.ndarray, special: np.ndarray, max_span_length: int) -> list[list[tuple[int, int]]]:
    """Return the segments of one row, each a list of words (first token, end)."""
    segments: list[list[tuple[int, int]]] = []
    for token, (starts, is_special) in enumerate(zip(word_starts, special, strict=True)):
        if is_special:
            continue
        if token == 0 or special[token - 1]:
            segments.append([(token, token + 1)])
        elif starts or token - segments[-1][-1][0] == max_span_length:
            segments[-1].append((token, token + 1))
        else:
            segments[-1][-1] = (segments[-1][-1][0], token + 1)
    return segments


def reference_spans(word_starts, special, row, epoch, policy, capacity):
    """The algorithm once more, for one row, with loops: the (first token, end) of masked spans and of decoy spans."""
    budget = min(math.floor(policy.mask_ratio * np.count_nonzero(~special) + 1e-9), capacity)
    weights = [(1 - policy.span_length_probability) ** word for word in range(policy.max_span_words)]
    candidates = []  # (priority, draw order, words)
    for segment in words_of_row(word_starts, special, policy.max_span_length):

        def bits(stream, draw, segment=segment):
            key = random_bits(row_keys(SEED, epoch, row, stream), segment[0][0])
            return int(random_bits(key, draw))

        target = int(policy.mask_ratio * (2 if policy.decoys else 1) * 1.25 * len(segment)) + 4
        lengths: list[int] = []
        while sum(lengths) < target:
            room = len(segment) - sum(lengths) - (len(lengths) + 2)  # this span and one more gap than spans
            if room < 1:
                break
            uniform_number = (bits(Stream.SPAN_LENGTH, len(lengths)) >> 11) / 2**53
            drawn = 1
            while drawn < len(weights) and uniform_number >= sum(weights[:drawn]) / sum(weights):
                drawn += 1
            lengths.append(min(drawn, room))
        choices = len(segment) - sum(lengths) - len(lengths)
        place = {draw: bits(Stream.SPAN_OFFSET, draw) >> 32 for draw in range(len(lengths))}
        words_before = 0
        for rank, draw in enumerate(sorted(place, key=lambda draw: place[draw])):
            first = place[draw] * choices // 2**32 + words_before + rank + 1
            words = segment[first : first + lengths[draw]]
            while words[-1][1] - words[0][0] > policy.max_span_length:
                words = words[:-1]
            candidates.append((bits(Stream.SPAN_PRIORITY, draw) >> 32, len(candidates), words))
            words_before += lengths[draw]

    def take(budget):
        spans = []
        while candidates and budget > 0:
            words = candidates.pop(0)[2]
            whole = [word for word in words if word[1] - words[0][0] <= budget]
            if whole:
                spans.append((whole[0][0], whole[-1][1]))
            budget -= words[-1][1] - words[0][0]
        return sorted(spans), budget

    candidates.sort()
    masked, left = take(budget)
    return masked, take(budget)[0] if policy.decoys else [], left > 0


def listed(masks: SpanMasks, row: int, decoys: bool = False) -> list[tuple[int, int, int, int]]:
    """The (position, left boundary, right boundary, span position) of one row's masked or decoy tokens."""
    prefix = "decoy_" if decoys else ""
    names = ("masked_positions" if not decoys else "decoy_positions",)
    names += (f"{prefix}left_boundaries", f"{prefix}right_boundaries", f"{prefix}span_positions")
    valid = masks.decoy_valid[row] if decoys else masks.masked_valid[row]
    columns = [getattr(masks, name)[row] for name in names]
    assert all(not column[~valid].any() for column in columns), "slots left over must hold 0"
    assert not np.any(np.diff(valid.astype(int)) > 0), "slots must fill from the left"
    return [tuple(int(value) for value in entry) for entry in zip(*(column[valid] for column in columns), strict=True)]


def expand(spans: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    return [(token, start - 1, end, token - start) for start, end in spans for token in range(start, end)]


@settings(max_examples=150, deadline=None)
@given(rows=any_rows(), policy=policies, epoch=st.integers(0, 3), first_row=st.integers(0, 2**40))
def test_equals_the_slow_reference(rows, policy, epoch, first_row):
    word_starts, special = rows
    row_numbers = first_row + np.arange(len(special))
    masks = mask_rows(word_starts, special, row_numbers, epoch, SEED, policy)
    capacity = policy.capacity(special.shape[1])
    shortfalls = 0
    for row, number in enumerate(row_numbers):
        masked, decoys, shortfall = reference_spans(word_starts[row], special[row], number, epoch, policy, capacity)
        assert listed(masks, row) == expand(masked)
        assert listed(masks, row, decoys=True) == expand(decoys)
        shortfalls += shortfall
    assert masks.statistics.rows_below_budget == shortfalls


@settings(max_examples=150, deadline=None)
@given(rows=any_rows(), policy=policies, epoch=st.integers(0, 3), data=st.data())
def test_promises_on_any_rows(rows, policy, epoch, data):
    word_starts, special = rows
    ratio = data.draw(st.sampled_from([None, policy.mask_ratio / 2]))
    max_words = data.draw(st.sampled_from([None, 1]))
    masks = mask_rows(
        word_starts, special, np.arange(len(special)), epoch, SEED, policy, mask_ratio=ratio, max_span_words=max_words
    )
    capacity = policy.capacity(special.shape[1])
    assert {array.shape for array in dataclasses.asdict(masks).values() if isinstance(array, np.ndarray)} == {
        (len(special), capacity)
    }
    short_rows = 0
    for row in range(len(special)):
        segments = words_of_row(word_starts[row], special[row], policy.max_span_length)
        edges = {edge for segment in segments for word in segment for edge in word}
        masked, decoys = listed(masks, row), listed(masks, row, decoys=True)
        covered = {entry[0] for entry in masked + decoys}
        assert len(covered) == len(masked) + len(decoys), "no token twice"
        for position, left, right, span_position in masked + decoys:
            assert position - left == span_position + 1 and left < position < right
            assert span_position < policy.max_span_length and right - left - 1 <= policy.max_span_length
            assert left not in covered and right not in covered, "boundaries are plain text: spans never touch"
            assert not special[row][left : right + 1].any(), "in one segment, boundaries too"
            assert {left + 1, right} <= edges, "whole words"
            words = sum(left < word[0] < right for segment in segments for word in segment)
            assert words <= (max_words or policy.max_span_words)
        assert decoys == [] or policy.decoys

        budget = min(math.floor((ratio or policy.mask_ratio) * np.count_nonzero(~special[row]) + 1e-9), capacity)
        assert len(masked) <= budget and len(decoys) <= budget
        longest_word = max((end - start for segment in segments for start, end in segment), default=0)
        short_rows += budget - len(masked) >= max(longest_word, 1)
    assert short_rows <= masks.statistics.rows_below_budget


@settings(max_examples=60, deadline=None)
@given(rows=any_rows(max_rows=6), policy=policies, masking=st.sampled_from(["span", "token"]), data=st.data())
def test_a_row_is_masked_the_same_in_any_batch(rows, policy, masking, data):
    policy = dataclasses.replace(policy, masking=masking)
    word_starts, special = rows
    numbers, epochs = 5 * np.arange(len(special)), np.arange(len(special)) % 3
    ids = np.arange(100, 100 + special.shape[1])[None].repeat(len(special), axis=0)
    hiding = {"mask_token_id": 4, "special_ids": np.arange(300) < 5, "mask_token_ratio": 0.5, "random_token_ratio": 0.3}
    hiding |= {"seed": SEED, "per_span": masking == "span"}

    def run(chosen):
        masks = mask_rows(word_starts[chosen], special[chosen], numbers[chosen], epochs[chosen], SEED, policy)
        hidden = apply_mask_tokens(ids[chosen], masks, epochs=epochs[chosen], row_numbers=numbers[chosen], **hiding)
        arrays = [array for name, array in vars(masks).items() if name != "statistics"]
        return [*arrays, hidden]

    everything = run(np.arange(len(special)))
    some = np.array(data.draw(st.lists(st.integers(0, len(special) - 1), min_size=1, max_size=6)))
    for whole, part in zip(everything, run(some), strict=True):
        np.testing.assert_array_equal(whole[some], part)


def test_seed_and_epoch_change_the_masks_and_no_rows_are_no_trouble():
    word_starts, special = text_rows(8, 128, 2)
    policy = SpanMaskingPolicy()
    first = mask_rows(word_starts, special, np.arange(8), 0, 1, policy).masked_positions
    assert not np.array_equal(first, mask_rows(word_starts, special, np.arange(8), 1, 1, policy).masked_positions)
    assert not np.array_equal(first, mask_rows(word_starts, special, np.arange(8), 0, 2, policy).masked_positions)
    for masking in ("span", "token"):
        empty = mask_rows(word_starts[:0], special[:0], [], 0, 1, SpanMaskingPolicy(masking=masking))
        assert empty.masked_positions.shape == (0, 18)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic in standard deviations above its mean."""
    freedom = np.count_nonzero(expected) - 1
    return (np.sum((counts - expected) ** 2 / expected) - freedom) / math.sqrt(2 * max(freedom, 1))


@pytest.mark.parametrize(("probability", "max_words"), [(0.2, 10), (0.5, 4), (0.2, 1), (1.0, 1)])
def test_lengths_are_geometric(probability, max_words):
    uniforms = uniform(1, 0, np.arange(1000), Stream.SPAN_LENGTH, 200)
    counts = np.bincount(draw_span_lengths(uniforms, probability, max_words).ravel(), minlength=max_words + 1)
    law = (1 - probability) ** np.arange(max_words)
    assert counts[0] == 0 and counts.size == max_words + 1
    assert chi_square(counts[1:], uniforms.size * law / law.sum()) < 4
    assert draw_span_lengths(np.array([0, 1 - 2**-53]), probability, max_words).tolist() == [1, max_words]


def test_lengths_of_candidates_in_rows_are_geometric():
    """What segments draw, before any budget or lack of room, follows the law too, whatever their priority."""
    word_starts, special = text_rows(2000, 128, 1)
    word_starts[:] = True
    keys = RowKeys(1, 0, np.arange(2000))
    candidates = place_candidates(find_words(word_starts, special, 20), keys, 0.3, 0.2, 10, 20)
    counts = np.bincount(candidates.lengths, minlength=11)[1:]
    law = 0.8 ** np.arange(10)
    assert chi_square(counts, counts.sum() * law / law.sum()) < 4
    assert abs(np.corrcoef(candidates.priorities, candidates.lengths)[0, 1]) < 4 / math.sqrt(counts.sum())


@pytest.mark.parametrize("mask_ratio", [0.15, 0.35])
def test_masks_cover_a_long_segment_evenly(mask_ratio):
    word_starts, special = text_rows(4000, 128, 1)
    word_starts[:] = True
    masks = mask_rows(word_starts, special, np.arange(4000), 0, SEED, SpanMaskingPolicy(mask_ratio=mask_ratio))
    for positions in (masks.masked_positions[masks.masked_valid], masks.decoy_positions[masks.decoy_valid]):
        share = np.bincount(positions, minlength=128) / 4000
        middle = share[12:-12]
        assert share[[0, 1, -2, -1]].max() == 0, "the first and the last word can only be boundaries"
        assert np.abs(middle / middle.mean() - 1).max() < 0.25
        assert share[2:12].min() > 0.2 * middle.mean() and share[2:12].max() < 1.4 * middle.mean()


@pytest.mark.parametrize("mask_ratio", [0.15, 0.3, 0.35])
@pytest.mark.parametrize("documents", [1, 3])
def test_ordinary_rows_are_filled(mask_ratio, documents):
    word_starts, special = text_rows(1000, 128, documents)
    statistics = mask_rows(word_starts, special, np.arange(1000), 0, 1, SpanMaskingPolicy(mask_ratio)).statistics
    assert statistics.rows == 1000 and statistics.rows_below_budget == 0
    assert 0.97 * statistics.budget_tokens < statistics.masked_tokens <= statistics.budget_tokens
    # as many decoys as masks; with both, 0.35 takes nearly all the room that gaps of a word leave
    assert 0.95 < statistics.decoy_spans / statistics.masked_spans < 1.03
    assert 0.95 < statistics.decoy_tokens / statistics.masked_tokens < 1.03
    assert statistics.span_words_histogram.sum() == statistics.masked_spans


def test_rows_without_room_are_counted():
    special = np.tile([True, False, False], (5, 14))  # documents of two words
    statistics = mask_rows(np.ones_like(special), special, np.arange(5), 0, 1, SpanMaskingPolicy()).statistics
    assert statistics.rows_below_budget == 5 and statistics.masked_tokens == 0 and statistics.budget_tokens == 20


def test_token_masks_are_exact_and_uniform():
    word_starts, special = text_rows(4000, 64, 2)
    policy = SpanMaskingPolicy(mask_ratio=0.2, masking="token")
    masks = mask_rows(word_starts, special, np.arange(4000), 0, SEED, policy)
    ordinary = np.count_nonzero(~special, axis=1)
    np.testing.assert_array_equal(masks.masked_valid.sum(axis=1), np.floor(0.2 * ordinary + 1e-9))
    rows, slots = np.nonzero(masks.masked_valid)
    positions = masks.masked_positions[rows, slots]
    assert not special[rows, positions].any()
    assert np.unique(rows * 64 + positions).size == rows.size, "no token twice"
    assert masks.statistics.masked_tokens == masks.statistics.budget_tokens == rows.size
    for name in ("left_boundaries", "right_boundaries", "span_positions", "decoy_valid", "decoy_positions"):
        assert getattr(masks, name).shape == masks.masked_valid.shape and not getattr(masks, name).any()
    expected = (~special * (masks.masked_valid.sum(axis=1) / ordinary)[:, None]).sum(axis=0)[1:-1]
    assert chi_square(np.bincount(positions, minlength=64)[1:-1], expected) < 4


def test_schedules_lower_the_ratio_and_the_lengths():
    word_starts, special = text_rows(200, 128, 1)
    policy = SpanMaskingPolicy(mask_ratio=0.3)
    masks = mask_rows(word_starts, special, np.arange(200), 0, 1, policy, mask_ratio=0.1, max_span_words=2)
    assert masks.masked_positions.shape == (200, policy.capacity(128)) == (200, 37)
    assert masks.masked_valid.sum(axis=1).max() == masks.statistics.budget_tokens / 200 == 12
    assert masks.statistics.span_words_histogram[3:].sum() == 0
    mask_rows(word_starts, special, np.arange(200), 0, 1, policy, mask_ratio=0.1 + 0.2)  # 0.30000000000000004


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 0}, "must be above 0"),
        ({"mask_ratio": 0.6}, "leaves no boundary"),
        ({"mask_ratio": 15}, "leaves no boundary"),
        ({"mask_ratio": math.nan}, "must be above 0"),
        ({"span_length_probability": 0}, "span_length_probability is 0"),
        ({"max_span_words": 0}, "max_span_words is 0"),
        ({"max_span_length": 0}, "max_span_length is 0"),
        ({"masking": "spam"}, "Did you mean 'span'"),
    ],
)
def test_impossible_policies(settings, message):
    with pytest.raises(UserError, match=message):
        SpanMaskingPolicy(**settings)


def test_impossible_requests():
    word_starts, special = text_rows(2, 16, 1)
    policy = SpanMaskingPolicy()
    for override in ({"mask_ratio": 0.2}, {"mask_ratio": 0.0}, {"max_span_words": 11}, {"max_span_words": 0}):
        with pytest.raises(UserError, match="scheduled"):
            mask_rows(word_starts, special, np.arange(2), 0, 1, policy, **override)
    with pytest.raises(UserError, match="row of 8 tokens"):
        mask_rows(word_starts[:, :8], special[:, :8], np.arange(2), 0, 1, policy)
    with pytest.raises(ValueError, match="row_numbers"):
        mask_rows(word_starts, special, np.arange(3), 0, 1, policy)


@pytest.mark.parametrize("masking", ["span", "token"])
def test_eighty_ten_ten(masking):
    word_starts, special = text_rows(2000, 128, 2)
    masks = mask_rows(word_starts, special, np.arange(2000), 0, 1, SpanMaskingPolicy(masking=masking))
    ids = np.full(special.shape, 1000, dtype=np.int32)
    special_ids = np.arange(1000) % 2 == 0  # 1000 itself, what every row holds, is out of reach of the random draw
    arguments = {"mask_token_id": 4, "special_ids": special_ids, "seed": 1, "epochs": 0, "row_numbers": np.arange(2000)}
    hidden = apply_mask_tokens(
        ids, masks, mask_token_ratio=0.8, random_token_ratio=0.1, per_span=masking == "span", **arguments
    )
    assert hidden.dtype == ids.dtype and (ids == 1000).all(), "the input is left as it is"
    rows, slots = np.nonzero(masks.masked_valid)
    positions = masks.masked_positions[rows, slots]
    touched = np.zeros_like(special)
    touched[rows, positions] = True
    assert (hidden[~touched] == 1000).all()

    kind = np.select([hidden[rows, positions] == 4, hidden[rows, positions] == 1000], [0, 2], 1)
    random_tokens = hidden[rows, positions][kind == 1]
    assert (random_tokens % 2 == 1).all() and np.unique(random_tokens).size > 450
    spans = rows * 128 + masks.left_boundaries[rows, slots] if masking == "span" else np.arange(rows.size)
    _, first, span = np.unique(spans, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(kind, kind[first][span], "one decision a span")
    assert chi_square(np.bincount(kind[first], minlength=3), first.size * np.array([0.8, 0.1, 0.1])) < 4

    everything = apply_mask_tokens(ids, masks, per_span=masking == "span", **arguments)
    np.testing.assert_array_equal(everything == 4, touched)


def test_impossible_replacements():
    word_starts, special = text_rows(2, 64, 1)
    ids = np.zeros(special.shape, dtype=np.int64)
    arguments = {"mask_token_id": 4, "special_ids": np.ones(9, bool), "seed": 1, "epochs": 0, "row_numbers": [0, 1]}
    spans = mask_rows(word_starts, special, [0, 1], 0, 1, SpanMaskingPolicy())
    for ratios in ((0.8, 0.3), (-0.1, 0.1), (0.5, -0.1), (math.nan, 0)):
        with pytest.raises(UserError, match="at most 1"):
            apply_mask_tokens(ids, spans, mask_token_ratio=ratios[0], random_token_ratio=ratios[1], **arguments)
    with pytest.raises(UserError, match="nothing but special"):
        apply_mask_tokens(ids, spans, mask_token_ratio=0.5, random_token_ratio=0.5, **arguments)
    tokens = mask_rows(word_starts, special, [0, 1], 0, 1, SpanMaskingPolicy(masking="token"))
    with pytest.raises(ValueError, match="per_span"):
        apply_mask_tokens(ids, tokens, **arguments)
