"""The command ``spanelectra predict``: what a fine-tuned model says of texts, or of a file like its training file."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spanelectra.console import calm_transformers, make_console, say, sound_alarm, warn
from spanelectra.data.text_files import read_lines
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.fine_tuning_args import READ_BY
from spanelectra.finetuning.task import Prediction, Task
from spanelectra.finetuning.task_directory import write_predictions

# Texts without labels from which on one answer to all of them is suspicious.
FEWEST_TO_JUDGE = 20
_STANDARD_INPUT = Path("/dev/stdin")


def predict(
    model: str,
    texts: Sequence[str] = (),
    data: str | None = None,
    context: str | None = None,
    out_file: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    header: Literal["auto", "yes", "no"] | None = None,
    encoding: str = "utf-8",
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Prediction]:
    """Say what a fine-tuned model makes of texts: those given, else a file's, else a text a line of standard input.

    Answers are JSON objects, one a line, on standard output or in a file.

    Args:
        model: what `spanelectra finetune` wrote.
        texts: texts, or questions about a context.
        data: a file like the training file, with labels or without.
        context: of questions the text that holds the answer; of a model of pairs every pair's second text.
        out_file: a file for the answers instead of standard output.
        text_column: the data's column of the text. This and the next two are by default as they were for the training
            file.
        text_pair_column: the data's column of the pair's second text.
        header: whether the data's first line names the columns.
        encoding: of the data, or of standard input.
        overwrite: replace out_file.
        quiet: say nothing beside the answers.

    Returns:
        The answers; see the ``predict`` of each task.

    Raises:
        UserError: for a model, a file or texts that cannot be read, or an out_file that is there.
    """
    console = make_console(quiet)
    target = None if out_file is None else _check_file(out_file, overwrite)
    of_data = {"text_column": text_column, "text_pair_column": text_pair_column, "header": header}
    _check_source(list(texts), data, context, of_data)
    calm_transformers()
    fine_tuned = FineTunedModel.from_pretrained(model)
    task = fine_tuned.task
    if data is None:
        given = list(texts) or [line.rstrip("\n") for line in read_lines(_STANDARD_INPUT, encoding=encoding)]
        if not given:
            raise UserError("standard input is empty; a text a line is expected.")
        examples = task.examples_of(given, None if context is None else [context] * len(given))
    else:
        read_differently(task, of_data | {"encoding": encoding})
        examples = task.read(str(Path(data).expanduser()), labelled=False)
        say(console, f"{task.kind}: {len(examples):,} {task.unit}")
        for note in task.notes(scored=False):
            say(console, note)
    predictions = predict_with_bar(fine_tuned, examples, console)
    for remark in task.remarks:
        warn(console, remark)
    collapse = task.collapse(predictions)
    # a few texts may well be all of one class
    if collapse is not None and len(examples) >= FEWEST_TO_JUDGE:
        sound_alarm(console, f"the model gives one answer to everything: {collapse}.")
    if target is None:
        _print_lines(predictions)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(target, predictions)
        say(console, f"{target}: written")
    return predictions


def predict_with_bar(model: FineTunedModel, examples: Sequence[Any], console: Console) -> list[Prediction]:
    """What the model says of examples, with a bar where the console is a terminal."""
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("predicting", total=None)
        return model.predict_examples(examples, lambda done, total: progress.update(bar, completed=done, total=total))


def read_differently(task: Task, settings: dict[str, str | None]) -> None:
    """Set how a file is read, where it is not read as in training.

    Args:
        settings: name -> value, ``None`` for that of training.

    Raises:
        UserError: for a setting that the task, or this model, does not have.
    """
    for name, value in settings.items():
        if value is None:
            continue
        readers = READ_BY.get(name, (task.kind,))
        if task.kind not in readers:
            raise UserError(f"{name} is for {' and '.join(readers)}; this model's task is {task.kind}.")
        if name == "text_pair_column" and task.settings.text_pair_column is None:
            raise UserError("text_pair_column: this model was trained on single texts, not on pairs.")
        setattr(task.settings, name, value)


def _print_lines(predictions: Sequence[Prediction]) -> None:
    """A JSON object a line on standard output, which may be closed by who has read enough."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, wherever one is
    try:
        for prediction in predictions:
            print(json.dumps(prediction, ensure_ascii=False))
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would try once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_source(texts: list[str], data: str | None, context: str | None, of_data: dict[str, str | None]) -> None:
    """Raise :class:`UserError` unless it is clear what is to be answered."""
    if texts and data is not None:
        raise UserError("texts are given, and data: give one of them.")
    if data is not None and context is not None:
        raise UserError("context is for given texts; data has a context, or a second text, for each of its own.")
    for name, value in of_data.items():
        if value is not None and data is None:
            raise UserError(f"{name} is for data, and there is none: texts are read as they are.")
    for text in [*texts, *([] if context is None else [context])]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{text[:40]!r} holds half a character, which is no text; is the terminal UTF-8?") from None
    if not texts and data is None and sys.stdin.isatty():
        raise UserError(
            "there is no text: give texts in quotation marks, --data FILE, or standard input, a text a line."
        )


def _check_file(out_file: str, overwrite: bool) -> Path:
    """Return ``out_file``, resolved, if it may be written; else raise :class:`UserError`."""
    path = Path(out_file).expanduser().resolve()
    if path.is_dir():
        raise UserError(f"out_file '{out_file}' is a directory; give the name of a file in it.")
    if path.exists() and not overwrite:
        raise UserError(f"out_file '{out_file}' is there already; choose another, or replace it with --overwrite.")
    return path
