"""Files, folders, globs or a `datasets` name -> documents, streamed: memory stays flat however large the corpus.

A document is what packing separates with [SEP] and what goes whole into the training or the validation split.
In plain text the separator decides: ``file`` (a file is one document), ``blank_line`` (paragraphs, whose lines stay
joined by newlines) or ``line`` (each line that is not blank). A record of a JSON Lines, CSV, TSV or Parquet file or of
a `datasets` dataset is one document whatever the separator.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from spanelectra.data.records import (
    TAB,
    csv_separator,
    read_dataset,
    read_delimited,
    read_json_lines,
    read_parquet,
)
from spanelectra.data.text_files import COMPRESSIONS, cut_at_whitespace, did_you_mean_path, read_lines
from spanelectra.errors import UserError, did_you_mean

DocumentSeparator: TypeAlias = Literal["file", "blank_line", "line"]
DOCUMENT_SEPARATOR_MEANINGS: dict[str, str] = {
    "file": "each text file is one document",
    "blank_line": "blank lines separate documents",
    "line": "each line is one document",
}
TEXT_EXTENSIONS = (".txt", ".text", ".md")
RECORD_EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAXIMUM_PIECE_CHARACTERS = 1 << 20
DATASET_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")


class Document(NamedTuple):
    """A document, or a piece of one that is too long to hold: ``continues`` says that its next piece follows.

    The pieces of a document, joined, are its text. A piece is cut before whitespace where there is any, so that a
    tokenizer gives the pieces the tokens of the whole. The last piece of a long document may be empty, and whitespace
    as long as a piece is kept wherever it stands.
    """

    text: str
    source: str
    continues: bool = False


@dataclass
class CorpusStatistics:
    """What :func:`iterate_documents` has read so far."""

    files: int = 0
    plain_files: int = 0  # of these, the ones in which the separator decides
    documents: int = 0
    bytes_read: int = 0  # after decompression
    total_bytes: int | None = None  # None where it cannot be known before reading: compressed files, Parquet, datasets
    skipped: dict[str, str] = field(default_factory=dict)  # path -> reason


def iterate_documents(
    data: str | Path | Sequence[str | Path],
    *,
    document_separator: DocumentSeparator,
    text_column: str = "text",
    encoding: str = "utf-8",
    statistics: CorpusStatistics | None = None,
    piece_characters: int = MAXIMUM_PIECE_CHARACTERS,
) -> Iterator[Document]:
    """Yield the documents of ``data`` in order: sources as given, the files of a folder sorted by path.

    Blank documents do not count; blank lines before a document and whitespace after it are not part of it; "\\r\\n" is
    read as "\\n" and a byte-order mark is dropped.

    Args:
        data: files, folders (recursive, hidden files skipped), globs, `datasets` directories written by
            ``save_to_disk``, or names on the Hugging Face Hub (``name`` or ``name:configuration``, split "train").
        document_separator: what separates documents in plain text.
        text_column: the field of a record that holds the text.
        encoding: of the text, JSON Lines, CSV and TSV files.
        statistics: counted up while reading, for progress bars and summaries.
        piece_characters: the most characters that a piece of a document has.

    Raises:
        UserError: nothing found, nothing in it, or something that cannot be read as what it claims to be.
    """
    if document_separator not in get_args(DocumentSeparator):
        hint = did_you_mean(document_separator, get_args(DocumentSeparator))
        raise UserError(f"document_separator is '{document_separator}': it must be file, blank_line or line.{hint}")
    statistics = CorpusStatistics() if statistics is None else statistics
    sources = _find_sources(data, statistics)
    bytes_to_come = _total_bytes(sources)
    statistics.total_bytes = None if bytes_to_come is None else statistics.bytes_read + bytes_to_come
    documents_at_start = statistics.documents
    for source in sources:
        documents_before = statistics.documents
        pieces = _read_source(source, document_separator, text_column, encoding, piece_characters, statistics)
        for text, continues in pieces:
            statistics.documents += not continues
            yield Document(text, str(source), continues)
        statistics.files += 1
        statistics.plain_files += _is_plain(source)
        if statistics.documents == documents_before:
            statistics.skipped[str(source)] = "empty"
    if statistics.documents == documents_at_start:
        which = f"'{sources[0]}' is" if len(sources) == 1 else f"all {len(sources)} files are"
        raise UserError(f"No text to read: {which} empty.")


def documents_in_words(statistics: CorpusStatistics, document_separator: DocumentSeparator) -> str:
    """What was a document in the files that were read."""
    if not statistics.plain_files:
        return "each record is one document"
    is_mixed = statistics.plain_files < statistics.files
    others = "; of other files each record is one" if is_mixed else ""
    return f"{DOCUMENT_SEPARATOR_MEANINGS[document_separator]}{others}"


def find_files(data: str | Path | Sequence[str | Path], statistics: CorpusStatistics | None = None) -> list[Path]:
    """Return the files that ``data`` (files, folders, globs) names, each once.

    A folder gives its files with a known extension, recursively and sorted; hidden ones are passed over, others are
    noted in ``statistics.skipped``. A file that is named, itself or by a glob, is read whatever its extension, as
    plain text where that is unknown.

    Raises:
        UserError: a path that does not exist, a glob or a folder without a readable file.
    """
    statistics = CorpusStatistics() if statistics is None else statistics
    found: dict[Path, None] = {}
    for entry in _as_entries(data):
        path = Path(entry).expanduser()
        if path.is_dir():
            found.update(dict.fromkeys(_files_of_folder(path, statistics)))
        elif path.exists():
            found[path] = None
        elif has_magic(str(path)):
            matches = [Path(match) for match in sorted(glob(str(path), recursive=True))]  # noqa: PTH207 (may be absolute)
            files = [match for match in matches if match.is_file()]
            if not files:
                raise UserError(f"The pattern '{entry}' matches no file.")
            found.update(dict.fromkeys(files))
        else:
            raise UserError(f"'{entry}' does not exist.{did_you_mean_path(path)}")
    return list(found)


def _as_entries(data: str | Path | Sequence[str | Path]) -> list[str]:
    entries = [str(data)] if isinstance(data, str | Path) else [str(entry) for entry in data]
    if not entries or not all(entries):
        raise UserError("No data given: name a file, a folder, a glob or a dataset.")
    return entries


def _find_sources(data: str | Path | Sequence[str | Path], statistics: CorpusStatistics) -> list[Path | str]:
    """Return paths of files, and the names or directories of `datasets` datasets as strings."""
    sources: dict[Path | str, None] = {}
    for entry in _as_entries(data):
        path = Path(entry).expanduser()
        saved_dataset = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
        names_a_file = _extension(path) in TEXT_EXTENSIONS + RECORD_EXTENSIONS or path.suffix.lower() in COMPRESSIONS
        hub_name = not path.exists() and not names_a_file and DATASET_NAME.fullmatch(entry)
        if saved_dataset or hub_name:
            sources[str(path)] = None
        else:
            sources.update(dict.fromkeys(find_files(entry, statistics)))
    return list(sources)


def _total_bytes(sources: Iterable[Path | str]) -> int | None:
    total = 0
    for source in sources:
        if isinstance(source, str) or source.suffix.lower() in (*COMPRESSIONS, ".parquet"):
            return None
        total += source.stat().st_size
    return total


def _files_of_folder(folder: Path, statistics: CorpusStatistics) -> list[Path]:
    """Return the readable files below ``folder``; links to folders are followed, once each."""
    found: list[Path] = []
    visited = {os.path.realpath(folder)}
    skipped: list[Path] = []
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        kept = []
        for name in subfolders:
            real = os.path.realpath(os.path.join(directory, name))  # noqa: PTH118 (os.walk gives strings)
            if not name.startswith(".") and real not in visited:
                visited.add(real)
                kept.append(name)
        subfolders[:] = kept
        for name in names:
            path = Path(directory, name)
            if name.startswith(".") or not path.is_file():
                continue
            (found if _extension(path) in TEXT_EXTENSIONS + RECORD_EXTENSIONS else skipped).append(path)
    if not found:
        other = f" ({len(skipped)} with other extensions, such as '{skipped[0].name}')" if skipped else ""
        raise UserError(
            f"The folder '{folder}' holds no text files{other}. Looked for: "
            f"{' '.join(TEXT_EXTENSIONS + RECORD_EXTENSIONS)}, plain or compressed; name any other file itself."
        )
    statistics.skipped.update((str(path), "unknown extension") for path in skipped)
    return sorted(found)


def _extension(path: Path) -> str:
    """Return the extension that says how to read ``path``: lower case, compression aside."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def _is_plain(source: Path | str) -> bool:
    """Whether a source is plain text, not records."""
    return isinstance(source, Path) and _extension(source) not in RECORD_EXTENSIONS


def _read_source(
    source: Path | str,
    document_separator: DocumentSeparator,
    text_column: str,
    encoding: str,
    piece_characters: int,
    statistics: CorpusStatistics,
) -> Iterator[tuple[str, bool]]:
    """Yield (text, continues) for the documents of one source."""

    def on_bytes(count: int) -> None:
        statistics.bytes_read += count

    extension = ".dataset" if isinstance(source, str) else _extension(source)
    path = Path(source)
    if _is_plain(source):
        lines = read_lines(path, encoding=encoding, limit=piece_characters, on_bytes=on_bytes)
        return _split_lines(lines, document_separator, piece_characters)
    if extension == ".dataset":
        texts = read_dataset(str(source), text_column, on_bytes)
    elif extension == ".parquet":
        texts = read_parquet(path, text_column, on_bytes)
    elif extension in (".csv", ".tsv"):
        separator = TAB if extension == ".tsv" else csv_separator(path, encoding)
        texts = read_delimited(path, text_column, encoding, on_bytes, separator=separator)
    else:
        texts = read_json_lines(path, text_column, encoding, on_bytes)
    return _split_records(texts, piece_characters)


def _split_records(texts: Iterable[str], piece_characters: int) -> Iterator[tuple[str, bool]]:
    for text in texts:
        text = text.replace("\r\n", "\n").lstrip("\n").rstrip()
        if text:
            *pieces, last = cut_at_whitespace(text, piece_characters)
            yield from ((piece, True) for piece in pieces)
            yield last, False


def _split_lines(
    lines: Iterable[str], document_separator: DocumentSeparator, piece_characters: int
) -> Iterator[tuple[str, bool]]:
    """Gather lines, or parts of long ones, into documents; a document that outgrows a piece leaves in pieces."""
    parts: list[str] = []
    size = 0
    begun = False  # whether a piece of this document has left already
    line_starts = True
    ends_at_blank, ends_at_line = document_separator == "blank_line", document_separator == "line"
    for line in lines:
        blank = line_starts and line.isspace()
        line_starts = line.endswith("\n")
        if not blank or (parts and not ends_at_blank):  # no blank lines before a document
            parts.append(line)
            size += len(line)
            if size > piece_characters:
                *pieces, rest = cut_at_whitespace("".join(parts), piece_characters)
                yield from ((piece, True) for piece in pieces)
                parts, size, begun = [rest], len(rest), True
        if parts and ((ends_at_line and line_starts) or (ends_at_blank and blank)):
            if (text := "".join(parts).rstrip()) or begun:
                yield text, False
            parts, size, begun = [], 0, False
    if (text := "".join(parts).rstrip()) or begun:
        yield text, False
