"""What a data command shows while it works and when it is done, all of it on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from spanelectra.console import make_console, say, warn
from spanelectra.data.corpus import CorpusStatistics


@contextlib.contextmanager
def reading_progress(description: str, statistics: CorpusStatistics, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that redraws the bar from ``statistics``; a bar is drawn in a terminal only."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = make_console(quiet)
    with Progress(
        TextColumn("{task.description}"), *columns, console=console, disable=console.quiet or not console.is_terminal
    ) as progress:
        task = progress.add_task(description, total=None)
        yield lambda: progress.update(task, completed=statistics.bytes_read, total=statistics.total_bytes)


def print_summary(title: str, lines: Mapping[str, Any], warnings: list[str], *, quiet: bool) -> None:
    """Print aligned lines; counts get separators between thousands, warnings come last."""
    console, width = make_console(quiet), max(map(len, lines))
    say(console, title)
    for name, value in lines.items():
        shown = f"{value:,}" if isinstance(value, int) else value
        say(console, f"  {name:<{width}}  {shown}")
    for warning in warnings:
        warn(console, warning)


def corpus_lines(statistics: CorpusStatistics, seconds: float) -> dict[str, Any]:
    """Summary lines on what was read, how fast, and what was passed over."""
    megabytes = statistics.bytes_read / 1e6
    lines: dict[str, Any] = {
        "files": statistics.files,
        "text": f"{_size(megabytes)} in {seconds:.1f} s, {_size(megabytes / seconds)}/s",
    }
    if statistics.skipped:
        first, reason = next(iter(statistics.skipped.items()))
        lines["skipped files"] = f"{len(statistics.skipped)}, such as {first} ({reason})"
    return lines


def _size(megabytes: float) -> str:
    """In kB where megabytes would be 0.0."""
    return f"{megabytes:,.1f} MB" if megabytes >= 0.1 else f"{1000 * megabytes:,.1f} kB"
