"""What is done for a unit: commands of `spanelectra` in a directory of its own, whose files say how far it is."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checked_out import checked_out
from efficiency.flop_budget import StagePlan
from efficiency.plan import Unit
from efficiency.results_file import MadeWith
from efficiency.tiers import RATES, Stage, Task, Tier
from spanelectra.atomic_files import read_json
from spanelectra.callbacks import read_history
from spanelectra.checkpointing import CONFIG_NAME, HISTORY_NAME, METRICS_NAME, list_checkpoints
from spanelectra.environment import describe_environment
from spanelectra.errors import UserError
from spanelectra.recipe_files import load_recipe

TIMES_NAME = "times.jsonl"
# in a stage's directory that was copied: of the unit that trained it
TRAINED_IN_NAME = "trained-in.json"
# Points of the intrinsic curves, and checkpoints, in a run.
EVALUATIONS, CHECKPOINTS = 10, 20
CURVES = ("mlm_loss", "sbgo_loss", "ato_loss", "correction_loss", "ato_auc", "sbpo_auc", "generator_accuracy")


@dataclass(frozen=True)
class Command:
    """A command of `spanelectra`: what it is for, and its words."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Where things are: prepared rows, the folder of tasks, and the folder of all units."""

    data: Path
    tasks: Path
    work: Path

    def of(self, unit: Unit, made_with: MadeWith) -> Path:
        """The unit's directory; the same in every tier that pre-trains it alike."""
        return self.work / f"{unit.name}-{made_with.pre_training[unit.method][:8]}"


def next_command(
    tier: Tier, unit: Unit, stages: tuple[StagePlan, ...], directory: Path, places: Places, made_with: MadeWith
) -> Command | None:
    """The first thing that is not done yet; ``None`` where all is. What was interrupted is gone on with."""
    method = tier.methods[unit.method]
    for number, (stage, planned) in enumerate(zip(method.stages, stages, strict=True)):
        if not (directory / stage.name / METRICS_NAME).is_file():
            earlier = directory / method.stages[number - 1].name if number else None
            return _pre_training(unit, stage, planned, number, earlier, directory, places)
    encoder = directory / method.stages[-1].name
    probe = directory / made_with.probe_name
    if not method.fresh and not probe.is_file():
        words = ["probe", "--model", str(encoder), "--tasks", str(places.tasks), "--out", str(probe)]
        words += ["--only", ",".join(tier.probe["only"]), "--train_examples", str(tier.probe["train_examples"])]
        return Command("probe", (*words, "--fine_tune", "false", "--seed", str(unit.seed)))
    for task in tier.tasks.values():
        out_dir = directory / made_with.fine_tuning_name(task.name, unit.purpose)
        if not (out_dir / METRICS_NAME).is_file():
            is_test_scored = made_with.scores_test(task.name, unit.purpose)
            return _fine_tuning(tier, unit, task, encoder, out_dir, places, is_test_scored)
    return None


def planned_settings(unit: Unit, stage: Stage, planned: StagePlan, number: int) -> dict[str, float]:
    """What the plan sets itself, and what a finished run is held to."""
    arguments = stage.arguments(unit.multiple or 1.0)
    return {
        **{rate: getattr(arguments, rate) for rate in RATES},
        "max_steps": planned.steps,
        # the second stage is to see other rows first than the first one did
        "seed": unit.seed + 1000 * number,
    }


def check_settings(run: Path, planned: dict[str, float]) -> None:
    """Raise :class:`UserError` for a run with other rates, steps or seed than its unit's."""
    settings = load_recipe(str(run / CONFIG_NAME))
    for name, value in planned.items():
        if not math.isclose(float(settings[name]), value, rel_tol=1e-9):
            raise UserError(
                f"{run} was run with {name} {settings[name]}, and the plan says {value}: delete the unit's directory."
            )


def _pre_training(
    unit: Unit, stage: Stage, planned: StagePlan, number: int, earlier: Path | None, directory: Path, places: Places
) -> Command:
    run = directory / stage.name
    name = f"pretrain {stage.name}"
    if (run / CONFIG_NAME).is_file():
        return Command(name, ("pretrain", "--resume", str(run)))
    settings = {
        **stage.settings,
        **planned_settings(unit, stage, planned, number),
        "data": places.data,
        "out_dir": run,
        "eval_steps": max(1, planned.steps // EVALUATIONS),
        "save_steps": max(1, planned.steps // CHECKPOINTS),
        "tensorboard": False,
        "report": False,
        # a kill before the first settings were written leaves a directory without a run
        "overwrite": True,
    }
    if stage.arguments().stage == "discriminator":
        settings["generator"] = earlier
    return Command(name, ("pretrain", *_flags(settings)))


def _fine_tuning(
    tier: Tier, unit: Unit, task: Task, encoder: Path, out_dir: Path, places: Places, is_test_scored: bool
) -> Command:
    files = {split: places.tasks / file for split, file in task.files.items() if is_test_scored or split != "test"}
    settings = {
        "model": encoder,
        "out_dir": out_dir,
        **files,
        **task.settings,
        # no two units share a seed, and methods with the same seed do
        "seed": 10 * unit.seed,
        "seeds": tier.fine_tuning_seeds,
        "random_weights": tier.methods[unit.method].fresh,
        # the same arithmetic on every machine; by default it is the processor's choice
        "bf16": False,
        "resume": True,
    }
    return Command(f"finetune {task.name}", ("finetune", *_flags(settings)))


def _flags(settings: dict[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += [f"--{name}", text.lower() if isinstance(value, bool) else text]
    return words


def collect(
    tier: Tier, unit: Unit, stages: tuple[StagePlan, ...], directory: Path, made_with: MadeWith, at_once: dict[str, int]
) -> dict[str, Any]:
    """The unit's line of results, from the files that its commands have left.

    Args:
        tier, unit, stages, directory: as for :func:`next_command`.
        made_with: digests of what its numbers depend on.
        at_once: ``threads`` of a command and ``workers`` side by side, which the wall time depends on.

    Raises:
        UserError: for a run that is not the unit's.
    """
    method = tier.methods[unit.method]
    for number, (stage, planned) in enumerate(zip(method.stages, stages, strict=True)):
        check_settings(directory / stage.name, planned_settings(unit, stage, planned, number))
    runs = [read_json(directory / stage.name / METRICS_NAME, dict) for stage in method.stages]
    seconds = [processor_seconds(directory / stage.name) for stage in method.stages]
    is_fresh = method.fresh
    return {
        "tier": tier.name,
        "purpose": unit.purpose,
        "method": unit.method,
        "budget": unit.budget,
        "seed": unit.seed,
        "multiple": unit.multiple,
        "training_flops": 0.0 if is_fresh else sum(run["training_flops"] for run in runs),
        "tokens": 0 if is_fresh else sum(run["tokens"] for run in runs),
        "steps": 0 if is_fresh else sum(run["steps"] for run in runs),
        "wall_seconds": 0.0 if is_fresh else sum(run["wall_seconds"] for run in runs),
        "processor_seconds": 0.0 if is_fresh else _sum_of_known(seconds),
        "fine_tuned_in": "float32",
        "tasks": {name: _task_line(directory, unit, task, made_with) for name, task in tier.tasks.items()},
        "probe": {} if is_fresh else _probe_line(directory / made_with.probe_name),
        "probe_made_with": made_with.probe,
        "stages": [] if is_fresh else _stage_lines(method.stages, stages, runs, directory),
        "made_with": made_with.pre_training[unit.method],
        "environment": {**describe_environment(), **at_once},
        **checked_out("src", "benchmarks/efficiency/*.py", "benchmarks/efficiency/*.yaml"),
    }


def _sum_of_known(seconds: list[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None


def has_ended_well(run: Path) -> bool:
    """Whether the command that trained a stage was seen to end well, here or where the stage was copied from."""
    return (run / TRAINED_IN_NAME).is_file() or any(entry.get("exit_code") == 0 for entry in _times(run))


def processor_seconds(run: Path) -> float | None:
    """User and system time of a stage over all sessions; ``None`` where one was cut off, whose end nobody saw."""
    if (run / TRAINED_IN_NAME).is_file():
        return read_json(run / TRAINED_IN_NAME, dict)["processor_seconds"]
    times = _times(run)
    started, ended = ([entry for entry in times if name in entry] for name in ("started", "exit_code"))
    if len(started) != len(ended) or not has_ended_well(run):
        return None
    return round(sum(entry["processor_seconds"] for entry in ended), 1)


def _times(run: Path) -> list[dict[str, Any]]:
    """Starts and ends of a stage's command; a line that a power cut has torn is none, and its end is not seen."""
    file = run.parent / TIMES_NAME
    entries = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []:
        with contextlib.suppress(ValueError):
            entries.append(json.loads(text))
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("command") == f"pretrain {run.name}"]


def _task_line(directory: Path, unit: Unit, task: Task, made_with: MadeWith) -> dict[str, Any]:
    metrics = read_json(directory / made_with.fine_tuning_name(task.name, unit.purpose) / METRICS_NAME, dict)
    metric, summary = metrics["metric"], metrics["summary"]
    # a collapsed seed counts as it is: which method collapses is part of what is asked
    values = {split: [run[split][metric] for run in metrics["runs"]] for split in summary}
    return {
        "metric": metric,
        **{split: statistics.fmean(scores) for split, scores in values.items()},
        "values": values,
        "collapsed": metrics["collapsed"],
        "made_with": made_with.tasks[task.name],
        "test_made_with": made_with.tests[task.name] if made_with.scores_test(task.name, unit.purpose) else None,
    }


def _probe_line(file: Path) -> dict[str, Any]:
    tasks = read_json(file, dict)["tasks"]
    names = ("metric", "layers", "fresh_layers")
    return {task: {name: result[name] for name in names} for task, result in tasks.items()}


def _stage_lines(
    stages: tuple[Stage, ...], planned: tuple[StagePlan, ...], runs: list[dict[str, Any]], directory: Path
) -> list[dict[str, Any]]:
    """Of each stage what it cost and what was held out, at its end and on the way (over FLOPs of the whole run)."""
    lines, spent = [], 0.0
    for stage, plan, run in zip(stages, planned, runs, strict=True):
        history = read_history(directory / stage.name / HISTORY_NAME)
        curve = [
            [spent + plan.cost.total(entry["step"], of=plan.steps), _point(entry)]
            for entry in history
            if "eval_loss" in entry
        ]
        names = ("steps", "tokens", "training_flops", "wall_seconds", "tokens_per_second", "alarms")
        held_out = {name: round(value, 4) for name, value in run["held_out"].items()}
        held_out["unigram_cross_entropy"] = run["unigram_cross_entropy"]
        about = {name: run[name] for name in names}
        copied = directory / stage.name / TRAINED_IN_NAME
        about["trained_in"] = read_json(copied, dict)["unit"] if copied.is_file() else None
        lines.append({"name": stage.name, **about, "held_out": held_out, "curve": curve})
        spent += run["training_flops"]
    return lines


def _point(entry: dict[str, Any]) -> dict[str, float]:
    """What the curves show of a held-out evaluation."""
    found = {name: entry.get(f"eval_{name}") for name in CURVES}
    return {name: round(value, 4) for name, value in found.items() if isinstance(value, float)}


def remove_checkpoints(directory: Path) -> None:
    """Of a unit that is finished: its models stay, what they could be resumed from goes."""
    for run in directory.iterdir():
        for checkpoint in list_checkpoints(run) if run.is_dir() else []:
            shutil.rmtree(checkpoint)
