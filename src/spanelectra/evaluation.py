"""The command ``spanelectra evaluate``: a fine-tuned model on a file, or a pre-trained run on any text."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from spanelectra.atomic_files import file_digest, write_directory, write_json
from spanelectra.checkpointing import METRICS_NAME, MODEL_DIRECTORY
from spanelectra.console import calm_transformers, make_console, make_results_console, say, sound_alarm, warn
from spanelectra.data.output_directory import check_output_directory
from spanelectra.environment import describe_environment
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.task import Prediction, Task, is_label
from spanelectra.finetuning.task_directory import check_place, holds_task_model, write_predictions
from spanelectra.intrinsic_report import intrinsic_report
from spanelectra.intrinsic_tables import print_intrinsic_report

PREDICTIONS_NAME = "predictions.jsonl"


def evaluate(
    model: str,
    data: str,
    out_dir: str | None = None,
    rows: int = 512,
    seed: int = 0,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    header: Literal["auto", "yes", "no"] | None = None,
    max_seq_length: int | None = None,
    encoding: str = "utf-8",
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score a fine-tuned model on a new file, or say what a pre-trained run has learned, on any text.

    Args:
        model: what `spanelectra finetune` or `spanelectra pretrain` wrote, or `spanelectra export`.
        data: for a fine-tuned model a file like its training file; for a run text, as `spanelectra prepare` takes it,
            or a directory of prepared rows.
        out_dir: directory for metrics.json, and for predictions.jsonl of a fine-tuned model.
        rows: of text: rows that are masked and judged.
        seed: of text: of the masks.
        text_column: of text: column of records, by default text; of a file for a fine-tuned model: its column of the
            text. This and the next three are by default as they were for the training file.
        text_pair_column: of a file for a fine-tuned model: the pair's second text.
        label_column: of a file for a fine-tuned model: the label.
        header: of a file for a fine-tuned model: whether its first line names the columns.
        max_seq_length: of text: tokens in a row; by default those of the run's rows.
        encoding: of the file, or of text files.
        overwrite: replace an earlier evaluation in out_dir.
        quiet: print nothing.

    Returns:
        Scores of a fine-tuned model under ``scores``, under ``baseline`` those of the file's own commonest answer; or
        the report of :func:`~spanelectra.intrinsic_report.intrinsic_report`.

    Raises:
        UserError: for a model or a file that does not open, or an out_dir in use.
    """
    console = make_console(quiet)
    names = (METRICS_NAME, PREDICTIONS_NAME)
    target = None if out_dir is None else check_output_directory(out_dir, names, overwrite=overwrite)
    is_fine_tuned = holds_task_model(model)
    of_text: dict[str, Any] = {"rows": rows, "seed": seed, "max_seq_length": max_seq_length}
    of_file = {"text_pair_column": text_pair_column, "label_column": label_column, "header": header}
    check_place(model, "`spanelectra finetune` or `spanelectra pretrain`")
    _check_flags(model, is_fine_tuned, of_text, of_file)
    predictions = None
    if is_fine_tuned:
        of_file |= {"text_column": text_column, "encoding": encoding}
        results, predictions = _evaluate_task(model, data, of_file, console)
        for remark in results["remarks"]:
            warn(console, remark)
        if results["collapsed"]:
            sound_alarm(console, f"the model gives one answer to everything: {results['collapsed']}.")
    else:
        of_text["text_column"] = text_column or "text"
        results = intrinsic_report(model, data, **of_text, encoding=encoding, quiet=quiet)
    try:
        if target is not None:
            with write_directory(target, replace=overwrite) as partial:
                write_json(partial / METRICS_NAME, results)
                if predictions is not None:
                    write_predictions(partial / PREDICTIONS_NAME, predictions)
            say(console, f"{target}: written")
    finally:
        # last, for who reads it may close the pipe; and also where nothing can be written
        show = _print_scores if is_fine_tuned else print_intrinsic_report
        show(results, make_results_console(quiet))
    return results


def _check_flags(model: str, is_fine_tuned: bool, of_text: dict[str, Any], of_file: dict[str, Any]) -> None:
    """Raise :class:`UserError` for what would change nothing."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    for name, value in (of_text if is_fine_tuned else of_file).items():
        if value != defaults[name] and is_fine_tuned:
            raise UserError(f"{name} is for a pre-trained run, and {model} is a fine-tuned model.")
        if value != defaults[name]:
            raise UserError(f"{name} is for a fine-tuned model, and {model} is none: it is evaluated on text.")


def _print_scores(results: dict[str, Any], console: Console) -> None:
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


def _evaluate_task(
    model: str, data: str, of_file: dict[str, str | None], console: Console
) -> tuple[dict[str, Any], list[Prediction]]:
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
