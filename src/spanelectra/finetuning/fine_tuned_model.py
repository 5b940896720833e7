"""A fine-tuned model that answers: texts or a task's examples -> predictions, read as in its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
        model, tokenizer, task = open_task_model(directory)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, task)

    def predict(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Prediction]:
        """What the model says of running texts.

        Args:
            texts: texts, or questions.
            contexts: as many: what holds each question's answer, or the second text of each pair.

        Returns:
            One JSON object a text, in their order; its keys are those of the task's ``predict``.

        Raises:
            UserError: there are no contexts and there must be, the reverse, or not as many as texts.
        """
        return self.predict_examples(self.task.examples_of(texts, contexts))

    def predict_examples(
        self, examples: Sequence[Any], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Prediction]:
        """What the model says of examples, in their order.

        Args:
            examples: the task's own, as its ``read`` or ``examples_of`` gives them; labels and answers may be ``None``.
            on_progress: told how many of the inputs made of them are done, and how many there are.
        """
        if not examples:
            return []
        settings = self.task.settings
        assert settings.max_length is not None
        features = self.task.features(examples, self.tokenizer, settings.max_length, training=False)
        logits = predict_logits(self.model, self.tokenizer, features, settings.eval_batch_size, on_progress=on_progress)
        return self.task.predict(examples, features, logits)
