"""What ``--help`` says of an option."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from jsonargparse import ArgumentParser

from spanelectra.command_help import HelpInWords, plain_text


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (int, {"default": 3}, "(a whole number; default: 3)"),
        (int | None, {"default": None}, "(a whole number)"),
        (float, {"required": True}, "(required; a number)"),
        (str, {"required": True}, "(required)"),
        (str, {"default": "utf-8"}, "(default: utf-8)"),
        (bool, {"default": False}, "(default: false)"),
        (float | str, {"default": "0:1 1:2"}, "(a number or a schedule; default: 0:1 1:2)"),
        (int | str | None, {"default": None}, "(a whole number or a schedule)"),
        (Literal["one", "two"], {"default": "one"}, "(one of one, two; default: one)"),
        (Literal["one", "two"] | None, {"default": None}, "(one of one, two)"),
        (list[Literal["one", "two"]] | None, {"default": None}, "(some of one, two)"),
        (list[str] | None, {"default": None}, "(one, or several separated by commas)"),
        (str | list[str] | None, {"default": None}, "(one, or several separated by commas)"),
        (str | None, {"default": None}, ""),
    ],
)
def test_type_and_default_are_said_in_words(
    kind: Any, settings: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    parser = ArgumentParser(prog="command", formatter_class=HelpInWords)
    parser.add_argument("--option", type=kind, help="what it does (always).", **settings)
    (line,) = [line for line in parser.format_help().splitlines() if "what it does" in line]
    assert line.split("what it does (always).")[1].strip() == expected


def test_markup_is_taken_away() -> None:
    assert plain_text("a ``name`` of :class:`~package.module.Thing`, `as it is`") == "a name of Thing, `as it is`"
