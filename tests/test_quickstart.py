"""The quickstart: its text, its verdict, and (slow) the whole road with the learning it promises."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spanelectra.atomic_files import write_directory
from spanelectra.callbacks import RunStopped
from spanelectra.console import make_console
from spanelectra.errors import UserError
from spanelectra.quickstart import judge, python_prose, quickstart


def test_every_python_carries_the_text() -> None:
    documents = dict(python_prose())
    assert len(documents) > 300
    assert sum(map(len, documents.values())) > 1_500_000
    assert any(name.startswith("topic-") for name in documents) and "argparse" in documents


@pytest.mark.parametrize(("loss", "auc", "learned"), [(5.0, 0.8, True), (6.8, 0.8, False), (5.0, 0.55, False)])
def test_the_verdict_compares_with_the_baselines(loss: float, auc: float, learned: bool) -> None:
    metrics = {"unigram_cross_entropy": 7.0, "held_out": {"mlm_loss": loss, "ato_auc": auc}}
    assert judge(metrics, make_console(quiet=True)) is learned


def write_own_text(target: Path) -> None:
    with write_directory(target / "text") as partial:
        (partial / "argparse.txt").write_text("prose", encoding="utf-8")


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_an_earlier_quickstart_is_left_alone_without_overwrite(tmp_path: Path) -> None:
    write_own_text(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(UserError, match="not empty"):
        quickstart(str(tmp_path))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "path",
    [
        "thesis.txt",
        "src/main.py",
        "text/thesis.txt",
        "text/chapters/one.txt",
        "text/argparse.txt",
        "text/manifest.json",
    ],
)
def test_overwriting_deletes_nothing_that_is_not_a_quickstarts(tmp_path: Path, path: str) -> None:
    write_own_text(tmp_path)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("years of work")
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=r"choose another"):
        quickstart(str(tmp_path), overwrite=True)
    assert files_of(tmp_path) == before


def test_a_project_with_a_folder_of_text_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"not as a quickstart wrote it \(manifest.json is missing\)"):
        quickstart(str(tmp_path), overwrite=True)
    assert (tmp_path / "text" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("leftover", ["text/argparse.txt", ".partial-text/half.txt"])
def test_an_earlier_quickstart_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftover: str) -> None:
    def stop_here(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spanelectra.quickstart.python_prose", lambda: iter([("new", "new prose")]))
    monkeypatch.setattr("spanelectra.data.tokenization.vocab", stop_here)
    write_own_text(tmp_path)
    (tmp_path / leftover).parent.mkdir(exist_ok=True)
    (tmp_path / leftover).write_text("prose")
    with pytest.raises(KeyboardInterrupt):
        quickstart(str(tmp_path), overwrite=True)
    assert sorted(files_of(tmp_path)) == ["text/manifest.json", "text/new.txt"]


def test_of_a_stopped_quickstart_it_is_said_what_its_run_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise RunStopped(signal.SIGINT)

    monkeypatch.setattr("spanelectra.quickstart.python_prose", lambda: iter([("new", "new prose")]))
    for command in ("data.tokenization.vocab", "data.packing.prepare"):
        monkeypatch.setattr(f"spanelectra.{command}", lambda *_, **__: None)
    monkeypatch.setattr("spanelectra.pretraining.pretrain", stopped)
    with pytest.raises(RunStopped):
        quickstart(str(tmp_path))
    assert "without export and picture; quickstart --overwrite begins anew" in capsys.readouterr().err


@pytest.mark.slow
def test_the_quickstart_keeps_its_promise(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spanelectra.cli", "quickstart", "--out_dir", str(tmp_path / "q")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr
    assert "it learned" in finished.stderr
    assert (tmp_path / "q" / "export" / "discriminator" / "config.json").is_file()
