"""Runs of several processes: how they wait for one another, what the loss of one looks like, and how many there are."""

from __future__ import annotations

import dataclasses
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from spanelectra.callbacks import RunFailed
from spanelectra.environment import process_count, process_rank
from spanelectra.errors import UserError
from spanelectra.training_args import PretrainingArguments

# Writing a checkpoint may take long where the disk is slow; a process that dies meanwhile is noticed at once all the
# same, for its connections close.
PATIENCE = timedelta(hours=1)
# how gloo, NCCL and the rendezvous store say that a process is gone
_LOST = re.compile(
    "connection (was )?(closed|reset|refused)|closed by peer|timed out|timeout|broken pipe|socket error|"
    "unhandled system error|remote process exited|watchdog|recvvalue failed|no route to host",
    re.IGNORECASE,
)
_group: Any = None


class ProcessLost(RunFailed):
    """Another process of the run has ended or does not answer."""


def check_launcher() -> None:
    """Raise :class:`UserError` where accelerate was told to split the model up, which runs do not do."""
    for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true":
            raise UserError(
                f"every process of a run holds a whole model, but accelerate is set to {name}: start it by torchrun, "
                "or by accelerate without that. A base model and all it trains with take 2.3 GiB (docs/scaling.md)."
            )


def connect_processors(timeout_seconds: int) -> None:
    """Connect the processes of a run without accelerators, which transformers would do with its own timeout."""
    if process_count() > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout_seconds))


def wait_for_all() -> None:
    """Return once every process has come here; at once where there is only one."""
    global _group
    if process_count() > 1:
        # over the processors, so that no accelerator waits
        _group = _group or torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        torch.distributed.barrier(group=_group)


def mean_over_processes(values: list[float], device: torch.device) -> list[float]:
    """Means over the processes in which a value is a number; all must call this with as many values."""
    if process_count() == 1 or not values:
        return values
    local = torch.tensor(values, device=device)
    sums = torch.stack([local.nan_to_num(), local.isfinite().float()])
    torch.distributed.all_reduce(sums)
    return (sums[0] / sums[1]).tolist()


def means_lost_process(error: BaseException) -> bool:
    """Whether an exception comes from another process that has ended or does not answer."""
    if process_count() == 1 or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.distributed.DistError) or bool(_LOST.search(str(error)))


def lost_process(error: BaseException, run: Path) -> ProcessLost:
    """What to tell the user of such an exception."""
    reason = " ".join(str(error).split())
    return ProcessLost(
        f"process {process_rank()} of {process_count()} ends, for another one has ended or does not answer: look for "
        f"its own error. Go on from the last checkpoint by --resume {run}. ({reason[:200]})"
    )


def rearranged(settings: PretrainingArguments, processes_before: int) -> PretrainingArguments:
    """The settings for the processes that are there now, so that a step has the rows it had with others.

    Micro-batches keep their size where they can: then they are the same ones, each with its masks, samples and
    dropout, and gradients differ only by the order in which they are added up.

    Raises:
        UserError: where the rows of a step cannot be shared out evenly.
    """
    size, accumulation = settings.largest_batch(), settings.gradient_accumulation_steps
    rows, processes, schedule = size * accumulation * processes_before, process_count(), settings.batch_size_schedule()
    if schedule.minimum != schedule.maximum:
        micro_batches = accumulation * processes_before
        if micro_batches % processes:
            fitting = ", ".join(str(count) for count in range(1, micro_batches + 1) if micro_batches % count == 0)
            raise UserError(
                f"--resume {settings.out_dir}: {processes} processes cannot share the {micro_batches} micro-batches of "
                f"a step evenly, and where these grow or shrink they cannot be cut; it takes {fitting}."
            )
        return dataclasses.replace(settings, gradient_accumulation_steps=micro_batches // processes)
    if rows % processes:
        fitting = ", ".join(str(count) for count in range(1, min(rows, 64) + 1) if rows % count == 0)
        raise UserError(
            f"--resume {settings.out_dir}: {processes} processes cannot share the {rows} rows of a step evenly; "
            f"it was started with {processes_before}, and takes {fitting}."
        )
    share = rows // processes
    size = max(fitting for fitting in range(1, size + 1) if share % fitting == 0)
    return dataclasses.replace(settings, per_device_train_batch_size=size, gradient_accumulation_steps=share // size)
