"""Extractive question answering: the answer is a span of the context, or there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from spanelectra.errors import UserError
from spanelectra.finetuning.answers import best_null_threshold, exact_match, f1, find_candidates, null_scores
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.question_windows import answer_positions, make_windows
from spanelectra.finetuning.squad_files import Question, read_squad
from spanelectra.finetuning.task import Baseline, Feature, Logits, Prediction, Task

_METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact_match": exact_match, "f1": f1}
# A guess is chosen on so many of training's, for comparing texts takes time.
_QUESTIONS_TO_CHOOSE_BY = 2000
_AFTER_SENTENCE = re.compile(r"(?<=[.!?])\s")


class QuestionAnswering(Task):
    """SQuAD 1.1, and 2.0 with its questions that the context does not answer (Rajpurkar et al. 2016 and 2018).

    The model scores every token as start and as end of the answer; [CLS], the first token, stands for 'no answer'
    (Devlin et al. 2019, sections 4.2 and 4.3).

    Attributes:
        null_threshold: a question gets no answer where [CLS] scores more than its best answer by more than this;
            ``None`` where every question gets one.
    """

    kind: ClassVar[str] = "qa"
    model_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    unit: ClassVar[str] = "questions"
    standing: ClassVar[str] = "have a context that stands"

    def __init__(self, settings: FineTuningArguments) -> None:
        super().__init__(settings)
        self.metric = settings.metric or "f1"
        self.null_threshold: float | None = None

    def read(self, path: str, *, labelled: bool = True) -> list[Question]:
        """See :func:`~spanelectra.finetuning.squad_files.read_squad`."""
        questions, remarks = read_squad(path, labelled=labelled, encoding=self.settings.encoding)
        self.remark(*remarks)
        return questions

    @property
    def context_in_words(self) -> str:
        """See :attr:`Task.context_in_words`."""
        return "the text that holds the answer"

    def example_of(self, text: str, context: str | None, number: int) -> Question:
        """A question; its id is its number."""
        assert context is not None
        return Question(str(number), text, context, None)

    def fit(self, train: Sequence[Question]) -> None:
        """Look whether there are questions without an answer; if so, abstain where that scores best."""
        self.null_threshold = 0.0 if any(question.is_unanswerable for question in train) else None

    def check(self, examples: Sequence[Question], path: str) -> None:
        """There are no labels to compare; a remark on questions that training has none like."""
        unanswerable = sum(question.is_unanswerable for question in examples)
        if unanswerable and self.null_threshold is None:
            self.remark(
                f"{path}: {unanswerable:,} of {len(examples):,} questions have no answer, but all of training have: "
                "a model does not learn to give none."
            )

    def input_of(self, example: Question) -> str:
        """The context: whatever is asked about it, a model that was trained on it has read it."""
        return example.context if example.context.strip() else ""

    def config_changes(self) -> dict[str, Any]:
        """Two numbers a token."""
        return {"num_labels": 2, "id2label": {0: "start", 1: "end"}, "label2id": {"start": 0, "end": 1}}

    def features(
        self, examples: Sequence[Question], tokenizer: PreTrainedTokenizerBase, max_length: int, *, training: bool
    ) -> list[Feature]:
        """Cut into windows, see :func:`~spanelectra.finetuning.question_windows.make_windows`.

        For training, a window that does not hold all of the answer has [CLS], position 0, as start and end (as in
        BERT's code). Of several answers the first that a window holds as a whole is learned; questions without
        such an answer are left out.

        Raises:
            UserError: nothing is left to learn; or see ``make_windows``.
        """
        assert self.settings.doc_stride is not None
        windows = make_windows(examples, tokenizer, max_length, self.settings.doc_stride)
        for indices, fate in (
            (windows.cut, f"are longer than half of max_length {max_length} and were cut"),
            (
                windows.narrowed,
                f"are so long that their windows overlap by less than {self.settings.doc_stride} tokens",
            ),
        ):
            if indices:
                first = examples[indices[0]].id
                self.remark(f"{len(indices):,} of {len(examples):,} questions {fate}; the first: id {first}.")
        return self._labelled(examples, windows.features, max_length) if training else windows.features

    def _labelled(self, examples: Sequence[Question], features: Sequence[Feature], max_length: int) -> list[Feature]:
        """The features that training takes, with ``start_positions`` and ``end_positions``."""
        windows: list[list[Feature]] = [[] for _ in examples]
        for feature in features:
            windows[feature["example"]].append(feature)
        kept: list[Feature] = []
        too_large, too_long = [], 0
        for question, own in zip(examples, windows, strict=True):
            spans: list[tuple[int, int] | None] = [None] * len(own)
            for answer in question.answers or ():
                spans = [answer_positions(feature, answer) for feature in own]
                if any(spans):
                    break
            found = [span for span in spans if span is not None]
            if not found and not question.is_unanswerable:
                if any(answer.start is not None for answer in question.answers or ()):
                    too_large.append(question.id)
                continue
            too_long += any(last - first >= self.settings.max_answer_length for first, last in found)
            for feature, span in zip(own, spans, strict=True):
                start, end = span or (0, 0)
                kept.append({**feature, "start_positions": start, "end_positions": end})
        if not kept:
            raise UserError(
                "no question of training can be learned: no answer is found in its context, or in one window."
            )
        if too_large:
            self.remark(
                f"{len(too_large):,} of {len(examples):,} training questions are left out: no window of {max_length} "
                f"tokens holds all of their answer; the first: id {too_large[0]}."
            )
        if too_long:
            self.remark(
                f"{too_long:,} of {len(examples):,} training questions have an answer of more than "
                f"{self.settings.max_answer_length} tokens (--max_answer_length); so long a one is never predicted."
            )
        return kept

    def predict(
        self, examples: Sequence[Question], features: Sequence[Feature], logits: Sequence[Logits]
    ) -> list[Prediction]:
        """The best answer of each question, or none.

        A prediction has ``id``, ``question``, ``predicted`` ("" for no answer), ``no_answer_score`` (what is compared
        with :attr:`null_threshold`), ``n_best`` (each with text, start and score, the sum of two logits) and, where
        they are known, ``answers``: the right ones.
        """
        n_best, differences = self._candidates(examples, features, logits)
        predictions: list[Prediction] = []
        for question, candidates, difference in zip(examples, n_best, differences.tolist(), strict=True):
            abstains = self.null_threshold is not None and difference > self.null_threshold
            prediction = {
                "id": question.id,
                "question": question.question,
                "predicted": candidates[0]["text"] if candidates and not abstains else "",
                "no_answer_score": difference,
                "n_best": candidates,
            }
            if question.answers is not None:
                prediction["answers"] = question.answer_texts
            predictions.append(prediction)
        return predictions

    def choose(self, examples: Sequence[Question], features: Sequence[Feature], logits: Sequence[Logits]) -> None:
        """Choose :attr:`null_threshold` so that :attr:`metric` is highest; none where every question has an answer."""
        if not any(question.is_unanswerable for question in examples):
            self.null_threshold = None
            return
        n_best, differences = self._candidates(examples, features, logits)
        best = [candidates[0]["text"] if candidates else "" for candidates in n_best]
        answered, unanswered = self._compare(examples, best), self._compare(examples, [""] * len(examples))
        self.null_threshold = best_null_threshold(differences, answered[self.metric], unanswered[self.metric])

    def _candidates(
        self, examples: Sequence[Question], features: Sequence[Feature], logits: Sequence[Logits]
    ) -> tuple[list[list[dict[str, Any]]], NDArray[np.float64]]:
        """The best answers of each question, and (questions,) by how much [CLS] scores more than the best."""
        questions = [feature["example"] for feature in features]
        found = find_candidates(
            questions,
            logits,
            [feature["context_start"] for feature in features],
            [feature["offsets"] for feature in features],
            max_answer_length=self.settings.max_answer_length,
            n_best=self.settings.n_best,
        )
        n_best: list[list[dict[str, Any]]] = [[] for _ in examples]
        for question, score, start, end in zip(*(values.tolist() for values in found), strict=True):
            n_best[question].append({"text": examples[question].context[start:end], "start": start, "score": score})
        nulls = null_scores(questions, logits, len(examples)).tolist()
        # a context without text has no answer whatever the threshold is
        best = [candidates[0]["score"] if candidates else null for candidates, null in zip(n_best, nulls, strict=True)]
        return n_best, np.array(nulls) - np.array(best)

    def score(self, examples: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, float]:
        """``exact_match`` and ``f1`` of the questions whose right answers are known.

        Where some have none, also ``has_answer_exact_match``, ``has_answer_f1``, ``no_answer_exact_match`` and
        ``no_answer_f1``, as the evaluation of SQuAD 2.0 reports them.
        """
        pairs = [pair for pair in zip(examples, predictions, strict=True) if pair[0].answers is not None]
        if not pairs:
            raise UserError("no question has an answer, or says that it has none: there is nothing to score.")
        known = [question for question, _ in pairs]
        values = self._compare(known, [prediction["predicted"] for _, prediction in pairs])
        scores = {name: 100 * float(value.mean()) for name, value in values.items()}
        unanswerable = np.array([question.is_unanswerable for question in known])
        if unanswerable.any():
            for kind, chosen in (("has_answer", ~unanswerable), ("no_answer", unanswerable)):
                if chosen.any():
                    scores |= {f"{kind}_{name}": 100 * float(value[chosen].mean()) for name, value in values.items()}
        return scores

    def _compare(self, examples: Sequence[Question], texts: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Metric -> (questions,) values from 0 to 1."""
        pairs = [(text, question.answer_texts) for question, text in zip(examples, texts, strict=True)]
        return {name: np.array([metric(*pair) for pair in pairs]) for name, metric in _METRICS.items()}

    def baseline(self, train: Sequence[Question], examples: Sequence[Question]) -> Baseline:
        """The context's first sentence, or never an answer where that scores more on (a sample of) training."""
        some = train[:: max(1, len(train) // _QUESTIONS_TO_CHOOSE_BY)]
        no_answers, first_sentences = (
            sum(_METRICS[self.metric](text, question.answer_texts) for text, question in zip(texts, some, strict=True))
            for texts in ([""] * len(some), _first_sentences(some))
        )
        if no_answers > first_sentences:
            name, texts = "always 'no answer'", [""] * len(examples)
        else:
            name, texts = "the context's first sentence", _first_sentences(examples)
        return Baseline(name, self.score(examples, [{"predicted": text} for text in texts]))

    def collapse(self, predictions: Sequence[Prediction]) -> str | None:
        """'no answer', or the one text that is predicted for all questions though their answers differ."""
        texts = {prediction["predicted"] for prediction in predictions}
        right = {tuple(prediction["answers"]) for prediction in predictions if "answers" in prediction}
        if len(predictions) < 2 or len(texts) > 1 or len(right) == 1:
            return None
        text = texts.pop()
        return f"always '{text}'" if text else "always 'no answer'"

    def state(self) -> dict[str, Any]:
        """The threshold."""
        return {"null_threshold": self.null_threshold}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the threshold back."""
        threshold = state["null_threshold"]
        self.null_threshold = None if threshold is None else float(threshold)


def _first_sentences(examples: Sequence[Question]) -> list[str]:
    return [_AFTER_SENTENCE.split(question.context.strip(), 1)[0] for question in examples]
