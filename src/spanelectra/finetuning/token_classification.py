"""Token classification: a label for every word, such as named entities in IOB2 or parts of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import softmax
from seqeval.metrics import classification_report
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from transformers import DataCollatorForTokenClassification, PreTrainedTokenizerBase

from spanelectra.errors import UserError, did_you_mean, shortened
from spanelectra.finetuning.conll_files import Sentence, read_conll
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.running_text import cut_into_words, find_entities
from spanelectra.finetuning.tag_schemes import OUTSIDE, misplaced_tags, recognise_scheme, stray_tags, to_iob2
from spanelectra.finetuning.task import (
    RUNNING_TEXT,
    RUNNING_TEXT_ELSEWHERE,
    Baseline,
    Feature,
    Logits,
    Prediction,
    Task,
)
from spanelectra.finetuning.word_windows import NO_WORD, word_windows
from spanelectra.losses import IGNORE_INDEX

_FEW_EXAMPLES = 5


class TokenClassification(Task):
    """Labels of words, from CoNLL column files.

    Files with entities may be in any scheme; examples, predictions and the model's labels are in IOB2.

    Attributes:
        labels: in the order of their ids; of entities first O, then B- and I- of every type.
        scheme: IOB2, or plain where the labels are classes of words, not entities.
    """

    kind = "token"
    model_class: ClassVar[str] = "AutoModelForTokenClassification"
    unit = "sentences"

    def __init__(self, settings: FineTuningArguments) -> None:
        super().__init__(settings)
        self.metric = settings.metric or "f1"
        self.labels: list[str] = []
        self.scheme: Literal["IOB2", "plain"] = "IOB2"
        # what a word gets that no token speaks for
        self._default_label = OUTSIDE

    def read(self, path: str, *, labelled: bool = True) -> list[Sentence]:
        sentences = read_conll(
            path,
            text_column=self.settings.text_column,
            label_column=self.settings.label_column,
            labelled=labelled,
            encoding=self.settings.encoding,
        )
        tags = [sentence.tags for sentence in sentences if sentence.tags is not None]
        if not tags:
            return sentences
        strays = stray_tags(set(chain.from_iterable(tags)))
        if strays and labelled:
            line, tag = _first_place(sentences, strays)
            raise UserError(
                f"{path}:{line}: '{shortened(tag)}' is no prefix with a type, as other labels are (B-…, I-…), and not "
                f"'{OUTSIDE}'; is that the label's column?"
            )
        scheme = recognise_scheme(tags)
        converted = sentences
        if scheme != "plain":
            converted = [replace(sentence, tags=to_iob2(sentence.tags or [])) for sentence in sentences]
        if not labelled:
            strange = _labels_of(converted).keys() - self.labels
            if strange:
                line, tag = _first_place(converted, strange)
                self.remark(
                    f"{path}:{line}: '{shortened(tag)}' in the labels' column is no label of the model's; the file is "
                    f"read as one without labels, and of every line only the word. {RUNNING_TEXT_ELSEWHERE}"
                )
                return [replace(sentence, tags=None) for sentence in sentences]
        # a B- that IOB1 has no need of can be read in one way only
        misplaced = [(s, place) for s in sentences for place in misplaced_tags(s.tags or [], scheme)]
        if misplaced and scheme != "IOB1":
            sentence, place = misplaced[0]
            self.remark(
                f"{len(misplaced):,} of {sum(map(len, tags)):,} labels of {path} stand where {scheme} does not allow "
                f"them (the first in line {sentence.lines[place]}); they are read as conlleval reads them."
            )
        return converted

    def line_of(self, example: Sentence) -> int:
        return example.lines[0]

    def example_of(self, text: str, context: str | None, number: int) -> Sentence:
        """Cut by :func:`~spanelectra.finetuning.running_text.cut_into_words`."""
        words, starts = cut_into_words(text)
        return Sentence(words, None, [number] * len(words), RUNNING_TEXT, text, starts)

    def fit(self, train: Sequence[Sentence]) -> None:
        counts, path = _labels_of(train), train[0].path
        texts = [word for sentence in train for word in sentence.words if " " in word]
        if 2 * len(texts) > counts.total():
            raise UserError(
                f"{path}: most of its words hold spaces ('{shortened(texts[0])}'): is it a table of texts? For "
                "labels of texts say --task classification; for token every line is a word and its label, and a "
                "blank line ends a sentence."
            )
        if len(counts) < 2:
            raise UserError(
                f"{path}: every label is '{shortened(next(iter(counts)))}'; there is nothing to tell apart."
            )
        if len(counts) > max(20, counts.total() / 2):
            raise UserError(
                f"{path}: {len(counts):,} different labels for {counts.total():,} words; is that the label's column? "
                "Choose one with --label_column."
            )
        scheme = recognise_scheme([sentence.tags or [] for sentence in train])
        self._set_scheme("plain" if scheme == "plain" else "IOB2")
        if self.scheme == "plain":
            self.labels = sorted(counts)
            sizes, unit = counts, "words"
            self.remark(
                f"{path}: the labels have no prefixes (B-…, I-…), so they are classes of words: {len(counts)} of them. "
                f"Checkpoints are chosen by {self.metric}; f1, precision and recall are means over classes."
            )
        else:
            # both of every type: one that is never longer than a word in training may be so elsewhere
            types = sorted({label[1:] for label in counts if label != OUTSIDE})
            outside = [OUTSIDE] if OUTSIDE in counts else []
            self.labels = outside + [prefix + entity for entity in types for prefix in "BI"]
            sizes, unit = Counter({entity[1:]: counts["B" + entity] for entity in types}), "entities"
        self._default_label = OUTSIDE if OUTSIDE in counts else counts.most_common(1)[0][0]
        few = [f"'{name}' ({size})" for name, size in reversed(sizes.most_common()) if size < _FEW_EXAMPLES]
        if few:
            listed = ", ".join(few[:5]) + (", …" if len(few) > 5 else "")
            self.remark(f"{path}: {len(few)} of {len(sizes)} labels have fewer than {_FEW_EXAMPLES} {unit}: {listed}.")

    def check(self, examples: Sequence[Sentence], path: str) -> None:
        counts = _labels_of(examples)
        strange = counts.keys() - self.labels
        if strange:
            line, label = _first_place(examples, strange)
            words = sum(counts[label] for label in strange)
            label, known_labels = shortened(label), [shortened(label) for label in self.labels]
            listed = ", ".join(known_labels[:10]) + (", …" if len(known_labels) > 10 else "")
            raise UserError(
                f"{path}:{line}: the label '{label}' is not among those of the training file ({listed}); "
                f"{words:,} of {counts.total():,} words have such labels.{did_you_mean(label, known_labels)} Add "
                "examples of it to the training file, or leave such sentences out."
            )
        # of entities the types, for I- need not occur
        known, found = (dict.fromkeys(map(self._class_of, labels)) for labels in (self.labels, counts))
        empty = [f"'{name}'" for name in known if name not in found]
        if empty:
            listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
            self.remark(
                f"{path}: {len(empty)} of {len(known)} labels have no word among its {counts.total():,}: {listed}."
            )

    def input_of(self, example: Sentence) -> tuple[str, ...]:
        return tuple(example.words)

    def config_changes(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
        }

    def features(
        self, examples: Sequence[Sentence], tokenizer: PreTrainedTokenizerBase, max_length: int, *, training: bool
    ) -> list[Feature]:
        """See :meth:`Task.features`; ``words`` says which word each token speaks for, ``NO_WORD`` for none.

        In training as in prediction a word is read once, at its first token, in the window with most around it.
        """
        assert self.settings.doc_stride is not None
        ids = {label: number for number, label in enumerate(self.labels)}
        features: list[Feature] = []
        read = 0
        sentences = [example.words for example in examples]
        for window in word_windows(sentences, tokenizer, max_length, self.settings.doc_stride):
            feature: Feature = {**window.inputs, "example": window.sentence, "words": window.words}
            if training:
                tags = examples[window.sentence].tags
                assert tags is not None
                feature["labels"] = [IGNORE_INDEX if word == NO_WORD else ids[tags[word]] for word in window.words]
            read += sum(word != NO_WORD for word in window.words)
            features.append(feature)
        total = sum(map(len, sentences))
        if read < total:
            self.remark(
                f"{total - read:,} of {total:,} words of {examples[0].path} are nothing to the tokenizer (control "
                f"characters, for instance); nothing is learned from them, and they get '{self._default_label}'."
            )
        return features

    def predict(
        self, examples: Sequence[Sentence], features: Sequence[Feature], logits: Sequence[Logits]
    ) -> list[Prediction]:
        """See :meth:`Task.predict`.

        A prediction has ``words``, ``predicted`` (each word's tag), ``probabilities`` (of that tag; 0 for a word that
        is nothing to the tokenizer) and, where they are known, ``labels``. That of a running text begins with ``text``
        and, unless labels are classes of words, has ``entities``: their type, text, first character and the one after
        the last, and the least probability of their words.
        """
        predicted = [[self._default_label] * len(example.words) for example in examples]
        probabilities = [[0.0] * len(example.words) for example in examples]
        for feature, scores in zip(features, logits, strict=True):
            shares = softmax(scores.astype(np.float64), axis=-1)
            best = zip(feature["words"], shares.argmax(axis=-1).tolist(), shares.max(axis=-1).tolist(), strict=True)
            for word, label, share in best:
                if word != NO_WORD:
                    predicted[feature["example"]][word] = self.labels[label]
                    probabilities[feature["example"]][word] = round(share, 4)
        predictions: list[Prediction] = []
        for example, tags, sure in zip(examples, predicted, probabilities, strict=True):
            prediction: Prediction = {} if example.text is None else {"text": example.text}
            if example.text is not None and self.scheme != "plain":
                prediction["entities"] = _entities_of(example, tags, sure)
            prediction |= {"words": example.words, "predicted": tags, "probabilities": sure}
            predictions.append(prediction if example.tags is None else prediction | {"labels": example.tags})
        return predictions

    def score(self, examples: Sequence[Sentence], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Scores of the sentences that have labels.

        Of entities precision, recall and F1 are seqeval's, which are those of CoNLL-2003's ``conlleval``: an entity is
        right if its type and all its words are. Of plain labels they are scikit-learn's means over labels. ``f1_X`` is
        the F1 of every type, or label, that the examples have. ``accuracy`` is of words.
        """
        pairs = [
            (example.tags, prediction["predicted"])
            for example, prediction in zip(examples, predictions, strict=True)
            if example.tags is not None
        ]
        if not pairs:
            raise UserError("no sentence has labels: there is nothing to score.")
        gold, predicted = [tags for tags, _ in pairs], [tags for _, tags in pairs]
        gold_words, predicted_words = list(chain.from_iterable(gold)), list(chain.from_iterable(predicted))
        accuracy = accuracy_score(gold_words, predicted_words)
        if self.scheme == "plain":
            means = precision_recall_fscore_support(gold_words, predicted_words, average="macro", zero_division=0)
            names = sorted(set(gold_words))
            each = f1_score(gold_words, predicted_words, labels=names, average=None, zero_division=0)
            scores = {"accuracy": accuracy, "f1": means[2], "precision": means[0], "recall": means[1]}
        else:
            overall, names, each = _entity_scores(gold, predicted)
            scores = overall | {"accuracy": accuracy}
        scores |= {f"f1_{name}": f1 for name, f1 in zip(names, each, strict=True)}
        return {name: 100 * float(score) for name, score in scores.items()}

    def baseline(self, train: Sequence[Sentence], examples: Sequence[Sentence]) -> Baseline:
        answer = _labels_of(train).most_common(1)[0][0]
        constant = [{"predicted": [answer] * len(example.words)} for example in examples]
        return Baseline(f"always '{answer}'", self.score(examples, constant))

    def collapse(self, predictions: Sequence[Prediction]) -> str | None:
        answers = Counter(chain.from_iterable(prediction["predicted"] for prediction in predictions))
        labels = set(chain.from_iterable(prediction.get("labels", ()) for prediction in predictions))
        if answers.total() < 2 or len(answers) > 1 or len(labels) == 1:
            return None
        return f"always '{next(iter(answers))}'"

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> DataCollatorForTokenClassification:
        return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORE_INDEX)

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels, "scheme": self.scheme, "default_label": self._default_label}

    def load_state(self, state: dict[str, Any]) -> None:
        self.labels = list(state["labels"])
        self._default_label = str(state["default_label"])
        self._set_scheme("plain" if state["scheme"] == "plain" else "IOB2")

    def _class_of(self, label: str) -> str:
        """The type of an entity's label, which B- and I- share; any other label as it is."""
        return label if self.scheme == "plain" or label == OUTSIDE else label[2:] or "B"

    def _set_scheme(self, scheme: Literal["IOB2", "plain"]) -> None:
        """Take note of the scheme; for classes of words accuracy stands in for the F1 of entities."""
        self.scheme = scheme
        if scheme == "plain" and self.metric == "f1":
            self.metric = "accuracy"


def _entities_of(sentence: Sentence, tags: list[str], probabilities: list[float]) -> list[dict[str, Any]]:
    """Entities of a running text, as :meth:`TokenClassification.predict` says."""
    assert sentence.text is not None
    entities = []
    for entity in find_entities(tags):
        first, last = entity.first_word, entity.last_word
        start, end = sentence.starts[first], sentence.starts[last] + len(sentence.words[last])
        place = {"type": entity.type, "text": sentence.text[start:end], "start": start, "end": end}
        entities.append(place | {"probability": min(probabilities[first : last + 1])})
    return entities


def _labels_of(sentences: Sequence[Sentence]) -> Counter[str]:
    """Label -> how many words have it."""
    return Counter(chain.from_iterable(sentence.tags or () for sentence in sentences))


def _first_place(sentences: Sequence[Sentence], tags: set[str]) -> tuple[int, str]:
    """Line and tag of the first word whose tag is one of ``tags``."""
    return next(
        (line, tag)
        for sentence in sentences
        for line, tag in zip(sentence.lines, sentence.tags or (), strict=True)
        if tag in tags
    )


def _entity_scores(
    gold: list[list[str]], predicted: list[list[str]]
) -> tuple[dict[str, float], list[str], list[float]]:
    """F1, precision and recall over all entities; the types of ``gold``; the F1 of each. All from 0 to 1."""
    if not any(tag != OUTSIDE for tags in chain(gold, predicted) for tag in tags):
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0}, [], []
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    overall = report["micro avg"]
    scores = {"f1": overall["f1-score"], "precision": overall["precision"], "recall": overall["recall"]}
    types = sorted({tag[2:] for tags in gold for tag in tags if len(tag) > 1})
    return scores, types, [report[name]["f1-score"] for name in types]
