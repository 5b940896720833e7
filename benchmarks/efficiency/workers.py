"""Runs units side by side, a process each at a time, until they are finished or time is up.

Nothing is remembered but what is on disk. A process whose command failed takes its unit with it: the reason goes into
the unit's directory, and it is passed over until that file is deleted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from efficiency.plan import Unit
from efficiency.units import TIMES_NAME, Command
from spanelectra.atomic_files import write_json

LOG_NAME = "log.txt"
# what a command that was told to stop exits with: 128 + SIGINT, SIGTERM; or dies of, before it listens
INTERRUPTED = (130, 143, -2, -15)


class Process(Protocol):
    """A command that runs."""

    processor_seconds: float

    def poll(self) -> int | None:
        """Exit code, ``None`` while it runs."""

    def terminate(self) -> None:
        """Ask it to write down where it is and to stop."""

    def kill(self) -> None:
        """Stop it."""


class CommandProcess:
    """A command of `spanelectra` in a session of its own: Ctrl-C is this program's to hand on.

    Args:
        command: what to run.
        log: file that what it says is appended to.
        keep_open: descriptor of the lock, held as long as any process lives.
        threads: that it has.
    """

    def __init__(self, command: Command, log: Path, keep_open: int, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        words = [sys.executable, "-m", "spanelectra.cli", *command.words]
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"$ spanelectra {' '.join(command.words)}\n")
            stream.flush()
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=[keep_open],
                start_new_session=True,
            )
        self.processor_seconds = 0.0

    def poll(self) -> int | None:
        if self._process.returncode is None:
            number, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if number:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self.processor_seconds = usage.ru_utime + usage.ru_stime
        return self._process.returncode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


@dataclass
class Running:
    """A unit at work."""

    unit: Unit
    directory: Path
    command: Command
    process: Process
    start: float = field(default_factory=time.monotonic)


class Workers:
    """Keeps so many units at work.

    Args:
        count: side by side.
        next_unit: the next unit to be run that is not among the given ones, and its directory; ``None`` for none now.
        next_command: of a unit, ``None`` where it is finished.
        finish: called with a unit that is.
        launch: starts a command, writing to a log.
        say: told in a line what happens.
        failed_name: of the file in a unit's directory that says why it is passed over.
        interval: seconds between looks.
    """

    def __init__(
        self,
        count: int,
        next_unit: Callable[[list[Unit]], tuple[Unit, Path] | None],
        next_command: Callable[[Unit, Path], Command | None],
        finish: Callable[[Unit, Path], None],
        launch: Callable[[Command, Path], Process],
        say: Callable[[str], None],
        failed_name: str,
        interval: float = 0.5,
    ) -> None:
        self.count, self.interval = count, interval
        self.next_unit, self.next_command, self.finish = next_unit, next_command, finish
        self.launch, self.say, self.failed_name = launch, say, failed_name
        self.running: list[Running] = []
        self.stopping = False

    def run(self, until: float = float("inf"), patience: float = float("inf")) -> None:
        """Work until nothing is left.

        Args:
            until: moment of ``time.monotonic()`` at which processes are told to stop.
            patience: seconds that they have for it; then they are killed, and lose what came after a checkpoint.
        """
        try:
            self._run(until, patience)
        except BaseException:
            # whoever starts this program again must not find them still at work
            for running in self.running:
                running.process.terminate()
            raise

    def _run(self, until: float, patience: float) -> None:
        told_at: float | None = None
        while True:
            self.stopping = self.stopping or time.monotonic() >= until
            if self.stopping and told_at is None:
                told_at = time.monotonic()
                self._tell_to_stop()
            if told_at is not None and time.monotonic() > told_at + patience:
                for running in self.running:
                    running.process.kill()
                patience = float("inf")
            self._look_after_running()
            if not self.stopping:
                self._start_units()
            if not self.running:
                return
            time.sleep(self.interval)

    def stop(self) -> None:
        """Stop as when time is up; may be called by a signal's handler."""
        self.stopping = True

    def _tell_to_stop(self) -> None:
        for running in self.running:
            self.say(f"{running.unit.name}: told to stop ({running.command.name})")
            running.process.terminate()

    def _start_units(self) -> None:
        while len(self.running) < self.count:
            found = self.next_unit([running.unit for running in self.running])
            if found is None:
                return
            self._go_on_with(*found, None)

    def _go_on_with(self, unit: Unit, directory: Path, after: Command | None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        command = self.next_command(unit, directory)
        if command is None:
            self._finish(unit, directory)
        elif after is not None and command.name == after.name:
            self._give_up(unit, directory, command, 0, "it left no result")
        else:
            self.say(f"{unit.name}: {command.name}")
            # of one whose end nobody sees, what it cost is unknown
            _append_times(directory, {"command": command.name, "started": time.strftime("%Y-%m-%d %H:%M:%S")})
            self.running.append(Running(unit, directory, command, self.launch(command, directory / LOG_NAME)))

    def _finish(self, unit: Unit, directory: Path) -> None:
        try:
            self.finish(unit, directory)
        except (ValueError, KeyError, OSError) as error:  # files of a unit that are damaged are no matter of the others
            self._give_up(unit, directory, Command("results", ()), 0, f"{type(error).__name__}: {error}")
        else:
            self.say(f"{unit.name}: finished")

    def _look_after_running(self) -> None:
        for running in list(self.running):
            code = running.process.poll()
            if code is None:
                continue
            self.running.remove(running)
            self._write_times(running, code)
            is_finished = code == 0 and self.next_command(running.unit, running.directory) is None
            if is_finished or (code == 0 and not self.stopping):
                self._go_on_with(running.unit, running.directory, running.command)
            elif self.stopping or code in INTERRUPTED:
                # somebody else who told it to stop meant all of them
                self.stopping = True
                self.say(f"{running.unit.name}: stopped; it goes on next time")
            else:
                self._give_up(running.unit, running.directory, running.command, code, _tail(running.directory))

    def _write_times(self, running: Running, code: int) -> None:
        entry: dict[str, Any] = {
            "command": running.command.name,
            "wall_seconds": round(time.monotonic() - running.start, 1),
            "processor_seconds": round(running.process.processor_seconds, 1),
            "exit_code": code,
        }
        _append_times(running.directory, entry)

    def _give_up(self, unit: Unit, directory: Path, command: Command, code: int, reason: str) -> None:
        write_json(directory / self.failed_name, {"command": command.name, "exit_code": code, "reason": reason})
        self.say(f"{unit.name}: FAILED at {command.name}, exit code {code}: {reason}; see {directory / LOG_NAME}")


def _append_times(directory: Path, entry: dict[str, Any]) -> None:
    file = directory / TIMES_NAME
    # after a power cut the last line may be cut off: what follows it is to stay readable
    is_torn = file.is_file() and not file.read_bytes().endswith(b"\n")
    with open(file, "a", encoding="utf-8") as stream:
        stream.write("\n" * is_torn + json.dumps(entry) + "\n")


def _tail(directory: Path) -> str:
    lines = (directory / LOG_NAME).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
