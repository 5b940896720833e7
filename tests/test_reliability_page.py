"""docs/reliability.md: every test that it names is there, and its table is the one that its figures give."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# tests of the page that may have no result, each with its reason
NOT_RUN: set[str] = set()


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


def test_every_promise_was_kept_when_it_was_tried(benchmarks: None) -> None:
    from promises import Figures
    from reliability import named_tests, table

    figures = Figures()
    assert {test for test in named_tests() if test not in figures.tests} <= NOT_RUN
    written = table(figures)
    for words in ("not measured yet", "no such test", " failed"):
        assert words not in written


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def test_it(record_property): record_property('seconds', 3)", "1 passed at abc"),
        ("def test_it(): assert False", "1 failed at abc"),
        ("import nothing_of_that_name", "1 failed at abc"),
        ("import pytest\ndef test_it(): pytest.skip('no disk')", "1 skipped (no disk) at abc"),
        ("def test_it():\n import os\n os._exit(3)", "1 failed (pytest ended with 3 and without a report) at abc"),
        ("def test_it():\n import time\n time.sleep(600)", "1 failed (took longer than 5 s) at abc"),
        ("def test_another(): pass", "no such test"),
    ],
)
def test_what_becomes_of_a_test(
    benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    import reliability

    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    monkeypatch.setattr(reliability, "checked_out", lambda *_: {"commit": "abc", "clean": True})
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_of_this.py").write_text(content)
    timeout = 5 if "sleep" in content else 600
    assert reliability._cases(reliability.run_test("test_of_this.py::test_it", timeout)) == words


def test_results_of_another_commit_are_repeated_when_asked(
    benchmarks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reliability

    kept = {"passed": 1, "failed": 0, "skipped": 0, "why": [], "measured": {}, "clean": True}
    tests = {"same": {**kept, "commit": "new"}, "older": {**kept, "commit": "old"}}
    tests |= {"failed": {**kept, "commit": "new", "passed": 0, "failed": 1}, "changed": {**kept, "commit": "new"}}
    tests["changed"]["clean"] = False
    results = tmp_path / "results.json"
    ran: list[str] = []
    monkeypatch.setattr(reliability, "RESULTS", results)
    monkeypatch.setattr(reliability, "named_tests", lambda: [*tests, "missing"])
    monkeypatch.setattr(reliability, "checked_out", lambda *_: {"commit": "new", "clean": True})
    monkeypatch.setattr(reliability, "run_test", lambda test, _: ran.append(test) or {**kept, "commit": "new"})
    for again, expected in ((False, ["failed", "missing"]), (True, ["older", "failed", "changed", "missing"])):
        results.write_text(json.dumps({"tests": tests}))
        ran.clear()
        reliability.run_tests(again, "", 1)
        assert ran == expected
        assert list(json.loads(results.read_text())["tests"]) == [*tests, "missing"]


def test_fuzzing_in_words(benchmarks: None) -> None:
    from promises import Figures, _of_fuzzing

    figures = Figures()
    one = {"cases": 1, "processor_seconds": 62.0, "seconds": 120}
    figures.fuzzing = {"total": one, "promised": ["a", "b"], "readers": {"a": {"mended": ["x"], "open": []}}}
    assert _of_fuzzing(figures) == (
        "1 file for 1 of 2 readers, 1 minute of processor time (2 by the clock on a busy machine); 1 kind of defect "
        "found, 0 open"
    )
