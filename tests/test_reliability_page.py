"""docs/reliability.md: every test that it names is there, and its table is the one that its figures give."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def names_in(file: Path) -> set[str]:
    """Tests and classes of a test file, as pytest calls them."""
    names = {""}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            inside = {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
            names |= {node.name, *inside}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return names


def test_every_test_that_is_named_is_there(benchmarks: None) -> None:
    from reliability import named_tests

    for test in named_tests():
        file, _, name = test.partition("::")
        assert name in names_in(ROOT / "tests" / file), test


def test_the_table_is_that_of_the_figures(benchmarks: None) -> None:
    from promises import Figures
    from reliability import BEGIN, END, PAGE, table

    written = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert written == table(Figures()), "run `python benchmarks/reliability.py`"
