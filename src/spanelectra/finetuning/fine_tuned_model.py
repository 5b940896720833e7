"""A fine-tuned model that answers: texts or a task's examples -> predictions, read as in its training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.console import silent_transformers
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import READ_BY
from spanelectra.finetuning.inference import predict_logits
from spanelectra.finetuning.task import Prediction, Task
from spanelectra.finetuning.task_directory import open_task_model


class FineTunedModel:
    """What ``spanelectra finetune`` wrote, ready to answer.

    Windows of long inputs, the token that speaks for a word, best answers and the threshold for none are those of its
    training, which a ``pipeline`` of transformers does not know.

    Args:
        model, tokenizer, task: as :func:`~spanelectra.finetuning.task_directory.open_task_model` gives them.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str | None = None) -> FineTunedModel:
        """Open a fine-tuning run, or the model in it.

        Args:
            directory: ``OUT`` or ``OUT/model``.
            device: torch's name of it; by default a GPU where there is one.

        Raises:
            UserError: where there is no such model, or it is damaged.
        """
        with silent_transformers():
            model, tokenizer, task = open_task_model(directory)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, task)

    def predict(self, texts: Iterable[str], contexts: Iterable[str] | None = None) -> list[Prediction]:
        """What the model says of running texts. Warns where one is longer than it reads.

        Args:
            texts: texts, or questions.
            contexts: as many: what holds each question's answer, or the second text of each pair.

        Returns:
            One JSON object a text, in their order; its keys are those of the task's ``predict``.

        Raises:
            UserError: something is no text; or there are no contexts and there must be, the reverse, or not as many as
                texts.
        """
        predictions = self.predict_examples(self.task.examples_of(texts, contexts))
        for remark in self.task.remarks:
            warnings.warn(remark, stacklevel=2)
        self.task.remarks.clear()
        return predictions

    def predict_examples(self, examples: Sequence[Any], console: Console | None = None) -> list[Prediction]:
        """What the model says of examples, in their order; what it remarks on is under ``task.remarks``.

        Args:
            examples: the task's own, as its ``read`` or ``examples_of`` gives them; labels and answers may be ``None``.
            console: where a bar is drawn, if it is a terminal.
        """
        if not examples:
            return []
        settings = self.task.settings
        assert settings.max_length is not None
        features = self.task.features(examples, self.tokenizer, settings.max_length, training=False)
        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        hidden = console is None or not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
            bar = progress.add_task("predicting", total=len(features))
            logits = predict_logits(
                self.model,
                self.tokenizer,
                features,
                settings.eval_batch_size,
                on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        return self.task.predict(examples, features, logits)

    def read_differently(self, settings: dict[str, str | None]) -> None:
        """Set how files are read, where they are not read as in training.

        Args:
            settings: name -> value, ``None`` for that of training.

        Raises:
            UserError: for a setting that the task, or this model, does not have.
        """
        task = self.task
        for name, value in settings.items():
            if value is None:
                continue
            readers = READ_BY.get(name, (task.kind,))
            if task.kind not in readers:
                raise UserError(f"{name} is for {' and '.join(readers)}; this model's task is {task.kind}.")
            if name == "text_pair_column" and task.settings.text_pair_column is None:
                raise UserError("text_pair_column: this model was trained on single texts, not on pairs.")
            setattr(task.settings, name, value)
