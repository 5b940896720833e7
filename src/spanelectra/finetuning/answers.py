"""Logits of windows -> the best answers of each question; when to give none; and the two scores of SQuAD.

Everything here is a pure function of arrays and texts; a question is a number from 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WINDOWS_AT_ONCE = 32  # with 384 tokens and answers of up to 30, 1.5 MB of scores


class Candidates(NamedTuple):
    """Possible answers of all questions, sorted by question, then from the best to the worst; arrays of one length.

    Attributes:
        question: int64.
        score: float32, the sum of the logits of start and end.
        start: int64, first character in the context.
        end: int64, the character after the last.
    """

    question: NDArray[np.int64]
    score: NDArray[np.float32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def find_candidates(
    questions: Sequence[int],
    logits: Sequence[NDArray[np.float32]],
    context_starts: Sequence[int],
    offsets: Sequence[NDArray[np.int32]],
    *,
    max_answer_length: int,
    n_best: int,
) -> Candidates:
    """The best answers of each question in any of its windows, found exactly: every span is looked at.

    A span of several windows counts once, with its best score; scores of different windows are compared as they are
    (Devlin et al. 2019, section 4.2 and its code).

    Args:
        questions: for each window the question that it is of.
        logits: for each window (length, 2), of starts and of ends.
        context_starts: for each window the position of its first token of the context.
        offsets: for each window (context tokens, 2), first character and the one after the last of each token; a token
            without characters is neither the first nor the last one of an answer.
        max_answer_length: the most tokens of an answer.
        n_best: the most answers of a question.
    """
    sizes = np.array([len(spans) for spans in offsets], dtype=np.int64)
    window, first, last, score = [], [], [], []
    for begin in range(0, len(questions), _WINDOWS_AT_ONCE):
        chunk = range(begin, min(begin + _WINDOWS_AT_ONCE, len(questions)))
        padded = np.full((2, len(chunk), max(1, sizes[begin : chunk.stop].max())), -np.inf, dtype=np.float32)
        for row, index in enumerate(chunk):
            context = slice(context_starts[index], context_starts[index] + sizes[index])
            holds_text = offsets[index][:, 0] < offsets[index][:, 1]
            padded[:, row, : sizes[index]] = np.where(holds_text, logits[index][context].T, -np.inf)
        row_, first_, last_, score_ = _best_spans(padded[0], padded[1], max_answer_length, n_best)
        window.append(begin + row_)
        first.append(first_)
        last.append(last_)
        score.append(score_)
    windows, scores = np.concatenate(window), np.concatenate(score)
    characters = np.concatenate(offsets).astype(np.int64)
    base = (np.cumsum(sizes) - sizes)[windows]
    start, end = characters[base + np.concatenate(first), 0], characters[base + np.concatenate(last), 1]
    return _ranked(Candidates(np.asarray(questions, dtype=np.int64)[windows], scores, start, end), n_best)


def _best_spans(
    starts: NDArray[np.float32], ends: NDArray[np.float32], max_answer_length: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The ``count`` best spans of each window: window, first token, last token and score; arrays of one length.

    Args:
        starts, ends: (windows, tokens) logits, -inf beyond a window's end.
    """
    longest = min(max_answer_length, starts.shape[1])
    shifted = np.pad(ends, ((0, 0), (0, longest - 1)), constant_values=-np.inf)
    # [window, first token, tokens after it]
    sums = starts[:, :, None] + np.lib.stride_tricks.sliding_window_view(shifted, longest, axis=1)
    flat = sums.reshape(len(starts), -1)
    best = np.argpartition(flat, -min(count, flat.shape[1]), axis=1)[:, -count:]
    scores = np.take_along_axis(flat, best, axis=1)
    window, place = np.nonzero(scores > -np.inf)
    first, more = np.divmod(best[window, place], longest)
    return window, first, first + more, scores[window, place]


def _ranked(found: Candidates, n_best: int) -> Candidates:
    """Every span once, the best ones of each question first."""

    def take(chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Candidates:
        return Candidates(found.question[chosen], found.score[chosen], found.start[chosen], found.end[chosen])

    found = take(np.lexsort((-found.score, found.end, found.start, found.question)))
    spans = np.stack([found.question, found.start, found.end])
    is_new = np.ones(spans.shape[1], dtype=bool)
    is_new[1:] = (np.diff(spans) != 0).any(axis=0)
    found = take(is_new)
    found = take(np.lexsort((found.end, found.start, -found.score, found.question)))
    rank = np.arange(len(found.score)) - np.searchsorted(found.question, found.question)
    return take(rank < n_best)


def null_scores(questions: Sequence[int], logits: Sequence[NDArray[np.float32]], count: int) -> NDArray[np.float32]:
    """How much speaks for 'no answer': the logits of [CLS] as start and end, the least over a question's windows.

    The least, because one window that holds the answer is enough (BERT's code for SQuAD 2.0; Devlin et al. 2019,
    section 4.3).

    Args:
        questions: for each window the question that it is of.
        logits: for each window (length, 2); [CLS] is position 0.
        count: how many questions there are.

    Returns:
        (count,) float32; inf for a question without windows.
    """
    scores = np.full(count, np.inf, dtype=np.float32)
    np.minimum.at(scores, np.asarray(questions, dtype=np.int64), np.array([window[0].sum() for window in logits]))
    return scores


def best_null_threshold(
    differences: NDArray[np.float64], answered: NDArray[np.float64], unanswered: NDArray[np.float64]
) -> float:
    """The threshold that scores best: a question whose difference is above it gets no answer.

    All thresholds are compared, in one sweep over the sorted questions. Of equally good ones it is the lowest, between
    two questions the middle.

    Args:
        differences: (questions,) score of 'no answer' less that of the best answer; finite.
        answered: (questions,) what each question scores with its best answer.
        unanswered: (questions,) what each scores without one.
    """
    order = np.argsort(differences, kind="stable")
    ascending = differences[order]
    # entry k: the k questions with the least differences are answered
    totals = unanswered.sum() + np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])])
    # no threshold lies between equal differences
    totals[1:-1][ascending[1:] == ascending[:-1]] = -np.inf
    answers = int(np.argmax(totals))
    if answers == 0:
        return float(np.nextafter(ascending[0], -np.inf))
    if answers == len(ascending):
        return float(ascending[-1])
    return float((ascending[answers - 1] + ascending[answers]) / 2)


def normalise_answer(text: str) -> str:
    """Lower case, no punctuation (of ASCII), no articles, single spaces: so SQuAD's evaluation compares answers.

    Rajpurkar et al. 2016, section 6.1.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1.0 where the prediction, normalised, is one of the answers, 0.0 elsewhere.

    Args:
        predicted: "" for no answer.
        answers: all that are right; none where 'no answer' is.
    """
    return float(normalise_answer(predicted) in _right_answers(answers))


def f1(predicted: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of the prediction's words, for the answer where it is best; 0 to 1.

    Args:
        predicted, answers: as for :func:`exact_match`.
    """
    words = normalise_answer(predicted).split()
    return max(_word_overlap(words, right.split()) for right in _right_answers(answers))


def _right_answers(answers: Sequence[str]) -> list[str]:
    """The answers normalised; where nothing is left of them it is right to give none (SQuAD 2.0's evaluation)."""
    return [right for right in map(normalise_answer, answers) if right] or [""]


def _word_overlap(predicted: list[str], right: list[str]) -> float:
    if not predicted or not right:
        return float(predicted == right)
    common = (Counter(predicted) & Counter(right)).total()
    return 2 * common / (len(predicted) + len(right))
