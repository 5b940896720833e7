"""The history as columns: over steps, tokens, FLOPs and wall time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report_runs import copy_run, record
from spanelectra.report.curves import MOST_POINTS, read_curves
from spanelectra.report.run_record import read_runs


def test_the_columns_are_the_logs_numbers(finished_run: Path) -> None:
    (found,) = read_runs([finished_run])
    for curves, held_out in zip(read_curves(found), (False, True), strict=True):
        lines = found.lines(held_out=held_out)
        assert curves.axes["steps"] == [line["step"] for line in lines]
        assert curves.axes["tokens"] == [line["tokens"] for line in lines]
        prefix = "eval_" if held_out else ""
        assert curves.values["mlm_loss"] == [line[f"{prefix}mlm_loss"] for line in lines]
        assert {"step", "tokens", "epoch", "wall_seconds"}.isdisjoint(curves.values)


def test_an_evaluation_stands_at_the_wall_time_of_its_step(finished_run: Path) -> None:
    (found,) = read_runs([finished_run])
    seconds = {line["step"]: line["wall_seconds"] for line in found.lines(held_out=False)}
    _, held_out = read_curves(found)
    assert held_out.axes["minutes"] == pytest.approx([seconds[3] / 60, seconds[6] / 60])


def test_flops_agree_with_the_trainers_count_at_every_checkpoint(finished_run: Path, tmp_path: Path) -> None:
    """The discriminator joins at step 2, so that later steps cost more: no straight line would agree."""
    interrupted = copy_run(finished_run, tmp_path / "run", without=("metrics.json", "model"))
    for run in (finished_run, interrupted):
        training, _ = read_curves(read_runs([run])[0])
        flops = dict(zip(training.axes["steps"], training.axes["flops"], strict=True))
        for step in (3, 6):
            state = json.loads((run / f"checkpoint-{step}" / "trainer_state.json").read_text())
            assert flops[step] == pytest.approx(state["total_flos"], rel=1e-6)
        assert flops[6] > 2.05 * flops[3]


def test_without_any_count_there_are_no_flops(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("metrics.json", "model", "checkpoint-*"))
    training, held_out = read_curves(read_runs([run])[0])
    assert set(training.axes["flops"] + held_out.axes["flops"]) == {None}
    assert training.axes["minutes"][-1] > 0


def test_a_discriminator_that_has_not_joined_has_no_held_out_points() -> None:
    joint = {"stage": "joint", "generator_head_start": 0.5, "max_steps": 8}
    history = [
        {
            "step": s,
            "eval_loss": 9.0,
            "eval_mlm_loss": 8.0,
            "eval_ato_auc": 0.4,
            "eval_sbpo_loss": 1.0,
            "eval_correction_loss": 7.0,
        }
        for s in (4, 8)
    ]
    _, held_out = read_curves(record(settings=joint, history=history))
    assert held_out.values["mlm_loss"] == [8.0, 8.0] and held_out.values["loss"] == [9.0, 9.0]
    assert held_out.values["ato_auc"] == [None, 0.4] and held_out.values["sbpo_loss"] == [None, 1.0]
    assert held_out.values["correction_loss"] == [None, 7.0]


def test_lines_of_a_probe_stand_where_their_step_does() -> None:
    line = {"loss": 1.0, "tokens_per_second": 10.0, "model_flops_utilisation": 0.5}
    history = [
        {"step": 0, "fresh_probe_sst2": 50.0},
        {"step": 2, "tokens": 20.0, "wall_seconds": 60.0, **line},
        {"step": 2, "probe_sst2": 60.0},
        {"step": 4, "tokens": 40.0, "wall_seconds": 120.0, **line, "model_flops_utilisation": 1.0},
        {"step": 4, "probe_sst2": 70.0},
    ]
    training, _ = read_curves(record(metrics={"training_flops": 60.0, "steps": 4}, history=history))
    assert training.axes["tokens"] == [0, 20, 20, 40, 40]
    assert training.axes["flops"] == pytest.approx([0, 20, 20, 60, 60])


def test_what_is_no_number_is_a_gap() -> None:
    history = [{"step": 1, "loss": "nan", "grad_norm": True}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": math.inf}]
    training, _ = read_curves(record(history=history))
    assert training.values == {"loss": [None, 2.0, None]}


@settings(max_examples=10)
@given(st.integers(MOST_POINTS + 1, 3 * MOST_POINTS))
def test_long_histories_are_averaged(count: int) -> None:
    history = [{"step": step, "loss": float(step % 7)} for step in range(count)]
    training, _ = read_curves(record(history=history))
    points, losses = training.axes["steps"], training.values["loss"]
    assert len(points) == len(losses) <= MOST_POINTS
    size = training.averaged
    assert losses[0] == pytest.approx(sum(line["loss"] for line in history[:size]) / size)
    last = len(history) - (len(points) - 1) * size
    total = sum(x * size for x in losses[:-1]) + losses[-1] * last
    assert total == pytest.approx(sum(line["loss"] for line in history))
