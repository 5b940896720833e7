"""Are there fewer free processors than a run has threads? They wait for one another then, so that all are slowed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spanelectra.console import say

# Where Linux says of every thread how long it has run and how long it has waited for a processor, in nanoseconds.
THREADS = Path("/proc/self/task")
# Seconds that a run is watched before it is judged, and the share of waiting above which it is said to wait.
SECONDS_WATCHED = 20.0
MUCH_WAITING = 0.2


def processor_seconds(threads: Path = THREADS) -> tuple[float, float] | None:
    """How long the threads of this process have run, and how long they could have, had a processor been free.

    Returns:
        Both in seconds, summed over the threads that live; ``None`` where the system does not say.
    """
    ran = waited = 0
    found = False
    for file in threads.glob("*/schedstat"):
        try:
            numbers = [int(word) for word in file.read_text(encoding="ascii").split()]
        except (OSError, ValueError):
            # the thread has ended meanwhile
            continue
        if len(numbers) > 1:
            found, ran, waited = True, ran + numbers[0], waited + numbers[1]
    return (ran / 1e9, waited / 1e9) if found else None


def sentence_about_waiting(ran: float, waited: float, threads: int) -> str | None:
    """What to say of a run on processors; ``None`` where it hardly waits.

    Args:
        ran, waited: seconds, as :func:`processor_seconds` tells them.
        threads: that torch computes with.
    """
    # a thread that has ended meanwhile takes its seconds with it
    ran, waited = max(0.0, ran), max(0.0, waited)
    share = waited / max(1e-9, ran + waited)
    if share < MUCH_WAITING:
        return None
    sentence = f"the processors are busy: for {share:.0%} of its time this process waits for a free one"
    if threads == 1:
        return sentence
    return (
        f"{sentence}, and its {threads} threads for one another; where other work goes on, a run that was started, or "
        "is resumed, with OMP_NUM_THREADS=1 may be faster"
    )


class BusyMachineCallback(TrainerCallback):
    """Says once in a session on processors that it waits for a free one; it looks every so many seconds till then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start: tuple[float, float, float] | None = None
        self._is_over = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # from the end of the first step on: before it torch starts its threads
        if self._start is None and not self._is_over:
            spent = processor_seconds() if args.device.type == "cpu" else None
            self._is_over = spent is None
            self._start = None if spent is None else (time.perf_counter(), *spent)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._is_over or self._start is None or time.perf_counter() - self._start[0] < SECONDS_WATCHED:
            return
        spent, before = processor_seconds(), self._start
        self._start = None
        if spent is None:
            return
        sentence = sentence_about_waiting(spent[0] - before[1], spent[1] - before[2], torch.get_num_threads())
        if sentence is not None:
            self._is_over = True
            say(self.console, sentence)
