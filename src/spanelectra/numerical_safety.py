"""Steps whose loss or gradient is not a number: left out, counted, and in a row a reason to go back to a checkpoint.

Nothing here makes the host wait for an accelerator in every step: whether a gradient is a number is decided there, the
optimiser leaves such a step out there (``found_inf``, as mixed-precision training does), and counts stay there until
they are looked at. A run that goes back is a run that is resumed, at half the learning rate.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from spanelectra.atomic_files import find_damage, read_json, write_json
from spanelectra.callbacks import TrainingDiverged, unprefixed
from spanelectra.checkpointing import ROLLBACKS_NAME, checkpoint_step, list_checkpoints
from spanelectra.environment import process_rank
from spanelectra.errors import UserError
from spanelectra.health import broken_losses
from spanelectra.several_processes import wait_for_all

LEARNING_RATE_FACTOR = 0.5
_ROLLBACK = ("step", "to_step", "learning_rate_factor", "sentence")


class NumericalBreakdown(RuntimeError):
    """So many steps in a row were not numbers that the run must go back.

    Attributes:
        run: its directory.
        step: optimiser step at which it was seen.
        max_rollbacks: how often the run may go back.
    """

    def __init__(self, message: str, run: Path, step: int, max_rollbacks: int) -> None:
        super().__init__(message)
        self.run, self.step, self.max_rollbacks = run, step, max_rollbacks


class NonFiniteSteps:
    """Counts optimiser steps whose gradient was not finite; only the properties wait for the device."""

    def __init__(self, device: torch.device | str = "cpu", total: int = 0, in_a_row: int = 0) -> None:
        self._total, self._in_a_row = (torch.tensor(count, device=device) for count in (total, in_a_row))
        self._longest = self._in_a_row.clone()

    def update(self, gradient_norm: Tensor) -> Tensor:
        """Count a step by the scalar norm of its gradient; returns a scalar float32, 1 where it must be left out."""
        is_broken = ~torch.isfinite(gradient_norm.detach())
        self._total = self._total + is_broken
        self._in_a_row = (self._in_a_row + 1) * is_broken
        self._longest = torch.maximum(self._longest, self._in_a_row)
        return is_broken.float()

    @property
    def total(self) -> int:
        """Steps left out in the whole run."""
        return int(self._total.item())

    @property
    def in_a_row(self) -> int:
        """Steps left out since the last one that was a number."""
        return int(self._in_a_row.item())

    @property
    def longest_row(self) -> int:
        """Most steps in a row that were left out in this session."""
        return int(self._longest.item())


def break_gradient_of_broken_loss(loss: Tensor) -> Tensor:
    """The scalar loss; where it is not a number its gradient is none either.

    The gradient of an infinite loss may be finite. Of several processes, all see the mean of their gradients, and so
    leave out the same steps.
    """
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)


class NumericalSafetyCallback(TrainerCallback):
    """Ends a session with :class:`NumericalBreakdown` after so many broken steps in a row as the settings allow.

    It does so at once where a held-out loss is no number: weights or activations are past what left-out steps can save.
    It looks every so many steps, and wherever the log waits for the device anyway; steps that are left out change
    nothing, so that being late costs their time only.

    Args:
        trainer: a ``SpanElectraTrainer``, whose ``nonfinite_steps`` are looked at.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        settings, counts = self.trainer.settings, self.trainer.nonfinite_steps
        looks = control.should_log or control.should_save or state.global_step % settings.max_nonfinite_steps == 0
        if not looks or counts.longest_row < settings.max_nonfinite_steps:
            return
        broken = [name for name in self.trainer.train_metrics.nonfinite_losses() if name != "loss"]
        what = f"{' and '.join(broken)} no number" if broken else "losses were numbers, the gradient was not"
        message = (
            f"{counts.longest_row} steps in a row had to be left out at step {state.global_step} ({what}; "
            f"learning rate {settings.learning_rate:g})"
        )
        raise self._breakdown(message, state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        broken = broken_losses(unprefixed(logs)) if logs and "eval_loss" in logs else []
        if broken:
            # the sum of the others is one, too
            names = " and ".join([name for name in broken if name != "loss"] or broken)
            raise self._breakdown(f"held-out {names} no number at step {state.global_step}", state)

    def _breakdown(self, message: str, state: TrainerState) -> NumericalBreakdown:
        settings = self.trainer.settings
        return NumericalBreakdown(message, Path(settings.out_dir), state.global_step, settings.max_rollbacks)


def read_rollbacks(run: str | Path) -> list[dict[str, Any]]:
    """How the run went back so far, oldest first: ``step``, ``to_step``, ``learning_rate_factor`` and ``sentence``."""
    file = Path(run) / ROLLBACKS_NAME
    entries = read_json(file, list) if file.is_file() else []
    if not all(isinstance(entry, dict) and set(_ROLLBACK) <= set(entry) for entry in entries):
        raise UserError(f"{file} is damaged; put it back as it was, or start anew.")
    return entries


def learning_rate_factor(run: str | Path) -> float:
    """What the run's learning rates are multiplied by, for it went back so often."""
    rollbacks = read_rollbacks(run)
    return float(rollbacks[-1]["learning_rate_factor"]) if rollbacks else 1.0


def set_learning_rates(scheduler: Any, optimizer: Any, peaks: list[float]) -> None:
    """Give a ``LambdaLR``, wherever it is, and its optimiser other peaks, one a parameter group."""
    scheduler.base_lrs = peaks
    shares = [share(scheduler.last_epoch) for share in scheduler.lr_lambdas]
    scheduler._last_lr = [peak * share for peak, share in zip(peaks, shares, strict=True)]
    for group, peak, rate in zip(optimizer.param_groups, peaks, scheduler._last_lr, strict=True):
        group["initial_lr"], group["lr"] = peak, rate


def roll_back(breakdown: NumericalBreakdown) -> None:
    """Make a run one that resumes from its last good checkpoint at half the learning rate.

    The last good one was written when the last step was a number; where the run went back to it before, the one before
    it; without any the run starts anew. Newer ones are deleted. All processes call this; the first one does it.

    Raises:
        TrainingDiverged: with a diagnosis, after ``max_rollbacks`` times.
    """
    run, past = breakdown.run, read_rollbacks(breakdown.run)
    wait_for_all()
    if len(past) >= breakdown.max_rollbacks:
        raise TrainingDiverged(_diagnosis(breakdown, past))
    if process_rank() == 0:
        target = _last_good_checkpoint(run, breakdown.step, past)
        to_step = checkpoint_step(target) if target else 0
        for checkpoint in list_checkpoints(run):
            if checkpoint_step(checkpoint) > to_step:
                shutil.rmtree(checkpoint)
        factor = LEARNING_RATE_FACTOR * (past[-1]["learning_rate_factor"] if past else 1.0)
        sentence = (
            f"{breakdown}: the run goes back to {target.name if target else 'its start'}, with its learning rate times "
            f"{factor:g}."
        )
        entry = {"step": breakdown.step, "to_step": to_step, "learning_rate_factor": factor, "sentence": sentence}
        write_json(run / ROLLBACKS_NAME, [*past, entry])
    wait_for_all()
    # model, optimiser and trainer refer to one another; the next ones need their memory
    gc.collect()


def _last_good_checkpoint(run: Path, step: int, past: list[dict[str, Any]]) -> Path | None:
    # one of the step at which it was seen holds what was seen
    earlier = [path for path in list_checkpoints(run) if checkpoint_step(path) < step]
    good = [path for path in earlier if find_damage(path) is None and _ended_with_a_number(path)]
    if len(good) > 1 and past and past[-1]["to_step"] == checkpoint_step(good[-1]):
        return good[-2]
    return good[-1] if good else None


def _ended_with_a_number(checkpoint: Path) -> bool:
    history = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))["log_history"]
    return nonfinite_counts(history)[1] == 0


def nonfinite_counts(log_history: list[dict[str, Any]]) -> tuple[int, int]:
    """Steps left out so far, and since the last one that was a number, as the last line of training says."""
    line: dict[str, Any] = next((line for line in reversed(log_history) if "nonfinite_steps" in line), {})
    return int(line.get("nonfinite_steps", 0)), int(line.get("nonfinite_steps_in_a_row", 0))


def _diagnosis(breakdown: NumericalBreakdown, past: list[dict[str, Any]]) -> str:
    went = ""
    if past:
        places = ", ".join(f"{entry['to_step']} (from {entry['step']})" for entry in past)
        went = f", after the run went back {len(past)} time(s), to step {places}, with half the learning rate each time"
    kept = list_checkpoints(breakdown.run)
    left = f" {kept[-1]} is from before that." if kept else ""
    return (
        f"training has diverged: {breakdown}{went}.{left} Lower the learning rate, lengthen the warm-up, clip at a "
        "smaller max_grad_norm, or turn bf16 off; if it always breaks at the same step, look at the data."
    )
