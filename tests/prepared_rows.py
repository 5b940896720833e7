"""Real text, a real tokenizer and real rows, made once for all tests that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.data.packing import prepare
from spanelectra.data.tokenization import vocab
from spanelectra.quickstart import python_prose

LENGTH = 32
RHYME = """one two three four five six seven eight nine ten
jack jill hill pail crown water fell down tumbling after"""


def write_text(directory: Path, documents: int) -> Path:
    """Some of Python's own documentation, a file a document."""
    directory.mkdir()
    for number, (name, text) in zip(range(documents), python_prose(), strict=False):
        (directory / f"{number:03}-{name}.txt").write_text(text, encoding="utf-8")
    return directory


def make_rows(text: Path, *, tokenizer_type: str, vocab_size: int) -> Path:
    """vocab and prepare, as the commands do, into the folder that holds the text's."""
    directory = text.parent
    vocab(str(text), str(directory / "tokenizer"), tokenizer_type, vocab_size, quiet=True)  # type: ignore[arg-type]
    prepare(
        str(text),
        str(directory / "tokenizer"),
        str(directory / "rows"),
        max_seq_length=LENGTH,
        validation_fraction=0.1,
        quiet=True,
    )
    return directory / "rows"


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 32 tokens from byte-level BPE."""
    text = write_text(tmp_path_factory.mktemp("bpe") / "text", 12)
    return make_rows(text, tokenizer_type="BPE", vocab_size=600)


@pytest.fixture(scope="session")
def other_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 32 tokens from WordPiece."""
    text = write_text(tmp_path_factory.mktemp("wordpiece") / "text", 12)
    return make_rows(text, tokenizer_type="BERT", vocab_size=600)


@pytest.fixture(scope="session")
def rhyme_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of one rhyme, over and over: the same on every Python, and learnt in a hundred steps."""
    text, rhyme = tmp_path_factory.mktemp("rhyme") / "text", RHYME.split()
    text.mkdir()
    for number in range(40):
        words = [rhyme[(7 * number + place) % len(rhyme)] for place in range(150)]
        (text / f"{number:02}.txt").write_text(" ".join(words), encoding="utf-8")
    return make_rows(text, tokenizer_type="BERT", vocab_size=100)
