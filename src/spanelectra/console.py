"""Where people read what a command says, and how much of it.

What it does goes to standard error; scores (of `finetune`, `evaluate` and `probe`) and answers (of `predict`) go to
standard output. In a notebook both stand below the cell.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

# Loggers that follow a chosen level, and what a library reads that is imported only later.
_LIBRARIES = ("transformers", "datasets", "huggingface_hub", "accelerate", "torch")
_VARIABLES = ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY")
_chosen: LogLevel | None = None


class _AlarmConsole(Console):
    """A quiet console that lets alarms through."""


@contextlib.contextmanager
def log_level(level: LogLevel | None) -> Iterator[None]:
    """Choose how much is said inside a ``with``: what ``--log_level`` does, for Python.

    Args:
        level: ``debug`` and ``info``: every sentence of ours, and the libraries' messages of that level; ``warning``:
            alarms, warnings of the data and the libraries' own; ``error`` and ``critical``: errors alone, as ``quiet``.
            ``None``: every sentence of ours, and of the libraries' warnings those that we do not say ourselves.
    """
    global _chosen
    if level is None:
        yield
        return
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = _chosen, [logger.level for logger in loggers], {name: os.environ.get(name) for name in _VARIABLES}
    _chosen = level
    for logger in loggers:
        logger.setLevel(level.upper())
    os.environ.update(dict.fromkeys(_VARIABLES, level))
    try:
        yield
    finally:
        _chosen, levels, variables = before
        for logger, number in zip(loggers, levels, strict=True):
            logger.setLevel(number)
        for name, value in variables.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def make_console(quiet: bool = False) -> Console:
    """A console for what a command says: on standard error, or in a notebook below the cell, where that would be pink.

    Colour and bars are for terminals, and colour for notebooks; neither is in a pipe. NO_COLOR takes the colour away,
    FORCE_COLOR puts it, and nothing else of a terminal's, into a pipe.

    Args:
        quiet: say nothing at all.
    """
    kind = _AlarmConsole if not quiet and _chosen == "warning" else Console
    return _console(kind, quiet=quiet or _chosen in ("warning", "error", "critical"), soft_wrap=True)


def make_results_console(quiet: bool = False) -> Console:
    """A console on standard output, for the numbers that a command exists to give: they are no chatter, and go only
    where errors alone are wanted."""
    return _console(Console, stderr=False, quiet=quiet or _chosen in ("error", "critical"), soft_wrap=True)


def make_output() -> Console:
    """A console on standard output, for what a command was asked to show."""
    return _console(Console, stderr=False, highlight=False)


def _console(kind: type[Console], *, stderr: bool = True, **settings: Any) -> Console:
    """Rich's console, but without boxes of HTML in notebooks, which fold them away after fifty lines."""
    in_notebook = Console().is_jupyter
    plain = kind(stderr=stderr and not in_notebook, force_jupyter=False, **settings)
    is_terminal = getattr(plain.file, "isatty", bool)()
    if in_notebook or (not is_terminal and plain.is_terminal):
        # a kernel sets FORCE_COLOR too; colour is no cursor that could draw bars
        return kind(stderr=plain.stderr, force_jupyter=False, force_terminal=False, color_system="standard", **settings)
    return plain


def say(console: Console, sentence: str) -> None:
    """Print a sentence as it is: a path with brackets in it is no markup."""
    console.print(sentence, highlight=False, markup=False, emoji=False)


def sound_alarm(console: Console, sentence: str) -> None:
    """Print an alarm so that it is seen."""
    _insist(console, Text.assemble(("ALARM", "bold red"), f" {sentence}"))


def warn(console: Console, sentence: str) -> None:
    """Print what a person should know of their data; a log level of ``warning`` keeps it."""
    _insist(console, Text(f"warning: {sentence}"))


def _insist(console: Console, text: Text) -> None:
    quiet = console.quiet
    console.quiet = quiet and not isinstance(console, _AlarmConsole)
    console.print(text)
    console.quiet = quiet


def calm_transformers() -> None:
    """Leave it to our own console to say what transformers would repeat, unless a log level was chosen."""
    # here, because asking for help must not take the seconds that this import takes
    from transformers.utils import logging as transformers_logging

    if _chosen is None:
        transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """:func:`calm_transformers` for as long as a ``with`` lasts."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    calm_transformers()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
