"""A fine-tuning run's directory: may it be written, and which seeds are finished already."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from spanelectra.atomic_files import find_damage, write_text
from spanelectra.checkpointing import CONFIG_NAME, METRICS_NAME, MODEL_DIRECTORY, REPORT_NAME
from spanelectra.data.output_directory import check_output_directory
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.seed_summary import rank
from spanelectra.recipe_files import as_yaml

# what a run writes, and what a kill leaves of it
_OWN_NAME = re.compile(
    r"(?P<left>\.partial-|\.replaced-)?"
    rf"({'|'.join(map(re.escape, (CONFIG_NAME, METRICS_NAME, REPORT_NAME)))}|{MODEL_DIRECTORY}|seed-\d+)"
)
# settings that may differ when a run goes on
_FREE_ON_RESUME = ("out_dir", "seeds", "resume", "overwrite", "report", "quiet")
_INPUTS = ("model", "train", "dev", "test")


def seed_directory(run: Path, seed: int) -> Path:
    """Where a seed's results are, once it is finished."""
    return run / f"seed-{seed}"


def check_run_directory(settings: FineTuningArguments) -> Path:
    """The directory of a run: empty, to be replaced, or this very run's where it is to go on; nothing is written.

    Raises:
        UserError: it holds something that may not be replaced, or what the run reads, or a run of other settings.
    """
    run = Path(settings.out_dir).resolve()
    for name in _INPUTS:
        value = getattr(settings, name)
        source = Path(value).resolve() if value else None
        if source is not None and source.exists() and (run == source or run in source.parents):
            verb = "is" if run == source else "holds"
            raise UserError(f"--out_dir {run} {verb} --{name} {source}, which the run reads; choose another --out_dir.")
    if run.is_dir() and not settings.resume and not settings.overwrite and (run / CONFIG_NAME).is_file():
        raise UserError(
            f"{run} holds a run already. Go on with it by --resume, choose another --out_dir, or pass --overwrite to "
            "delete it."
        )
    check_output_directory(run, _own_names(run), overwrite=settings.overwrite or settings.resume, replaced=False)
    if settings.resume:
        _check_settings(run, settings)
    return run


def _own_names(run: Path) -> list[str]:
    """The names in a directory that a run writes there; no other is ever deleted. The settings come first."""
    names = [entry.name for entry in run.iterdir()] if run.is_dir() else []
    return sorted((name for name in names if _OWN_NAME.fullmatch(name)), key=lambda name: name != CONFIG_NAME)


def _check_settings(run: Path, settings: FineTuningArguments) -> None:
    """A run goes on with its own settings, and with all its seeds."""
    if not (run / CONFIG_NAME).is_file():
        if not all(name.startswith(".") for name in _own_names(run)):
            raise UserError(f"--resume: {run} holds no {CONFIG_NAME} any more; start anew with --overwrite.")
        return
    try:
        earlier = yaml.safe_load((run / CONFIG_NAME).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, IndexError):
        earlier = None
    if not isinstance(earlier, dict):
        raise UserError(f"{run / CONFIG_NAME} is unreadable; start anew with --overwrite.")
    defaults = dataclasses.asdict(FineTuningArguments())
    for name, value in dataclasses.asdict(settings).items():
        # a setting that did not exist when the run began
        before = earlier.get(name, defaults[name])
        if name not in _FREE_ON_RESUME and before != value:
            raise UserError(
                f"--resume: {name} was {before} and is {value} now; a run goes on with its own settings. "
                "Choose another --out_dir, or start anew with --overwrite."
            )
    beyond = [seed for seed in _seeds(run) if seed >= settings.seed + settings.seeds]
    if beyond:
        raise UserError(
            f"--resume: seed {max(beyond)} is finished already; pass --seeds {max(beyond) + 1 - settings.seed} or more."
        )


def _seeds(run: Path) -> list[int]:
    return sorted(int(name.removeprefix("seed-")) for name in _own_names(run) if name.startswith("seed-"))


def finished_seeds(
    run: Path, settings: FineTuningArguments, metric: str, inputs: dict[str, Any], learning_rate: float
) -> dict[int, dict[str, Any]]:
    """Seed -> results of the seeds of a run that goes on that need not be trained again; none of a new one.

    Where the model is gone that the best of them left, that seed is not among them.

    Args:
        run: the directory.
        settings: resolved settings.
        metric: the one that the best seed is chosen by.
        inputs: fingerprints of files and encoder, which must be those that the seeds were trained on.
        learning_rate: the peak of the seeds to come, which must be that of the others.

    Raises:
        UserError: for other files, another encoder or another rate.
    """
    finished: dict[int, dict[str, Any]] = {}
    for seed in _seeds(run) if settings.resume else []:
        directory = seed_directory(run, seed)
        if find_damage(directory) is not None:
            continue
        result: dict[str, Any] = json.loads((directory / METRICS_NAME).read_text(encoding="utf-8"))
        changed = [name for name in inputs if result["inputs"].get(name) != inputs[name]]
        if changed:
            raise UserError(
                f"--resume: {' and '.join(changed)} changed since seed {seed} was trained. Choose another --out_dir, "
                "or start anew with --overwrite."
            )
        if result["learning_rate"] != learning_rate:
            # nothing was set, and the default is another in this release
            raise UserError(
                f"--resume: seed {seed} was trained with a peak learning rate of {result['learning_rate']:g}, and the "
                f"default is {learning_rate:g} by now; seeds of two rates make no mean. Choose another --out_dir, or "
                "start anew with --overwrite."
            )
        finished[seed] = result
    if finished and find_damage(run / MODEL_DIRECTORY) is not None:
        del finished[max(finished, key=lambda seed: rank(finished[seed], metric))]
    return finished


def start_run_directory(run: Path, settings: FineTuningArguments) -> None:
    """Delete an earlier run that is to be overwritten, or what a kill left of this one; write down the settings."""
    for name in _own_names(run):
        entry, match = run / name, _OWN_NAME.fullmatch(name)
        assert match is not None
        original = run / name.removeprefix(match["left"] or "")
        if settings.resume and match["left"] == ".replaced-" and not original.exists():
            # killed between the two renames that replace a directory
            entry.rename(original)
        elif not settings.resume or match["left"] or name in (REPORT_NAME, METRICS_NAME):
            # a page, or results, of fewer seeds are none of this run's
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / CONFIG_NAME, as_yaml(settings))
