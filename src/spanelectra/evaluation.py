"""The command ``spanelectra evaluate``: a fine-tuned model on a file, or a pre-trained run on any text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spanelectra.atomic_files import file_digest, write_directory, write_json
from spanelectra.checkpointing import METRICS_NAME
from spanelectra.console import calm_transformers, make_console, make_results_console, say, sound_alarm, warn
from spanelectra.data.output_directory import check_output_directory
from spanelectra.environment import describe_environment
from spanelectra.errors import UserError
from spanelectra.finetuning.inference import predict_examples
from spanelectra.finetuning.task_directory import holds_task_model, open_task_model, write_predictions
from spanelectra.intrinsic_report import intrinsic_report, print_intrinsic_report

PREDICTIONS_NAME = "predictions.jsonl"
# Texts without labels from which on one answer to all of them is suspicious.
FEWEST_TO_JUDGE = 20


def evaluate(
    model: str,
    data: str,
    out_dir: str | None = None,
    labelled: bool = True,
    rows: int = 512,
    seed: int = 0,
    text_column: str = "text",
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
        labelled: of a fine-tuned model: whether the file has labels; without them there are predictions only.
        rows: of text: rows that are masked and judged.
        seed: of text: of the masks.
        text_column: of text: column of records.
        max_seq_length: of text: tokens in a row; by default those of the run's rows.
        encoding: of the file, or of text files.
        overwrite: replace an earlier evaluation in out_dir.
        quiet: print nothing.

    Returns:
        Scores of a fine-tuned model under ``scores``, or the report of
        :func:`~spanelectra.intrinsic_report.intrinsic_report`.

    Raises:
        UserError: for a model or a file that does not open, or an out_dir in use.
    """
    console = make_console(quiet)
    names = (METRICS_NAME, PREDICTIONS_NAME)
    target = None if out_dir is None else check_output_directory(out_dir, names, overwrite=overwrite)
    is_fine_tuned = holds_task_model(model)
    of_text: dict[str, Any] = {"rows": rows, "seed": seed, "text_column": text_column, "max_seq_length": max_seq_length}
    _check_flags(is_fine_tuned, of_text, labelled, out_dir)
    predictions = None
    if is_fine_tuned:
        results, predictions = _evaluate_task(model, data, labelled, encoding, console)
        for remark in results["remarks"]:
            warn(console, remark)
        # a few texts may well be all of one class
        if results["collapsed"] and (labelled or results["examples"] >= FEWEST_TO_JUDGE):
            sound_alarm(console, f"the model gives one answer to everything: {results['collapsed']}.")
        for name, value in results["scores"].items():
            say(make_results_console(quiet), f"{name:<20} {value:.2f}")
    else:
        results = intrinsic_report(model, data, **of_text, encoding=encoding, quiet=quiet)
        print_intrinsic_report(results, make_results_console(quiet))
    if target is not None:
        with write_directory(target, replace=overwrite) as partial:
            write_json(partial / METRICS_NAME, results)
            if predictions is not None:
                write_predictions(partial / PREDICTIONS_NAME, predictions)
        say(console, f"{target}: written")
    return results


def _check_flags(is_fine_tuned: bool, of_text: dict[str, Any], labelled: bool, out_dir: str | None) -> None:
    """Raise :class:`UserError` for what would change nothing, or show nothing."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(evaluate).parameters.items()}
    for name, value in of_text.items():
        if is_fine_tuned and value != defaults[name]:
            raise UserError(f"{name} is for a pre-trained run; a fine-tuned model reads files as it was trained to.")
    if not is_fine_tuned and not labelled:
        raise UserError("labelled is for a fine-tuned model; a pre-trained run is evaluated on text.")
    if not labelled and out_dir is None:
        raise UserError("without labels there are predictions only: pass --out_dir, where they are written.")


def _evaluate_task(
    model: str, data: str, labelled: bool, encoding: str, console: Console
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    calm_transformers()
    stock, tokenizer, task = open_task_model(model)
    stock.to("cuda" if torch.cuda.is_available() else "cpu")
    data = str(Path(data).expanduser())
    task.settings.encoding = encoding
    examples = task.read(data, labelled=labelled)
    if labelled:
        task.check(examples, data)
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("predicting", total=None)
        predictions = predict_examples(
            stock, tokenizer, task, examples, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    results = {
        "model": Path(model).name,
        "task": task.kind,
        "metric": task.metric,
        "examples": len(examples),
        "scores": task.score(examples, predictions) if labelled else {},
        "collapsed": task.collapse(predictions),
        "data": {"file": Path(data).name, "sha256": file_digest(Path(data))},
        "remarks": task.remarks,
        "environment": describe_environment(),
    }
    return results, predictions
