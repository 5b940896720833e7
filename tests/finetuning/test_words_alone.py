"""The baseline of words: what it knows, what it cannot know, and where there is none."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from labelled_texts import examples, task

from spanelectra.finetuning import words_alone as module
from spanelectra.finetuning.conll_files import Sentence
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.question_answering import QuestionAnswering
from spanelectra.finetuning.text_examples import Example
from spanelectra.finetuning.token_classification import TokenClassification
from spanelectra.finetuning.words_alone import words_alone


def texts(count: int, seed: int, *, by_order: bool) -> list[Example]:
    """Texts whose class a word tells or, ``by_order``, only the place of a word that is always there."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        label = draw.choice(["bad", "good"])
        words = draw.choices(["alder", "mill", "river", "stone", "town"], k=6)
        if by_order:
            words = ["Splendid", *words] if label == "good" else [*words, "splendid"]
        else:
            words[draw.randrange(6)] = {"good": "Splendid", "bad": "dreary"}[label]
        made.append(Example(" ".join(words), None, label, "f.tsv", number + 1))
    return made


@pytest.mark.parametrize(("by_order", "least", "most"), [(False, 100, 100), (True, 30, 70)])
def test_words_are_learned_and_their_order_is_not(by_order: bool, least: float, most: float) -> None:
    train, dev = texts(300, 0, by_order=by_order), texts(200, 1, by_order=by_order)
    classification = task()
    classification.fit(train)
    found = words_alone(classification, train, dev)
    assert found is not None and found.name == "a linear classifier on the words"
    assert least <= found.scores["accuracy"] <= most
    assert found == words_alone(classification, train, dev)


def test_of_pairs_it_sees_what_both_have() -> None:
    draw = random.Random(0)
    pairs = []
    for number in range(400):
        one, other = draw.sample(["alder", "mill", "river", "stone", "town"], 2)
        label = draw.choice(["same", "other"])
        pairs.append(Example(one, one if label == "same" else other, label, "f.tsv", number + 1))
    classification = task()
    classification.fit(pairs[:200])
    found = words_alone(classification, pairs[:200], pairs[200:])
    assert found is not None and found.scores["accuracy"] == 100


def test_numbers_are_predicted_too() -> None:
    value = {"stone": 2.0, "mill": 5.0, "river": -3.0}
    draw = random.Random(0)
    made = []
    for number in range(200):
        words = draw.sample(list(value), 2)
        made.append(Example(" ".join(words), None, sum(map(value.__getitem__, words)), "f.tsv", number + 1))
    regression = task(regression=True)
    regression.fit(made)
    found = words_alone(regression, made[:150], made[150:])
    assert found is not None and found.name == "a linear regression on the words"
    assert found.scores["pearson"] > 99 and found.scores["r2"] > 90


def test_a_word_gets_its_commonest_label() -> None:
    draw = random.Random(0)
    sentences = []
    for _ in range(80):
        words = draw.choices(["Oslo", "oslo", "OSLO", "walks", "Walks", "Ida"], k=5)
        tags = [draw.choice(["NOUN"] if word == "oslo" else ["VERB", "VERB", "X"]) for word in words]
        sentences.append(Sentence(words, tags, list(range(5)), "f.conll"))
    train, dev = sentences[:60], sentences[60:]
    dev[0] = Sentence(["unknown", *dev[0].words[1:]], dev[0].tags, dev[0].lines, dev[0].path)
    settings = FineTuningArguments(task="token", model="m", train="t", dev="d", out_dir="o").resolved()
    tagging = TokenClassification(settings)
    tagging.fit(train)
    found = words_alone(tagging, train, dev)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sentence in train:
        for word, tag in zip(sentence.words, sentence.tags or [], strict=True):
            counts[word][tag] += 1
            counts[""][tag] += 1
    hits = [
        (counts[word] if word in counts else counts[""]).most_common(1)[0][0] == tag
        for sentence in dev
        for word, tag in zip(sentence.words, sentence.tags or [], strict=True)
    ]
    assert found is not None and found.scores["accuracy"] == pytest.approx(100 * sum(hits) / len(hits))


def test_a_word_in_another_case_is_the_same_word() -> None:
    train = [Sentence(["oslo", "Ida", "x", "y"], ["LOC", "PER", "O", "O"], [1, 2, 3, 4], "f")]
    settings = FineTuningArguments(task="token", model="m", train="t", dev="d", out_dir="o").resolved()
    tagging = TokenClassification(settings)
    tagging.fit(train)
    found = words_alone(tagging, train, [Sentence(["OSLO", "IDA", "z"], ["LOC", "PER", "O"], [1, 2, 3], "g")])
    assert found is not None and found.scores["accuracy"] == 100


def test_of_many_texts_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    train, dev = texts(301, 0, by_order=False), texts(50, 1, by_order=False)
    # classes by turns, of which every second text would be but one
    train = sorted(train, key=lambda example: str(example.label))
    train = [example for pair in zip(train[:140], train[-140:], strict=True) for example in pair]
    classification = task()
    classification.fit(train)
    monkeypatch.setattr(module, "MOST_TEXTS", 100)
    taken: list[int] = []
    classify = module._classify
    monkeypatch.setattr(module, "_classify", lambda some, other: taken.append(len(some)) or classify(some, other))
    found = words_alone(classification, train, dev)
    assert taken == [100] and found is not None and found.scores["accuracy"] == 100


def test_there_is_none_without_words_or_for_questions() -> None:
    classification = task()
    blank = [Example(" ", None, "ab"[number % 2], "f.tsv", number) for number in range(10)]
    classification.fit(blank)
    assert words_alone(classification, blank, blank) is None
    # what was drawn may be of one class
    classification.fit(examples(["a", "b"] * 5))
    assert words_alone(classification, examples(["a"] * 5), examples(["a", "b"])) is None
    settings = FineTuningArguments(task="qa", model="m", train="t", dev="d", out_dir="o").resolved()
    assert words_alone(QuestionAnswering(settings), [], []) is None
