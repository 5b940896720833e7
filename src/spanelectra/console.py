"""One console for what people read while a command works; it writes to standard error."""

from __future__ import annotations

from rich.console import Console


def make_console(quiet: bool = False) -> Console:
    """A console on standard error: colour in a terminal (unless NO_COLOR is set), plain lines in a pipe."""
    return Console(stderr=True, quiet=quiet, soft_wrap=True)
