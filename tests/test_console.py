"""Where people read what a command says, how much of it, and that nothing of theirs is taken for markup."""

from __future__ import annotations

import builtins
import io
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

from small_runs import small_run
from spanelectra.console import (
    calm_transformers,
    log_level,
    make_console,
    make_output,
    make_results_console,
    say,
    silent_transformers,
    sound_alarm,
)
from spanelectra.pretraining import pretrain

SENTENCE = "run [/x] of [bold]me[/bold] is :fire: 12 " + "long " * 40


def test_it_writes_to_standard_error_in_plain_unbroken_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say(make_console(), SENTENCE)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == SENTENCE + "\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console(quiet=True)
    say(console, SENTENCE)
    sound_alarm(console, SENTENCE)
    assert capsys.readouterr() == ("", "")


def test_an_alarm_is_seen_and_read_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    sound_alarm(make_console(), SENTENCE)
    assert capsys.readouterr().err == f"ALARM {SENTENCE}\n"


def test_colour_is_for_terminals_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        stream = io.StringIO()
        sound_alarm(Console(file=stream, force_terminal=True, color_system="standard"), "no")
        return stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mALARM" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown() and "ALARM" in shown()


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (None, "ab"),
        ("debug", "ab"),
        ("info", "ab"),
        ("warning", "b"),
        ("error", ""),
        ("critical", ""),
    ],
)
def test_a_level_takes_sentences_before_alarms(level: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with log_level(level):
        loud, quiet = make_console(), make_console(quiet=True)
        for console in (loud, quiet):
            say(console, "a")
            sound_alarm(console, "b")
            say(console, "a")
    expected = {"a": "a\n", "b": "ALARM b\n"}
    assert capsys.readouterr().err == "".join(expected[letter] for letter in said + said[:-1])


def test_the_libraries_follow_and_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATASETS_VERBOSITY", "warning")
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    names = ("transformers", "datasets", "torch")
    before = [logging.getLogger(name).level for name in names]
    with log_level("debug"):
        assert [logging.getLogger(name).level for name in names] == [logging.DEBUG] * 3
        assert os.environ["DATASETS_VERBOSITY"] == os.environ["TRANSFORMERS_VERBOSITY"] == "debug"
        with log_level("error"):
            assert transformers_logging.get_verbosity() == logging.ERROR
        assert transformers_logging.get_verbosity() == logging.DEBUG
    assert [logging.getLogger(name).level for name in names] == before
    assert os.environ["DATASETS_VERBOSITY"] == "warning" and "TRANSFORMERS_VERBOSITY" not in os.environ


@pytest.mark.parametrize(("level", "said"), [(None, True), ("info", True), ("warning", True), ("error", False)])
def test_results_are_no_chatter(level: Any, said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with log_level(level):
        say(make_results_console(), "accuracy 81.25")
        say(make_results_console(quiet=True), "never")
    assert capsys.readouterr().out == ("accuracy 81.25\n" if said else "")


def test_transformers_is_calm_unless_a_level_was_chosen() -> None:
    transformers_logging.set_verbosity_warning()
    transformers_logging.enable_progress_bar()
    try:
        with log_level("info"), silent_transformers():
            assert transformers_logging.get_verbosity() == logging.INFO
        with silent_transformers():
            assert transformers_logging.get_verbosity() == logging.ERROR
            assert not transformers_logging.is_progress_bar_enabled()
        assert transformers_logging.get_verbosity() == logging.WARNING
        assert transformers_logging.is_progress_bar_enabled()
        calm_transformers()
        assert transformers_logging.get_verbosity() == logging.ERROR
    finally:
        transformers_logging.set_verbosity_warning()
        transformers_logging.enable_progress_bar()


def test_forced_colour_brings_no_cursor_into_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for console in (make_console(), make_output()):
        assert not console.is_terminal
        sound_alarm(console, "no")
        with Progress(console=console, transient=True) as progress:
            progress.add_task("working", total=2)
    captured = capsys.readouterr()
    for text in captured:
        assert "\x1b[1;31mALARM\x1b[0m no\n" in text
        assert not re.search(r"\x1b\[[\d;?]*[^\d;?m]|[\r\b]", text)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich takes for a Jupyter kernel, which sets FORCE_COLOR itself."""
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")


def test_in_a_notebook_a_run_is_plain_lines_below_the_cell(
    notebook: None, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Console().is_jupyter
    metrics = pretrain(small_run(rows, tmp_path / "run", quiet=False))
    shown = capsys.readouterr()
    # standard error is pink there
    assert shown.err == ""
    lines = shown.out.splitlines()
    training = [line.split()[1] for line in lines if line.startswith("step ") and "held-out" not in line]
    assert training == ["2", "3", "4", "6"]
    assert f"mlm {metrics['held_out']['mlm_loss']:.3f}" in lines[-1] and "finished" in lines[-1]
    assert "too few for alarms" in lines[-2]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown.out)


def test_in_a_notebook_an_alarm_has_colour(notebook: None, capsys: pytest.CaptureFixture[str]) -> None:
    sound_alarm(make_console(), "no")
    assert capsys.readouterr() == ("\x1b[1;31mALARM\x1b[0m no\n", "")
