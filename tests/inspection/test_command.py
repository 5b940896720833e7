"""The command: a picture in the terminal or in a file, rows of data, or the page."""

from __future__ import annotations

import _thread
import contextlib
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from factories import joint_config
from spanelectra.cli import main
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.command import inspect
from spanelectra.inspection.opening import open_for_inspection
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."


@pytest.fixture(scope="module")
def run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("command") / "run"
    write_run(directory, load_tokenizer(rows / "tokenizer"), joint_config())
    return directory


def test_the_terminal_and_a_file_show_the_same_picture(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = look(open_for_inspection(run), TEXT, seed=2, mask_ratio=0.3)
    picture = inspect(TEXT, str(run), terminal=True, html=str(tmp_path / "p.html"), seed=2, mask_ratio=0.3)
    assert picture == expected
    captured = capsys.readouterr()
    assert "Judged" in captured.out and "p.html" in captured.err
    assert f'data-ato="{expected.tokens[3].ato:.6f}"' in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_chosen_words_are_masked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", TEXT, "--model", str(run), "--terminal", "--mask", "names,the module"]) == 0
    assert "The «names» in «the module» are a list of the «names» in the file." in capsys.readouterr().out


def test_rows_are_printed(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    views = inspect(prepared=str(rows), rows=2, split="validation")
    assert isinstance(views, list) and len(views) == 2
    assert "Row 1:" in capsys.readouterr().out


def test_what_does_not_go_together(run: Path, rows: Path, tmp_path: Path) -> None:
    for name in ("corpus.txt", "mine.html"):
        (tmp_path / name).write_text("mine")
    for arguments, message in (
        ({}, "--model RUN is missing"),
        ({"text": TEXT}, "--model RUN is missing"),
        ({"prepared": str(rows), "terminal": True}, "leave out the text"),
        ({"model": str(run), "html": str(tmp_path / "corpus.txt")}, "must end in .html"),
        ({"model": str(run), "html": str(tmp_path / "mine.html")}, "is there already"),
        ({"model": str(run), "html": str(tmp_path / "no" / "p.html")}, "does not exist"),
        ({"model": str(run), "seed": 3}, "the page has its own"),
        ({"model": str(run), "mask": ["the"]}, "--mask goes with --terminal or --html"),
        ({"model": str(run), "terminal": True, "mask": ["a"], "mask_ratio": 0.3}, "give one of them"),
        ({"model": str(run), "rows": 5}, "--rows goes with --prepared"),
        ({"model": str(run), "terminal": True, "split": "validation"}, "--split goes with --prepared"),
        ({"model": str(run), "terminal": True, "overwrite": True}, "--overwrite goes with --html"),
        ({"prepared": str(rows), "port": 0}, "--port is of the page"),
        ({"model": str(run), "terminal": True, "text": "the"}, "too few"),
        ({"model": str(tmp_path / "nowhere"), "terminal": True}, "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            inspect(**arguments)  # type: ignore[arg-type]
    assert {(tmp_path / name).read_text() for name in ("corpus.txt", "mine.html")} == {"mine"}
    inspect(model=str(run), html=str(tmp_path / "mine.html"), overwrite=True)
    assert "One sentence" in (tmp_path / "mine.html").read_text(encoding="utf-8")


def test_the_page_says_where_it_is_and_stops_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pages = []

    def visit() -> None:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    pages.append(urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=20).read().decode())
                    break
                time.sleep(0.1)
        finally:
            _thread.interrupt_main()  # Ctrl-C

    visitor = threading.Thread(target=visit)
    # where the tests run in the background, a shell has it ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        visitor.start()
        assert inspect(TEXT, str(run), port=port) is None
    finally:
        signal.signal(signal.SIGINT, before)
    visitor.join()
    assert "SpanElectra inspector" in pages[0] and TEXT in pages[0]
    said = capsys.readouterr()
    assert f"http://127.0.0.1:{port} (Ctrl-C stops it)" in said.err and said.out == ""
