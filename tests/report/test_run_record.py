"""Reading what runs have left: whole, unfinished, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from report_runs import copy_run, seed_results, write_fine_tuning
from spanelectra.errors import UserError
from spanelectra.report.run_record import known_flops, read_runs


def test_everything_of_a_finished_run_is_there(finished_run: Path, rows: Path) -> None:
    (found,) = read_runs([finished_run])
    assert found.name == "joint" and not found.problems and not found.is_fine_tuning
    assert found.settings["data"] == str(rows) and found.data["splits"]["train"]["rows"] > 0
    assert found.metrics["steps"] == found.step == 6 and found.environment["cores"] > 0
    assert found.start["alarms"] == [] and found.start["data"]["corrupted"] is False
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    assert found.history == [json.loads(line) for line in lines]
    assert len(found.lines(held_out=True)) == 2
    assert {"step", "eval_loss"} <= set(found.lines(held_out=True)[-1])


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 5, "lo',
        b"\xff\xfe\x00",
        b"[1, 2]",
        b'{"loss": 1}',
        b'{"step": "5"}',
        b'{"step": -1}',
        b"[" * 9999,
    ],
)
def test_a_damaged_line_costs_itself_alone(finished_run: Path, tmp_path: Path, damage: bytes) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*"))
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    (run / "metrics.jsonl").write_bytes(b"\n".join([lines[0], damage, b"", *lines[1:]]) + b"\n" + lines[0][:20])
    (found,) = read_runs([run])
    assert found.history == [json.loads(line) for line in lines]
    assert found.problems == [f"metrics.jsonl: 2 damaged line(s) were left out (line 2, {len(lines) + 3})."]


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "start.json", "metrics.json", "rollbacks.json"])
@pytest.mark.parametrize("content", [b"{", b"\xff", b": : :\n\t- x"])
def test_a_damaged_file_is_named(finished_run: Path, tmp_path: Path, name: str, content: bytes) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*"))
    (run / name).write_bytes(content)
    (found,) = read_runs([run])
    (problem,) = found.problems
    assert problem.startswith(f"{name} could not be read (") and found.history


def test_rollbacks_are_remembered(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*", "metrics.json"))
    (run / "rollbacks.json").write_text(json.dumps([{"step": 4, "sentence": "went back to step 3"}, "rubbish"]))
    assert read_runs([run])[0].rollbacks == ["went back to step 3"]


def test_names_tell_runs_apart(finished_run: Path, tmp_path: Path) -> None:
    paths = [copy_run(finished_run, tmp_path / place / "run", ("model",)) for place in ("a/x", "b/x", "c")]
    assert [found.name for found in read_runs([*paths, paths[0]])] == ["a/x/run", "b/x/run", "c/run"]


def test_flops_are_the_runs_own_count_or_a_checkpoints(finished_run: Path, tmp_path: Path) -> None:
    (found,) = read_runs([finished_run])
    assert known_flops(found) == (6, found.metrics["training_flops"])
    interrupted = copy_run(finished_run, tmp_path / "run", without=("model", "metrics.json", "checkpoint-6"))
    state = json.loads((interrupted / "checkpoint-3" / "trainer_state.json").read_text())
    assert known_flops(read_runs([interrupted])[0]) == (3, state["total_flos"])
    (interrupted / "checkpoint-3" / "trainer_state.json").write_text("{")
    assert known_flops(read_runs([interrupted])[0]) is None


def test_an_interrupted_fine_tuning_is_read_from_its_seeds(tmp_path: Path) -> None:
    run = write_fine_tuning(tmp_path / "task", [])
    (run / "metrics.json").unlink()
    (run / "config.yaml").write_text("task: classification\nmetric: accuracy\nseeds: 3\n")
    (run / "seed-1").mkdir()
    (run / "seed-1" / "metrics.json").write_text(json.dumps(seed_results(1, 80.0)))
    (found,) = read_runs([run])
    assert found.is_fine_tuning and [result["seed"] for result in found.metrics["runs"]] == [1]


def test_what_is_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place, message in (("gone", "does not exist"), ("file", "is a file"), ("", "holds no run")):
        with pytest.raises(UserError, match=message):
            read_runs([tmp_path / place])
    with pytest.raises(UserError, match="RUN is missing"):
        read_runs([])
