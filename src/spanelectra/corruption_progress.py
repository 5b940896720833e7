"""How far ``spanelectra corrupt`` has come: on disk, so that one that was interrupted goes on, and in words."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from spanelectra.atomic_files import PARTIAL_PREFIX, read_json, write_json
from spanelectra.console import say
from spanelectra.errors import UserError

PROGRESS_NAME = "progress.json"
# Between two times at which what was written is made safe, and said where there is no bar.
SECONDS_BETWEEN = 30.0
_COUNTS = ("rows", "masked_tokens", "replaced_tokens")


class CorruptionProgress:
    """Counts of the rows that are written for good, in a file beside them; it stays there when all of them are.

    Args:
        directory: of unfinished work, or empty.
        work: all that decides what is written, as JSON takes it.
        rows: split -> rows to write.
        anew: whether unfinished work is deleted where it is of other settings.
        console: where progress is said, line by line where there is no bar, which terminals have.

    Attributes:
        splits: split -> ``rows``, ``masked_tokens`` and ``replaced_tokens`` written.
        saved_rows: of all splits, as they were last written down.

    Raises:
        UserError: where the directory holds work of other settings, or counts that are damaged.
    """

    def __init__(
        self, directory: Path, work: dict[str, Any], rows: dict[str, int], console: Console, *, anew: bool
    ) -> None:
        self._file, self._work, self._rows, self.console = directory / PROGRESS_NAME, work, rows, console
        self.splits = {split: dict.fromkeys(_COUNTS, 0) for split in rows}
        before, splits = self._read()
        differing = sorted(name for name in {*work, *before} if before.get(name) != work.get(name))
        for left in directory.glob(f"{PARTIAL_PREFIX}*"):
            left.unlink()  # of a small file that a kill caught
        if not differing:
            self.splits = splits
            say(console, f"going on after {self.done():,} of {sum(rows.values()):,} rows")
        elif before and not anew:
            changes = ", ".join(_change(name, before.get(name), work.get(name)) for name in differing)
            raise UserError(
                f"{directory} holds unfinished work with other settings ({changes}). Repeat its command to go on with "
                "it, or begin anew with --overwrite."
            )
        else:
            # first what says that the rest is of use
            self._file.unlink(missing_ok=True)
            for entry in directory.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.saved_rows = self.done()
        self._start = self._saved = time.monotonic()
        self._done_before = self.done()

    def _read(self) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
        """Work and counts as they were saved; nothing where none were, and no work of ours where they are damaged."""
        if not self._file.is_file():
            return {}, {}
        with contextlib.suppress(UserError, LookupError, TypeError, ValueError, AttributeError):
            content = read_json(self._file, dict)
            splits = {split: {name: int(content["splits"][split][name]) for name in _COUNTS} for split in self._rows}
            return dict(content["work"]), splits
        return {PROGRESS_NAME: "damaged"}, {}

    def done(self) -> int:
        """Rows written, of all splits."""
        return sum(counts["rows"] for counts in self.splits.values())

    def add(self, split: str, rows: int, masked: int, replaced: int) -> None:
        """Count a batch that was written."""
        old = self.splits[split]
        # all at once, for Ctrl-C may come between
        self.splits[split] = {
            name: old[name] + count for name, count in zip(_COUNTS, (rows, masked, replaced), strict=True)
        }

    def is_due(self) -> bool:
        """Whether it is time to :meth:`save`."""
        return time.monotonic() - self._saved >= SECONDS_BETWEEN

    def save(self) -> None:
        """Write the counts down, once the rows that they count are on the disk."""
        write_json(self._file, {"work": self._work, "splits": self.splits})
        self._saved, self.saved_rows = time.monotonic(), self.done()

    def tell(self) -> None:
        """Say how far it is, where no bar does."""
        if self.console.is_terminal:
            return
        done, total = self.done(), sum(self._rows.values())
        rate = (done - self._done_before) / max(time.monotonic() - self._start, 1e-9)
        left = f", about {math.ceil((total - done) / rate / 60):,} min left" if rate > 0 else ""
        say(self.console, f"{done:,} of {total:,} rows, {rate:,.0f} a second{left}")

    def summary(self) -> dict[str, dict[str, Any]]:
        """The numbers of each split, as ``features.json`` has them."""
        return {
            split: {
                "rows": counts["rows"],
                "masked_tokens": counts["masked_tokens"],
                "replaced_rate": counts["replaced_tokens"] / max(1, counts["masked_tokens"]),
            }
            for split, counts in self.splits.items()
        }


def _change(name: str, before: Any, now: Any) -> str:
    """A setting that differs, or a file, of which there is only a checksum."""
    if name == PROGRESS_NAME:
        return f"{name} is damaged"
    is_checksum = len(str(before)) == len(str(now)) == 64
    return f"other {name}" if is_checksum else f"{name} {before}, now {now}"
