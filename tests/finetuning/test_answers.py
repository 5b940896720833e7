"""Answers against slow searches over every span and every threshold, and SQuAD's scores against torchmetrics'."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text.squad import squad

from spanelectra.finetuning import answers
from spanelectra.finetuning.answers import (
    best_null_threshold,
    exact_match,
    f1,
    find_candidates,
    normalise_answer,
    null_scores,
)

SHARED_CONTEXT = 12  # tokens, of two characters each and a space


def make_windows(random, questions, rounded):
    """Windows of every length from none to a whole context, which begin anywhere in it."""
    logits, starts, offsets = [], [], []
    for _ in questions:
        size, before = random.integers(0, SHARED_CONTEXT + 1), random.integers(1, 5)
        first = random.integers(0, SHARED_CONTEXT + 1 - size)
        tokens = np.arange(first, first + size, dtype=np.int32)
        values = random.normal(size=(before + size + 1, 2)).astype(np.float32)
        logits.append(np.round(values) if rounded else values)
        starts.append(int(before))
        holds_text = 2 * (random.random(size) < 0.8)  # or is whitespace, which begins and ends no answer
        offsets.append(np.stack([3 * tokens, 3 * tokens + holds_text], axis=1).astype(np.int32))
    return logits, starts, offsets


def slow_candidates(questions, logits, starts, offsets, max_answer_length, question):
    """(start, end) -> best score of every span of a question."""
    scores: dict[tuple[int, int], float] = {}
    for window, number in enumerate(questions):
        for first in range(len(offsets[window])):
            for last in range(first, min(first + max_answer_length, len(offsets[window]))):
                holds_text = np.diff(offsets[window][[first, last]]).all()
                if number == question and holds_text:
                    span = int(offsets[window][first, 0]), int(offsets[window][last, 1])
                    score = logits[window][starts[window] + first, 0] + logits[window][starts[window] + last, 1]
                    scores[span] = max(scores.get(span, -np.inf), score)
    return scores


@pytest.mark.parametrize("windows_at_once", [1, 3, 32])
@pytest.mark.parametrize("rounded", [False, True])  # rounded logits tie
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    questions=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    max_answer_length=st.sampled_from([1, 2, 5, 100]),
    n_best=st.sampled_from([1, 4, 1000]),
)
def test_the_best_spans_of_all_windows_are_found(windows_at_once, rounded, seed, questions, max_answer_length, n_best):
    windows = make_windows(np.random.default_rng(seed), questions, rounded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "_WINDOWS_AT_ONCE", windows_at_once)
        found = find_candidates(questions, *windows, max_answer_length=max_answer_length, n_best=n_best)
    assert (np.diff(found.question) >= 0).all()
    for question in range(4):
        expected = slow_candidates(questions, *windows, max_answer_length, question)
        chosen = found.question == question
        spans = list(zip(found.start[chosen].tolist(), found.end[chosen].tolist(), strict=True))
        assert len(set(spans)) == len(spans)
        scores = found.score[chosen].tolist()
        assert scores == [expected[span] for span in spans]
        assert scores == sorted(expected.values(), reverse=True)[:n_best]


def test_tokens_of_one_character_make_one_span():
    # byte-level tokens of one emoji all have its place
    offsets = [np.array([[0, 1], [0, 1], [1, 3]], dtype=np.int32)]
    logits = [np.array([[9, 9], [3, 1], [2, 0], [0, 4]], dtype=np.float32)]
    found = find_candidates([0], logits, [1], offsets, max_answer_length=3, n_best=20)
    spans = list(zip(found.start.tolist(), found.end.tolist(), found.score.tolist(), strict=True))
    assert spans == [(0, 3, 7.0), (0, 1, 4.0), (1, 3, 4.0)]


def test_the_null_score_is_the_least_over_windows():
    logits = [np.full((3, 2), value, dtype=np.float32) for value in (4.0, -1.0, 2.0)]
    assert null_scores([2, 0, 2], logits, 4).tolist() == [-2.0, np.inf, 4.0, np.inf]


def total(threshold, differences, answered, unanswered):
    return np.where(differences > threshold, unanswered, answered).sum()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float),
            st.sampled_from([0.0, 0.25, 0.5, 1.0]),
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_threshold_scores_more(questions):
    differences = np.array([difference for difference, _, _ in questions])
    answered = np.array([score for _, score, _ in questions])
    unanswered = np.array([float(is_unanswerable) for _, _, is_unanswerable in questions])
    threshold = best_null_threshold(differences, answered, unanswered)
    best = total(threshold, differences, answered, unanswered)
    for other in [-np.inf, *differences, np.inf]:
        assert total(other, differences, answered, unanswered) <= best


def test_the_threshold_lies_in_the_middle_or_beyond_the_last_question():
    differences, right = np.array([5.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])
    assert best_null_threshold(differences, right, 1 - right) == 3.5
    assert best_null_threshold(differences, np.ones(3), np.zeros(3)) >= 5.0
    assert best_null_threshold(differences, np.zeros(3), np.ones(3)) < 1.0


WORDS = st.lists(st.sampled_from(["the", "A", "an", "theory", "Grey", "grey,", "lady", "1,250", "—", "U.S.", "é", "."]))
TEXTS = WORDS.map(" ".join) | st.text(max_size=12)


@settings(deadline=None)
@given(predicted=TEXTS, right=st.lists(TEXTS.filter(normalise_answer), min_size=1, max_size=3))
def test_scores_are_those_of_torchmetrics(predicted, right):
    target = {"answers": {"text": right, "answer_start": [0] * len(right)}, "id": "1"}
    reference = squad({"prediction_text": predicted, "id": "1"}, target)
    assert 100 * exact_match(predicted, right) == reference["exact_match"].item()
    assert 100 * f1(predicted, right) == pytest.approx(reference["f1"].item(), abs=1e-4)


@pytest.mark.parametrize("right", [[], ["the"], ["...", "A "]])
@pytest.mark.parametrize(("predicted", "score"), [("", 1.0), ("the", 1.0), (" . ", 1.0), ("lady", 0.0)])
def test_where_no_answer_is_right_only_that_scores(right, predicted, score):
    assert exact_match(predicted, right) == f1(predicted, right) == score


@pytest.mark.parametrize(
    ("text", "normalised"),
    [("The  Grey-Lady!", "greylady"), ("an a the theatre", "theatre"), ("1,250\thouses", "1250 houses"), ("—", "—")],
)
def test_normalisation(text, normalised):
    assert normalise_answer(text) == normalised


def test_f1_of_words_that_repeat():
    assert f1("two two mills", ["two mills"]) == pytest.approx(0.8)
    assert f1("old bridge", ["a pilot", "the bridge"]) == pytest.approx(2 / 3)
