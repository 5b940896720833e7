"""The command ``spanelectra predict``: what a fine-tuned model says of texts, or of a file like its training file."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spanelectra.console import calm_transformers, make_console, say, warn
from spanelectra.data.text_files import read_stream_lines
from spanelectra.errors import UserError

if TYPE_CHECKING:
    from spanelectra.finetuning.task import Prediction, Task

# Different inputs from which on one answer to all of them is worth a word.
FEWEST_TO_JUDGE = 20
# Lines of standard input that are read before they are answered.
LINES_AT_ONCE = 2000


def predict(
    model: str,
    texts: Sequence[str] | None = None,
    data: str | None = None,
    context: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    header: Literal["auto", "yes", "no"] | None = None,
    encoding: str | None = None,
    quiet: bool = False,
) -> None:
    """Print what a fine-tuned model says of texts: those given, else a file's, else a text a line of standard input.

    Answers are JSON objects in UTF-8, one a line. (In Python :class:`FineTunedModel` gives them as objects.)

    Args:
        model: what `spanelectra finetune` wrote.
        texts: texts, or questions about a context.
        data: a file like the training file, with labels or without.
        context: of questions the text that holds the answer; of a model of pairs every pair's second text.
        text_column: the data's column of the text. This and the next two are by default as they were for the training
            file.
        text_pair_column: the data's column of the pair's second text.
        header: whether the data's first line names the columns.
        encoding: of the data, or of standard input; by default utf-8.
        quiet: say nothing beside the answers.

    Raises:
        UserError: for a model, a file or texts that cannot be read.
        SystemExit: nobody reads the answers any more.
    """
    console = make_console(quiet)
    of_data = {"text_column": text_column, "text_pair_column": text_pair_column, "header": header}
    _check_source(texts, data, context, of_data, encoding)
    # here, for help and mistakes must not take the seconds that this takes
    from spanelectra.finetuning.fine_tuned_model import FineTunedModel

    calm_transformers()
    fine_tuned = FineTunedModel.from_pretrained(model)
    task = fine_tuned.task
    collapse = _Collapse(task)
    if texts is not None and len(texts) > 1 and not any(" " in text for text in texts):
        warn(console, f"{len(texts)} texts of one word each: a text of several words stands in quotation marks.")
    if data is None:
        parts = _examples_of_texts(task, texts, context, encoding or "utf-8")
    else:
        fine_tuned.read_differently(of_data | {"encoding": encoding})
        examples = _read(task, data)
        say(console, f"{task.kind}: {len(examples):,} {task.unit}")
        for note in task.notes(scored=False):
            say(console, note)
        parts = iter([([task.line_of(example) for example in examples], examples)])
    for lines, examples in parts:
        predictions = fine_tuned.predict_examples(examples, console)
        _print_lines([{"line": line} | answer for line, answer in zip(lines, predictions, strict=True)])
        collapse.look(examples, predictions)
        for remark in task.remarks:
            warn(console, remark)
        task.remarks.clear()
    if collapse.answer is not None:
        warn(console, f"one answer to everything: {collapse.answer}. Is that to be expected?")


def _read(task: Task, data: str) -> list[Any]:
    """The examples of a file; where it may be running text, an error says where that goes."""
    from spanelectra.finetuning.task import RUNNING_TEXT_ELSEWHERE

    path = Path(data).expanduser()
    try:
        return task.read(str(path), labelled=False)
    except UserError as error:
        if task.kind == "token" and path.is_file():
            raise UserError(f"{error} {RUNNING_TEXT_ELSEWHERE}") from None
        raise


class _Collapse:
    """Whether there is one answer to many different inputs."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._inputs: set[Any] = set()
        self._answers: set[str | None] = set()

    def look(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> None:
        """Take in some more."""
        if len(self._inputs) < FEWEST_TO_JUDGE:
            self._inputs |= {key for example in examples if (key := self._task.input_of(example))}
        if len(predictions) > 1:
            self._answers.add(self._task.collapse(predictions))

    @property
    def answer(self) -> str | None:
        """That answer in words, or ``None``."""
        return next(iter(self._answers)) if len(self._inputs) >= FEWEST_TO_JUDGE and len(self._answers) == 1 else None


def _examples_of_texts(
    task: Task, texts: Sequence[str] | None, context: str | None, encoding: str
) -> Iterator[tuple[Sequence[int | None], list[Any]]]:
    """Numbers and examples of given texts, or of standard input's lines as they come in."""
    lines = iter(texts) if texts is not None else _standard_input(encoding)
    for first in itertools.count(1, LINES_AT_ONCE):
        part = list(itertools.islice(lines, LINES_AT_ONCE))
        if not part:
            if first == 1 and texts is None:
                raise UserError("standard input is empty; a text a line is expected.")
            return
        contexts = None if context is None else [context] * len(part)
        yield range(first, first + len(part)), task.examples_of(part, contexts, first)


def _standard_input(encoding: str) -> Iterator[str]:
    # a stream that Python put there, such as a test's, may be of text alone
    stream = getattr(sys.stdin, "buffer", None)
    lines = sys.stdin if stream is None else read_stream_lines(stream, "standard input", encoding=encoding)
    return (line.rstrip("\n") for line in lines)


def _print_lines(predictions: Sequence[Prediction]) -> None:
    """A JSON object a line on standard output, in UTF-8 whatever the terminal's encoding."""
    try:
        lines = [json.dumps(prediction, ensure_ascii=False, allow_nan=False) + "\n" for prediction in predictions]
    except ValueError:
        raise UserError("the model's answer is no number; its weights are damaged. Fine-tune again.") from None
    stream = getattr(sys.stdout, "buffer", None)
    try:
        if stream is None:
            sys.stdout.writelines(lines)
        else:
            stream.writelines(line.encode() for line in lines)
        sys.stdout.flush()
    except BrokenPipeError:
        # who read has read enough; Python would try once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def _check_source(
    texts: Sequence[str] | None,
    data: str | None,
    context: str | None,
    of_data: dict[str, str | None],
    encoding: str | None,
) -> None:
    """Raise :class:`UserError` unless it is clear what is to be answered."""
    if isinstance(texts, str):
        raise UserError("texts is a list; a text alone is ['…'].")
    if texts is not None and data is not None:
        raise UserError("texts are given, and data: give one of them.")
    if texts is not None and encoding is not None:
        raise UserError("encoding is for data and standard input; given texts have none.")
    if data is not None and context is not None:
        raise UserError("context is for given texts; data has a context, or a second text, for each of its own.")
    for name, value in of_data.items():
        if value is not None and data is None:
            raise UserError(f"{name} is for data, and there is none: texts are read as they are.")
    place = None if data is None else Path(data).expanduser()
    if data == "-" or (place is not None and place.exists() and not place.is_file()):
        raise UserError(f"data '{data}' is no regular file; standard input is read without --data, a text a line.")
    if texts is None and data is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UserError(
            "there is no text: give texts in quotation marks, --data FILE, or a text a line on standard input."
        )
