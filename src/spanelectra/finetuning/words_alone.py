"""What the words alone tell, without their order or context: a second baseline, in seconds.

An encoder that is no better has brought nothing to the task but its words, however far it is above the commonest
answer. For short reviews a linear classifier on words is hard to beat (Wang and Manning 2012, "Baselines and bigrams:
simple, good sentiment and topic classification"); of named entities many are the same words again.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from spanelectra.finetuning.conll_files import Sentence
from spanelectra.finetuning.task import Baseline, Prediction, Task
from spanelectra.finetuning.text_examples import Example

# Of more training texts so many are drawn that the fit takes seconds.
MOST_TEXTS = 20_000
_WORD = re.compile(r"\w+|[^\w\s]")


def words_alone(task: Task, train: Sequence[Any], examples: Sequence[Any]) -> Baseline | None:
    """Score on ``examples`` what can be said by the words alone.

    Of texts a logistic regression (of numbers a ridge regression) on which words occur, in pairs also on which occur in
    both; of words their commonest label in ``train``, in lower case where they are not known otherwise.

    Args:
        task: fitted to ``train``.
        train, examples: with labels.

    Returns:
        ``None`` where there is nothing of the kind: for question answering, and for texts without a word.
    """
    if task.kind == "token":
        return Baseline("each word's commonest label", task.score(examples, _tag(train, examples)))
    if task.kind != "classification":
        return None
    if len(train) > MOST_TEXTS:
        drawn = np.random.default_rng(0).choice(len(train), MOST_TEXTS, replace=False)
        train = [train[number] for number in sorted(drawn.tolist())]
    predictions = _classify(train, examples)
    if predictions is None:
        return None
    kind = "regression" if task.settings.regression else "classifier"
    return Baseline(f"a linear {kind} on the words", task.score(examples, predictions))


def _classify(train: Sequence[Example], examples: Sequence[Example]) -> list[Prediction] | None:
    labels = [example.label for example in train]
    if len(set(labels)) < 2 or not any(map(_words_of, train)):
        return None
    is_regression = not isinstance(labels[0], str)
    model = make_pipeline(
        CountVectorizer(analyzer=_words_of, binary=True),
        Ridge() if is_regression else LogisticRegression(max_iter=300),
    )
    with warnings.catch_warnings():
        # nearly converged is good enough for a baseline
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, labels)
    return [{"predicted": answer} for answer in model.predict(examples).tolist()]


def _words_of(example: Example) -> list[str]:
    """The words of a text; those of a pair's second one, and those that are in both, are words of their own."""
    words = _WORD.findall(example.text.lower())
    if example.text_pair is None:
        return words
    others = _WORD.findall(example.text_pair.lower())
    shared = set(words) & set(others)
    return [*words, *(f"{word} 2" for word in others), *(f"{word} 1 2" for word in shared)]


def _tag(train: Sequence[Sentence], examples: Sequence[Sentence]) -> list[Prediction]:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    lower_case: defaultdict[str, Counter[str]] = defaultdict(Counter)
    everything: Counter[str] = Counter()
    for sentence in train:
        for word, tag in zip(sentence.words, sentence.tags or (), strict=True):
            for seen in (counts[word], lower_case[word.lower()], everything):
                seen[tag] += 1

    def label(word: str) -> str:
        seen = counts.get(word) or lower_case.get(word.lower()) or everything
        return seen.most_common(1)[0][0]

    return [{"predicted": list(map(label, example.words))} for example in examples]
