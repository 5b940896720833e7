"""Kills runs at random moments, over and over, and looks whether anything that was complete is lost.

    python benchmarks/kill_storm.py --work_dir WORK [--kills 100] [--inside 30]

A storm for each of `pretrain`, `vocab`, `prepare` and `corrupt`: the command starts in a process of its own, gets a
SIGKILL (in `pretrain` every tenth time a SIGTERM) at a random moment and starts again, until there were so many kills,
and so many of them inside a write. Writes are made slow on purpose, and say in a log when they begin and when they end,
so that the log proves where a kill fell. After each kill everything that the log calls complete must be there, whole;
in the end the result must be, to the bit, that of a command that nobody disturbed.

A storm that is interrupted goes on where it was. Writes `docs/kill_storm.json` and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# before torch: a process with threads cannot be forked
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import torch

import spanelectra.atomic_files
import spanelectra.corruption
import spanelectra.data.packing
import spanelectra.data.tokenization
import spanelectra.run_report
import spanelectra.trainer
from checked_out import checked_out
from spanelectra.atomic_files import file_digest, find_damage, write_json
from spanelectra.callbacks import RunStopped, read_history
from spanelectra.checkpointing import CONFIG_NAME, HISTORY_NAME, list_checkpoints, newest_complete_checkpoint
from spanelectra.environment import library_versions
from spanelectra.pretraining import pretrain
from spanelectra.quickstart import python_prose
from spanelectra.training_args import PretrainingArguments

ROOT = Path(__file__).parent.parent
WRITERS = (
    spanelectra.trainer,
    spanelectra.run_report,
    spanelectra.corruption,
    spanelectra.data.packing,
    spanelectra.data.tokenization,
)
SETTINGS: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "per_device_train_batch_size": 4,
    "max_steps": 200,
    "save_steps": 2,
    "logging_steps": 1,
    "eval_steps": 20,
    "eval_rows": 8,
    "dropout": 0.1,
    "tensorboard": False,
    "quiet": True,
}
SECONDS_A_FLUSH = 0.05


@dataclasses.dataclass
class Tally:
    """What a storm has seen so far."""

    kills: int = 0
    inside_a_write: int = 0
    terminations: int = 0
    slowest_termination_seconds: float = 0.0
    finished: int = 0
    passed_over: int = 0
    complete_bytes_lost: int = 0
    seconds: float = 0.0


class Log:
    """Lines that a child appends and that survive it: ``begin NAME`` and ``end NAME`` of every write."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.touch()

    def write(self, line: str) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()


def slow_down(log: Log) -> None:
    """Make this process write slowly, and say so."""
    flush, save, write_directory = (
        spanelectra.atomic_files._flush_to_disk,
        torch.save,
        spanelectra.atomic_files.write_directory,
    )

    def slow_flush(path: Path) -> None:
        time.sleep(SECONDS_A_FLUSH)
        flush(path)

    def slow_save(content: Any, stream: Any) -> None:
        buffer = io.BytesIO()
        save(content, buffer)
        whole = buffer.getvalue()
        stream.write(whole[: len(whole) // 2])
        stream.flush()
        time.sleep(SECONDS_A_FLUSH)
        stream.write(whole[len(whole) // 2 :])

    @contextlib.contextmanager
    def logged(path: Path, **arguments: Any) -> Iterator[Path]:
        log.write(f"begin {Path(path).name}")
        with write_directory(path, **arguments) as partial:
            yield partial
        log.write(f"end {Path(path).name}")

    spanelectra.atomic_files._flush_to_disk = slow_flush
    torch.save = slow_save
    spanelectra.trainer.measure_peak_flops = lambda *_: 1e10
    for module in WRITERS:
        module.write_directory = logged


def start(command: Callable[[], Any], log: Log | None) -> int:
    """Run a command in a process of its own, slowly if there is a log; returns the process."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        if log is not None:
            slow_down(log)
        command()
        code = 0
    except RunStopped as stopped:
        code = stopped.exit_code
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def wait(process: int) -> int:
    """Exit code of a process, -9 for one that was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def finish(command: Callable[[], Any]) -> None:
    """Run a command undisturbed."""
    if wait(start(command, None)):
        raise SystemExit("a command that nobody disturbed failed")


def digests(directory: Path) -> dict[str, str]:
    """File -> SHA-256, without manifests."""
    files = sorted(file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): file_digest(file) for file in files}


class Storm:
    """Kills one command again and again.

    Args:
        name: of the command.
        directory: to work in.
        command: what to start, every time anew.
        check: called after each end with the log's new lines; raises ``AssertionError`` where something is lost.
    """

    def __init__(
        self, name: str, directory: Path, command: Callable[[], Any], check: Callable[[list[str], Tally], None]
    ) -> None:
        self.name, self.directory, self.command, self.check = name, directory, command, check
        directory.mkdir(parents=True, exist_ok=True)
        self.log, self.file = Log(directory / "writes.log"), directory / "tally.json"
        self.tally = Tally(**json.loads(self.file.read_text())) if self.file.is_file() else Tally()
        self.longest = 6.0

    def blow(self, kills: int, inside: int) -> Tally:
        """Kill until there were so many kills, and so many inside a write."""
        while self.tally.kills < kills or self.tally.inside_a_write < inside:
            began = time.monotonic()
            has_written = self._kill_once()
            self.tally.seconds += time.monotonic() - began
            # on a busy machine a process needs longer to get anywhere
            self.longest = max(3.0, self.longest * (0.97 if has_written else 1.15))
            write_json(self.file, dataclasses.asdict(self.tally))
            print(f"{self.name}: {self.tally.kills} kills, {self.tally.inside_a_write} inside a write", flush=True)
        return self.tally

    def _kill_once(self) -> bool:
        """Start, kill, check; returns whether the process completed a write before."""
        chance = random.Random(f"{self.name} {self.tally.kills} {self.tally.finished}")
        terminates = self.name == "pretrain" and (self.tally.kills + self.tally.terminations) % 10 == 9
        lines_before = len(self.log.lines())
        process = start(self.command, self.log)
        time.sleep(chance.uniform(0.0, self.longest))
        # one that has ended is still there until it is waited for
        os.kill(process, signal.SIGTERM if terminates else signal.SIGKILL)
        asked = time.monotonic()
        code = wait(process)
        new = self.log.lines()[lines_before:]
        if code == 0:
            self.tally.finished += 1
        elif terminates:
            # while the process starts SIGTERM ends it as any other
            assert code in (128 + signal.SIGTERM, -signal.SIGTERM), f"{self.name} ended with {code}"
            self.tally.terminations += 1
            taken = time.monotonic() - asked
            self.tally.slowest_termination_seconds = max(self.tally.slowest_termination_seconds, taken)
        else:
            assert code == -signal.SIGKILL, f"{self.name} ended with {code}"
            self.tally.kills += 1
            self.tally.inside_a_write += bool(new) and new[-1].startswith("begin ")
        self.check(new, self.tally)
        return any(line.startswith("end ") for line in new)


def make_pretraining_storm(directory: Path, rows: Path) -> Storm:
    """A run that is resumed after every kill; one that is finished is compared, and the next one begins."""
    whole, run = directory / "whole", directory / "run"
    settings = PretrainingArguments(**SETTINGS, data=str(rows), out_dir=str(whole))
    if not (whole / "metrics.json").is_file():
        shutil.rmtree(whole, ignore_errors=True)
        finish(lambda: pretrain(settings))

    def command() -> None:
        if (run / CONFIG_NAME).is_file():
            pretrain(PretrainingArguments(resume=str(run), quiet=True))
        else:
            pretrain(dataclasses.replace(settings, out_dir=str(run), overwrite=True))

    def check(new: list[str], tally: Tally) -> None:
        completed = [line.split()[1] for line in new if line.startswith("end checkpoint-")]
        newest, passed_over = newest_complete_checkpoint(run)
        tally.passed_over += len(passed_over)
        for name in completed[-1:]:
            if find_damage(run / name) is not None:
                tally.complete_bytes_lost += 1
                raise AssertionError(f"{name} was complete and is not: {find_damage(run / name)}")
            assert newest is not None and newest == list_checkpoints(run)[-1]
        if (run / "metrics.json").is_file():
            losses = [
                [(line["step"], line.get("loss")) for line in read_history(d / HISTORY_NAME)] for d in (run, whole)
            ]
            # a signal closes a window of the log, and windows are of one step here: the histories are equal
            assert losses[0] == losses[1], "the history has gaps or repeats"
            assert digests(run / "model") == digests(whole / "model"), "the result is another one"
            shutil.rmtree(run)

    return Storm("pretrain", directory, command, check)


def make_command_storm(name: str, directory: Path, function: Callable[..., Any], **arguments: Any) -> Storm:
    """A command that replaces its earlier output, over and over."""
    whole, out_dir = directory / "whole", directory / "out"
    if find_damage(whole) is not None:
        finish(lambda: function(**arguments, out_dir=str(whole), overwrite=True, quiet=True))
    expected = digests(whole)

    def command() -> None:
        while True:
            function(**arguments, out_dir=str(out_dir), overwrite=True, quiet=True)

    def check(new: list[str], tally: Tally) -> None:
        # between its two renames the old directory stands aside under another name, and the next start puts it back
        kept = [path for path in (out_dir, out_dir.with_name(".replaced-out")) if path.exists()]
        if any(line.startswith("end ") for line in new[:-1]):
            tally.complete_bytes_lost += not kept
        for path in kept[:1]:
            assert digests(path) == expected, f"{path} is neither whole nor absent"
        tally.finished += sum(line.startswith("end ") for line in new)
        if tally.kills % 3 == 0:
            # then the next kills fall where nothing was there before
            for path in kept:
                shutil.rmtree(path)

    return Storm(name, directory, command, check)


def make_storms(work: Path) -> list[Storm]:
    """All storms, after an undisturbed run of each command."""
    text = work / "text"
    if not text.is_dir():
        (work / "text.partial").mkdir(parents=True, exist_ok=True)
        for number, (name, content) in zip(range(12), python_prose(), strict=False):
            (work / "text.partial" / f"{number:03}-{name}.txt").write_text(content, encoding="utf-8")
        (work / "text.partial").rename(text)
    vocab, prepare = spanelectra.data.tokenization.vocab, spanelectra.data.packing.prepare
    storms = [make_command_storm("vocab", work / "vocab", vocab, data_dir=str(text), vocab_size=600)]
    tokenizer, rows = str(work / "vocab" / "whole"), work / "prepare" / "whole"
    storms.append(
        make_command_storm(
            "prepare", work / "prepare", prepare, data=str(text), tokenizer=tokenizer, max_seq_length=32,
            validation_fraction=0.1,
        )
    )  # fmt: skip
    generator = work / "generator"
    if not (generator / "metrics.json").is_file():
        settings = {**SETTINGS, "max_steps": 4, "stage": "generator", "overwrite": True}
        finish(lambda: pretrain(PretrainingArguments(**settings, data=str(rows), out_dir=str(generator))))
    storms.append(
        make_command_storm(
            "corrupt", work / "corrupt", spanelectra.corruption.corrupt, generator=str(generator), data=str(rows)
        )
    )
    return [make_pretraining_storm(work / "pretrain", rows), *storms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=100, help="of pretrain; the other commands get a quarter each")
    parser.add_argument("--inside", type=int, default=30, help="of these inside a write")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "kill_storm.json")
    arguments = parser.parse_args()
    state = checked_out("src", "benchmarks/kill_storm.py")
    results: dict[str, Any] = {"versions": library_versions(), **state, "commands": {}}
    for storm in make_storms(arguments.work_dir.resolve()):
        share = 1 if storm.name == "pretrain" else 4
        results["commands"][storm.name] = dataclasses.asdict(
            storm.blow(arguments.kills // share, arguments.inside // share)
        )
    write_json(arguments.results, results)
    print("| command | kills | inside a write | finished, equal to the bit | complete bytes lost |")
    print("|---|---|---|---|---|")
    for name, tally in results["commands"].items():
        print(
            f"| {name} | {tally['kills']} | {tally['inside_a_write']} | {tally['finished']} | "
            f"{tally['complete_bytes_lost']} |"
        )


if __name__ == "__main__":
    main()
