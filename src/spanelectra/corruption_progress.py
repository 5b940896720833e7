"""How far ``spanelectra corrupt`` has come: on disk, so that one that was interrupted goes on, and in words."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from spanelectra.atomic_files import write_json
from spanelectra.console import say

PROGRESS_NAME = "progress.json"
# Between two times at which what was written is made safe, and said where there is no bar.
SECONDS_BETWEEN = 30.0


class CorruptionProgress:
    """Counts of what is written for good, in a file beside it.

    Args:
        directory: of unfinished work; what is in it is deleted where it is the work of other settings.
        work: all that decides what is written, as JSON takes it.
        rows: split -> rows to write.
        console: where progress is said, line by line where there is no bar, which terminals have.

    Attributes:
        splits: split -> ``rows``, ``masked_tokens`` and ``replaced_tokens`` written.
    """

    def __init__(self, directory: Path, work: dict[str, Any], rows: dict[str, int], console: Console) -> None:
        self._file, self._work, self._rows, self.console = directory / PROGRESS_NAME, work, rows, console
        self.splits = {split: dict.fromkeys(("rows", "masked_tokens", "replaced_tokens"), 0) for split in rows}
        found = self._read()
        if found is not None:
            self.splits = found
            say(console, f"going on after {self.done():,} of {sum(rows.values()):,} rows")
        else:
            shutil.rmtree(directory)
            directory.mkdir()
        self._start = self._saved = time.monotonic()
        self._done_before = self.done()

    def _read(self) -> dict[str, dict[str, int]] | None:
        """The counts of the same work; ``None`` where there is none that is whole."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            content = json.loads(self._file.read_text(encoding="utf-8"))
            counts = {
                split: {name: int(content["splits"][split][name]) for name in self.splits[split]}
                for split in self._rows
            }
            if content["work"] == self._work:
                return counts
        return None

    def done(self) -> int:
        """Rows written, of all splits."""
        return sum(counts["rows"] for counts in self.splits.values())

    def add(self, split: str, rows: int, masked: int, replaced: int) -> None:
        """Count a batch that was written."""
        for name, count in (("rows", rows), ("masked_tokens", masked), ("replaced_tokens", replaced)):
            self.splits[split][name] += count

    def is_due(self) -> bool:
        """Whether it is time to :meth:`save`."""
        return time.monotonic() - self._saved >= SECONDS_BETWEEN

    def save(self) -> None:
        """Write the counts down, once the rows that they count are on the disk."""
        write_json(self._file, {"work": self._work, "splits": self.splits})
        self._saved = time.monotonic()

    def tell(self) -> None:
        """Say how far it is, where no bar does."""
        if self.console.is_terminal:
            return
        done, total = self.done(), sum(self._rows.values())
        rate = (done - self._done_before) / max(time.monotonic() - self._start, 1e-9)
        left = f", about {(total - done) / rate / 60:,.0f} min left" if rate > 0 else ""
        say(self.console, f"{done:,} of {total:,} rows, {rate:,.0f} a second{left}")

    def finish(self) -> dict[str, dict[str, Any]]:
        """Remove the file; returns the numbers of each split, as ``features.json`` has them."""
        self._file.unlink(missing_ok=True)
        return {
            split: {
                "rows": counts["rows"],
                "masked_tokens": counts["masked_tokens"],
                "replaced_rate": counts["replaced_tokens"] / max(1, counts["masked_tokens"]),
            }
            for split, counts in self.splits.items()
        }
