"""Runs of a second or two, and looks at what they leave."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spanelectra.atomic_files import file_digest
from spanelectra.callbacks import SaveAndStopCallback
from spanelectra.checkpointing import list_checkpoints, remove_old_checkpoints
from spanelectra.console import make_console
from spanelectra.health import HealthMonitor
from spanelectra.model_building import build_model
from spanelectra.pretraining import build_trainer, pretrain, read_data
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "logging_steps": 2,
    "eval_steps": 3,
    "eval_rows": 8,
    "save_steps": 3,
    "tensorboard": False,
    "report": False,
    "quiet": True,
}
OBJECTIVES = ("mlm", "sbgo", "ato", "sbpo")


def small_run(rows: Path, out_dir: Path, **settings: Any) -> PretrainingArguments:
    """Settings of a run of a few seconds."""
    return PretrainingArguments(**{**SMALL, "data": str(rows), "out_dir": str(out_dir), **settings})


@pytest.fixture(scope="session")
def generator_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the generator stage on ``rows``, with a span-boundary head."""
    run = tmp_path_factory.mktemp("stage") / "generator"
    pretrain(small_run(rows, run, stage="generator"))
    return run


def interrupt_after(step: int) -> Callable[..., None]:
    """Removes old checkpoints as it should, and interrupts the run once the one of ``step`` is written."""

    def remove(run: Path, *arguments: Any) -> None:
        remove_old_checkpoints(run, *arguments)
        if list_checkpoints(run)[-1].name == f"checkpoint-{step}":
            raise KeyboardInterrupt

    return remove


def pretrain_with_a_stop(settings: PretrainingArguments, step: int = 3) -> dict[str, Any]:
    """Pre-train, interrupted after the checkpoint of ``step`` and resumed from it."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("spanelectra.trainer.remove_old_checkpoints", interrupt_after(step))
        pretrain(settings)
    return pretrain(PretrainingArguments(resume=settings.out_dir, quiet=True))


def weights(run: Path) -> str:
    """Digest of a run's final weights."""
    return file_digest(run / "model" / "model.safetensors")


def read_lines(run: Path, kind: str = "loss") -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that hold ``kind``: ``loss`` of training, ``eval_loss`` of evaluations."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if kind in line]


def losses_of(line: dict[str, Any]) -> dict[str, float]:
    """Objective -> loss of a line of training."""
    return {name: line[f"{name}_loss"] for name in OBJECTIVES if f"{name}_loss" in line}


def make_trainer(settings: PretrainingArguments, monitor: HealthMonitor | None = None) -> SpanElectraTrainer:
    """The trainer of a run that does not start, with everything that ``pretrain`` puts in it."""
    settings = settings.resolved()
    data, console = read_data(settings), make_console(quiet=True)
    model = build_model(settings, data.tokenizer, data.length, console.print, corrupted_data=data.corrupted)
    monitor = monitor or HealthMonitor(data.unigram_cross_entropy, settings.max_steps)
    Path(settings.out_dir).mkdir(parents=True, exist_ok=True)
    return build_trainer(settings, model, data, console, monitor, SaveAndStopCallback())


def write_recipe(settings: PretrainingArguments, directory: Path) -> str:
    """Write settings as a recipe for the command line; returns its path."""
    recipe = directory / "settings.yaml"
    recipe.write_text(yaml.safe_dump({k: v for k, v in dataclasses.asdict(settings).items() if k != "recipe"}))
    return str(recipe)


def start_command(
    *arguments: str, launcher: tuple[str, ...] = (), program: str | None = None
) -> subprocess.Popen[bytes]:
    """Start ``spanelectra pretrain`` in a process of its own, under ``launcher`` (options of torchrun) if given.

    ``program`` is a Python file to run in place of the command line.
    """
    python = [sys.executable, "-m", "torch.distributed.run", *launcher] if launcher else [sys.executable]
    command = [*python, *([program] if program else ["-m", "spanelectra.cli"]), "pretrain", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
