"""Files of records and `datasets` datasets -> the text of each record."""

from __future__ import annotations

import csv
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spanelectra.data.text_files import did_you_mean_path, read_lines
from spanelectra.errors import UserError, did_you_mean, reason_of
from spanelectra.hub import out_of_reach

ROWS_PER_BATCH = 256
LARGEST_ROW_GROUP = 1 << 32  # bytes; a row group is decompressed whole
TAB, COMMA, SEMICOLON = "\t", ",", ";"
# by which a spreadsheet is told, in a first line of its own; it may be padded with empty fields
_SAYS_SEPARATOR = re.compile(r'"?sep=([,;\t])"?\1*\s*', re.IGNORECASE)
_SEPARATORS = {TAB: "tab", COMMA: "comma", SEMICOLON: "semicolon"}
# Lines of a CSV file that tell what separates its fields, and characters of such a line.
_LINES_TO_JUDGE_BY = 20
_CHARACTERS_TO_JUDGE_BY = 1 << 16


def json_records(
    path: Path, encoding: str = "utf-8", on_bytes: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of each line; blank lines are passed over."""
    for number, line in enumerate(read_lines(path, encoding=encoding, on_bytes=on_bytes), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error}); one object a line is expected.") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: one JSON object a line is expected, not {type(record).__name__}.")
        yield number, record


def csv_separator(path: Path, encoding: str = "utf-8") -> str:
    """What separates the fields of a CSV file: a comma, or the semicolon of spreadsheets whose numbers have commas.

    The first row decides, if it has but one of the two, commas between digits aside, and most rows below are cut by a
    semicolon as well. Where it has both, semicolons separate if they cut the rows alike and commas do not. A first line
    of ``sep=;``, by which spreadsheets are told, settles it.
    """
    lines = list(islice(read_lines(path, encoding=encoding, limit=_CHARACTERS_TO_JUDGE_BY), _LINES_TO_JUDGE_BY))
    if lines and (said := _SAYS_SEPARATOR.fullmatch(lines[0])):
        return said[1]
    semicolons = _widths(lines, SEMICOLON)
    commas = _widths([re.sub(r"(?<=\d),(?=\d)", "", line) for line in lines], COMMA)
    if not semicolons or semicolons[0] < 2:
        return COMMA
    if commas[0] > 1:
        return SEMICOLON if len(set(semicolons)) == 1 and len(set(commas)) > 1 else COMMA
    return SEMICOLON if 2 * semicolons.count(1) < len(semicolons) else COMMA


def _widths(lines: list[str], separator: str) -> list[int]:
    """Fields of every row, as far as they go; of one that is malformed 0."""
    widths: list[int] = []
    try:
        widths += (len(row) for row in csv.reader(lines, delimiter=separator, strict=True) if row)
    except csv.Error:
        widths.append(0)
    return widths


def delimited_rows(
    path: Path, encoding: str = "utf-8", on_bytes: Callable[[int], None] = lambda count: None, *, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of each row of a CSV (quoted as in RFC 4180) or TSV file (no quoting).

    A row that spans lines has the number of its last; blank lines are passed over, and so is a first line that says
    what separates (``sep=;``).
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the largest that a C long holds on every platform
    lines = read_lines(path, encoding=encoding, on_bytes=on_bytes)
    if separator == TAB:
        reader = csv.reader(lines, delimiter=TAB, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, delimiter=separator, strict=True)
    begins = 1
    try:
        for row in reader:
            says_separator = reader.line_num == 1 and _SAYS_SEPARATOR.fullmatch(separator.join(row))
            if row and not says_separator:
                yield reader.line_num, row
            begins = reader.line_num + 1
    except csv.Error as error:
        spans = reader.line_num > begins
        hint = f' The row ends at line {reader.line_num}: a quote (") that nothing closes?' if spans else ""
        raise UserError(f"{path}:{begins}: malformed ({error}).{hint}") from None


def wrong_width(path: Path | str, line: int, fields: list[str], first: list[str], *, separator: str) -> UserError:
    """The error for a row that has another number of fields than the first, with what is likely to be the cause.

    Args:
        path: the file.
        line: the row's last line.
        fields: the row's.
        first: the first row's.
        separator: what separates them.
    """
    name = _SEPARATORS[separator]
    further_lines = sum(field.count("\n") for field in fields)
    causes = []
    if any("\n" in field for field in first):
        causes.append('a quote (") in the first row that is closed lines later')
    if further_lines:
        causes.append(f'a quote (") that is closed only in line {line}')
    if len(fields) < len(first):
        causes += [f"a missing {name}", "a line break in a text"] if not further_lines else [f"a missing {name}"]
    elif not further_lines:
        causes.append("a tab in a text" if separator == TAB else f'a {name} in a text without quotes (")')
    count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
    return UserError(
        f"{path}:{line - further_lines}: {count} where the first line has {len(first)}: {', or '.join(causes)}? "
        "Every line must have as many as the first."
    )


def read_json_lines(path: Path, text_column: str, encoding: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield ``record[text_column]`` of each line."""
    for number, record in json_records(path, encoding, on_bytes):
        yield _text_of(record, text_column, f"{path}:{number}")


def read_delimited(
    path: Path, text_column: str, encoding: str, on_bytes: Callable[[int], None], *, separator: str
) -> Iterator[str]:
    """Yield the column of a CSV or TSV file, whose first line names the columns."""
    rows = delimited_rows(path, encoding, on_bytes, separator=separator)
    first = next(rows, None)
    if first is None:
        return
    header = first[1]
    column = _column_index(header, text_column, str(path))
    for number, row in rows:
        if len(row) != len(header):
            raise wrong_width(path, number, row, header, separator=separator)
        yield row[column]


def read_parquet(path: Path, text_column: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield the column of a Parquet file, batch by batch."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        _column_index(schema.names, text_column, str(path))
        kind = schema.field(text_column).type
        # a text that is there a million times is held once
        is_text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
        with pyarrow.parquet.ParquetFile(path, read_dictionary=[text_column] if is_text else None) as file:
            for number in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(number).total_byte_size
                if size > LARGEST_ROW_GROUP:
                    raise UserError(
                        f"'{path}' has a row group of {size:,} bytes, which must be held at once; write the file anew "
                        "with smaller ones."
                    )
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=[text_column]):
                for value in batch.column(0):
                    text = _checked_text(value.as_py(), text_column, str(path))
                    on_bytes(len(text.encode()))
                    yield text
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        reason = reason_of(error)
        raise UserError(f"'{path}' cannot be read as Parquet: {reason}") from None


def read_dataset(name: str, text_column: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield the column of a dataset: a directory written by ``save_to_disk``, or a name on the Hugging Face Hub.

    A name may end in ``:configuration``. Of several splits "train" is read.
    """
    records = iter(_open_dataset(name))
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except Exception as error:  # what is read on the way may be lost on the way, and every reader says so otherwise
            raise UserError(f"dataset '{name}': reading stopped on the way: {reason_of(error)}") from None
        text = _text_of(record, text_column, f"dataset '{name}'")
        on_bytes(len(text.encode()))
        yield text


def _open_dataset(name: str) -> Iterable[dict[str, Any]]:
    import datasets
    from huggingface_hub import HfApi

    try:
        if Path(name).is_dir():
            dataset = datasets.load_from_disk(name)
        else:
            repository, _, configuration = name.partition(":")
            HfApi().dataset_info(repository, timeout=10)  # fails at once where `load_dataset` retries for half a minute
            dataset = datasets.load_dataset(repository, configuration or None, streaming=True)
    except Exception as error:  # the Hub, the network and every dataset's own reader raise what they like
        reason = reason_of(error)
        if Path(name).is_dir():
            raise UserError(f"'{name}' does not open as a `datasets` directory: {reason}") from None
        if sentence := out_of_reach(name, error, "file or folder"):
            raise UserError(f"{sentence}{did_you_mean_path(Path(name))}") from None
        raise UserError(
            f"'{name}' is neither a file or folder nor a dataset that loads.{did_you_mean_path(Path(name))} ({reason})"
        ) from None
    if isinstance(dataset, dict):
        if "train" not in dataset:
            raise UserError(f"The dataset '{name}' has no split 'train', only {', '.join(dataset)}.")
        dataset = dataset["train"]
    return dataset


def _column_index(columns: list[str], text_column: str, where: str) -> int:
    if text_column not in columns:
        hint = did_you_mean(text_column, columns)
        listed = textwrap.shorten(", ".join(columns), 500, placeholder=" …")
        raise UserError(f"{where}: no column '{text_column}'; choose one with --text_column: {listed}.{hint}")
    return columns.index(text_column)


def _text_of(record: dict[str, Any], text_column: str, where: str) -> str:
    _column_index(list(record), text_column, where)
    return _checked_text(record[text_column], text_column, where)


def _checked_text(text: Any, text_column: str, where: str) -> str:
    """Return the text, empty for a missing value."""
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{where}: column '{text_column}' holds {type(text).__name__}, not text.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: column '{text_column}' holds half of a surrogate pair at character {error.start}, which is no "
            "text; write the file anew as UTF-8."
        ) from None
    return text
