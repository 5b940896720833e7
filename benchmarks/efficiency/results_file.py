"""Results of a tier: a file of JSON lines, one a finished unit, which says of itself what it was made with."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from efficiency.plan import chosen_multiple, plan
from efficiency.tiers import Task, Tier, read_tier
from spanelectra.atomic_files import MANIFEST_NAME, file_digest, read_json, write_text
from spanelectra.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent
# names by which a unit is known
KEY = ("purpose", "method", "budget", "seed", "multiple")


def results_path(tier_name: str) -> Path:
    """The committed file of a tier."""
    return FOLDER / f"results-{tier_name}.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a file of results; none where it is not there.

    Raises:
        UserError: naming the line that is none.
    """
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            line = json.loads(text)
            is_result = set(KEY) <= set(line) and isinstance(line["tasks"], dict)
        except (ValueError, TypeError, KeyError):
            is_result = False
        if not is_result:
            raise UserError(f"{path} line {number}: not a line of results; delete it, and its unit is run again.")
        lines.append(line)
    return lines


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add a line; the file is whole at any moment, and several programs may add to it."""
    # the lock is on the folder, for the file is another one after every line
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text(path, earlier + json.dumps(line) + "\n")
    finally:
        os.close(folder)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def rows_digest(data: Path) -> str:
    """Of tokenizer and rows, from the manifest that `spanelectra prepare` wrote."""
    manifest = read_json(data / MANIFEST_NAME, dict)
    return _digest([manifest[name]["sha256"] for name in ("train.bin", "validation.bin", "tokenizer/tokenizer.json")])


class MadeWith:
    """Short digests of all that a unit's numbers depend on: its pre-training, and each task with its files.

    Attributes:
        pre_training: by method: rows and stages, but for learning rates and steps, which the plan sets.
        stages: by method: digests of its first stage, its first two, and so on, whatever they are called.
        tasks: by task: settings, files of train and dev, number of seeds.
        tests: by task that has one: its test file.
        probe: settings of the probe.
    """

    def __init__(self, tier: Tier, data: Path, tasks: Path) -> None:
        self._scores_test = tier.score_test
        rows = rows_digest(data)
        self.pre_training = {
            name: _digest([rows, [[s.name, s.settings, s.share, s.learning_rate_factor] for s in method.stages]])
            for name, method in tier.methods.items()
        }
        self.stages = {
            name: [
                _digest([rows, [[s.settings, s.share, s.learning_rate_factor] for s in method.stages[:count]]])
                for count in range(1, len(method.stages) + 1)
            ]
            for name, method in tier.methods.items()
        }
        self.tasks = {name: self._task(task, tasks, tier.fine_tuning_seeds) for name, task in tier.tasks.items()}
        self.tests = {
            name: file_digest(tasks / task.files["test"])[:16]
            for name, task in tier.tasks.items()
            if "test" in task.files
        }
        self.probe = _digest({name: value for name, value in tier.probe.items() if name != "minutes"})

    @staticmethod
    def _task(task: Task, folder: Path, seeds: int) -> str:
        files = {split: folder / file for split, file in task.files.items()}
        for file in files.values():
            if not file.is_file():
                raise UserError(f"task {task.name}: {file} is missing; pass --tasks the folder that has it.")
        # the test file changes no score on dev
        digests = {split: file_digest(file) for split, file in files.items() if split != "test"}
        return _digest([task.settings, digests, seeds])

    def scores_test(self, task: str, purpose: str) -> bool:
        """Whether units of this purpose are scored on a task's test file."""
        return self._scores_test and purpose == "evaluation" and task in self.tests

    def fine_tuning_name(self, task: str, purpose: str) -> str:
        """Of a task's directory in a unit's: other settings, files or splits are another one."""
        test = f"-test-{self.tests[task][:8]}" if self.scores_test(task, purpose) else ""
        return f"finetune-{task}-{self.tasks[task][:8]}{test}"

    @property
    def probe_name(self) -> str:
        """Of the probe's file in a unit's directory."""
        return f"probe-{self.probe[:8]}.json"

    def fits(self, line: dict[str, Any]) -> bool:
        """Whether a line was made with the same, and has all test scores; of a method that is not in the tier, no."""
        found = {name: line["tasks"].get(name, {}) for name in self.tasks}
        return (
            self.pre_training.get(line["method"]) == line["made_with"]
            and self.probe == line.get("probe_made_with")
            and self.tasks == {name: task.get("made_with") for name, task in found.items()}
            and all(
                found[name].get("test_made_with") == digest
                for name, digest in self.tests.items()
                if self.scores_test(name, line["purpose"])
            )
        )


def with_rates(tier: Tier) -> Tier:
    """A tier with the learning rates that another one has chosen, where it takes them from there.

    Where that one has not chosen yet, a method's multiple stays ``None``, and its units wait.

    Raises:
        UserError: for a method that the other tier does not have.
    """
    if tier.rates_from is None:
        return tier
    other = read_tier(tier.rates_from)
    lines = read_lines(results_path(other.name))
    methods = dict(tier.methods)
    for name, method in tier.methods.items():
        if method.fresh or method.learning_rate_multiple is not None:
            continue
        if method.rates_of not in other.methods:
            raise UserError(
                f"{tier.name}: {name} takes the learning rates of '{method.rates_of}', which {other.name} does not "
                f"have: say another one in its `rates_of`.{did_you_mean(method.rates_of, other.methods)}"
            )
        multiple = chosen_multiple(other, method.rates_of, lines, [])
        methods[name] = dataclasses.replace(method, learning_rate_multiple=multiple)
    return dataclasses.replace(tier, methods=methods)


def own_lines(tier: Tier, path: Path, made_with: MadeWith) -> list[dict[str, Any]]:
    """The lines of a tier's file that are of its methods.

    Raises:
        UserError: for one that was made with something else, other learning rates of its method included.
    """
    lines = read_lines(path)
    multiples = {name: method.learning_rate_multiple for name, method in tier.methods.items() if not method.fresh}
    for number, line in enumerate(lines, start=1):
        method = line["method"]
        if method not in tier.methods:
            continue
        unit = f"{path} line {number} ({method}, {line['budget']:.3g} FLOPs, seed {line['seed']})"
        if not made_with.fits(line):
            raise UserError(
                f"{unit} was made with other rows, task files or settings, or lacks scores on test. Put them back, "
                "rename the tier, or delete the line."
            )
        if line["purpose"] == "evaluation" and method in multiples:
            # all evaluations of a method have the same rates: those that are fixed, or those of the first one
            wanted = multiples[method] = multiples[method] or line["multiple"]
            if line["multiple"] != wanted:
                raise UserError(
                    f"{unit} was run with {line['multiple']:g} times the learning rates, and {method} is to have "
                    f"{wanted:g} times. Put that back, rename the tier, or delete the line."
                )
    return [line for line in lines if line["method"] in tier.methods]


def lines_to_reuse(tier: Tier, lines: list[dict[str, Any]], made_with: MadeWith) -> list[dict[str, Any]]:
    """Lines of the tiers that this one reuses which are, to the last setting, of units that it has still to run."""
    offered = [(name, line) for name in tier.reuses for line in read_lines(results_path(name))]
    taken = []
    for planned in plan(tier, lines):
        for name, line in offered:
            is_same = planned.unit.is_that_of(line) and planned.unit.multiple == line["multiple"]
            if planned.state in ("ready", "waiting") and is_same and made_with.fits(line):
                taken.append({**line, "tier": tier.name, "reused_from": name})
                break
    return taken
