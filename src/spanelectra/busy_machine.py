"""Does other work take the processors that a run wants? Its threads wait for one another, so that all are slowed."""

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
# Seconds of a run before it is judged, and the share of waiting above which it is said to wait.
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
    share = waited / max(1e-9, ran + waited)
    if share < MUCH_WAITING:
        return None
    sentence = f"other work keeps the processors busy: this run waits for one {share:.0%} of its time"
    if threads == 1:
        return sentence
    return f"{sentence}, and its {threads} threads wait for one another; OMP_NUM_THREADS=1 may be as fast, or faster"


class BusyMachineCallback(TrainerCallback):
    """Says once, some seconds into a session on processors, that it waits for other work."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start: tuple[float, float, float] | None = None
        self._is_judged = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # from the end of the first step on: before it torch starts its threads
        if self._start is None and args.device.type == "cpu" and (spent := processor_seconds()) is not None:
            self._start = (time.perf_counter(), *spent)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._start is None or self._is_judged or time.perf_counter() - self._start[0] < SECONDS_WATCHED:
            return
        if (spent := processor_seconds()) is None:
            return
        self._is_judged = True
        ran, waited = spent[0] - self._start[1], spent[1] - self._start[2]
        sentence = sentence_about_waiting(ran, waited, torch.get_num_threads())
        if sentence is not None:
            say(self.console, sentence)
