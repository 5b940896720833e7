"""Files of records and `datasets` datasets -> the text of each record."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from spanelectra.data.text_files import did_you_mean_path, read_lines
from spanelectra.errors import UserError, did_you_mean

ROWS_PER_BATCH = 256


def read_json_lines(path: Path, text_column: str, encoding: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield ``record[text_column]`` of each line; blank lines are passed over."""
    for number, line in enumerate(read_lines(path, encoding=encoding, on_bytes=on_bytes), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error}); one object a line is expected.") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: one JSON object a line is expected, not {type(record).__name__}.")
        yield _text_of(record, text_column, f"{path}:{number}")


def read_delimited(
    path: Path, text_column: str, encoding: str, on_bytes: Callable[[int], None], *, tab_separated: bool
) -> Iterator[str]:
    """Yield the column of a CSV (quoted as in RFC 4180) or TSV file (no quoting); the first line names the columns."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the largest that a C long holds on every platform
    lines = read_lines(path, encoding=encoding, on_bytes=on_bytes)
    if tab_separated:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        column = _column_index(header, text_column, str(path))
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(f"{path}:{reader.line_num}: {len(row)} fields where the header has {len(header)}.")
            yield row[column]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: malformed ({error}).") from None


def read_parquet(path: Path, text_column: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield the column of a Parquet file, batch by batch."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _column_index(file.schema_arrow.names, text_column, str(path))
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=[text_column]):
                for text in batch.column(0).to_pylist():
                    text = _checked_text(text, text_column, str(path))
                    on_bytes(len(text.encode()))
                    yield text
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"'{path}' cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def read_dataset(name: str, text_column: str, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """Yield the column of a dataset: a directory written by ``save_to_disk``, or a name on the Hugging Face Hub.

    A name may end in ``:configuration``. Of several splits "train" is read.
    """
    for record in _open_dataset(name):
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
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if Path(name).is_dir():
            raise UserError(f"'{name}' does not open as a `datasets` directory: {reason}") from None
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
        listed = ", ".join(columns)
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
    return text
