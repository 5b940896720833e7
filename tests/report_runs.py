"""Runs for the tests of the report: a real one of seconds, copies of it to be damaged, and results of fine-tuning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from small_runs import small_run
from spanelectra.pretraining import pretrain
from spanelectra.report.run_record import RunRecord


@pytest.fixture(scope="session")
def finished_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint run of six steps whose discriminator joins after two, evaluated at steps 3 and 6."""
    run = tmp_path_factory.mktemp("finished") / "joint"
    pretrain(small_run(rows, run, generator_head_start=0.3))
    return run


def copy_run(run: Path, target: Path, without: tuple[str, ...] = ()) -> Path:
    """A copy of a run, without some of its files or directories."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns(*without))
    return target


def record(**fields: Any) -> RunRecord:
    """A run that was never on disk."""
    return RunRecord(Path("/nowhere/run"), "run", **fields)


def seed_results(seed: int, score: float, collapsed: str | None = None) -> dict[str, Any]:
    """What one seed of fine-tuning leaves."""
    history = [{"step": 10 * n, "epoch": n, "loss": 1 / n, "dev": {"accuracy": score - 5 / n}} for n in (1, 2, 3)]
    scores = {"dev": {"accuracy": score}, "test": {"accuracy": score - 1}}
    return {"seed": seed, **scores, "collapsed": collapsed, "history": history}


def write_fine_tuning(directory: Path, runs: list[dict[str, Any]], **fields: Any) -> Path:
    """A directory as `spanelectra finetune` leaves it."""
    directory.mkdir(parents=True)
    baseline = {"name": "always 'good'", "scores": {"accuracy": 50.0}}
    content = {
        "task": "classification",
        "metric": "accuracy",
        "model": "an encoder",
        "runs": runs,
        "baseline": {"dev": baseline, "test": baseline},
        "words_alone": {"dev": {"name": "the words", "scores": {"accuracy": 72.0}}, "test": None},
        "config": {"task": "classification", "train": "train.tsv", "dev": "dev.tsv", "seeds": len(runs)},
        **fields,
    }
    (directory / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    return directory
