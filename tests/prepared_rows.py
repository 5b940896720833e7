"""Real text, a real tokenizer and real rows, made once for all tests that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.data.packing import prepare
from spanelectra.data.tokenization import vocab
from spanelectra.quickstart import python_prose

LENGTH = 32


def write_text(directory: Path, documents: int) -> Path:
    """Some of Python's own documentation, a file a document."""
    directory.mkdir()
    for number, (name, text) in zip(range(documents), python_prose(), strict=False):
        (directory / f"{number:03}-{name}.txt").write_text(text, encoding="utf-8")
    return directory


def make_rows(directory: Path, *, tokenizer_type: str, vocab_size: int, documents: int) -> Path:
    """vocab and prepare, as the commands do."""
    text = write_text(directory / "text", documents)
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
    return make_rows(tmp_path_factory.mktemp("bpe"), tokenizer_type="BPE", vocab_size=600, documents=12)


@pytest.fixture(scope="session")
def other_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 32 tokens from WordPiece."""
    return make_rows(tmp_path_factory.mktemp("wordpiece"), tokenizer_type="BERT", vocab_size=600, documents=12)
