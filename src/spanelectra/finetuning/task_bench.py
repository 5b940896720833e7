"""A task of a folder, read and tokenised once, on which encoders of one tokenizer are probed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.linear_probe import ProbeData, probe_layers
from spanelectra.finetuning.task import Task
from spanelectra.finetuning.task_data import read_splits
from spanelectra.finetuning.task_directory import make_task


@dataclass(frozen=True)
class TaskBench:
    """One task.

    Attributes:
        task: has learned its labels.
        data: features; ``None`` for question answering, which has no linear probe.
        baseline: the commonest answer's score.
        dev_examples: how many it is scored on.
    """

    task: Task
    data: ProbeData | None
    baseline: float
    dev_examples: int

    @classmethod
    def read(
        cls, settings: FineTuningArguments, tokenizer: PreTrainedTokenizerBase, dev_examples: int | None = None
    ) -> TaskBench:
        """Read the files that resolved settings name.

        Args:
            settings: ``max_train_examples`` are drawn by ``seed``.
            tokenizer: of the encoders; its ``model_max_length`` is what they can take.
            dev_examples: score on so many at most, drawn by ``seed``.

        Raises:
            UserError: for files that do not fit.
        """
        settings = settings.fitted_to(tokenizer.model_max_length)
        assert settings.max_length is not None
        task = make_task(settings)
        examples = read_splits(task, settings)
        dev = examples["dev"]
        if dev_examples is not None:
            drawn = np.random.default_rng(settings.seed).permutation(len(dev))[:dev_examples]
            dev = [dev[index] for index in sorted(drawn.tolist())]
        baseline = task.baseline(examples["train"], dev).scores[task.metric]
        if task.kind == "qa":
            return cls(task, None, baseline, len(dev))
        train_features, dev_features = (
            task.features(part, tokenizer, settings.max_length, training=True) for part in (examples["train"], dev)
        )
        return cls(task, ProbeData(train_features, dev, dev_features), baseline, len(dev))

    def layers(self, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float] | None:
        """See :func:`~spanelectra.finetuning.linear_probe.probe_layers`."""
        return None if self.data is None else probe_layers(encoder, tokenizer, self.task, self.data)


def read_benches(
    tasks: Mapping[str, FineTuningArguments], tokenizer: PreTrainedTokenizerBase, dev_examples: int | None = None
) -> dict[str, TaskBench]:
    """Read every task before the first one is worked on, so that a mistake in the last one costs nothing.

    Raises:
        UserError: for files that do not fit, naming the task.
    """
    benches = {}
    for name, settings in tasks.items():
        try:
            benches[name] = TaskBench.read(settings, tokenizer, dev_examples)
        except UserError as error:
            raise UserError(f"task {name}: {error}") from error
    return benches
