"""Files in SQuAD's layout, 1.1 or 2.0 -> questions, every field checked and every answer found in its context."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanelectra.data.records import json_records
from spanelectra.data.text_files import did_you_mean_path, read_lines
from spanelectra.errors import UserError, did_you_mean

# What may be wrong with a file that can be read all the same, and what becomes of it.
_MENDED = "answers are not at their answer_start but once elsewhere in the context, and were moved there"
_LOST = (
    "answers are not at their answer_start, nor once elsewhere: they count in scores, but nothing is learned from them"
)
_EMPTY = "answers hold no text and were left out"
_AT_ODDS = "questions have an is_impossible at odds with their answers and are taken for questions without an answer"
_SILENT = "questions have no answer and no is_impossible, and are taken for questions that the context does not answer"
_NOT_LEARNED = "questions have answers, but none that is found in the context, and are left out of training"


@dataclass(frozen=True)
class Answer:
    """A right answer.

    Attributes:
        text: without whitespace around it.
        start: its first character in the context; ``None`` where it was not found there.
    """

    text: str
    start: int | None


@dataclass(frozen=True)
class Question:
    """A question about a text.

    Attributes:
        id: unique in its file.
        question: its text.
        context: the text that may hold the answer.
        answers: all that are right; none for a question that the context does not answer; ``None`` where nobody says.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] | None

    @property
    def is_unanswerable(self) -> bool:
        """Whether it is known that the context holds no answer."""
        return self.answers == ()

    @property
    def answer_texts(self) -> list[str]:
        """The texts of the right answers."""
        return [answer.text for answer in self.answers or ()]


def read_squad(path: str, *, labelled: bool = True, encoding: str = "utf-8") -> tuple[list[Question], list[str]]:
    """Read SQuAD's JSON (Rajpurkar et al. 2016 and 2018), or the flat lines that `datasets` makes of it.

    A question without answers is one that its context does not answer, as the official evaluation has it. An answer
    that cannot be found in its context is kept, for the evaluation compares texts.

    Args:
        path: the file, plain or compressed; its content tells the layout.
        labelled: whether answers must be there; where they need not, those that are there are read.
        encoding: of the file.

    Returns:
        The questions in the file's order, and remarks: what was wrong but could be dealt with, counted.

    Raises:
        UserError: no such file, not JSON (with the line), a field missing or of the wrong type (with its JSON path),
            an id that is not unique, no questions.
    """
    if not Path(path).is_file():
        raise UserError(f"There is no file '{path}'.{did_you_mean_path(Path(path))}")
    oddities = _Oddities()
    questions: list[Question] = []
    places: dict[str, _Value] = {}
    for context, record in _records(path, encoding):
        question = _question(context, record, labelled, oddities)
        if question.id in places:
            raise UserError(f"{record}: the id '{question.id}' is also that of {places[question.id]}; make ids unique.")
        places[question.id] = record
        questions.append(question)
    if not questions:
        raise UserError(f"{path} holds no questions.")
    return questions, oddities.remarks(len(questions))


class _Oddities:
    """Counts what is wrong but can be dealt with, and remembers where it was seen first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self.answers = 0

    def note(self, kind: str, where: str) -> None:
        self._counts[kind] += 1
        self._first.setdefault(kind, where)

    def remarks(self, questions: int) -> list[str]:
        return [
            f"{count:,} of {self.answers if kind.startswith('answers') else questions:,} {kind}; "
            f"the first: {self._first[kind]}."
            for kind, count in self._counts.items()
        ]


class _Value:
    """A value somewhere in a JSON file, which knows its place there: "squad.json: data[0].paragraphs[2].context"."""

    __slots__ = ("content", "file", "path")

    def __init__(self, content: Any, file: str, path: str = "") -> None:
        self.content = content
        self.file = file
        self.path = path

    def __str__(self) -> str:
        return f"{self.file}: {self.path}" if self.path else self.file

    def __getitem__(self, name: str) -> _Value:
        if not isinstance(self.content, dict):
            raise self._is_not("an object")
        value = _Value(self.content.get(name), self.file, f"{self.path}.{name}" if self.path else name)
        if name not in self.content:
            raise UserError(f"{value} is missing.{did_you_mean(name, self.content)}")
        return value

    def get(self, name: str) -> Any:
        """The content of a field that need not be there."""
        return self[name].content if name in self.content else None

    def items(self) -> Iterator[_Value]:
        if not isinstance(self.content, list):
            raise self._is_not("a list")
        return (_Value(item, self.file, f"{self.path}[{index}]") for index, item in enumerate(self.content))

    def text(self) -> str:
        if not isinstance(self.content, str):
            raise self._is_not("text")
        try:
            self.content.encode()
        except UnicodeEncodeError:
            raise UserError(f"{self} holds half a character (a surrogate without its other half).") from None
        return self.content

    def whole_number(self) -> int:
        if not isinstance(self.content, int) or isinstance(self.content, bool):
            raise self._is_not("a whole number")
        return self.content

    def _is_not(self, expected: str) -> UserError:
        return UserError(f"{self} must be {expected}, not {_short(json.dumps(self.content, ensure_ascii=False))}.")


def _records(path: str, encoding: str) -> Iterator[tuple[str, _Value]]:
    """Yield the context and the object of every question."""
    text = "".join(read_lines(Path(path), encoding=encoding))
    if not text.strip():
        raise UserError(f"{path} is empty.")
    try:
        content, end = json.JSONDecoder().raw_decode(text, len(text) - len(text.lstrip()))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not JSON ({error.msg}, column {error.colno}). Question answering reads SQuAD's "
            "layout, or lines of JSON with id, question, context and answers."
        ) from None
    except (ValueError, RecursionError) as error:
        # a number of thousands of digits, a list in lists without end
        raise UserError(f"{path}: not JSON ({error}).") from None
    if isinstance(content, dict) and "data" in content:
        if text[end:].strip():
            line = text.count("\n", 0, len(text) - len(text[end:].lstrip())) + 1
            raise UserError(f"{path}:{line}: not JSON (more text after the end of the object).")
        for article in _Value(content, path)["data"].items():
            for paragraph in article["paragraphs"].items():
                context = paragraph["context"].text()
                for record in paragraph["qas"].items():
                    yield context, record
    elif isinstance(content, dict) and content.keys() & {"context", "question"}:
        for number, line_content in json_records(Path(path), encoding):
            record = _Value(line_content, f"{path}:{number}")
            yield record["context"].text(), record
    else:
        raise UserError(
            f"{path} is neither SQuAD's JSON (an object with data[].paragraphs[].context and, in qas[], id, question "
            "and answers) nor an object a line with id, context, question and answers."
        )


def _question(context: str, record: _Value, labelled: bool, oddities: _Oddities) -> Question:
    name = str(record["id"].content) if isinstance(record["id"].content, int) else record["id"].text()
    question, impossible = record["question"].text(), record.get("is_impossible")
    if impossible not in (None, True, False):
        raise UserError(f"{record['is_impossible']} must be true or false.")
    if record.get("answers") is None and (impossible or not labelled):
        return Question(name, question, context, () if impossible else None)
    answers = tuple(_answers(context, record["answers"], oddities))
    # lines as `datasets` writes them of SQuAD 2.0 have no is_impossible, and no path inside their JSON
    if labelled and impossible is None and not answers and record.path:
        oddities.note(_SILENT, str(record))
    if impossible is not None and impossible != (not answers):
        oddities.note(_AT_ODDS, str(record))
        answers = ()
    if answers and all(answer.start is None for answer in answers):
        oddities.note(_NOT_LEARNED, str(record))
    return Question(name, question, context, answers)


def _answers(context: str, answers: _Value, oddities: _Oddities) -> Iterator[Answer]:
    """Yield every different answer of a question, in the file's order."""
    seen = set()
    for text_value, start_value in _texts_and_starts(answers):
        text, start = text_value.text(), start_value.whole_number()
        oddities.answers += 1
        start += len(text) - len(text.lstrip())
        text = text.strip()
        if not text:
            oddities.note(_EMPTY, str(text_value))
            continue
        found = _locate(text, start, context)
        if found != start:
            where = f"{text_value} '{_short(text)}', answer_start {start_value.content}"
            oddities.note(_LOST if found is None else _MENDED, where)
        if (text, found) not in seen:
            seen.add((text, found))
            yield Answer(text, found)


def _texts_and_starts(answers: _Value) -> Iterator[tuple[_Value, _Value]]:
    """Yield text and start of each answer: objects with both, or as `datasets` has it an object of two lists."""
    if not isinstance(answers.content, dict):
        yield from ((answer["text"], answer["answer_start"]) for answer in answers.items())
        return
    texts, starts = list(answers["text"].items()), list(answers["answer_start"].items())
    if len(texts) != len(starts):
        raise UserError(f"{answers} has {len(texts)} entries in text but {len(starts)} in answer_start.")
    yield from zip(texts, starts, strict=True)


def _locate(text: str, start: int, context: str) -> int | None:
    """Where the answer is: where it should be, else where it occurs if it occurs only once."""
    if start >= 0 and context.startswith(text, start):
        return start
    first = context.find(text)
    return first if first >= 0 and context.find(text, first + 1) < 0 else None


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
