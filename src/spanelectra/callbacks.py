"""What a run shows while it goes on: progress, history, alarms; and how it stops when it is told to."""

from __future__ import annotations

import json
import math
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spanelectra.argument_groups import OBJECTIVES
from spanelectra.atomic_files import write_text
from spanelectra.console import say, sound_alarm
from spanelectra.health import HealthMonitor

_SHOWN = {
    "loss": "loss",
    "mlm_loss": "mlm",
    "sbgo_loss": "sbgo",
    "ato_loss": "ato",
    "sbpo_loss": "sbpo",
    "correction_loss": "correction",
    "generator_accuracy": "gen acc",
    "ato_auc": "ato auc",
    "sbpo_auc": "sbpo auc",
    "correction_accuracy": "correction acc",
    "per_device_train_batch_size": "batch",
    "sequence_length": "length",
    "tokens_per_second": "tok/s",
    "model_flops_utilisation": "mfu",
}
_COUNTS = ("tokens_per_second", "per_device_train_batch_size", "sequence_length")
_LOSSES = tuple(f"{name}_loss" for name in OBJECTIVES)


class RunFailed(RuntimeError):
    """A run ended early for a reason that its message says in full; it can be resumed."""


class TrainingDiverged(RunFailed):
    """A loss or a gradient is no number any more, and going back did not help; the last checkpoint is from before."""


class RunStopped(RuntimeError):
    """A signal asked for a stop; what is kept of the work was kept (of a run: a checkpoint).

    Attributes:
        exit_code: 128 + the signal's number.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


def format_metrics(metrics: dict[str, Any]) -> str:
    """One line of the metrics that people watch, in their short names."""
    parts = []
    for name, short in _SHOWN.items():
        value = metrics.get(name)
        if isinstance(value, (int, float)):
            parts.append(f"{short} {value:,.0f}" if name in _COUNTS else f"{short} {value:.3f}")
    return "  ".join(parts)


def _hours(seconds: float) -> str:
    """Hours, minutes and seconds; a long run has more than 24 of the first."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"


class TrainingBar(TrainerCallback):
    """A bar with what is done and the time left, in a terminal only.

    Args:
        console: where to draw it.
        title: stands before it.
    """

    def __init__(self, console: Console, title: str = "training") -> None:
        self.console = console
        self.title = title
        self._progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not self.console.is_terminal or self.console.quiet:
            return
        self._progress = Progress(
            TextColumn(self.title),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task(self.title, total=state.max_steps, completed=state.global_step, status="")
        self._progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class ProgressCallback(TrainingBar):
    """The bar with the rate beside it, and a line per log entry."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._summed: set[str] | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None or not ("loss" in logs or "eval_loss" in logs):
            return
        if "eval_loss" in logs:
            shown = {name.removeprefix("eval_"): value for name, value in logs.items()}
            say(self.console, f"step {state.global_step:>6}  held-out  {format_metrics(shown)}")
            return
        self._explain_jump({name for name in _LOSSES if logs.get(name) is not None}, state.global_step)
        if self._progress is not None:
            self._progress.update(self._task, status=f"{logs.get('tokens_per_second', 0):,.0f} tok/s")
        left = logs.get("seconds_left")
        tail = f"  left {_hours(left)}" if left is not None else ""
        say(self.console, f"step {state.global_step:>6}  {format_metrics(logs)}{tail}")

    def _explain_jump(self, summed: set[str], step: int) -> None:
        """Say so where more losses are summed than in the line before: that is no divergence."""
        joined = [_SHOWN[name] for name in _LOSSES if self._summed is not None and name in summed - self._summed]
        if joined:
            say(
                self.console,
                f"step {step:>6}  {' and '.join(joined)} joined since the line before, and add to the loss",
            )
        self._summed = summed


class HistoryCallback(TrainerCallback):
    """Appends every log entry to ``metrics.jsonl``; on resume, entries after the checkpoint are dropped first."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_history(self.file) if line["step"] <= state.global_step]
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # transformers' own last entry is of this session's time
        is_ours = logs and "train_runtime" not in logs and any("loss" in name or "probe_" in name for name in logs)
        if state.is_world_process_zero and logs and is_ours:
            with open(self.file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, **_finite(logs)}) + "\n")


def _finite(logs: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: write such a number as its name."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in logs.items()
    }


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``, up to one that is not whole, such as a last one cut short by a kill."""
    lines: list[dict[str, Any]] = []
    for text in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines


def unprefixed(logs: dict[str, Any]) -> dict[str, float]:
    """The numbers of a log entry, those of an evaluation under the same names as in training."""
    return {name.removeprefix("eval_"): value for name, value in logs.items() if isinstance(value, (int, float))}


class HealthCallback(TrainerCallback):
    """Shows the alarms of a :class:`HealthMonitor`."""

    def __init__(self, monitor: HealthMonitor, console: Console) -> None:
        self.monitor = monitor
        self.console = console

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs:
            return
        alarms = self.monitor.check(state.global_step, unprefixed(logs), held_out="eval_loss" in logs)
        for alarm in alarms if state.is_world_process_zero else []:
            sound_alarm(self.console, alarm)


class SaveAndStopCallback(TrainerCallback):
    """SIGTERM and Ctrl-C: finish the step, write a checkpoint, stop. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._group: Any = None
        self._previous: dict[int, Any] = {}

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.world_size > 1:
            # the signal reaches processes in different steps; one that stops alone leaves the others waiting for it
            # over the processors, so that no accelerator waits for it
            timeout = timedelta(seconds=args.ddp_timeout)
            self._group = self._group or torch.distributed.new_group(backend="gloo", timeout=timeout)
            received = torch.tensor(self.received or 0)
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX, group=self._group)
            self.received = int(received.item()) or None
        if self.received is not None:
            control.should_save = control.should_training_stop = True
        # close the window of averaged metrics at a checkpoint, so that resuming there repeats and loses nothing
        if control.should_save:
            control.should_log = True

    def restore(self) -> None:
        """Put the previous signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
