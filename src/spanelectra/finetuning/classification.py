"""Classification of texts and pairs, and regression: one label for each."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from scipy.stats import NearConstantInputWarning, pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, r2_score
from transformers import PreTrainedTokenizerBase

from spanelectra.errors import UserError, did_you_mean, shortened
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.tables import is_number
from spanelectra.finetuning.task import RUNNING_TEXT, Baseline, Feature, Logits, Prediction, TargetScale, Task
from spanelectra.finetuning.text_examples import Example, read_examples

_FEW_EXAMPLES = 5
_IMBALANCE = 10
_TEXTS_AT_ONCE = 1000
# A regression whose predictions vary by less than this part of what the labels do says always the same.
_COLLAPSED_SPREAD = 0.01
# Standard deviations of labels, the least as a part of their mean, between which float32 predicts them well.
_LEAST_SPREAD, _LARGEST_SPREAD = 1e-5, 1e30
# What a coefficient of determination is at least, for it has no lower bound.
_WORST_R2 = -1e9


class Classification(Task):
    """Single texts or pairs, each with the name of a class or, in regression, with a number.

    Numbers are standardised for training. The model that is saved, and every prediction, has the files' units: see
    :class:`~spanelectra.finetuning.task.TargetScale`.

    Attributes:
        labels: the classes' names in the order of their ids; numbers in the order of numbers. Empty in regression.
    """

    kind = "classification"
    model_class: ClassVar[str] = "AutoModelForSequenceClassification"
    unit = "records"

    def __init__(self, settings: FineTuningArguments) -> None:
        super().__init__(settings)
        self.metric = settings.metric or ("pearson" if settings.regression else "accuracy")
        self.labels: list[str] = []
        self._files_of: dict[str, list[str]] = {}
        # setting -> the column that it was, by name: in each file that was read, and in the training file
        self._names_of: dict[str, dict[str, str]] = {}
        self._trained_on: dict[str, str] = {}
        # the latter once a model is trained: other files are then read by it; until then each is guessed at
        self._read_like: dict[str, str] = {}

    def read(self, path: str, *, labelled: bool = True) -> list[Example]:
        found = read_examples(path, self.settings, labelled=labelled, trained_on=self._read_like)
        self._names_of[path] = found.names
        self.remark(*found.remarks)
        examples = found.examples
        files = self._files_of.setdefault(found.columns, [])
        if path not in files:
            files.append(path)
        if labelled or self.settings.regression:
            return examples
        known = [example if example.label in self.labels else replace(example, label=None) for example in examples]
        strange = [old for old, new in zip(examples, known, strict=True) if old.label != new.label]
        if strange:
            label = shortened(strange[0].label)
            self.remark(
                f"{path}: {len(strange):,} of {len(examples):,} labels (such as '{label}') are none of the model's "
                "and are passed over."
            )
        return known

    def line_of(self, example: Example) -> int:
        return example.line

    @property
    def context_in_words(self) -> str | None:
        return None if self.settings.text_pair_column is None else "the second text of every pair"

    def example_of(self, text: str, context: str | None, number: int) -> Example:
        return Example(text, context, None, RUNNING_TEXT, number)

    def notes(self, *, scored: bool = True) -> list[str]:
        notes = [f"columns of {', '.join(files)}: {columns}" for columns, files in self._files_of.items()]
        if scored and len(self.labels) == 2:
            second = self.labels[1]
            notes.append(f"f1 is that of '{second}', the second of the two classes; macro_f1 is the mean of both")
        return notes

    def fit(self, train: Sequence[Example]) -> None:
        self._trained_on = self._names_of.get(train[0].path, {})
        if self.settings.regression:
            self.target_scale = _target_scale(train)
            return
        counts = Counter(str(example.label) for example in train)
        self.labels = _in_order(counts)
        path = train[0].path
        if len(counts) < 2:
            raise UserError(f"{path}: every label is '{shortened(self.labels[0])}'; there is nothing to tell apart.")
        numbers = all(map(is_number, counts))
        if len(counts) > max(20, len(train) / 2):
            raise UserError(
                f"{path}: {len(counts):,} different labels in {len(train):,} records ('{shortened(self.labels[0])}', "
                f"'{shortened(self.labels[1])}', …): is that the label's column? Choose one with --label_column"
                + (", or say --regression to predict numbers." if numbers else ".")
            )
        fractions = [label for label in self.labels if numbers and not float(label).is_integer()]
        if fractions:
            self.remark(
                f"{path}: labels such as '{fractions[0]}' are taken for classes; --regression predicts numbers."
            )
        of_lower: dict[str, list[str]] = {}
        for label in self.labels:
            of_lower.setdefault(label.lower(), []).append(label)
        for alike in [labels for labels in of_lower.values() if len(labels) > 1][:5]:
            listed = " and ".join(f"'{label}' ({counts[label]:,})" for label in alike)
            self.remark(f"{path}: {listed} differ in case alone, and are classes of their own.")
        few = [label for label in self.labels if counts[label] < _FEW_EXAMPLES]
        if few:
            listed = ", ".join(f"'{label}' ({counts[label]})" for label in few[:5]) + (", …" if len(few) > 5 else "")
            self.remark(
                f"{path}: {len(few)} of {len(counts)} classes have fewer than {_FEW_EXAMPLES} examples: {listed}."
            )
        (commonest, most), (rarest, least) = counts.most_common()[0], counts.most_common()[-1]
        if most > _IMBALANCE * least:
            self.remark(
                f"{path}: '{commonest}' is {most / least:.0f} times as common as '{rarest}' ({most:,} to {least:,}); "
                "accuracy says little here, macro_f1 or matthews more."
            )

    def check(self, examples: Sequence[Example], path: str) -> None:
        if self.settings.regression:
            return
        for example in examples:
            if example.label is not None and example.label not in self.labels:
                label, known = shortened(example.label), [shortened(label) for label in self.labels]
                listed = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
                raise UserError(
                    f"{path}:{example.line}: the label '{label}' is not among those of the training file "
                    f"({listed}).{did_you_mean(label, known)} Add examples of it there, or leave such records out."
                )
        found = {example.label for example in examples}
        empty = [f"'{label}'" for label in self.labels if label not in found]
        if empty:
            listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
            self.remark(
                f"{path}: {len(empty)} of {len(self.labels)} classes have no example among its {len(examples):,}: "
                f"{listed}."
            )

    def input_of(self, example: Example) -> tuple[str, str | None] | None:
        return (example.text, example.text_pair) if example.text.strip() else None

    def config_changes(self) -> dict[str, Any]:
        names = ["score"] if self.settings.regression else self.labels
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: number for number, name in enumerate(names)},
            "problem_type": "regression" if self.settings.regression else "single_label_classification",
        }

    def features(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, *, training: bool
    ) -> list[Feature]:
        features: list[Feature] = []
        lengths = []
        for whole, feature in _tokenized(examples, tokenizer, max_length):
            example = examples[len(features)]
            feature["example"] = len(features)
            if training:
                assert example.label is not None
                scale = self.target_scale
                feature["labels"] = (
                    self.labels.index(str(example.label)) if scale is None else scale.standardised(float(example.label))
                )
            features.append(feature)
            lengths.append(whole)
        cut = sum(length > max_length for length in lengths)
        if cut:
            self.remark(
                f"{cut:,} of {len(examples):,} texts of {examples[0].path} are longer than {max_length} tokens and are "
                f"cut (the longest has {max(lengths):,}); a model fine-tuned with a larger --max_length reads more."
            )
        return features

    def predict(
        self, examples: Sequence[Example], features: Sequence[Feature], logits: Sequence[Logits]
    ) -> list[Prediction]:
        by_example = {feature["example"]: scores for feature, scores in zip(features, logits, strict=True)}
        predictions = []
        for number, example in enumerate(examples):
            prediction: Prediction = {"text": example.text}
            if example.text_pair is not None:
                prediction["text_pair"] = example.text_pair
            scores = np.asarray(by_example[number], dtype=np.float64)
            if self.settings.regression:
                # digits, not decimals: labels may be millionths or millions
                prediction["predicted"] = float(f"{scores[0]:.7g}")
            else:
                shares = softmax(scores)
                prediction["predicted"] = self.labels[int(scores.argmax())]
                prediction["probabilities"] = {
                    label: round(float(share), 4) for label, share in zip(self.labels, shares, strict=True)
                }
            if example.label is not None:
                prediction["label"] = example.label
            predictions.append(prediction)
        return predictions

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Scores of the examples that have a label.

        ``r2`` is the share of the labels' variance that predictions explain, below 0 where their own mean is closer.
        ``f1`` is, of two classes, that of the second (GLUE's F1 of MRPC is of the label 1), of more the mean over them;
        a class that neither occurs nor is predicted does not count. What is undefined, such as the correlation of a
        constant, is 0.
        """
        pairs = [
            (example.label, prediction["predicted"])
            for example, prediction in zip(examples, predictions, strict=True)
            if example.label is not None
        ]
        if not pairs:
            raise UserError("no example has a label: there is nothing to score.")
        labels, predicted = zip(*pairs, strict=True)
        if self.settings.regression:
            return {
                "pearson": _correlation(pearsonr, labels, predicted),
                "spearman": _correlation(spearmanr, labels, predicted),
                "r2": _variance_explained(labels, predicted),
            }
        macro_f1 = f1_score(labels, predicted, average="macro", zero_division=0)
        f1 = macro_f1
        if len(self.labels) == 2:
            second = [[label == self.labels[1] for label in side] for side in (labels, predicted)]
            f1 = f1_score(*second, zero_division=0)
        scores = {
            "accuracy": accuracy_score(labels, predicted),
            "f1": f1,
            "macro_f1": macro_f1,
            # of one class only it is undefined, and the library warns
            "matthews": matthews_corrcoef(labels, predicted) if len({*labels, *predicted}) > 1 else 0.0,
        }
        return {name: 100 * float(score) for name, score in scores.items()}

    def baseline(self, train: Sequence[Example], examples: Sequence[Example]) -> Baseline:
        if self.settings.regression:
            answer: str | float = float(np.mean([example.label for example in train]))
            name = f"always {answer:.4g}, the mean, which correlates with nothing"
        else:
            counts = Counter(str(example.label) for example in train)
            answer = max(self.labels, key=counts.__getitem__)
            name = f"always '{answer}'"
        return Baseline(name, self.score(examples, [{"predicted": answer}] * len(examples)))

    def collapse(self, predictions: Sequence[Prediction]) -> str | None:
        answers = [prediction["predicted"] for prediction in predictions]
        labels = [prediction["label"] for prediction in predictions if "label" in prediction]
        if len(answers) < 2 or len(set(labels)) == 1:
            return None
        if self.settings.regression:
            allowed = _COLLAPSED_SPREAD * float(np.std(labels)) if labels else 0.0
            return f"always about {np.mean(answers):.4g}" if np.std(answers) <= allowed else None
        return f"always '{answers[0]}'" if len(set(answers)) == 1 else None

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels, "columns": self._trained_on}

    def load_state(self, state: dict[str, Any]) -> None:
        self.labels = list(state["labels"])
        # what was written before columns were is guessed as ever
        self._trained_on = {str(setting): str(name) for setting, name in state.get("columns", {}).items()}
        self._read_like = self._trained_on


def _target_scale(train: Sequence[Example]) -> TargetScale:
    """Mean and standard deviation of the labels.

    Raises:
        UserError: where float32, which the model reckons in, cannot hold the labels or tell them apart.
    """
    path, labels = train[0].path, np.array([example.label for example in train], dtype=np.float64)
    if labels.min() == labels.max():
        raise UserError(f"{path}: every label is {train[0].label}; there is nothing to learn.")
    with np.errstate(over="ignore", invalid="ignore"):
        scale = TargetScale(float(labels.mean()), float(labels.std()))
    if not _LEAST_SPREAD * abs(scale.mean) < scale.deviation < _LARGEST_SPREAD:
        raise UserError(
            f"{path}: the labels' mean is {scale.mean:.4g} and their standard deviation {scale.deviation:.4g}; the "
            "model's numbers have seven digits and cannot tell such labels apart. Subtract a constant, or divide."
        )
    return scale


def _in_order(labels: Collection[str]) -> list[str]:
    """Numbers by size, else by name."""
    if all(map(is_number, labels)):
        return sorted(labels, key=lambda label: (float(label), label))
    return sorted(labels)


def _tokenized(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[tuple[int, Feature]]:
    """For each example its length in tokens before it was cut, and what the model reads of it."""
    is_pair = examples[0].text_pair is not None
    if is_pair and tokenizer.num_special_tokens_to_add(pair=True) <= tokenizer.num_special_tokens_to_add(pair=False):
        raise UserError("the model's tokenizer puts nothing between the two texts of a pair; choose another model.")
    for start in range(0, len(examples), _TEXTS_AT_ONCE):
        batch = examples[start : start + _TEXTS_AT_ONCE]
        texts: list[list[Any]] = [[example.text for example in batch]]
        if is_pair:
            texts.append([example.text_pair for example in batch])
        encoded: dict[str, Any] = dict(tokenizer(*texts, verbose=False))
        lengths = [len(ids) for ids in encoded["input_ids"]]
        long = [number for number, length in enumerate(lengths) if length > max_length]
        if long:
            long_texts = [[side[number] for number in long] for side in texts]
            cut: dict[str, Any] = dict(tokenizer(*long_texts, truncation=True, max_length=max_length))
            for place, number in enumerate(long):
                for name, values in encoded.items():
                    values[number] = cut[name][place]
        for number, length in enumerate(lengths):
            yield length, {name: values[number] for name, values in encoded.items()}


def _correlation(function: Callable[[Any, Any], Any], labels: Sequence[Any], predicted: Sequence[Any]) -> float:
    """100 times a correlation; 0 where one side is constant, but for rounding, or not finite."""
    if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearConstantInputWarning)
        return 100 * float(np.nan_to_num(function(labels, predicted).statistic))


def _variance_explained(labels: Sequence[Any], predicted: Sequence[Any]) -> float:
    """100 times the coefficient of determination; 0 of constant labels, the worst where a prediction is no number."""
    if np.ptp(labels) == 0:
        return 0.0
    if not np.isfinite(predicted).all():
        return _WORST_R2
    with np.errstate(over="ignore", invalid="ignore"):
        share = float(r2_score(labels, predicted))
    return max(_WORST_R2, 100 * share) if math.isfinite(share) else _WORST_R2
