"""The command ``spanelectra evaluate``: a fine-tuned model on a file, or a pre-trained run on any text."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from spanelectra.atomic_files import write_directory, write_json
from spanelectra.console import make_console, make_results_console, say, sound_alarm, warn
from spanelectra.data.output_directory import check_output_directory
from spanelectra.errors import UserError

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
    # here, for help must not take the seconds that these take
    from spanelectra.checkpointing import METRICS_NAME
    from spanelectra.finetuning.task_directory import check_place, holds_task_model, write_predictions
    from spanelectra.finetuning.task_evaluation import evaluate_task, print_scores
    from spanelectra.intrinsic_report import intrinsic_report
    from spanelectra.intrinsic_tables import print_intrinsic_report

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
        results, predictions = evaluate_task(model, data, of_file, console)
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
        show = print_scores if is_fine_tuned else print_intrinsic_report
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
