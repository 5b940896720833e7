"""Co-occurrence counts against a slow obvious count, and what the embeddings made of them promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from spanelectra.data.cooccurrence import cooccurrence_embeddings, positive_mutual_information, right_neighbour_counts

VOCABULARY = 12


def slow_counts(rows: np.ndarray, window: int) -> np.ndarray:
    counts = np.zeros((VOCABULARY, VOCABULARY))
    for row in rows:
        for first in range(len(row)):
            for second in range(len(row)):
                if 0 < second - first <= window:
                    counts[row[first], row[second]] += 1 / (second - first)
    return counts


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**31))
def test_counts_equal_a_slow_count(count: int, length: int, window: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(VOCABULARY, size=(count, length)).astype(np.uint16)
    found = right_neighbour_counts(rows, VOCABULARY, window).toarray()
    np.testing.assert_allclose(found, slow_counts(rows, window), rtol=1e-6)


@pytest.mark.parametrize("directional", [False, True])
def test_mutual_information_equals_its_formula_and_leaves_special_tokens_out(directional: bool) -> None:
    rows = np.random.default_rng(0).integers(VOCABULARY, size=(40, 16)).astype(np.uint16)
    right = slow_counts(rows, 5)
    counts = np.hstack([right, right.T]) if directional else right + right.T
    found = positive_mutual_information(scipy.sparse.csr_matrix(counts), ignored_ids=[0]).toarray()
    counts[0], counts[:, ::VOCABULARY] = 0, 0
    totals, contexts = counts.sum(axis=1), counts.sum(axis=0) ** 0.75
    assert found.shape == counts.shape
    for a, b in np.ndindex(counts.shape):
        expected = 0.0
        if counts[a, b]:
            expected = max(0.0, math.log(counts[a, b] / (totals[a] * contexts[b] / contexts.sum())))
        assert found[a, b] == pytest.approx(expected, abs=1e-5)


def topics() -> np.ndarray:
    """Rows of one of two topics: tokens 1-5 stand together, tokens 6-10 do, 0 stands everywhere, 11 nowhere."""
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.integers(1, 6, size=(200, 16)), generator.integers(6, 11, size=(200, 16))])
    rows[:, ::8] = 0
    return rows.astype(np.uint16)


def test_tokens_of_one_topic_lie_together() -> None:
    vectors = cooccurrence_embeddings(topics(), VOCABULARY, 4, ignored_ids=[0])
    normalised = vectors[1:11] / np.linalg.norm(vectors[1:11], axis=1, keepdims=True)
    alike = normalised @ normalised.T
    same = np.equal.outer(np.arange(10) < 5, np.arange(10) < 5)
    assert alike[same].min() > alike[~same].max()


def test_only_where_sides_count_do_tokens_before_and_after_another_lie_apart() -> None:
    """1 and 2 stand before 5 and 6, 3 and 4 after them: the same neighbours, on other sides."""
    generator = np.random.default_rng(0)
    rows = np.stack([generator.integers(low, low + 2, size=400) for low in (1, 5, 3)], axis=1).astype(np.uint16)
    alike = {}
    for directional in (False, True):
        vectors = cooccurrence_embeddings(rows, VOCABULARY, 3, directional=directional, ignored_ids=[0])
        normalised = vectors[1:5] / np.linalg.norm(vectors[1:5], axis=1, keepdims=True)
        alike[directional] = normalised @ normalised.T
    assert alike[True][0, 1] > 0.9 and alike[True][2, 3] > 0.9
    assert alike[True][:2, 2:].max() < 0 < alike[False][:2, 2:].min()


def test_scale_and_tokens_that_do_not_occur() -> None:
    vectors = cooccurrence_embeddings(topics(), VOCABULARY, 4, ignored_ids=[0])
    assert vectors.dtype == np.float32 and vectors.shape == (VOCABULARY, 4)
    assert not vectors[[0, 11]].any()
    np.testing.assert_allclose(vectors[1:11].std(), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[1:11].mean(axis=0), 0, atol=1e-6)


def test_equal_by_seed_and_no_wider_than_the_vocabulary_allows() -> None:
    first, second = (cooccurrence_embeddings(topics(), VOCABULARY, 16, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not first[:, VOCABULARY - 1 :].any()


def test_a_long_text_is_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = topics()
    monkeypatch.setattr("spanelectra.data.cooccurrence.MAX_TOKENS", rows.size // 4)
    np.testing.assert_array_equal(
        cooccurrence_embeddings(rows, VOCABULARY, 4), cooccurrence_embeddings(rows[::4], VOCABULARY, 4)
    )


def test_rows_of_nothing_but_special_tokens_leave_all_zero() -> None:
    vectors = cooccurrence_embeddings(np.zeros((4, 8), np.uint16), VOCABULARY, 4, ignored_ids=[0])
    assert not vectors.any()


def test_pairs_are_of_one_row() -> None:
    counts = right_neighbour_counts(np.array([[1, 2], [3, 4]], np.uint16), VOCABULARY).toarray()
    assert counts.sum() == 2 and counts[1, 2] == counts[3, 4] == 1
