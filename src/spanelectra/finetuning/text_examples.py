"""A file of labelled texts or pairs -> examples: which column is what, and what each label says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spanelectra.errors import UserError, shortened
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.tables import Table, read_table

# Usual names in lower case, the likelier first.
TEXT_NAMES = ("sentence", "text", "sentence1", "premise", "question", "question1", "content", "review", "tweet")
SECOND_TEXT_NAMES = ("sentence2", "hypothesis", "question2", "text_pair")
ID_NAMES = ("id", "idx", "index")
LABEL_NAMES = ("label", "labels", "class", "target", "score", "gold_label", "category", "sentiment")


@dataclass(frozen=True)
class Example:
    """One text or pair.

    Attributes:
        text: the text, as it stands in the file.
        text_pair: the second one of a pair.
        label: its class's name, or a number in regression; ``None`` where it is not known.
        path: the file it is from.
        line: its line there, from 1.
    """

    text: str
    text_pair: str | None
    label: str | float | None
    path: str
    line: int


@dataclass(frozen=True)
class LabelledTexts:
    """What a file holds.

    Attributes:
        examples: its records.
        columns: which column was taken for what, in words.
        remarks: about guesses and empty texts.
        names: setting -> the name of the column that was taken; nothing where the file names none.
    """

    examples: list[Example]
    columns: str
    remarks: list[str]
    names: dict[str, str] = field(default_factory=dict)


def read_examples(
    path: str, settings: FineTuningArguments, *, labelled: bool, trained_on: Mapping[str, str] | None = None
) -> LabelledTexts:
    """Read a file of texts.

    Args:
        path: a file that :func:`read_table` reads.
        settings: columns, header, encoding and whether labels are numbers.
        labelled: whether every record must have a label. If not, one is taken from a column that is named as the
            label's or, without column names, from the last one, if that is not a text.
        trained_on: ``names`` of the training file: in a file that names its columns they stand for the settings that
            are not given, and nothing is guessed.

    Raises:
        UserError: with file, line and column, for a column, text or label that is missing or not what it must be.
    """
    trained_on = trained_on or {}
    wanted = (settings.text_column, settings.text_pair_column, settings.label_column, *trained_on.values())
    names = {*TEXT_NAMES, *SECOND_TEXT_NAMES, *LABEL_NAMES, *ID_NAMES}
    names |= {name.lower() for name in wanted if name is not None and not name.lstrip("-").isdigit()}
    table = read_table(path, header=settings.header, names=names, encoding=settings.encoding)
    remarks = list(table.remarks)
    text, pair, label = _columns(table, settings, labelled, remarks, trained_on)
    texts_at = [text] if pair is None else [text, pair]
    examples = []
    empty = 0
    for row in table.rows:
        where = f"{path}:{row.line}"
        texts = [_text(row.fields[column], f"{where}: column '{table.columns[column]}'") for column in texts_at]
        empty += not all(map(str.strip, texts))
        value = None
        if label is not None:
            value = _label(
                row.fields[label], f"{where}: column '{table.columns[label]}'", settings.regression, labelled
            )
        examples.append(Example(texts[0], None if pair is None else texts[1], value, path, row.line))
    if empty:
        remarks.append(f"{empty:,} of {len(examples):,} records of {path} have an empty text.")
    parts = (("text", text), ("second text", pair), ("label", label))
    columns = ", ".join(f"'{table.columns[column]}' is the {what}" for what, column in parts if column is not None)
    if not table.named:
        return LabelledTexts(examples, f"by number, {columns}", remarks)
    taken = {"text_column": text, "label_column": label}
    # of several columns of one name none can be found again by it
    unique = {name: table.columns[at] for name, at in taken.items() if at is not None}
    unique = {name: column for name, column in unique.items() if table.columns.count(column) == 1}
    return LabelledTexts(examples, columns, remarks, unique)


def _columns(
    table: Table, settings: FineTuningArguments, labelled: bool, remarks: list[str], trained_on: Mapping[str, str]
) -> tuple[int, int | None, int | None]:
    """Positions of the text, of a pair's second text and of the label."""
    columns = range(len(table.columns))
    guessable = [column for column in columns if not table.named or table.columns[column].lower() not in ID_NAMES]
    if not labelled and len(columns) == 1 and settings.text_pair_column is None:
        return 0, None, None
    wanted = _wanted(table, settings, labelled, trained_on)
    chosen: dict[str, int] = {}
    for setting, name in wanted.items():
        if labelled or setting != "label_column" or table.has(name):
            chosen[setting] = table.index(name, setting)
    text, pair, label = (chosen.get(name) for name in ("text_column", "text_pair_column", "label_column"))
    taken: set[int | None] = {*chosen.values()}
    if "label_column" not in wanted and table.named:
        label = _usual(table, LABEL_NAMES, taken)
    if text is None:
        text = _usual(table, TEXT_NAMES, {*taken, label})
    if text is None:
        free = [column for column in guessable if column not in {*taken, label}]
        if not free:
            raise UserError(f"{table.path}: no column is left for the text; choose one with --text_column.")
        text = free[0]
        if len(free) > 1 + (label is None):
            remarks.append(_guess(table, text, "text"))
    if label is None and "label_column" not in wanted:
        free = [column for column in guessable if column not in (text, pair)]
        if labelled and not free:
            count = f"{len(columns)} column{'s' * (len(columns) != 1)}"
            raise UserError(
                f"{table.path}: no column is left for the label; choose one with --label_column. (It has {count}; tsv "
                "separates them by tabs, csv by commas or semicolons.)"
            )
        if labelled or (not table.named and columns[-1] in free):
            label = free[-1]
            if len(free) > 1:
                remarks.append(_guess(table, label, "label"))
    if not labelled and label in (text, pair):
        label = None
    if text == pair or (label is not None and label in (text, pair)):
        raise UserError(f"{table.path}: text_column, text_pair_column and label_column must be different columns.")
    second = _usual(table, SECOND_TEXT_NAMES, {text})
    if pair is None and second is not None:
        name = table.columns[second]
        remarks.append(f"{table.path}: column '{name}' is not read; for pairs say --text_pair_column {name}.")
    return text, pair, label


def _wanted(
    table: Table, settings: FineTuningArguments, labelled: bool, trained_on: Mapping[str, str]
) -> dict[str, str]:
    """Setting -> the column that it, or else the training file, says.

    Raises:
        UserError: the columns of the training file are needed and are not there.
    """
    wanted = dict(trained_on) if table.named else {}
    for setting in ("text_column", "text_pair_column", "label_column"):
        if (name := getattr(settings, setting)) is not None:
            wanted[setting] = name
    known = {column.lower() for column in table.columns}
    missing = [
        setting
        for setting in wanted
        if getattr(settings, setting) is None and wanted[setting].lower() not in known
        if labelled or setting != "label_column"
    ]
    if missing:
        named = " and ".join(f"no column '{wanted[setting]}'" for setting in missing)
        options = " and ".join(f"--{setting}" for setting in missing)
        raise UserError(
            f"{table.path}: {named}, as the training file had; choose with {options}: {table.columns_in_words()}."
        )
    return wanted


def _guess(table: Table, column: int, what: str) -> str:
    return (
        f"{table.path}: of {len(table.columns)} columns '{table.columns[column]}' is taken for the {what} "
        f"('{shortened(table.rows[0].fields[column])}'); --{what}_column chooses another."
    )


def _usual(table: Table, names: tuple[str, ...], taken: set[int | None]) -> int | None:
    """The column of the first of ``names`` that there is."""
    columns = [name.lower() for name in table.columns]
    return next((columns.index(name) for name in names if name in columns and columns.index(name) not in taken), None)


def _text(value: Any, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where} holds {type(value).__name__}, not text; choose another with --text_column.")
    return _encodable(value, where)


def _encodable(text: str, where: str) -> str:
    """The text; JSON can spell halves of characters, which are none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a character ({text[error.start]!r}), which is no text.") from None
    return text


def _label(value: Any, where: str, regression: bool, labelled: bool) -> str | float | None:
    """The class's name or the number; ``None`` only where a label need not be."""
    name = _name(value, where)
    if regression:
        try:
            number = float(name)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        hint = " (write decimals with a point)" if re.fullmatch(r"[-+]?\d+,\d+", name) else ""
        problem = (
            f"'{shortened(name)}' is not a number, which --regression needs{hint}" if name else "the label is missing"
        )
    elif name and name.lower() != "nan":
        return name
    else:
        problem = "the label is missing" + (" (NaN)" if name else "")
    if labelled:
        raise UserError(f"{where}: {problem}.")
    return None


def _name(value: Any, where: str) -> str:
    """A label as text: 1, 1.0 and "1" are one class."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (str, int, float)):
        return _encodable(str(value).strip(), where)
    raise UserError(f"{where}: the label is {type(value).__name__}, neither text nor a number.")
