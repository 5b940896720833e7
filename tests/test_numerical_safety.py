"""Steps that are not numbers, put in on purpose: left out, counted, gone back from, and the same after a kill."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from factories import joint_model
from small_runs import read_lines, small_run, start_command, weights, write_recipe
from spanelectra.atomic_files import write_directory
from spanelectra.callbacks import RunStopped, TrainingDiverged, read_history
from spanelectra.checkpointing import list_checkpoints
from spanelectra.losses import vocabulary_loss
from spanelectra.numerical_safety import (
    NonFiniteSteps,
    NumericalBreakdown,
    break_gradient_of_broken_loss,
    learning_rate_factor,
    nonfinite_counts,
    read_rollbacks,
    roll_back,
)
from spanelectra.optimization import build_optimizer
from spanelectra.pretraining import pretrain
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

Condition = Callable[[int, float], bool]


@pytest.fixture
def break_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the MLM loss, or its gradient alone, a non-number where ``is_broken(step, learning_rate)`` says so."""

    def install(is_broken: Condition, number: float = math.nan, gradient_only: bool = False) -> None:
        now: dict[str, bool] = {"broken": False}
        step = SpanElectraTrainer.training_step

        def training_step(self: SpanElectraTrainer, *args: Any, **kwargs: Any) -> Tensor:
            now["broken"] = is_broken(self.state.global_step + 1, self.settings.learning_rate)
            result = step(self, *args, **kwargs)
            now["broken"] = False
            return result

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            value = vocabulary_loss(logits, labels)
            if now["broken"] and gradient_only:
                value.register_hook(lambda gradient: gradient * number)
                return value
            return value * number if now["broken"] else value

        monkeypatch.setattr(SpanElectraTrainer, "training_step", training_step)
        monkeypatch.setattr("spanelectra.modeling_spanelectra.vocabulary_loss", loss)

    return install


class RefuseToWait(TorchDispatchMode):
    """Fails where Python asks a tensor for its number, which would wait for an accelerator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default, "the host waits for the device"
        return func(*args, **(kwargs or {}))


class TestCounting:
    @given(st.lists(st.sampled_from([1.0, 0.0, math.nan, math.inf, -math.inf]), max_size=30), st.integers(0, 5))
    def test_like_counting_by_hand(self, norms: list[float], before: int) -> None:
        counts, row, longest = NonFiniteSteps(total=before, in_a_row=before), before, before
        for norm in norms:
            left_out = counts.update(torch.tensor(norm))
            row = 0 if math.isfinite(norm) else row + 1
            longest = max(longest, row)
            assert left_out.dtype == torch.float32 and left_out.item() == (not math.isfinite(norm))
        broken = sum(not math.isfinite(norm) for norm in norms)
        assert (counts.total, counts.in_a_row, counts.longest_row) == (before + broken, row, longest)

    def test_neither_counting_nor_leaving_out_waits_for_the_device(self) -> None:
        counts, parameter = NonFiniteSteps(), torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([parameter], fused=True)
        for norm in (1.0, math.nan):
            parameter.grad = torch.full((3,), norm)
            gradient_norm = torch.tensor(norm)
            with RefuseToWait():
                optimizer.found_inf = counts.update(gradient_norm)
                (break_gradient_of_broken_loss(parameter.sum() * norm)).backward()
                optimizer.step()
        with pytest.raises(AssertionError, match="waits"), RefuseToWait():
            _ = counts.total

    @given(st.floats(-(2.0**100), 2.0**100, width=32))
    def test_a_loss_that_is_a_number_keeps_its_bits(self, value: float) -> None:
        weight = torch.tensor(value, requires_grad=True)
        loss = break_gradient_of_broken_loss(weight * 1.5)
        loss.backward()
        assert loss.item() == (weight * 1.5).item() and weight.grad is not None and weight.grad.item() == 1.5

    def test_an_infinite_loss_with_a_finite_gradient_breaks_it(self) -> None:
        weight = torch.tensor(1.0, requires_grad=True)
        break_gradient_of_broken_loss(weight + math.inf).backward()
        assert weight.grad is not None and math.isnan(weight.grad.item())

    def test_counts_come_from_the_last_line_of_training(self) -> None:
        lines = [{"nonfinite_steps": 3, "nonfinite_steps_in_a_row": 2}, {"nonfinite_steps": 4}, {"eval_loss": 1.0}]
        assert nonfinite_counts(lines) == (4, 0)
        assert nonfinite_counts(lines[:1]) == (3, 2)
        assert nonfinite_counts([]) == (0, 0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
class TestOptimizers:
    @staticmethod
    def make(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = joint_model("electra")
        rates = {"learning_rate": 1e-2, "muon_learning_rate": 1e-2}
        optimizer = build_optimizer(model, optimizer=name, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6, **rates)
        return model, optimizer

    @staticmethod
    def step(model: torch.nn.Module, optimizer: Any, seed: int, found_inf: float | None) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * (math.nan if found_inf else 1.0)
        if found_inf is not None:
            optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()

    def test_a_step_that_is_left_out_leaves_everything(self, name: str) -> None:
        model, optimizer = self.make(name)
        self.step(model, optimizer, 1, 0.0)
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        self.step(model, optimizer, 2, 1.0)
        assert all(torch.equal(tensor, before[0][key]) for key, tensor in model.state_dict().items())
        after = optimizer.state_dict()["state"]
        for number, state in before[1]["state"].items():
            assert all(torch.equal(tensor, after[number][key]) for key, tensor in state.items())

    def test_other_steps_are_the_same_bits_as_without_the_guard(self, name: str) -> None:
        guarded, unguarded = self.make(name), self.make(name)
        self.step(*guarded, 0, 1.0)
        for seed in (1, 2, 3):
            self.step(*guarded, seed, 0.0)
            self.step(*unguarded, seed, None)
        expected = unguarded[0].state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in guarded[0].state_dict().items())


class TestLeavingOut:
    @pytest.mark.parametrize(
        ("number", "gradient_only"), [(math.nan, False), (math.inf, False), (math.nan, True), (math.inf, True)]
    )
    def test_a_broken_step_changes_nothing_and_is_counted(
        self, rows: Path, tmp_path: Path, break_steps: Any, number: float, gradient_only: bool
    ) -> None:
        break_steps(lambda step, rate: step in (2, 5), number, gradient_only)
        settings = {"save_steps": 1, "logging_steps": 1, "eval_steps": 0, "save_total_limit": 9, "dropout": 0.1}
        metrics = pretrain(small_run(rows, tmp_path / "run", **settings))
        saved = [load_file(path / "model.safetensors") for path in list_checkpoints(tmp_path / "run")]
        same = [all(torch.equal(a[key], b[key]) for key in a) for a, b in itertools.pairwise(saved)]
        assert same == [True, False, False, True, False], "steps 2 and 5"
        lines = read_lines(tmp_path / "run")
        assert [line["nonfinite_steps"] for line in lines] == [0, 1, 1, 1, 2, 2]
        assert [line.get("nonfinite_steps_in_a_row", 0) for line in lines] == [0, 1, 0, 0, 1, 0]
        assert [line["loss"] == "nan" for line in lines] == [
            not gradient_only and step in (2, 5) for step in range(1, 7)
        ]
        (alarm,) = metrics["alarms"]
        assert "1 of 2 steps had a loss or a gradient that is not a number" in alarm
        assert read_rollbacks(tmp_path / "run") == []

    def test_the_logged_losses_are_means_of_the_steps_that_were_numbers(
        self, rows: Path, tmp_path: Path, break_steps: Any
    ) -> None:
        break_steps(lambda step, rate: step in (2, 3))
        for name, every in (("each", 1), ("all", 6)):
            pretrain(small_run(rows, tmp_path / name, logging_steps=every, eval_steps=0, save_steps=0))
        each, (together,) = read_lines(tmp_path / "each"), read_lines(tmp_path / "all")
        for loss in ("loss", "mlm_loss", "sbgo_loss"):
            numbers = [line[loss] for line in each if line[loss] != "nan"]
            assert len(numbers) == 4
            assert together[loss] == pytest.approx(sum(numbers) / 4)
            assert together[f"{loss}_max"] == pytest.approx(max(numbers))

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_killed_and_resumed_it_is_the_same_run(
        self, rows: Path, tmp_path: Path, break_steps: Any, optimizer: str
    ) -> None:
        break_steps(lambda step, rate: step in (2, 4, 5))
        settings = {"save_steps": 2, "logging_steps": 1, "dropout": 0.1, "optimizer": optimizer}
        pretrain(small_run(rows, tmp_path / "whole", **settings))
        with pytest.MonkeyPatch.context() as patched, pytest.raises(RunStopped):
            patched.setattr("spanelectra.trainer.remove_old_checkpoints", stop_after(2))
            pretrain(small_run(rows, tmp_path / "killed", **settings))
        pretrain(PretrainingArguments(resume=str(tmp_path / "killed"), quiet=True))
        assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
        for name in ("nonfinite_steps", "nonfinite_steps_in_a_row", "loss", "learning_rate"):
            killed, whole = ([line.get(name) for line in read_lines(tmp_path / run)] for run in ("killed", "whole"))
            assert killed == whole


def stop_after(checkpoints: int) -> Callable[..., None]:
    """End the run as a kill does, once so many checkpoints are written."""

    def stop(run: Path, *_: Any) -> None:
        if len(list_checkpoints(run)) == checkpoints:
            raise RunStopped(9)

    return stop


class TestGoingBack:
    SETTINGS: dict[str, Any] = {  # noqa: RUF012
        "max_steps": 12,
        "save_steps": 3,
        "logging_steps": 1,
        "max_nonfinite_steps": 2,
        "eval_steps": 0,
        "dropout": 0.1,
        "learning_rate": 1e-3,
    }

    def test_to_the_last_good_checkpoint_at_half_the_learning_rate(
        self, rows: Path, tmp_path: Path, break_steps: Any
    ) -> None:
        break_steps(lambda step, rate: step >= 8 and rate > 6e-4)
        metrics = pretrain(small_run(rows, tmp_path / "run", **self.SETTINGS))
        (entry,) = read_rollbacks(tmp_path / "run")
        assert (entry["step"], entry["to_step"], entry["learning_rate_factor"]) == (9, 6, 0.5)
        assert metrics["steps"] == 12
        (alarm,) = metrics["alarms"]
        assert "2 steps in a row had to be left out at step 9 (mlm_loss and sbgo_loss no number" in alarm
        assert "goes back to checkpoint-6, with its learning rate times 0.5" in alarm
        lines = read_lines(tmp_path / "run")
        assert [line["step"] for line in lines] == list(range(1, 13)), "neither gaps nor repeats"
        assert all(math.isfinite(line["loss"]) for line in lines)
        schedule = [12 - step + 1 if step > 1 else 0 for step in range(1, 13)]
        rates = [line["learning_rate"] / 1e-3 * 11 for line in lines]
        expected = [value * (0.5 if step > 6 else 1) for step, value in enumerate(schedule, start=1)]
        assert rates == pytest.approx(expected)

    def test_without_a_checkpoint_to_the_start(self, rows: Path, tmp_path: Path, break_steps: Any) -> None:
        break_steps(lambda step, rate: rate > 6e-4)
        for optimizer in ("adamw", "muon"):
            settings = {**self.SETTINGS, "max_steps": 4, "optimizer": optimizer}
            pretrain(small_run(rows, tmp_path / optimizer, **settings))
            halved = {**settings, "learning_rate": 5e-4, "muon_learning_rate": 1e-2}
            pretrain(small_run(rows, tmp_path / f"{optimizer}-halved", **halved))
            assert weights(tmp_path / optimizer) == weights(tmp_path / f"{optimizer}-halved")

    def test_killed_right_after_it_or_later_it_is_the_same_run(
        self, rows: Path, tmp_path: Path, break_steps: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        break_steps(lambda step, rate: step >= 8 and rate > 6e-4)
        pretrain(small_run(rows, tmp_path / "whole", **self.SETTINGS))

        def killed(breakdown: NumericalBreakdown) -> None:
            roll_back(breakdown)
            raise RunStopped(9)

        with monkeypatch.context() as patched, pytest.raises(RunStopped):
            patched.setattr("spanelectra.pretraining.roll_back", killed)
            pretrain(small_run(rows, tmp_path / "killed", **self.SETTINGS))
        resume = PretrainingArguments(resume=str(tmp_path / "killed"), quiet=True)
        with monkeypatch.context() as patched, pytest.raises(RunStopped):
            patched.setattr("spanelectra.trainer.remove_old_checkpoints", stop_after(3))
            pretrain(resume)
        assert [path.name for path in list_checkpoints(tmp_path / "killed")][-1] == "checkpoint-9"
        metrics = pretrain(resume)
        assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
        assert metrics["alarms"] == json.loads((tmp_path / "whole" / "metrics.json").read_text())["alarms"]
        lines = [
            [(line["loss"], line["learning_rate"]) for line in read_lines(tmp_path / n)] for n in ("killed", "whole")
        ]
        assert lines[0] == lines[1]

    def test_it_ends_with_a_diagnosis(self, rows: Path, tmp_path: Path, break_steps: Any) -> None:
        break_steps(lambda step, rate: step >= 8, gradient_only=True)
        with pytest.raises(TrainingDiverged) as diverged:
            pretrain(small_run(rows, tmp_path / "run", **self.SETTINGS))
        text = str(diverged.value)
        assert "2 steps in a row had to be left out at step 9 (losses were numbers, the gradient was not" in text
        assert "went back 3 time(s), to step 6 (from 9), 3 (from 9), 6 (from 9)" in text
        assert "checkpoint-6 is from before" in text and "learning rate 0.000125" in text
        assert learning_rate_factor(tmp_path / "run") == 0.125
        saved = load_file(list_checkpoints(tmp_path / "run")[-1] / "model.safetensors")
        assert all(tensor.isfinite().all() for tensor in saved.values())

    def test_a_signal_in_the_same_step_stops_the_run_and_resuming_goes_back(
        self, rows: Path, tmp_path: Path, break_steps: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        break_steps(lambda step, rate: step >= 8 and rate > 6e-4)
        pretrain(small_run(rows, tmp_path / "whole", **self.SETTINGS))
        with monkeypatch.context() as patched, pytest.raises(RunStopped):
            step_end = SpanElectraTrainer.training_step

            def signalled(self: SpanElectraTrainer, *args: Any, **kwargs: Any) -> Tensor:
                if self.state.global_step == 8:
                    stopper = next(c for c in self.callback_handler.callbacks if hasattr(c, "received"))
                    stopper.received = 15
                return step_end(self, *args, **kwargs)

            patched.setattr(SpanElectraTrainer, "training_step", signalled)
            pretrain(small_run(rows, tmp_path / "run", **self.SETTINGS))
        assert read_rollbacks(tmp_path / "run") == []
        pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))
        assert weights(tmp_path / "run") == weights(tmp_path / "whole")


class TestWhereTo:
    @staticmethod
    def write_checkpoint(run: Path, step: int, in_a_row: int = 0) -> Path:
        line = {"step": step, "nonfinite_steps": in_a_row, "nonfinite_steps_in_a_row": in_a_row}
        with write_directory(run / f"checkpoint-{step}") as partial:
            (partial / "trainer_state.json").write_text(json.dumps({"log_history": [line]}))
        return run / f"checkpoint-{step}"

    def test_a_checkpoint_between_broken_steps_or_a_damaged_one_is_none(self, tmp_path: Path) -> None:
        for step, in_a_row in ((10, 0), (20, 0), (30, 0), (40, 1)):
            self.write_checkpoint(tmp_path, step, in_a_row)
        (tmp_path / "checkpoint-30" / "trainer_state.json").write_text("{")
        roll_back(NumericalBreakdown("x", tmp_path, 41, 3))
        assert [entry["to_step"] for entry in read_rollbacks(tmp_path)] == [20]
        assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-20"]

    def test_where_it_came_from_already_it_goes_one_further(self, tmp_path: Path) -> None:
        for step in (10, 20, 30):
            self.write_checkpoint(tmp_path, step)
        for _ in range(4):
            roll_back(NumericalBreakdown("x", tmp_path, 31, 4))
        # back to 20 a second time it would not get: the one before, and the last one that is left again and again
        assert [entry["to_step"] for entry in read_rollbacks(tmp_path)] == [30, 20, 10, 10]
        assert [entry["learning_rate_factor"] for entry in read_rollbacks(tmp_path)] == [0.5, 0.25, 0.125, 0.0625]
        with pytest.raises(TrainingDiverged, match=re.escape("went back 4 time(s)")):
            roll_back(NumericalBreakdown("x", tmp_path, 31, 4))
        assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-10"]


BREAK_ONE_PROCESS = """
import os, sys
from spanelectra import cli, modeling_spanelectra as modeling
from spanelectra.trainer import SpanElectraTrainer
now, step, loss = {}, SpanElectraTrainer.training_step, modeling.vocabulary_loss
def training_step(self, *args, **kwargs):
    here = self.state.global_step + 1
    broken = here == 2 or (here in (5, 6) and self.settings.learning_rate > 6e-4)
    now["broken"] = broken and os.environ["RANK"] == "1"
    return step(self, *args, **kwargs)
SpanElectraTrainer.training_step = training_step
modeling.vocabulary_loss = lambda *args: loss(*args) * (float("nan") if now.get("broken") else 1.0)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_of_two_processes_both_leave_out_and_go_back_where_one_is_broken(rows: Path, tmp_path: Path) -> None:
    settings = {"save_steps": 3, "logging_steps": 1, "max_nonfinite_steps": 2, "eval_steps": 0, "learning_rate": 1e-3}
    (tmp_path / "broken.py").write_text(BREAK_ONE_PROCESS)
    recipe = write_recipe(small_run(rows, tmp_path / "run", max_steps=8, **settings), tmp_path)
    launcher = ("--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
    process = start_command("--recipe", recipe, launcher=launcher, program=str(tmp_path / "broken.py"))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()
    assert [(entry["step"], entry["to_step"]) for entry in read_rollbacks(tmp_path / "run")] == [(6, 3)]
    lines = [line for line in read_history(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["nonfinite_steps"] for line in lines] == [0] + [1] * 7
    assert math.isfinite(lines[1]["loss"]), "of the process that was not broken"
