"""A full disk: every command says so and ends with 1, keeps what was complete, and goes on once there is room."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from small_runs import small_run, weights, write_recipe
from spanelectra.atomic_files import disk_is_full, find_damage, write_directory, write_json
from spanelectra.callbacks import read_history
from spanelectra.checkpointing import list_checkpoints
from spanelectra.cli import main
from spanelectra.data.row_dataset import RowDataset
from spanelectra.pretraining import pretrain


class SmallDisk:
    """A file system of its own, in memory."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def resize(self, kilobytes: int) -> None:
        """Make it as large as this; what is on it stays."""
        options = f"{'remount,' if self.place.is_mount() else ''}size={kilobytes}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    disk.place.mkdir()
    try:
        disk.resize(64)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting is not allowed here: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.place)], check=True)


def test_a_run_keeps_its_checkpoints_and_goes_on_when_there_is_room(
    rows: Path, disk: SmallDisk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_steps": 14, "save_steps": 2, "save_total_limit": 99, "dropout": 0.1, "tensorboard": True}
    run = disk.place / "run"
    recipe = write_recipe(small_run(rows, run, **settings), tmp_path)
    # from a disk too small for the settings to one that is full at the end
    for kilobytes, arguments in ((8, []), (400, ["--overwrite"]), (2500, None), (3500, None), (40000, None)):
        disk.resize(kilobytes)
        before = list_checkpoints(run)
        code = main(["pretrain", *(["--resume", str(run)] if arguments is None else ["--recipe", recipe, *arguments])])
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert not list(run.glob(".partial-checkpoint*")) and set(before) <= set(list_checkpoints(run))
        assert all(find_damage(checkpoint) is None for checkpoint in list_checkpoints(run))
        if kilobytes == 40000:
            break
        assert code == 1 and error.splitlines()[-1].startswith(f"error: no space left on the disk of {run}"), error
        if list_checkpoints(run):
            newest = list_checkpoints(run)[-1].name
            assert f"go on with `spanelectra pretrain --resume {run}`: {newest} is complete" in error
    assert code == 0, error
    pretrain(small_run(rows, tmp_path / "whole", **settings))
    assert weights(run) == weights(tmp_path / "whole")
    lines = [[line["step"] for line in read_history(place / "metrics.jsonl")] for place in (run, tmp_path / "whole")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("command", ["vocab", "prepare", "corrupt"])
def test_every_other_command_leaves_what_was_there(
    rows: Path, generator_run: Path, disk: SmallDisk, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text, out_dir = rows.parent / "text", disk.place / "out"
    arguments = {
        "vocab": ["--data_dir", str(text), "--vocab_size", "600"],
        "prepare": ["--data", str(text), "--tokenizer", str(rows / "tokenizer"), "--max_seq_length", "32"],
        "corrupt": ["--generator", str(generator_run), "--data", str(rows)],
    }[command] + ["--out_dir", str(out_dir), "--quiet"]
    for kilobytes in (8, 20, 40):
        disk.resize(kilobytes)
        assert main([command, *arguments]) == 1
        assert f"error: no space left on the disk for {out_dir}; nothing of it was kept" in capsys.readouterr().err
        assert not list(disk.place.iterdir())
    disk.resize(4000)
    assert main([command, *arguments]) == 0
    used = sum(file.stat().st_blocks for file in out_dir.rglob("*") if file.is_file())
    disk.resize(used // 2 + 20)
    assert main([command, *arguments, "--overwrite"]) == 1
    assert find_damage(out_dir) is None, "what was to be replaced is still there"
    assert [entry.name for entry in disk.place.iterdir()] == ["out"]


TENSORS = {"a": torch.zeros(100_000)}


def save_torch(path: Path) -> None:
    with open(path, "wb") as stream:
        torch.save(TENSORS, stream)


WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "text": lambda path, rows: path.write_text("x" * 400_000),
    "json": lambda path, rows: write_json(path, "x" * 400_000),
    "numpy": lambda path, rows: np.save(path, np.zeros(50_000)),
    "torch": lambda path, rows: save_torch(path),
    "safetensors": lambda path, rows: save_file(TENSORS, path),
    "tokenizer": lambda path, rows: AutoTokenizer.from_pretrained(rows / "tokenizer").save_pretrained(path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_library_finds_the_disk_full(rows: Path, disk: SmallDisk, writer: str) -> None:
    disk.resize(24)
    full = pytest.raises(OSError, match="no space left on the disk for")
    with full as caught, write_directory(disk.place / "out") as partial:
        WRITERS[writer](partial / "file", rows)
    assert caught.value.errno == errno.ENOSPC and not list(disk.place.iterdir())


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    for error in (OSError(errno.EACCES, "denied"), ValueError("os error"), RuntimeError("(os error 2)"), KeyError(28)):
        assert not disk_is_full(error)
        with pytest.raises(type(error)), write_directory(tmp_path / "out"):
            raise error
    assert disk_is_full(OSError(errno.EDQUOT, "quota")) and not disk_is_full(None)


def test_a_limit_on_the_size_of_files_is_a_full_disk_too(rows: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    recipe = write_recipe(small_run(rows, tmp_path / "run", save_steps=2), tmp_path)
    command = [sys.executable, "-m", "spanelectra.cli", "pretrain", "--recipe", recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    limited = subprocess.run(command, env=environment, preexec_fn=limit, capture_output=True, text=True)
    assert limited.returncode == 1
    assert limited.stderr.splitlines()[-1].endswith(f"--resume {tmp_path / 'run'}`: no checkpoint was written yet.")
    assert main(["pretrain", "--resume", str(tmp_path / "run")]) == 0


def test_rows_that_are_written_survive_a_full_disk(
    rows: Path,
    generator_run: Path,
    disk: SmallDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk.resize(4000)
    whole = ["corrupt", "--generator", str(generator_run), "--data", str(rows), "--batch_size", "16"]
    with monkeypatch.context() as patched:
        # the tokenizer, which comes last, finds no room
        def fill(*arguments: object, **named: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr("spanelectra.corruption.shutil.copytree", fill)
        assert main([*whole, "--out_dir", str(disk.place / "out")]) == 1
    assert f"what was written is kept in {disk.place / '.partial-out'}" in capsys.readouterr().err
    assert main([*whole, "--out_dir", str(disk.place / "out")]) == 0
    count = sum(len(RowDataset(rows, split)) for split in ("train", "validation"))
    assert f"going on after {count:,} of {count:,} rows" in capsys.readouterr().err
    assert find_damage(disk.place / "out") is None
