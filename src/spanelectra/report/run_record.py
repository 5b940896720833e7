"""What a run has left in its directory, read with patience: an unfinished or damaged run has a story to tell too."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spanelectra.checkpointing import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    HISTORY_NAME,
    METRICS_NAME,
    ROLLBACKS_NAME,
    START_NAME,
    list_checkpoints,
)
from spanelectra.data.row_dataset import METADATA_NAME
from spanelectra.errors import UserError, reason_of
from spanelectra.report.tolerance import listed, mapping, number

# Of transformers' Trainer, in every checkpoint.
_TRAINER_STATE_NAME = "trainer_state.json"


@dataclass
class RunRecord:
    """A pre-training run, or several fine-tuning runs that one command made.

    Attributes:
        directory: where it lies.
        name: what the page calls it; no other run on the page is called so.
        settings: of ``config.yaml`` (fine-tuning: ``config`` of ``metrics.json``).
        environment: versions and machine.
        start: what it started with: its data and the alarms that sounded then.
        history: lines of ``metrics.jsonl`` in their order, each with a whole number as ``step``.
        metrics: of ``metrics.json``; empty while the run is not finished.
        rollbacks: sentences on how it went back to a checkpoint when its numbers broke down.
        data: of the prepared rows' ``dataset.json``; empty where they are gone.
        problems: sentences on what could not be read.
    """

    directory: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    rollbacks: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_fine_tuning(self) -> bool:
        """Whether it is of `spanelectra finetune`: scores of a task, one for each seed."""
        return isinstance(self.metrics.get("runs"), list) or ("task" in self.settings and "stage" not in self.settings)

    @property
    def step(self) -> int:
        """The last optimiser step that is known of."""
        return max([line["step"] for line in self.history], default=0)

    def lines(self, *, held_out: bool) -> list[dict[str, Any]]:
        """The lines of evaluations, or those of training."""
        return [line for line in self.history if ("eval_loss" in line) == held_out]


def read_runs(directories: Sequence[str | Path]) -> list[RunRecord]:
    """Read runs, each once, in the order given.

    Raises:
        UserError: where a directory is missing or holds no run.
    """
    if not directories:
        raise UserError("RUN is missing: give one or more directories of runs.")
    paths = list(dict.fromkeys(Path(directory).expanduser().resolve() for directory in directories))
    return [_read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _names(paths: list[Path]) -> list[str]:
    """As few of each path's last parts as tell it from the others."""
    names = []
    for path in paths:
        parts = path.parts[1:] or path.parts
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[-count:])
            if sum("/".join(other.parts[-count:]) == name for other in paths) == 1:
                break
        names.append(name)
    return names


def _read_run(directory: Path, name: str) -> RunRecord:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise UserError(f"{directory} {what}; give the --out_dir of a `pretrain` or a `finetune` command.")
    if not any((directory / file).is_file() for file in (CONFIG_NAME, HISTORY_NAME, METRICS_NAME)):
        raise UserError(f"{directory} holds no run: there is none of {CONFIG_NAME}, {HISTORY_NAME} and {METRICS_NAME}.")
    record = RunRecord(directory, name)
    record.metrics = _read_mapping(record, directory / METRICS_NAME)
    record.settings = _read_mapping(record, directory / CONFIG_NAME)
    record.environment = _read_mapping(record, directory / ENVIRONMENT_NAME)
    record.start = _read_mapping(record, directory / START_NAME)
    rollbacks = _read_file(record, directory / ROLLBACKS_NAME)
    record.rollbacks = [str(entry["sentence"]) for entry in map(mapping, listed(rollbacks)) if "sentence" in entry]
    record.history = _read_history(record, directory / HISTORY_NAME)
    if record.is_fine_tuning:
        record.settings = record.settings or mapping(record.metrics.get("config"))
        record.environment = mapping(record.metrics.get("environment"))
        if not record.metrics:
            # an interrupted one: what its finished seeds have left
            files = sorted(directory.glob(f"seed-*/{METRICS_NAME}"))
            record.metrics = {
                "metric": record.settings.get("metric"),
                "runs": [_read_mapping(record, file) for file in files],
            }
    elif data := record.settings.get("data"):
        record.data = _read_mapping(record, Path(str(data)) / METADATA_NAME)
    return record


def _read_mapping(record: RunRecord, file: Path) -> dict[str, Any]:
    """A JSON or YAML file's mapping; empty, with a sentence among the problems, where it does not hold one."""
    content = _read_file(record, file)
    if content is not None and not isinstance(content, dict):
        record.problems.append(f"{file.name} holds no fields.")
    return mapping(content)


def _read_file(record: RunRecord, file: Path) -> Any:
    """A JSON or YAML file's content; ``None``, with a sentence among the problems, where it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        return yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = reason_of(error)
        record.problems.append(f"{file.name} could not be read ({reason}).")
        return None


def _read_history(record: RunRecord, file: Path) -> list[dict[str, Any]]:
    """The whole lines; unlike :func:`~spanelectra.callbacks.read_history`, those after a damaged one too."""
    if not file.is_file():
        return []
    lines, damaged = [], []
    for place, text in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and isinstance(line.get("step"), int) and line["step"] >= 0:
            lines.append(line)
        elif text.strip():
            damaged.append(place)
    if damaged:
        places = ", ".join(map(str, damaged[:5])) + (" …" if len(damaged) > 5 else "")
        record.problems.append(f"{file.name}: {len(damaged)} damaged line(s) were left out (line {places}).")
    return sorted(lines, key=lambda line: line["step"])


def known_flops(record: RunRecord) -> tuple[int, float] | None:
    """(step, FLOPs spent on training up to it) as the run, or else a checkpoint of it, has counted them."""
    flops = number(record.metrics.get("training_flops"))
    if flops:
        return record.step, flops
    for checkpoint in reversed(list_checkpoints(record.directory)):
        try:
            state = json.loads((checkpoint / _TRAINER_STATE_NAME).read_text(encoding="utf-8"))
            step, flops = state["global_step"], number(state["total_flos"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if flops and isinstance(step, int):
            return step, flops
    return None


def discriminator_start(record: RunRecord) -> int:
    """The step at which the discriminator's losses switch on."""
    share, steps = number(record.settings.get("generator_head_start")), number(record.settings.get("max_steps"))
    return math.ceil(share * steps) if share and steps and record.settings.get("stage") == "joint" else 0
