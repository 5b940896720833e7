"""Where people read what a command says: standard error, plain in a pipe, nothing of theirs taken for markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from spanelectra.console import make_console, say, sound_alarm

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
