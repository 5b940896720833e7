"""Results of a tier: a file of JSON lines, one a finished unit, which says of itself what it was made with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from plan import plan
from tiers import Task, Tier

from spanelectra.atomic_files import MANIFEST_NAME, file_digest, read_json, write_text
from spanelectra.errors import UserError

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
    """Add a line; the file is whole at any moment."""
    earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, earlier + json.dumps(line) + "\n")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def rows_digest(data: Path) -> str:
    """Of tokenizer and rows, from the manifest that `spanelectra prepare` wrote."""
    manifest = read_json(data / MANIFEST_NAME, dict)
    return _digest([manifest[name]["sha256"] for name in ("train.bin", "validation.bin", "tokenizer/tokenizer.json")])


class MadeWith:
    """Short digests of all that a unit's numbers depend on: its pre-training, and each task with its files."""

    def __init__(self, tier: Tier, data: Path, tasks: Path) -> None:
        rows = rows_digest(data)
        self.pre_training = {
            name: _digest([rows, [[s.name, s.settings, s.share, s.learning_rate_factor] for s in method.stages]])
            for name, method in tier.methods.items()
        }
        self.tasks = {name: self._task(task, tasks, tier.fine_tuning_seeds) for name, task in tier.tasks.items()}

    @staticmethod
    def _task(task: Task, folder: Path, seeds: int) -> str:
        files = {split: folder / file for split, file in task.files.items()}
        for file in files.values():
            if not file.is_file():
                raise UserError(f"task {task.name}: {file} is missing; pass --tasks the folder that has it.")
        # the test file changes no score on dev
        digests = {split: file_digest(file) for split, file in files.items() if split != "test"}
        return _digest([task.settings, digests, seeds])

    def fits(self, line: dict[str, Any]) -> bool:
        """Whether a line was made with the same; of a method that is not in the tier, no."""
        tasks = {name: line["tasks"].get(name, {}).get("made_with") for name in self.tasks}
        return self.pre_training.get(line["method"]) == line["made_with"] and tasks == self.tasks


def own_lines(tier: Tier, path: Path, made_with: MadeWith) -> list[dict[str, Any]]:
    """The lines of a tier's file that are of its methods.

    Raises:
        UserError: for one that was made with something else.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        if line["method"] in tier.methods and not made_with.fits(line):
            raise UserError(
                f"{path} line {number} ({line['method']}, {line['budget']:.3g} FLOPs, seed {line['seed']}) was made "
                "with other rows, task files or settings. Put them back, rename the tier, or delete the line."
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
