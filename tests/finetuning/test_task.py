"""What a task does that says no more than it must."""

from __future__ import annotations

import pytest
import torch

from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.task import Task
from spanelectra.finetuning.task_directory import TASKS
from tiny_tasks import make_tokenizer


def least_task() -> Task:
    """Every abstract method does nothing."""
    methods = {name: lambda *given, **more: None for name in Task.__abstractmethods__}
    return type("LeastTask", (Task,), methods)(FineTuningArguments())


def test_defaults() -> None:
    task = least_task()
    assert task.remarks == [] and task.state() == {}
    task.load_state({"anything": 1})
    task.choose([], [], [])
    batch = task.collator(make_tokenizer())([{"input_ids": [1, 5, 2], "label": 1}, {"input_ids": [1, 2], "label": 0}])
    assert torch.equal(batch["input_ids"], torch.tensor([[1, 5, 2], [1, 2, 0]]))
    assert batch["labels"].tolist() == [1, 0] and batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_remark_is_kept_once() -> None:
    task = least_task()
    task.remark("one", "two", "one")
    task.remark("two", "three")
    assert task.remarks == ["one", "two", "three"]


def test_a_task_must_do_everything_else() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Task(FineTuningArguments())  # type: ignore[abstract]


def test_every_kind_is_a_task() -> None:
    assert list(TASKS) == ["classification", "token", "qa"]
    assert all(issubclass(task, Task) and task.kind == kind for kind, task in TASKS.items())
