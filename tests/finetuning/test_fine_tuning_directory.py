"""A run's directory: nobody else's files are lost, and only the same run goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spanelectra.atomic_files import write_directory, write_json
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.fine_tuning_directory import (
    check_run_directory,
    finished_seeds,
    seed_directory,
    start_run_directory,
)

RATE = 1e-3
INPUTS = {"encoder": "e", "train": "t", "dev": "d"}


def settings_of(run: Path, **changes: Any) -> FineTuningArguments:
    given = {"task": "classification", "model": "m", "train": "t.tsv", "dev": "d.tsv", "out_dir": str(run)}
    return FineTuningArguments(**{**given, **changes}).resolved()


def finish_seed(run: Path, seed: int, score: float, collapsed: str | None = None, **inputs: str) -> None:
    result = {"seed": seed, "dev": {"accuracy": score}, "collapsed": collapsed, "learning_rate": RATE}
    result["inputs"] = {**INPUTS, **inputs}
    with write_directory(seed_directory(run, seed), replace=True) as partial:
        write_json(partial / "metrics.json", result)


def write_model(run: Path) -> None:
    with write_directory(run / "model", replace=True) as partial:
        (partial / "config.json").write_text("{}")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of which seeds 0 and 1 are finished."""
    directory = tmp_path / "run"
    start_run_directory(directory, settings_of(directory, seeds=3))
    finish_seed(directory, 0, 80.0)
    finish_seed(directory, 1, 70.0)
    write_model(directory)
    return directory


def finished(run: Path, learning_rate: float = RATE, **inputs: str) -> list[int]:
    settings = settings_of(run, resume=True, seeds=3)
    return list(finished_seeds(run, settings, "accuracy", {**INPUTS, **inputs}, learning_rate))


def test_a_new_directory_may_be_written(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "a" / "b")
    directory = check_run_directory(settings)
    assert directory == tmp_path / "a" / "b" and not directory.exists()
    start_run_directory(directory, settings)
    assert [entry.name for entry in directory.iterdir()] == ["config.yaml"]


def test_a_run_is_not_overwritten_by_chance(run: Path) -> None:
    with pytest.raises(UserError, match=r"holds a run already\. Go on with it by --resume"):
        check_run_directory(settings_of(run))
    assert check_run_directory(settings_of(run, overwrite=True)) == run


def test_overwrite_deletes_all_of_a_run_and_nothing_else(run: Path) -> None:
    (run / ".partial-seed-2").mkdir()
    (run / ".replaced-model").mkdir()
    start_run_directory(run, settings_of(run, overwrite=True, seed=5))
    assert [entry.name for entry in run.iterdir()] == ["config.yaml"]
    assert "seed: 5" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("foreign", ["notes.txt", "seed-data", "seed-1b", "modelling", "checkpoint-3"])
@pytest.mark.parametrize("switch", ["overwrite", "resume"])
def test_a_directory_with_other_files_is_refused(foreign: str, switch: str, run: Path) -> None:
    (run / foreign).mkdir()
    with pytest.raises(UserError, match=re.escape(f"holds other files ('{foreign}')")):
        check_run_directory(settings_of(run, **{switch: True}, seeds=3))


@pytest.mark.parametrize("name", ["model", "train", "dev", "test"])
def test_what_the_run_reads_is_not_deleted(name: str, run: Path) -> None:
    (run / "seed-0" / "data.tsv").touch()
    for place, verb in ((run / "seed-0" / "data.tsv", "holds"), (run / "model", "holds"), (run, "is")):
        with pytest.raises(UserError, match=f"--out_dir {re.escape(str(run))} {verb} --{name}"):
            check_run_directory(settings_of(run, overwrite=True, **{name: str(place)}))


def test_the_same_run_goes_on(run: Path) -> None:
    settings = settings_of(run, resume=True, seeds=5, quiet=True)
    assert check_run_directory(settings) == run
    assert finished(run) == [0, 1]
    start_run_directory(run, settings)
    assert finished(run) == [0, 1] and "seeds: 5" in (run / "config.yaml").read_text()


def test_a_run_that_was_moved_goes_on(run: Path) -> None:
    moved = run.rename(run.with_name("moved"))
    check_run_directory(settings_of(moved, resume=True, seeds=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, "--resume: learning_rate was None and is 0.001 now"),
        ({"train": "other.tsv"}, "--resume: train was t.tsv and is other.tsv now"),
        ({"seed": 1}, "--resume: seed was 0 and is 1 now"),
        ({"seeds": 1}, "--resume: seed 1 is finished already; pass --seeds 2 or more."),
    ],
)
def test_another_run_does_not(changes: dict[str, Any], message: str, run: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_run_directory(settings_of(run, resume=True, **{"seeds": 3, **changes}))


def test_a_setting_that_is_younger_than_the_run_had_its_default(run: Path) -> None:
    lines = (run / "config.yaml").read_text().splitlines()
    (run / "config.yaml").write_text("\n".join(line for line in lines if not line.startswith("encoding:")))
    check_run_directory(settings_of(run, resume=True, seeds=3))
    with pytest.raises(UserError, match="encoding was utf-8 and is latin-1 now"):
        check_run_directory(settings_of(run, resume=True, seeds=3, encoding="latin-1"))


@pytest.mark.parametrize("content", [None, "[", "a list", "\xff"])
def test_a_run_whose_settings_are_lost_does_not_go_on(content: str | None, run: Path) -> None:
    if content is None:
        (run / "config.yaml").unlink()
    else:
        (run / "config.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="start anew with --overwrite"):
        check_run_directory(settings_of(run, resume=True, seeds=3))


def test_going_on_before_anything_was_written_is_starting(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".partial-config.yaml").touch()
    settings = settings_of(tmp_path / "run", resume=True)
    start_run_directory(check_run_directory(settings), settings)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_new_run_has_no_finished_seeds(run: Path) -> None:
    assert finished_seeds(run, settings_of(run, overwrite=True), "accuracy", INPUTS, RATE) == {}


@pytest.mark.parametrize("name", INPUTS)
def test_other_files_or_another_encoder_are_refused(name: str, run: Path) -> None:
    with pytest.raises(UserError, match=f"--resume: {name} changed since seed 0 was trained"):
        finished(run, **{name: "other"})


def test_a_split_that_a_seed_did_not_note_is_not_taken_for_the_same(run: Path) -> None:
    with pytest.raises(UserError, match="--resume: dev_split changed since seed 0 was trained"):
        finished(run, dev_split="s")


def test_seeds_of_two_default_rates_are_not_mixed(run: Path) -> None:
    message = "--resume: seed 0 was trained with a peak learning rate of 0.001, and the default is 0.0003 by now"
    with pytest.raises(UserError, match=re.escape(message)):
        finished(run, learning_rate=3e-4)


def test_a_damaged_seed_is_trained_again(run: Path) -> None:
    (run / "seed-0" / "metrics.json").write_text("{")
    assert finished(run) == [1]


@pytest.mark.parametrize("damage", ["gone", "broken"])
def test_where_the_model_is_lost_the_best_seed_is_trained_again(damage: str, run: Path) -> None:
    finish_seed(run, 2, 90.0, collapsed="always 'a'")
    if damage == "gone":
        (run / "model").rename(run / ".replaced-model")
    else:
        (run / "model" / "config.json").write_text("{ ")
    assert finished(run) == [1, 2]


def test_what_a_kill_left_is_tidied(run: Path) -> None:
    for name in (".partial-seed-2", ".partial-model", ".replaced-seed-0"):
        (run / name).mkdir()
    (run / "seed-1").rename(run / ".replaced-seed-1")
    # of fewer seeds than there will be
    (run / "metrics.json").write_text("{}")
    start_run_directory(run, settings_of(run, resume=True, seeds=3))
    assert sorted(entry.name for entry in run.iterdir()) == ["config.yaml", "model", "seed-0", "seed-1"]
    assert json.loads((run / "seed-1" / "metrics.json").read_text())["seed"] == 1
