"""Where a run keeps its checkpoints, which of them is the newest that is whole, and what a run directory holds."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from spanelectra.atomic_files import MANIFEST_NAME, find_damage
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.row_dataset import TOKENIZER_DIRECTORY
from spanelectra.data.text_files import did_you_mean_path
from spanelectra.errors import UserError

CONFIG_NAME = "config.yaml"
ENVIRONMENT_NAME = "environment.json"
START_NAME = "start.json"
METRICS_NAME = "metrics.json"
HISTORY_NAME = "metrics.jsonl"
REPORT_NAME = "report.html"
ROLLBACKS_NAME = "rollbacks.json"
MODEL_DIRECTORY = "model"
# of an export: the full model with its boundary heads
CHECKPOINT_DIRECTORY = "checkpoint"
# of a fine-tuned model: what its task is
TASK_NAME = "task.json"
TENSORBOARD_DIRECTORY = "tensorboard"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_FILES = (CONFIG_NAME, ENVIRONMENT_NAME, START_NAME, METRICS_NAME, HISTORY_NAME, ROLLBACKS_NAME, REPORT_NAME)
_DIRECTORIES = (MODEL_DIRECTORY, TOKENIZER_DIRECTORY, TENSORBOARD_DIRECTORY)
# what a run writes, and what a kill leaves of it
_OWN_NAME = re.compile(
    rf"(\.partial-|\.replaced-)?({'|'.join(map(re.escape, _FILES + _DIRECTORIES))}|{_CHECKPOINT.pattern})"
)


def checkpoint_step(checkpoint: Path) -> int:
    """Optimiser step of a ``checkpoint-N`` directory."""
    match = _CHECKPOINT.fullmatch(checkpoint.name)
    assert match is not None
    return int(match.group(1))


def list_checkpoints(run: str | Path) -> list[Path]:
    """The run's checkpoints, oldest first, whole or not."""
    found = [path for path in Path(run).glob("checkpoint-*") if path.is_dir() and _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step)


def newest_complete_checkpoint(run: str | Path) -> tuple[Path | None, list[str]]:
    """Find where to resume.

    Returns:
        The newest checkpoint that agrees with its manifest, or ``None``; and a sentence for each newer one that was
        passed over.
    """
    passed_over: list[str] = []
    for checkpoint in reversed(list_checkpoints(run)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint, passed_over
        passed_over.append(f"{checkpoint} is damaged ({damage}) and was passed over")
    return None, passed_over


def check_trainer_state(checkpoint: Path) -> None:
    """Raise :class:`UserError` where a checkpoint's state, which agrees with its manifest, is none all the same."""
    file = checkpoint / TRAINER_STATE_NAME
    try:
        state = TrainerState.load_from_json(str(file))
        fits = state.global_step == checkpoint_step(checkpoint)
        fits = fits and all(isinstance(line["step"], int) for line in state.log_history)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise UserError(f"{file} is not the state of this checkpoint; delete it, to go on from the one before.")


def remove_old_checkpoints(run: str | Path, keep: int, held_out_losses: Mapping[int, float] | None = None) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one.

    Args:
        run: the run's directory.
        keep: at least 1.
        held_out_losses: optimiser step -> held-out loss; the best checkpoint is the one with the least of those that
            were evaluated where they were saved.
    """
    checkpoints, losses = list_checkpoints(run), held_out_losses or {}
    evaluated = [path for path in checkpoints if math.isfinite(losses.get(checkpoint_step(path), math.nan))]
    best = min(evaluated, key=lambda path: losses[checkpoint_step(path)], default=None)
    for checkpoint in checkpoints[:-keep]:
        if checkpoint != best:
            shutil.rmtree(checkpoint, ignore_errors=True)


def find_model(run: str | Path) -> Path:
    """The saved full model: a run's final one, its newest complete checkpoint, an export's, or the directory itself.

    Raises:
        UserError: where there is none of these, or a model of another kind.
    """
    found = _find_saved_model(Path(run))
    kind = model_type(found)
    if kind not in (None, SpanElectraConfig.model_type):
        is_fine_tuned = (found / TASK_NAME).is_file()
        what = "a fine-tuned model" if is_fine_tuned else f"a model of type {kind}, an encoder alone"
        raise UserError(
            f"{run} holds {what}; this needs the full model, with generator, discriminator and boundary heads: give "
            f"the directory of a `spanelectra pretrain` run, or of its export.{_did_you_mean_the_whole(run)}"
        )
    return found


def _did_you_mean_the_whole(directory: str | Path) -> str:
    """A question, where a part was given of what is wanted, such as one encoder of an export."""
    whole = Path(directory).expanduser().resolve().parent
    parts = [whole / MODEL_DIRECTORY, whole / CHECKPOINT_DIRECTORY, *list_checkpoints(whole)[-1:]]
    is_whole = SpanElectraConfig.model_type in map(model_type, parts)
    return f" Did you mean '{whole}'?" if is_whole else ""


def model_type(directory: Path) -> str | None:
    """What the ``config.json`` of a saved model says that it is; ``None`` where it says nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type")
    return None


def _find_saved_model(run: Path) -> Path:
    model, damage = run / MODEL_DIRECTORY, None
    if (model / "config.json").is_file():
        damage = find_damage(model) if (model / MANIFEST_NAME).is_file() else None
        if damage is None:
            return model
    checkpoint, passed_over = newest_complete_checkpoint(run)
    if checkpoint is not None:
        return checkpoint
    for directory in (run, run / CHECKPOINT_DIRECTORY):
        if (directory / "model.safetensors").is_file():
            return directory
    if not run.is_dir():
        what = "is a file" if run.exists() else "does not exist"
        raise UserError(f"{run} {what}; give the --out_dir of a `spanelectra pretrain` run.{did_you_mean_path(run)}")
    if damage is not None:
        passed_over.append(f"{model} is damaged ({damage})")
    reason = f" ({passed_over[0]})" if passed_over else ""
    raise UserError(f"{run} holds no finished model and no complete checkpoint{reason}.{_did_you_mean_the_whole(run)}")


def holds_run(directory: str | Path) -> bool:
    """Whether a directory has anything of a run in it."""
    directory = Path(directory)
    return (
        (directory / CONFIG_NAME).exists()
        or bool(list_checkpoints(directory))
        or (directory / MODEL_DIRECTORY).exists()
    )


def own_names(directory: str | Path) -> list[str]:
    """The names in a directory that a run writes there; no other is ever deleted."""
    directory = Path(directory)
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    return sorted(name for name in names if _OWN_NAME.fullmatch(name))
