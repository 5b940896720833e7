"""What a task is to fine-tuning: it reads files, makes features, and turns logits into predictions and scores.

The three tasks (classification, token classification, question answering) are classes of their own; everything that
trains, repeats over seeds or reports knows them only through this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments

# What the model reads: `input_ids`, `attention_mask` and where the tokenizer gives them `token_type_ids`, lists of the
# same length; what it is to say (`labels`, or `start_positions` and `end_positions`); and `example`, the index of the
# example it was made of: a long one makes several.
Feature: TypeAlias = dict[str, Any]
# A JSON object that says what was predicted for one example.
Prediction: TypeAlias = dict[str, Any]
Logits: TypeAlias = NDArray[np.float32]
# Where examples come from that no file holds.
RUNNING_TEXT = "the text that was given"
RUNNING_TEXT_ELSEWHERE = (
    "Running text, a text a line, goes to standard input: spanelectra predict --model MODEL < FILE."
)


@dataclass(frozen=True)
class Baseline:
    """What somebody scores who has learned nothing but the commonest answer.

    Attributes:
        name: that answer, in words: "always 'positive'".
        scores: metric -> value, the same metrics as :meth:`Task.score`'s.
    """

    name: str
    scores: dict[str, float]


def is_label(name: str) -> bool:
    """Whether a baseline of this name gives always the same label, and no number or text."""
    return name.startswith("always '")


@dataclass(frozen=True)
class TargetScale:
    """How the numbers of a regression are trained on: with mean 0 and standard deviation 1, whatever their units.

    Attributes:
        mean: of the training labels.
        deviation: their standard deviation, above 0.
    """

    mean: float
    deviation: float

    def standardised(self, value: float) -> float:
        """A label as it is trained on."""
        return (value - self.mean) / self.deviation

    def restored(self, logits: Logits) -> Logits:
        """What a model that was trained on standardised labels says, in the units of the files."""
        return logits * np.float32(self.deviation) + np.float32(self.mean)


class Task(ABC):
    """One kind of task, with one task's settings.

    Args:
        settings: resolved settings; columns, metric and lengths are read from there.

    Attributes:
        kind: what ``--task`` calls it.
        model_class: name of the stock ``AutoModelFor…`` class.
        unit: what an example is called, in the plural.
        standing: how it is said that their inputs stand somewhere; see :meth:`input_of`.
        metric: the score by which the best checkpoint is chosen. All scores are times 100, correlations too, as the
            tables of GLUE and SQuAD have them; higher is better.
        remarks: counted warnings ("12 of 4,076 lines …"), for whoever runs the task to say aloud, once each.
        target_scale: how labels are standardised in the features of training; ``None`` where they are as they stand.
    """

    kind: ClassVar[str]
    model_class: ClassVar[str]
    unit: ClassVar[str]
    standing: ClassVar[str] = "stand"
    metric: str

    def __init__(self, settings: FineTuningArguments) -> None:
        self.settings = settings
        self.remarks: list[str] = []
        self.target_scale: TargetScale | None = None

    def remark(self, *remarks: str) -> None:
        """Keep remarks, each once, however often a file is read or an input is cut."""
        self.remarks += [remark for remark in dict.fromkeys(remarks) if remark not in self.remarks]

    @abstractmethod
    def read(self, path: str, *, labelled: bool = True) -> list[Any]:
        """Read one file into examples, every line checked.

        Args:
            labelled: whether labels must be there (a file to predict on may have none).

        Raises:
            UserError: naming file, line and field.
        """

    def examples_of(self, texts: Iterable[str], contexts: Iterable[str] | None, first: int = 1) -> list[Any]:
        """Make examples of running text, without labels.

        Args:
            texts: texts, or questions.
            contexts: as many: the second text of each pair, or what holds each answer.
            first: number of the first text.

        Raises:
            UserError: something is no text; or there are no contexts and there must be, the reverse, or not as many as
                texts.
        """
        if isinstance(texts, str) or isinstance(contexts, str):
            raise UserError("texts and contexts are lists of texts; a text alone is ['…'].")
        texts, contexts = list(texts), None if contexts is None else list(contexts)
        wanted = self.context_in_words
        if (contexts is not None) != (wanted is not None):
            needs = f"{wanted} as well: give it as context" if wanted else "no context: leave it out"
            raise UserError(f"this model's task ({self.kind}) needs {needs}.")
        if contexts is not None and len(contexts) != len(texts):
            raise UserError(f"{len(texts):,} texts and {len(contexts):,} contexts; there must be one for each.")
        for name, values in (("text", texts), ("context", contexts or ())):
            for number, value in enumerate(values, start=first):
                _check_text(value, f"{name} {number:,}")
        pairs = zip(texts, [None] * len(texts) if contexts is None else contexts, strict=True)
        return [self.example_of(text, context, number) for number, (text, context) in enumerate(pairs, start=first)]

    def line_of(self, example: Any) -> int | None:
        """The line of its file that an example begins in; ``None`` where nobody knows."""
        del example
        return None

    @property
    def context_in_words(self) -> str | None:
        """What an example has beside its text."""
        return None

    @abstractmethod
    def example_of(self, text: str, context: str | None, number: int) -> Any:
        """The example that is made of a running text, without a label.

        Args:
            context: where the task has one, it is given.
            number: the text's, from 1; it stands for a line of a file.
        """

    def notes(self, *, scored: bool = True) -> list[str]:
        """How files were understood and, if there is one, what a score means, for whoever runs the task to say."""
        del scored
        return []

    @abstractmethod
    def fit(self, train: Sequence[Any]) -> None:
        """Learn from training examples what must be known before there is a model: the labels."""

    @abstractmethod
    def check(self, examples: Sequence[Any], path: str) -> None:
        """Check another split, or what was drawn of training, against what :meth:`fit` saw.

        Raises:
            UserError: for a label that training never saw, with file and line.
        """

    @abstractmethod
    def input_of(self, example: Any) -> Hashable:
        """What a model could remember of an example: its text, or a question's context; falsy where there is none."""

    def shared_with_training(self, train: Sequence[Any], examples: Sequence[Any]) -> int:
        """How many of ``examples`` have an input that one of ``train`` has, too."""
        known = {self.input_of(example) for example in train}
        return sum(bool(key := self.input_of(example)) and key in known for example in examples)

    @abstractmethod
    def config_changes(self) -> dict[str, Any]:
        """Fields of the model's configuration: ``num_labels``, ``id2label``, ``label2id``, ``problem_type``."""

    @abstractmethod
    def features(
        self, examples: Sequence[Any], tokenizer: PreTrainedTokenizerBase, max_length: int, *, training: bool
    ) -> list[Feature]:
        """Tokenise. Nothing is cut silently: long examples make several features, or a remark says how many were cut.

        Args:
            max_length: the longest feature in tokens, special tokens included.
            training: with labels, as training takes them; otherwise without.
        """

    @abstractmethod
    def predict(
        self, examples: Sequence[Any], features: Sequence[Feature], logits: Sequence[Logits]
    ) -> list[Prediction]:
        """One prediction an example, in their order; with the example's own label where there is one.

        Args:
            features: as :meth:`features` made them of ``examples``.
            logits: for each feature, without padding: (labels,) for classification, (length, labels) for tokens,
                (length, 2) for the starts and ends of answers; a number in the files' units for regression. float32.
        """

    @abstractmethod
    def score(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Metric -> value; :attr:`metric` is among them."""

    @abstractmethod
    def baseline(self, train: Sequence[Any], examples: Sequence[Any]) -> Baseline:
        """What somebody answers who knows ``train`` and reads no input closely, scored on ``examples``."""

    @abstractmethod
    def collapse(self, predictions: Sequence[Prediction]) -> str | None:
        """What a model that gives always the same answer answers, in words, or ``None`` for one that does not."""

    def choose(self, examples: Sequence[Any], features: Sequence[Feature], logits: Sequence[Logits]) -> None:
        """Choose on dev whatever is not learned by gradient (the null threshold of question answering)."""
        del examples, features, logits

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """From a list of features to a padded batch of tensors."""
        return DataCollatorWithPadding(tokenizer)

    def state(self) -> dict[str, Any]:
        """What :meth:`fit` and :meth:`choose` found, as JSON."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        del state


def _check_text(value: Any, where: str) -> None:
    """Raise :class:`UserError` where something is no text that UTF-8 can write."""
    if not isinstance(value, str):
        raise UserError(f"{where} is {value!r}, not text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise UserError(f"{where} holds half a character ({half!r}), which is no text; was it read as UTF-8?") from None
