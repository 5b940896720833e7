"""CoNLL column files -> sentences: a word a line with its columns, a blank line after each sentence.

CoNLL-2003 and its like separate columns by white space and name none. CoNLL-U separates them by tabs, has lines of
comment before a sentence, and lines that are no words of the text's own (multiword tokens "1-2", empty nodes "8.1");
CoNLL-U Plus names its columns in a first line ``# global.columns = …`` (universaldependencies.org/format.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from spanelectra.data.text_files import COMPRESSIONS, did_you_mean_path, read_lines
from spanelectra.errors import UserError, did_you_mean

CONLLU_COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
DOCUMENT_START = "-DOCSTART-"

_COLUMN_NAMES = re.compile(r"# global\.columns = (.+)")
_COMMENT = re.compile(r"# [\w.:-]+ = ")
_BLANKS = re.compile(r"[ \t]+")  # not \s: a no-break space belongs to its word


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        words: none is empty; of a column file at least one.
        tags: one a word; ``None`` where they are not known.
        lines: each word's line in the file, from 1; of a running text its number.
        path: the file.
        text: the running text that the words were cut out of; ``None`` for those of a column file.
        starts: each word's first character there.
    """

    words: list[str]
    tags: list[str] | None
    lines: list[int]
    path: str
    text: str | None = None
    starts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Layout:
    """How a file's lines are made.

    Attributes:
        path: the file.
        by_tabs: whether tabs alone separate columns, so that a word may hold spaces.
        width: number of columns.
        line: the line that this was seen on, from 1.
        names: of the columns, where the file names them.
    """

    path: str
    by_tabs: bool
    width: int
    line: int
    names: tuple[str, ...]

    def fields(self, line: str) -> list[str]:
        if self.by_tabs:
            return [value.strip(" ") for value in line.split("\t")]
        return _BLANKS.split(line.strip(" \t"))

    def is_comment(self, line: str) -> bool:
        """Whether a line before a sentence is one of comment: "#" may be a word, and then has its columns."""
        return line.startswith("#") and (len(self.fields(line)) != self.width or bool(_COMMENT.match(line)))

    def column(self, setting: str, value: str) -> int:
        """Index of a column given by name or number; raises ``UserError`` where there is none."""
        if value in self.names:
            return self.names.index(value)
        if re.fullmatch(r"-?\d+", value):
            if -self.width <= int(value) < self.width:
                return int(value) % self.width
            raise UserError(
                f"{self.path}:{self.line}: no column {value} (--{setting}); there are {self.width}, 0 to "
                f"{self.width - 1}, or -1 for the last."
            )
        if self.names:
            raise UserError(
                f"{self.path}: no column '{value}'; choose one with --{setting}: {', '.join(self.names)}."
                f"{did_you_mean(value, self.names)}"
            )
        raise UserError(
            f"{self.path}: --{setting} is '{value}', but the file does not name its columns (a first line "
            f"'# global.columns = …' would); give a number from 0 to {self.width - 1}, or -1 for the last."
        )


@dataclass
class _Sentences:
    """Sentences so far, and the one that is being read."""

    path: str
    labelled: bool
    done: list[Sentence] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def end(self) -> None:
        if self.words:
            self.done.append(Sentence(self.words, self.tags if self.labelled else None, self.lines, self.path))
            self.words, self.tags, self.lines = [], [], []


def read_conll(
    path: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    labelled: bool = True,
    encoding: str = "utf-8",
) -> list[Sentence]:
    """Read a CoNLL column file, plain or compressed.

    Lines of ``-DOCSTART-`` are dropped and end a sentence. A line that starts with "#" is comment if it stands before
    a sentence and has not the file's number of columns, or reads ``# name = …``; otherwise "#" is a word.

    Args:
        path: the file; if it is called ``.conllu``, its columns have CoNLL-U's names.
        text_column: name or number of the words' column; by default FORM where columns are named, else the first.
        label_column: of the tags' column; by default UPOS in ``.conllu``, else the last.
        labelled: whether there must be tags. If not, they are read where the column is there.
        encoding: of the file.

    Raises:
        UserError: with file and line, for a file or column that is missing, a line with another number of columns than
            the others, an empty word or tag; or a file without a sentence.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"There is no file '{path}'.{did_you_mean_path(file)}")
    lines = [line.rstrip("\n") for line in read_lines(file, encoding=encoding)]
    layout = _find_layout(path, file, lines)
    text = layout.column("text_column", text_column or ("FORM" if "FORM" in layout.names else "0"))
    label = _label_index(layout, text, label_column, labelled)
    identifier = layout.names.index("ID") if "ID" in layout.names else None

    sentences = _Sentences(path, label is not None)
    for number, line in enumerate(lines, start=1):
        if _ends_sentence(line):
            sentences.end()
            continue
        if not sentences.words and layout.is_comment(line):
            continue
        fields = layout.fields(line)
        if len(fields) != layout.width:
            raise UserError(
                f"{path}:{number}: {len(fields)} columns where line {layout.line} has {layout.width}. "
                "Every line is a word and its columns; a blank line ends a sentence."
            )
        if identifier is not None and not fields[identifier].isdigit():
            continue
        for name, index in (("word", text), ("label", label)):
            if index is not None and not fields[index]:
                raise UserError(f"{path}:{number}: the {name} (column {index}) is empty.")
        sentences.words.append(fields[text])
        sentences.lines.append(number)
        if label is not None:
            sentences.tags.append(fields[label])
    sentences.end()
    if not sentences.done:
        raise _no_sentences(path)
    return sentences.done


def _no_sentences(path: str) -> UserError:
    return UserError(f"{path} holds no sentences; a word a line with its columns is expected.")


def _ends_sentence(line: str) -> bool:
    return not line.strip() or line.split(maxsplit=1)[0] == DOCUMENT_START


def _find_layout(path: str, file: Path, lines: list[str]) -> _Layout:
    """The layout of the first line that is surely a word's, with the columns' names where there are any."""
    named = _COLUMN_NAMES.match(lines[0]) if lines else None
    suffix = (file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file).suffix.lower()
    names = tuple(named[1].split()) if named else CONLLU_COLUMNS if suffix == ".conllu" else ()
    content = [(number, line) for number, line in enumerate(lines, start=1) if not _ends_sentence(line)]
    content = content[1:] if named else content
    if not content:
        raise _no_sentences(path)
    number, line = next((entry for entry in content if not entry[1].startswith("#")), content[0])
    by_tabs = "\t" in line
    layout = _Layout(path, by_tabs, 0, number, names)
    width = len(layout.fields(line))
    if names and width != len(names):
        raise UserError(f"{path}:{number}: {width} columns where there should be {len(names)}: {', '.join(names)}.")
    return _Layout(path, by_tabs, width, number, names)


def _label_index(layout: _Layout, text: int, label_column: str | None, labelled: bool) -> int | None:
    """Index of the tags' column; ``None`` where there need not be one and is none."""
    default = "UPOS" if layout.names == CONLLU_COLUMNS else "-1"
    try:
        label = layout.column("label_column", label_column or default)
    except UserError:
        if labelled:
            raise
        return None
    if label != text:
        return label
    if not labelled:
        return None
    if layout.width == 1:
        raise UserError(
            f"{layout.path}:{layout.line}: one column only, so there are no labels. Columns as in CoNLL files are "
            "expected: a token and its tag a line, separated by blanks or a tab, and a blank line between sentences."
        )
    raise UserError(f"{layout.path}: text_column and label_column are the same column, {text}.")
