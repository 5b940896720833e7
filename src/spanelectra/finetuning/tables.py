"""csv, tsv, jsonl and parquet files, plain or compressed -> a table: its columns, and rows with their line numbers."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from spanelectra.data.records import SEMICOLON, TAB, csv_separator, delimited_rows, json_records, wrong_width
from spanelectra.data.text_files import COMPRESSIONS, did_you_mean_path
from spanelectra.errors import UserError, did_you_mean, reason_of, shortened

EXTENSIONS = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
# Rows below the first that are looked at to tell whether it names the columns.
_ROWS_TO_JUDGE_BY = 1000


@dataclass(frozen=True)
class Row:
    """One record.

    Attributes:
        line: its line in the file (its last one, if it spans several), from 1; of a Parquet file its row, from 1.
        fields: one value a column: text in csv and tsv, any JSON value elsewhere; ``None`` where there is none.
    """

    line: int
    fields: list[Any]


@dataclass(frozen=True)
class Table:
    """A file's records.

    Attributes:
        path: the file.
        columns: names; "0", "1" and so on where the file names none.
        named: whether the file names its columns.
        rows: all records.
        remarks: what was guessed, for the user to confirm.
    """

    path: str
    columns: list[str]
    named: bool
    rows: list[Row]
    remarks: list[str] = field(default_factory=list)

    def has(self, column: str) -> bool:
        """Whether :meth:`index` finds the column."""
        try:
            self.index(column, "")
        except UserError:
            return False
        return True

    def columns_in_words(self) -> str:
        """The columns' names, for a sentence of ours: no more than a few lines of them."""
        return textwrap.shorten(", ".join(map(shortened, self.columns)), 500, placeholder=" …")

    def index(self, column: str, setting: str) -> int:
        """Position of a column.

        Args:
            column: a name as it stands, else without regard to case; else a number from 0, or from -1 backwards.
            setting: the setting that says it, named in the error.

        Raises:
            UserError: there is no such column, or several of that name.
        """
        if self.named:
            for names, name in ((self.columns, column), ([known.lower() for known in self.columns], column.lower())):
                if names.count(name) > 1:
                    raise UserError(f"{self.path}: several columns are called '{column}'; give --{setting} a number.")
                if name in names:
                    return names.index(name)
        if re.fullmatch(r"-?\d+", column):
            if not -len(self.columns) <= int(column) < len(self.columns):
                raise UserError(
                    f"{self.path}: no column {column} (--{setting}); it has {len(self.columns)}, from 0 on."
                )
            return int(column) % len(self.columns)
        if not self.named:
            raise UserError(
                f"{self.path}: --{setting} is '{column}', but the file's first line is not taken for column names; "
                f"give a number from 0 to {len(self.columns) - 1}, or --header yes if that line names them."
            )
        raise UserError(
            f"{self.path}: no column '{column}'; choose one with --{setting}: {self.columns_in_words()}."
            f"{did_you_mean(column, self.columns)}"
        )


def read_table(
    path: str,
    *,
    header: Literal["auto", "yes", "no"] = "auto",
    names: Collection[str] = (),
    encoding: str = "utf-8",
) -> Table:
    """Read a file of records whole.

    Args:
        path: csv (quoted as in RFC 4180), tsv (no quoting), txt like tsv, jsonl or parquet; text may be compressed.
        header: whether the first line of csv or tsv names the columns; ``auto`` looks.
        names: names that columns usually have, in lower case, by which ``auto`` knows a header.
        encoding: of all but parquet.

    Raises:
        UserError: the file is missing, damaged, of another kind, empty, or a row has another number of fields.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"'{path}' is a directory; give a file.")
    if not file.is_file():
        raise UserError(f"There is no file '{path}'.{did_you_mean_path(file)}")
    extension = (file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file).suffix.lower()
    if extension not in EXTENSIONS:
        raise UserError(
            f"'{path}' is none of {', '.join(EXTENSIONS)} (text also compressed: {', '.join(COMPRESSIONS)})."
        )
    if extension == ".parquet":
        table = _from_objects(path, enumerate(_parquet_records(file), start=1))
    elif extension in (".jsonl", ".json"):
        table = _from_objects(path, json_records(file, encoding))
    else:
        table = _from_lines(path, extension, header, names, encoding)
    if not table.rows:
        raise UserError(f"{path} holds no records.")
    return table


def _from_lines(path: str, extension: str, header: str, names: Collection[str], encoding: str) -> Table:
    separator = csv_separator(Path(path), encoding) if extension == ".csv" else TAB
    rows = [Row(*row) for row in delimited_rows(Path(path), encoding, separator=separator)]
    if not rows:
        return Table(path, [], False, [])
    for row in rows:
        if len(row.fields) != len(rows[0].fields):
            raise wrong_width(path, row.line, row.fields, rows[0].fields, separator=separator)
    remarks = [f"{path}: its fields are taken to be separated by ';'."] if separator == SEMICOLON else []
    named = header == "yes"
    if header == "auto":
        verdict = _names_columns([row.fields for row in islice(rows, _ROWS_TO_JUDGE_BY)], names)
        named = verdict != "no"
        if verdict == "perhaps":
            first = ", ".join(map(shortened, rows[0].fields))
            remarks.append(
                f"{path}: the first line ({first}) is taken for the columns' names; if it is a record, say --header no."
            )
    if named:
        return Table(path, [name.strip() for name in rows[0].fields], True, rows[1:], remarks)
    return Table(path, list(map(str, range(len(rows[0].fields)))), False, rows, remarks)


def _names_columns(rows: list[list[str]], usual_names: Collection[str]) -> Literal["yes", "no", "perhaps"]:
    """Whether the first of ``rows`` names the columns."""
    cells = [cell.strip() for cell in rows[0]]
    below = [[row[column].strip() for row in rows[1:]] for column in range(len(cells))]
    usual = sum(cell.lower() in usual_names for cell in cells)
    # a number is no name; nor is nothing, but for the column of the index, which pandas leaves without a name
    if usual < 2 and (any(map(is_number, cells)) or not all(cells) or len(set(cells)) < len(cells)):
        return "no"
    if usual >= 2:
        return "yes"
    if any(cell in column for cell, column in zip(cells, below, strict=True)):
        return "no"  # what stands again below, such as a label, is a value
    if usual or any(column and all(map(is_number, column)) for column in below):
        return "yes"
    single_words = all(re.fullmatch(r"#?[\w.-]+", cell) for cell in cells)
    return "perhaps" if single_words and len(cells) > 1 and len(rows) > 1 else "no"


def is_number(text: str) -> bool:
    """Whether ``text`` is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _from_objects(path: str, records: Iterable[tuple[int, dict[str, Any]]]) -> Table:
    """A table of JSON objects; its columns are their names in the order in which they turn up."""
    numbered = list(records)
    columns = list(dict.fromkeys(name for _, record in numbered for name in record))
    return Table(path, columns, True, [Row(line, [record.get(name) for name in columns]) for line, record in numbered])


def _parquet_records(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read as Parquet: {reason_of(error)}") from None
