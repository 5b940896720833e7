"""A fine-tuned model and a file with labels -> scores, beside those of the file's own commonest answer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from spanelectra.atomic_files import file_digest
from spanelectra.checkpointing import METRICS_NAME, MODEL_DIRECTORY
from spanelectra.console import calm_transformers, say
from spanelectra.environment import describe_environment
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.task import Prediction, Task, is_label


def evaluate_task(
    model: str, data: str, of_file: dict[str, str | None], console: Console
) -> tuple[dict[str, Any], list[Prediction]]:
    """Read a file as the training file was read, answer it and score the answers.

    Args:
        model: a fine-tuned model's directory.
        data: the file.
        of_file: settings of reading that replace those of the training file, where they are not ``None``.
        console: for notes and progress.

    Returns:
        What :func:`~spanelectra.evaluation.evaluate` returns of a fine-tuned model, and the answers.

    Raises:
        UserError: for a model or a file that does not open.
    """
    calm_transformers()
    fine_tuned = FineTunedModel.from_pretrained(model)
    task = fine_tuned.task
    data = str(Path(data).expanduser())
    fine_tuned.read_differently(of_file)
    examples = _read_examples(task, data, of_file["label_column"])
    digest = file_digest(Path(data))
    if _is_trained_on(model, digest):
        task.remark(f"{data} is the file that this model was trained on: scores tell how well it is remembered.")
    say(console, f"{task.kind}: {len(examples):,} {task.unit}")
    for note in task.notes():
        say(console, note)
    predictions = fine_tuned.predict_examples(examples, console)
    results = {
        "model": Path(model).name,
        "task": task.kind,
        "metric": task.metric,
        "examples": len(examples),
        "scores": task.score(examples, predictions),
        "baseline": dataclasses.asdict(task.baseline(examples, examples)),
        "collapsed": task.collapse(predictions),
        "data": {"file": Path(data).name, "sha256": digest},
        "remarks": task.remarks,
        "environment": describe_environment(),
    }
    return results, predictions


def print_scores(results: dict[str, Any], console: Console) -> None:
    """A line for each score, first of the metric that the model was chosen by, beside that of the commonest answer."""
    baseline, metric = results["baseline"], results["metric"]
    width = max(map(len, results["scores"]), default=0)
    for name, value in sorted(results["scores"].items(), key=lambda score: score[0] != metric):
        # fine-tuning shows that of the training file, which may be another
        commonest = ", the commonest of this file" if is_label(baseline["name"]) else ""
        beside = f"   ({baseline['name']}{commonest}: {baseline['scores'][name]:.2f})"
        say(console, f"{name:<{width}}  {value:.2f}{beside if name == metric else ''}")


def _is_trained_on(model: str, digest: str) -> bool:
    """Whether a fine-tuning run, or the one that a model lies in, says that it was trained on a file."""
    path = Path(model).expanduser().resolve()
    run = path if (path / MODEL_DIRECTORY).is_dir() else path.parent
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        metrics = json.loads((run / METRICS_NAME).read_text(encoding="utf-8"))
        return bool(metrics["data"]["train"]["sha256"] == digest)
    return False


def _read_examples(task: Task, data: str, label_column: str | None) -> list[Any]:
    """The examples of a file; an error says what to do where it can be read without labels.

    Not where a column was named, which says that there are labels.
    """
    try:
        examples = task.read(data)
        task.check(examples, data)
    except UserError as error:
        if label_column is not None:
            raise
        try:
            task.read(data, labelled=False)
        except UserError:
            raise error from None
        raise UserError(f"{error} For answers alone: spanelectra predict --model MODEL --data {data}.") from None
    return examples
