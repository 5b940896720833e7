"""Which checkpoint a run goes on from, and where its model is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from spanelectra.atomic_files import write_directory
from spanelectra.checkpointing import (
    CONFIG_NAME,
    checkpoint_step,
    find_model,
    holds_run,
    list_checkpoints,
    newest_complete_checkpoint,
    remove_old_checkpoints,
)
from spanelectra.errors import UserError


def write_checkpoint(run: Path, step: int) -> Path:
    with write_directory(run / f"checkpoint-{step}") as partial:
        (partial / "model.safetensors").write_bytes(bytes([step % 256]) * 100)
        (partial / "config.json").write_text("{}")
    return run / f"checkpoint-{step}"


@pytest.fixture
def run(tmp_path) -> Path:
    for step in (50, 1000, 200):
        write_checkpoint(tmp_path, step)
    return tmp_path


def test_checkpoints_are_listed_by_number_and_nothing_else_is(run):
    (run / "checkpoint-best").mkdir()
    (run / ".partial-checkpoint-1050").mkdir()
    (run / "checkpoint-7.txt").touch()
    (run / "checkpoint-9").touch()
    assert [checkpoint_step(path) for path in list_checkpoints(run)] == [50, 200, 1000]
    assert list_checkpoints(run / "nowhere") == []


def test_the_newest_complete_checkpoint_is_found(run):
    assert newest_complete_checkpoint(run) == (run / "checkpoint-1000", [])
    assert newest_complete_checkpoint(run / "nowhere") == (None, [])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:40]), "model.safetensors has 40 bytes instead of 100"),
        (lambda file: file.write_bytes(b"X" * 100), "model.safetensors has a wrong checksum"),
        (lambda file: file.unlink(), "model.safetensors is missing"),
        (lambda file: (file.parent / "manifest.json").unlink(), "manifest.json is missing"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_by_name(run, damage, words):
    damage(run / "checkpoint-1000" / "model.safetensors")
    found, passed_over = newest_complete_checkpoint(run)
    assert found == run / "checkpoint-200"
    assert len(passed_over) == 1
    assert str(run / "checkpoint-1000") in passed_over[0] and words in passed_over[0]
    assert find_model(run) == run / "checkpoint-200"


def test_without_any_complete_checkpoint_all_are_named(run):
    for checkpoint in list_checkpoints(run):
        (checkpoint / "manifest.json").unlink()
    found, passed_over = newest_complete_checkpoint(run)
    assert found is None and len(passed_over) == 3
    with pytest.raises(UserError, match=r"no complete checkpoint \(.*checkpoint-1000 is damaged"):
        find_model(run)


@pytest.mark.parametrize(("keep", "left"), [(1, [1000]), (2, [200, 1000]), (5, [50, 200, 1000]), (0, [50, 200, 1000])])
def test_old_checkpoints_are_removed_oldest_first(run, keep, left):
    remove_old_checkpoints(run, keep)
    assert [checkpoint_step(path) for path in list_checkpoints(run)] == left


@pytest.mark.parametrize(
    ("losses", "left"),
    [
        ({50: 3.0, 200: 2.0, 1000: 2.5}, [200, 1000]),
        ({50: 1.0, 200: 2.0, 1000: 2.5}, [50, 1000]),
        ({50: 3.0, 200: 2.0, 1000: 1.0}, [1000]),
        ({50: math.nan, 200: 2.0, 1000: math.inf}, [200, 1000]),
        ({50: math.nan, 100: 0.5}, [1000]),
        ({}, [1000]),
    ],
)
def test_the_best_one_is_kept_besides(run, losses, left):
    remove_old_checkpoints(run, 1, losses)
    assert [checkpoint_step(path) for path in list_checkpoints(run)] == left


def test_the_final_model_comes_before_checkpoints_and_they_before_the_directory_itself(run):
    assert find_model(run) == run / "checkpoint-1000"
    with write_directory(run / "model") as partial:
        (partial / "config.json").write_text("{}")
    assert find_model(run) == run / "model"
    assert find_model(run / "checkpoint-50") == run / "checkpoint-50"


def test_a_run_that_is_not_there_or_empty_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no finished model and no complete checkpoint"):
        find_model(tmp_path)


def test_a_directory_holds_a_run_as_soon_as_it_has_a_part_of_one(tmp_path):
    assert not holds_run(tmp_path)
    assert not holds_run(tmp_path / "nowhere")
    for name in (CONFIG_NAME, "model", "checkpoint-10"):
        directory = tmp_path / f"with-{name}"
        directory.mkdir()
        (directory / name).mkdir()
        assert holds_run(directory)
