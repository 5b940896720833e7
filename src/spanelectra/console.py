"""One console for what people read while a command works; it writes to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def make_console(quiet: bool = False) -> Console:
    """A console on standard error: colour in a terminal (unless NO_COLOR is set), plain lines in a pipe."""
    return Console(stderr=True, quiet=quiet, soft_wrap=True)


def say(console: Console, sentence: str) -> None:
    """Print a sentence as it is: a path with brackets in it is no markup."""
    console.print(sentence, highlight=False, markup=False, emoji=False)


def sound_alarm(console: Console, sentence: str) -> None:
    """Print an alarm so that it is seen."""
    console.print(Text.assemble(("ALARM", "bold red"), f" {sentence}"))
