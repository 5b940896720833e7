"""Encoders, tasks and runs that the tests of fine-tuning share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fine_tuned_runs import FAMILIES, files_of

from small_runs import small_run
from spanelectra.export import export
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.pretraining import pretrain
from tiny_tasks import quick, save_encoder, write_task


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes lines into a file, ``train.tsv`` by default; returns its path."""

    def function(*lines: str, name: str = "train.tsv") -> str:
        path = tmp_path / name
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(path)

    return function


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders as `export` writes them, a folder for each family, and a folder for each kind of task."""
    directory = tmp_path_factory.mktemp("tiny")
    save_encoder("bert", directory / "bert")
    save_encoder("electra", directory / "electra", detector=True)
    save_encoder("modernbert", directory / "modernbert", detector=True)
    for kind in ("classification", "token", "qa"):
        write_task(directory / kind, kind)
    return directory


@pytest.fixture(scope="session")
def joint_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with generator and discriminator, and checkpoints at steps 3 and 6."""
    run = tmp_path_factory.mktemp("joint") / "run"
    pretrain(small_run(rows, run))
    return run


@pytest.fixture(scope="session")
def exported(joint_run: Path) -> Path:
    """What ``export`` makes of that run."""
    export(str(joint_run), str(joint_run.parent / "exported"), quiet=True)
    return joint_run.parent / "exported"


@pytest.fixture(scope="session")
def fine_tuned_runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> a finished run; of classification, one of two seeds."""
    directory = tmp_path_factory.mktemp("runs")
    for kind, family in FAMILIES.items():
        seeds = 2 if kind == "classification" else 1
        finetune(quick(tiny / family, files_of(tiny, kind), directory / kind, seeds=seeds))
    return {kind: directory / kind for kind in FAMILIES}
