"""A run's directory: may it be written, what it says of the run's start, and how an interrupted run is taken up."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from spanelectra.atomic_files import PARTIAL_PREFIX, read_json, write_json, write_text
from spanelectra.checkpointing import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    METRICS_NAME,
    START_NAME,
    TOKENIZER_DIRECTORY,
    check_trainer_state,
    checkpoint_step,
    holds_run,
    newest_complete_checkpoint,
    own_names,
)
from spanelectra.console import say
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.tokenization import tokenizer_fingerprint
from spanelectra.environment import describe_environment, process_count
from spanelectra.errors import UserError
from spanelectra.numerical_safety import learning_rate_factor
from spanelectra.recipe_files import RECIPES_DIRECTORY, as_yaml, load_recipe, read_fields
from spanelectra.run_data import RunData
from spanelectra.several_processes import rearranged
from spanelectra.training_args import PretrainingArguments

# What a run's directory has before the first step, in the order in which it is written.
_BEGUN = {ENVIRONMENT_NAME, TOKENIZER_DIRECTORY, START_NAME, CONFIG_NAME}
_NOT_BEGUN = "If it was stopped before its first step, there is nothing to go on from: give its command again."
_INPUTS = ("data", "generator", "init_from", "init_generator_from", "probe_tasks")


def settings_to_start(arguments: PretrainingArguments) -> PretrainingArguments:
    """The settings of a new run, resolved and checked, with paths that do not depend on the working directory.

    A name that is no path here stays as it is: it may be one of the Hub.
    """
    settings = arguments.resolved()
    settings.check()
    for name in _INPUTS:
        value = getattr(settings, name)
        if value and (path := Path(value).expanduser()).exists():
            setattr(settings, name, str(path.resolve()))
    settings.out_dir = str(Path(settings.out_dir).expanduser().resolve())
    recipe = settings.recipe
    if recipe and not (RECIPES_DIRECTORY / f"{recipe}.yaml").is_file():
        settings.recipe = str(Path(recipe).expanduser().resolve())
    return settings


def check_run_directory(settings: PretrainingArguments) -> None:
    """Make sure, before anything is written, that neither an earlier run nor what the new one reads gets lost.

    Raises:
        UserError: out_dir holds a run and ``overwrite`` is off, or foreign files, or has to do with what is read.
    """
    run = Path(settings.out_dir)
    for name in _INPUTS:
        value = getattr(settings, name)
        source = Path(value).resolve() if value else None
        if source is None or not source.exists():
            continue
        if run == source or run in source.parents or source in run.parents:
            where = "is" if run == source else "lies in" if source in run.parents else "holds"
            raise UserError(
                f"--out_dir {run} {where} --{name} {source}, which the run reads; choose another --out_dir."
            )
    if settings.recipe and run in Path(settings.recipe).parents:
        raise UserError(f"--out_dir {run} holds the recipe {settings.recipe}; choose another --out_dir.")
    if holds_run(run) and not settings.overwrite:
        is_whole = (run / CONFIG_NAME).exists()
        go_on = f" Go on with it by `spanelectra pretrain --resume {run}`, choose" if is_whole else " Choose"
        raise UserError(
            f"{run} holds {'' if is_whole else 'parts of '}a run already.{go_on} another --out_dir, or pass "
            "--overwrite to delete it."
        )
    # what :func:`start_run_directory` leaves where it is interrupted before the settings are there
    names = {entry.name.removeprefix(PARTIAL_PREFIX) for entry in run.iterdir()} if run.is_dir() else set()
    is_only_begun = ENVIRONMENT_NAME in names and names <= _BEGUN and not (run / CONFIG_NAME).exists()
    check_output_directory(run, own_names(run), overwrite=settings.overwrite or is_only_begun, replaced=False)


def start_run_directory(settings: PretrainingArguments, data: RunData, alarms: list[str]) -> None:
    """Delete an earlier run that is to be overwritten, and write down what the new one starts with.

    Args:
        settings: of the new run; :func:`check_run_directory` has passed.
        data: what it reads, to be compared when it is resumed.
        alarms: that sounded at its start, for a resumed run to keep.
    """
    run = Path(settings.out_dir)
    if settings.overwrite:
        # without its settings a run cannot be resumed: so they go first, and come last
        for name in sorted(own_names(run), key=lambda name: name != CONFIG_NAME):
            entry = run / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    run.mkdir(parents=True, exist_ok=True)
    # first, so that what a start that was interrupted leaves is known to be that
    write_json(run / ENVIRONMENT_NAME, describe_environment())
    data.tokenizer.save_pretrained(run / TOKENIZER_DIRECTORY)
    write_json(run / START_NAME, {"data": _describe_data(data), "alarms": alarms})
    write_text(run / CONFIG_NAME, as_yaml(settings))


def _describe_data(data: RunData) -> dict[str, Any]:
    """What must not change between a run's start and its end."""
    return {
        "tokenizer_fingerprint": tokenizer_fingerprint(data.tokenizer),
        "tokens_per_row": data.length,
        "rows": data.rows,
        "corrupted": data.corrupted,
        **data.written,
    }


def settings_to_resume(arguments: PretrainingArguments, console: Console) -> tuple[PretrainingArguments, Path | None]:
    """The settings of an interrupted run and its newest complete checkpoint, ``None`` if it wrote none yet.

    Raises:
        UserError: where there is no run, other settings are given, or there are processes that cannot share a step.
    """
    assert arguments.resume is not None
    run = Path(arguments.resume).expanduser().resolve()
    _check_nothing_else_is_set(arguments)
    if not (run / CONFIG_NAME).is_file():
        what = "is no directory" if not run.is_dir() else f"no run there ({CONFIG_NAME} is missing)"
        is_inside = (run.parent / CONFIG_NAME).is_file()
        hint = f" Did you mean '{run.parent}'?" if is_inside else f" {_NOT_BEGUN}"
        raise UserError(f"--resume {run}: {what}; give the --out_dir of a `spanelectra pretrain` run.{hint}")
    if "task" in read_fields(run / CONFIG_NAME, "recipe"):
        raise UserError(
            f"--resume {run} is a fine-tuning run: repeat its `spanelectra finetune` command with --resume."
        )
    settings = PretrainingArguments(**load_recipe(str(run / CONFIG_NAME)))
    # the run may have been moved since
    settings.out_dir = str(run)
    factor = learning_rate_factor(run)
    settings.learning_rate *= factor
    settings.muon_learning_rate *= factor
    started = _read_json(run / ENVIRONMENT_NAME).get("processes", process_count())
    if started != process_count():
        settings = rearranged(settings, started)
        say(
            console,
            f"{started} process(es) started the run, {process_count()} go on, with the same rows in every step: "
            f"--per_device_train_batch_size {settings.per_device_train_batch_size} "
            f"--gradient_accumulation_steps {settings.gradient_accumulation_steps}",
        )
    checkpoint, passed_over = newest_complete_checkpoint(run)
    for sentence in passed_over:
        say(console, sentence)
    if checkpoint is not None:
        check_trainer_state(checkpoint)
    say(console, f"resuming {run} from {checkpoint.name if checkpoint else 'its start: no checkpoint was written'}")
    return settings, checkpoint


def _check_nothing_else_is_set(arguments: PretrainingArguments) -> None:
    defaults = PretrainingArguments(resume=arguments.resume, quiet=arguments.quiet)
    names = [field.name for field in dataclasses.fields(arguments)]
    others = [f"--{name}" for name in names if getattr(arguments, name) != getattr(defaults, name)]
    if others:
        raise UserError(
            f"--resume {arguments.resume} goes without {', '.join(others)}: a resumed run keeps its own settings."
        )


def alarms_at_start(settings: PretrainingArguments, data: RunData) -> list[str]:
    """The alarms that sounded when a run that is now resumed was started.

    Raises:
        UserError: where its data is no longer what it was started with.
    """
    start = _read_json(Path(settings.out_dir) / START_NAME)
    # a run from before this file was written has nothing to compare with
    known, found = start.get("data", {}), _describe_data(data)
    for name in known:
        if known[name] != found.get(name):
            what = "tokenizer" if name == "tokenizer_fingerprint" else f"{name.replace('_', ' ')}: {found.get(name)}"
            was = "another one" if name == "tokenizer_fingerprint" else known[name]
            raise UserError(
                f"--resume {settings.out_dir}: the data in {settings.data} has changed since the run was started "
                f"({what}, then {was}). Put it back as it was, or start a new run."
            )
    return list(start.get("alarms", []))


def finished_metrics(settings: PretrainingArguments, checkpoint: Path | None) -> dict[str, Any] | None:
    """The metrics of a resumed run that has nothing left to do, else ``None``."""
    metrics = Path(settings.out_dir) / METRICS_NAME
    if checkpoint is None or checkpoint_step(checkpoint) < settings.max_steps or not metrics.is_file():
        return None
    return _read_json(metrics)


def advice_for_full_disk(run: Path) -> str:
    """What to do, in words, where a run ended because the disk is full."""
    sentence = f"no space left on the disk of {run}. Free some"
    if not (run / CONFIG_NAME).is_file():
        return f"{sentence} and start again, with --overwrite."
    checkpoint, _ = newest_complete_checkpoint(run)
    left = f"{checkpoint.name} is complete" if checkpoint else "no checkpoint was written yet"
    return f"{sentence} and go on with `spanelectra pretrain --resume {run}`: {left}."


def _read_json(file: Path) -> dict[str, Any]:
    return read_json(file, dict) if file.is_file() else {}
