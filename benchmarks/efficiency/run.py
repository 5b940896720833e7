"""Who learns most from the same compute? Runs what is left of a tier; docs/efficiency-protocol.md is its protocol.

    python benchmarks/efficiency/run.py benchmarks/efficiency/tier1.yaml --data ROWS --tasks TASKS --work_dir WORK \\
        [--workers 2] [--threads 1] [--minutes 600] [--only budget=4e13,method=bert] [--dry_run]

``ROWS`` is what `spanelectra prepare` wrote, ``TASKS`` the folder with conll2003, sst2 and so on. Every unit is a chain
of `spanelectra` commands in ``WORK``, each in a process. It may be stopped at any time, by Ctrl-C, by
SIGTERM, by --minutes or by a power cut; the same command goes on. A finished unit is a line of
`benchmarks/efficiency/results-TIER.jsonl`, to be committed; what has a line is not run again. A unit that fails is
named and passed over; delete its `failed-TIER.json` to try again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from efficiency.flop_budget import StagePlan, plan_stages
from efficiency.plan import Planned, Unit, plan
from efficiency.results_file import MadeWith, append_line, lines_to_reuse, own_lines, results_path, with_rates
from efficiency.shared_stages import take_over_stages
from efficiency.tiers import Tier, read_tier
from efficiency.units import Command, Places, collect, next_command, remove_checkpoints
from efficiency.workers import CommandProcess, Workers
from results_page import table
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError, did_you_mean


class Experiment:
    """A tier with its rows, tasks and results: what is to be run, and how.

    Args:
        tier: the tier.
        places: of rows, tasks and units.
        results: file of results.
        only: a unit must pass all of these.
        workers: units side by side, to be noted in the results.
        threads: of each command, likewise.
    """

    def __init__(
        self,
        tier: Tier,
        places: Places,
        results: Path,
        only: list[Callable[[Unit], bool]],
        workers: int = 1,
        threads: int = 1,
    ) -> None:
        self.tier, self.places, self.results, self.only = tier, places, results, only
        self.workers, self.threads = workers, threads
        rows = RowDataset(places.data)
        self.tokenizer, self.length = rows.tokenizer(), rows.max_seq_length
        self.made_with = MadeWith(tier, places.data, places.tasks)
        self.lines = own_lines(tier, results, self.made_with)
        # a tier's own: what another one does in the same directory, with tasks that this one lacks, is its matter
        self.failed_name = f"failed-{tier.name}.json"
        self._stages: dict[tuple[str, float], tuple[StagePlan, ...]] = {}

    def reuse(self, write: bool = True) -> int:
        """Take over lines of the tiers that this one reuses; returns how many."""
        found = lines_to_reuse(self.tier, self.lines, self.made_with)
        for line in found:
            self._add(line, write)
        return len(found)

    def stages(self, unit: Unit) -> tuple[StagePlan, ...]:
        """Steps of the unit's stages."""
        key = (unit.method, unit.budget)
        if key not in self._stages:
            self._stages[key] = plan_stages(self.tier.methods[unit.method], unit.budget, self.tokenizer, self.length)
        return self._stages[key]

    def plan(self) -> list[Planned]:
        """All units that pass the filters, each with its state."""
        # a directory's name ends with the digest of its settings, those of other settings are no matter
        digests = {digest[:8] for digest in self.made_with.pre_training.values()}
        names = [path.parent.name.rpartition("-") for path in self.places.work.glob(f"*/{self.failed_name}")]
        failed = {name for name, _, digest in names if digest in digests}
        return [entry for entry in plan(self.tier, self.lines, failed) if all(test(entry.unit) for test in self.only)]

    def next_unit(self, running: list[Unit]) -> tuple[Unit, Path] | None:
        """The first unit that can be run and is not."""
        at_work = [unit.name for unit in running]
        for entry in self.plan():
            if entry.state == "ready" and entry.unit.name not in at_work:
                return entry.unit, self.places.of(entry.unit, self.made_with)
        return None

    def next_command(self, unit: Unit, directory: Path) -> Command | None:
        """What comes next for a unit, after what another one has done for it."""
        about = self.tier, unit, self.stages(unit), directory, self.places, self.made_with
        for stage, donor in take_over_stages(*about).items():
            say(f"{unit.name}: {stage} is that of {donor}")
        return next_command(*about)

    def finish(self, unit: Unit, directory: Path) -> None:
        """Write the unit's line of results."""
        at_once = {"threads": self.threads, "workers": self.workers}
        self._add(collect(self.tier, unit, self.stages(unit), directory, self.made_with, at_once))
        remove_checkpoints(directory)

    def _add(self, line: dict, write: bool = True) -> None:
        if write:
            append_line(self.results, line)
        self.lines.append(line)

    def hours(self, unit: Unit, trained: set[tuple[object, ...]] | None = None) -> float:
        """Thread-hours of a unit, as the tier's rates say.

        Args:
            unit: the unit.
            trained: stages that are there for other units to take over; this one's are added, and cost nothing if they
                are among them. By default none are.
        """
        method, tier = self.tier.methods[unit.method], self.tier
        trained = set() if trained is None else trained
        seconds = 60 * tier.fine_tuning_seeds * sum(task.minutes for task in tier.tasks.values())
        if not method.fresh:
            seconds += 60 * tier.probe["minutes"]
            digests = self.made_with.stages[unit.method]
            for digest, stage, planned in zip(digests, method.stages, self.stages(unit), strict=True):
                key = (digest, unit.budget, unit.seed, unit.multiple)
                seconds += 0.0 if key in trained else planned.tokens / stage.tokens_per_second / tier.speed
                trained.add(key)
        return seconds / 3600


def dry_run(experiment: Experiment) -> str:
    """The plan as a table: a line for every purpose, budget and method."""
    groups: dict[tuple[str, float, str], list[Planned]] = {}
    for entry in experiment.plan():
        groups.setdefault((entry.unit.purpose, entry.unit.budget, entry.unit.method), []).append(entry)
    rows, total = [], 0.0
    trained: set[tuple[object, ...]] = set()
    for (purpose, budget, method), entries in groups.items():
        stages, hours = experiment.stages(entries[0].unit), experiment.hours(entries[0].unit)
        left = sum(
            entry.share * experiment.hours(entry.unit, trained)
            for entry in entries
            if entry.state in ("ready", "waiting")
        )
        total += left
        is_fresh = experiment.tier.methods[method].fresh
        states = Counter(entry.state for entry in entries)
        rows.append(
            [
                purpose,
                f"{budget:.2g}" if budget else "-",
                method,
                "-" if is_fresh else " + ".join(f"{stage.steps:,}" for stage in stages),
                "-" if is_fresh else f"{sum(stage.tokens for stage in stages) / 1e6:.1f}",
                "-" if is_fresh else f"{sum(stage.flops for stage in stages) / budget:.4%}",
                f"{len(entries)} ({', '.join(f'{count} {state}' for state, count in states.items())})",
                f"{hours:.2f}",
                f"{left:.1f}",
            ]
        )
    headings = ["for", "FLOPs", "method", "steps", "M tokens", "of the budget", "units", "hours a unit", "hours left"]
    return f"{table(headings, rows)}\n\n{total:.1f} thread-hours left, as estimated"


def read_filters(text: str | None, tier: Tier) -> list[Callable[[Unit], bool]]:
    """``budget=4e13,method=bert`` -> tests of units; several values of one name are alternatives.

    Raises:
        UserError: for a name that is none, or a value that no unit of the tier has.
    """
    choices: dict[str, list[Any]] = {
        "budget": [0.0, *(budget.flops for budget in tier.budgets)],
        "method": list(tier.methods),
        "seed": sorted({tier.tuning_seed, *(seed for budget in tier.budgets for seed in budget.seeds)}),
        "purpose": ["tuning", "evaluation"],
    }
    values: dict[str, list[Any]] = {}
    for pair in text.split(",") if text else []:
        name, _, value = pair.partition("=")
        if name not in choices or not value:
            suggestion = did_you_mean(name, choices)
            raise UserError(f"--only {pair}: write one of {', '.join(f'{known}=…' for known in choices)}.{suggestion}")
        kind = type(choices[name][0])
        try:
            wanted = kind(value)
        except ValueError:
            wanted = None
        if wanted not in choices[name]:
            known = [f"{choice:g}" if kind is float else str(choice) for choice in choices[name]]
            raise UserError(f"--only {pair}: {tier.name} has {', '.join(known)}.{did_you_mean(value, known)}")
        values.setdefault(name, []).append(wanted)
    return [lambda unit, name=name, known=known: getattr(unit, name) in known for name, known in values.items()]


def say(sentence: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {sentence}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2, help="units side by side")
    parser.add_argument(
        "--threads", type=int, default=1, help="of each; two units on a thread each do more than one on two"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of which the last few are for stopping")
    parser.add_argument("--only", help="such as budget=4e13,method=bert,method=electra,seed=1,purpose=evaluation")
    parser.add_argument("--dry_run", action="store_true", help="show the plan")
    parser.add_argument("--results", type=Path, help="another file of results, for trials")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        tier = with_rates(read_tier(arguments.tier))
        places = Places(*(path.resolve() for path in (arguments.data, arguments.tasks, arguments.work_dir)))
        results = arguments.results or results_path(tier.name)
        experiment = Experiment(
            tier, places, results, read_filters(arguments.only, tier), arguments.workers, arguments.threads
        )
        if not experiment.plan():
            raise UserError(f"--only {arguments.only}: no unit of {tier.name} is all of that; --dry_run shows them.")
        if arguments.dry_run:
            experiment.reuse(write=False)
            print(dry_run(experiment))
            return 0
        return run(experiment, arguments.workers, start, arguments.minutes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run(experiment: Experiment, count: int, start: float, minutes: float) -> int:
    """Run what is left; returns 0 when nothing is, 1 where units failed or wait for such, 143 when it was stopped."""
    work = experiment.places.work
    work.mkdir(parents=True, exist_ok=True)
    # the commands hold the lock, too: none may be at work on what another program starts again
    lock = os.open(work / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{work}: another run.py, or a command that one has left, is at work there.") from error
    if reused := experiment.reuse():
        say(f"{reused} lines of other tiers are reused")
    workers = Workers(
        count,
        experiment.next_unit,
        experiment.next_command,
        experiment.finish,
        lambda command, log: CommandProcess(command, log, lock, experiment.threads),
        say,
        experiment.failed_name,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: workers.stop())
    # a checkpoint takes seconds; a step and an evaluation on the way to it some more
    reserve = min(120.0, 0.1 * 60 * minutes)
    workers.run(until=start + 60 * minutes - reserve, patience=max(60.0, reserve))
    states = Counter(entry.state for entry in experiment.plan())
    say(", ".join(f"{states[state]} {state}" for state in ("done", "ready", "waiting", "failed") if states[state]))
    for entry in experiment.plan():
        if entry.state == "failed":
            why = f"why: {experiment.failed_name} and log.txt in its directory"
            say(f"failed, and passed over: {entry.unit.name}; {why}")
        elif entry.state == "waiting" and entry.unit.multiple is None and experiment.tier.rates_from:
            say(f"waiting: {entry.unit.name}: {experiment.tier.rates_from.stem} has not chosen its learning rates yet")
    if workers.stopping:
        return 143
    return 1 if states["failed"] or states["waiting"] else 0


if __name__ == "__main__":
    sys.exit(main())
