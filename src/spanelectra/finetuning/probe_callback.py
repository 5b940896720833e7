"""Probes the encoder of a pre-training run while it trains: a run whose losses look fine but learns nothing is caught.

Losses can fall while the encoder becomes no better than fresh weights, the commonest silent failure of this kind of
training; `health.py` watches the losses, this file the encoder. Training does not notice: a copy is probed, and no
random number is drawn from a generator that training uses.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from spanelectra.console import say, sound_alarm
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.export import longest_input, stock_model
from spanelectra.finetuning.linear_probe import fresh_encoder
from spanelectra.finetuning.task_bench import TaskBench, read_benches
from spanelectra.finetuning.task_folder import read_task_folder
from spanelectra.health import HealthLimits
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.several_processes import wait_for_all

TRAIN_EXAMPLES = 1000
DEV_EXAMPLES = 500
# Before so many steps nobody expects an encoder to have learned anything, as of losses.
FEWEST_STEPS = HealthLimits().warm_up_steps
_PREFIX, _FRESH_PREFIX = "probe_", "fresh_probe_"


class ProbeCallback(TrainerCallback):
    """Logs the linear probe's score of the encoder's best layer, as ``probe_<task>``, every so many steps.

    ``fresh_probe_<task>``, logged at the start, is that of fresh weights of the same shape. Once half of the run and
    :data:`FEWEST_STEPS` are done and no task is above them by more than chance, an alarm sounds: once in a run, for a
    run that goes on reads in its own history what was there before.

    Args:
        trainer: a ``SpanElectraTrainer``.
        tokenizer: of the run's rows.
        tasks: folder of tasks, see :func:`~spanelectra.finetuning.task_folder.read_task_folder`; those without a linear
            probe (question answering) are left out.
        steps: optimiser steps between probes; the last step is probed, too.
        console: where scores and alarms are shown.
        alarms: the run's alarms, which a new one joins.

    Raises:
        UserError: for a folder or a file that does not fit, or where no task can be probed.
    """

    def __init__(
        self,
        trainer: Any,
        tokenizer: PreTrainedTokenizerBase,
        tasks: str,
        steps: int,
        console: Console,
        alarms: list[str],
    ) -> None:
        self.trainer, self.steps, self.console, self.alarms = trainer, steps, console, alarms
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.model_max_length = min(tokenizer.model_max_length, longest_input(trainer.model))
        self.benches, left_out = _read_benches(tasks, self.tokenizer, trainer.args.seed)
        if left_out:
            say(console, f"not probed: {', '.join(left_out)}; no linear probe is for question answering")
        self._margins = {name: margin(bench.dev_examples) for name, bench in self.benches.items()}
        self._has_alarmed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        known = {name for line in state.log_history for name in line}
        sentence = find_alarm(state.log_history, state.max_steps, self._margins)
        if sentence is not None:
            # it sounded in the session before
            self._has_alarmed = True
            self.alarms.append(sentence)
        if not all(f"{_FRESH_PREFIX}{name}" in known for name in self.benches):
            self._log(_FRESH_PREFIX, self._scores(fresh_encoder(_encoder(self.trainer.model), args.seed)), control)
        if state.global_step:
            # a run that was told to stop at such a step has not taken the time
            self._probe_if_due(state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_told_to_stop = control.should_training_stop and state.global_step < state.max_steps
        if state.is_world_process_zero and not is_told_to_stop:
            start = time.perf_counter()
            self._probe_if_due(state, control)
            # as for evaluations and checkpoints: throughput is that of training
            self.trainer._seconds_outside_training += time.perf_counter() - start

    def _probe_if_due(self, state: TrainerState, control: TrainerControl) -> None:
        is_known = any(line["step"] == state.global_step and _scores_of(line) for line in state.log_history)
        if is_known or not probe_is_due(state, self.steps):
            return
        self._log(_PREFIX, self._scores(_encoder(self.trainer.model)), control)
        sentence = find_alarm(state.log_history, state.max_steps, self._margins)
        if sentence is not None and not self._has_alarmed:
            self._has_alarmed = True
            self.alarms.append(sentence)
            sound_alarm(self.console, sentence)

    def _scores(self, encoder: PreTrainedModel) -> dict[str, float]:
        """Task -> score of the best layer."""
        layers = {name: bench.layers(encoder, self.tokenizer) for name, bench in self.benches.items()}
        return {name: max(scores) for name, scores in layers.items() if scores is not None}

    def _log(self, prefix: str, scores: dict[str, float], control: TrainerControl) -> None:
        what = "probe of fresh weights" if prefix == _FRESH_PREFIX else "probe"
        shown = "  ".join(f"{name} {self.benches[name].task.metric} {score:.2f}" for name, score in scores.items())
        say(self.console, f"step {self.trainer.state.global_step:>6}  {what}  {shown}")
        # an entry of ours must not take the place of the step's own
        is_due = control.should_log
        self.trainer.log({f"{prefix}{name}": score for name, score in scores.items()})
        control.should_log = is_due


class WaitForProbe(TrainerCallback):
    """Makes all processes wait where one probes, for that may take longer than one waits for another in a step.

    Every process has it, also one that cannot open the tasks; it stands behind :class:`ProbeCallback`.

    Args:
        steps: optimiser steps between probes.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        wait_for_all()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if probe_is_due(state, self.steps):
            wait_for_all()


def probe_is_due(state: TrainerState, steps: int) -> bool:
    """Whether a run is probed at its step."""
    return state.global_step == state.max_steps or state.global_step % steps == 0


def _read_benches(folder: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> tuple[dict[str, TaskBench], list[str]]:
    """The tasks that can be probed, and the names of the others."""
    found = read_task_folder(folder, model="")
    left_out = [name for name, settings in found.items() if settings.task == "qa"]
    tasks = {
        name: dataclasses.replace(settings, max_train_examples=TRAIN_EXAMPLES, seed=seed)
        for name, settings in found.items()
        if name not in left_out
    }
    if not tasks:
        raise UserError(f"{folder} holds no task that a linear probe is for: classification or token classification.")
    return read_benches(tasks, tokenizer, DEV_EXAMPLES), left_out


def _encoder(model: SpanElectraForPreTraining) -> PreTrainedModel:
    """A copy of the encoder that people keep: the discriminator's, for want of one the generator's."""
    part = model.discriminator if model.discriminator is not None else model.generator
    assert part is not None
    # ordinary embeddings are drawn before they are filled
    with torch.random.fork_rng(devices=[]):
        return encoder_of(stock_model(part))


def _scores_of(line: dict[str, Any]) -> dict[str, float]:
    """Task -> score of the run's encoder in an entry of the history."""
    return {name.removeprefix(_PREFIX): line[name] for name in line if name.startswith(_PREFIX)}


def margin(examples: int) -> float:
    """Points by which a score must be above fresh weights' to be more than chance.

    A standard error of a correlation, such as Matthews', over so many examples; almost two of an accuracy.
    """
    return 100 / math.sqrt(examples)


def find_alarm(history: Sequence[dict[str, Any]], max_steps: int, margins: Mapping[str, float]) -> str | None:
    """What is to be said of a run whose probes are no better than fresh weights'; ``None`` of any other.

    Args:
        history: the trainer's log, entries with ``step``.
        max_steps: length of the run; before its half nothing is said, nor before :data:`FEWEST_STEPS`.
        margins: task -> its :func:`margin`.
    """
    fresh = {name: line[name] for line in history for name in line if name.startswith(_FRESH_PREFIX)}
    for line in history:
        if line["step"] < max(max_steps / 2, FEWEST_STEPS):
            continue
        scores = {name: score for name, score in _scores_of(line).items() if name in margins}
        pairs = {name: (score, fresh[f"{_FRESH_PREFIX}{name}"]) for name, score in scores.items()}
        if pairs and all(score <= baseline + margins[name] for name, (score, baseline) in pairs.items()):
            listed = ", ".join(
                f"{name} {score:.1f} against {baseline:.1f}" for name, (score, baseline) in pairs.items()
            )
            return (
                f"the encoder has learned nothing that shows in {' or '.join(pairs)}: at step {line['step']} of "
                f"{max_steps} a linear probe of its best layer scores no more than chance above one of fresh weights "
                f"({listed}). Look at the text, the learning rate and the other alarms before you train on."
            )
    return None
