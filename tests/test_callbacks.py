"""What a run shows and keeps, how it is stopped, and alarms that real runs raise."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerControl, TrainerState

from small_runs import read_lines, small_run, start_command, write_recipe
from spanelectra.callbacks import (
    HistoryCallback,
    ProgressCallback,
    RunStopped,
    SaveAndStopCallback,
    TrainingDiverged,
    format_metrics,
    read_history,
)
from spanelectra.cli import main
from spanelectra.health import HealthLimits, HealthMonitor
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.pretraining import pretrain
from spanelectra.training_args import PretrainingArguments

ARGS: Any = SimpleNamespace(world_size=1)


def at_step(step: int, *, first_process: bool = True) -> TrainerState:
    return TrainerState(global_step=step, max_steps=100, is_world_process_zero=first_process)


class TestHistory:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "metrics.jsonl"

    def test_a_half_written_last_line_is_ignored(self, file: Path) -> None:
        file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
        assert read_history(file) == [{"step": 1, "loss": 2.0}]
        assert read_history(file.with_name("nothing.jsonl")) == []

    def test_on_resume_later_lines_are_dropped_and_new_ones_follow(self, file: Path) -> None:
        lines = [{"step": step, "loss": 1.0} for step in (2, 4, 6)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 8, "lo')
        history = HistoryCallback(file)
        history.on_train_begin(ARGS, at_step(4), TrainerControl())
        history.on_log(ARGS, at_step(5), TrainerControl(), {"loss": 0.5})
        assert read_history(file) == [*lines[:2], {"step": 5, "loss": 0.5}]
        assert not list(file.parent.glob(".*"))

    def test_a_number_that_is_none_in_json_is_text(self, file: Path) -> None:
        history = HistoryCallback(file)
        history.on_log(ARGS, at_step(1), TrainerControl(), {"loss": math.nan, "ato_loss": math.inf, "tokens": 3.0})
        text = file.read_text()
        assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) == {
            "step": 1, "loss": "nan", "ato_loss": "inf", "tokens": 3.0,
        }  # fmt: skip

    def test_other_entries_and_other_processes_write_nothing(self, file: Path) -> None:
        history = HistoryCallback(file)
        history.on_log(ARGS, at_step(1), TrainerControl(), {"train_runtime": 3.0, "train_loss": 2.0})
        history.on_log(ARGS, at_step(1), TrainerControl(), {"epoch": 3.0})
        history.on_train_begin(ARGS, at_step(1, first_process=False), TrainerControl())
        history.on_log(ARGS, at_step(1, first_process=False), TrainerControl(), {"loss": 3.0})
        assert not file.exists()


class TestProgress:
    LOGS = {"loss": 12.5, "mlm_loss": 6.25, "tokens_per_second": 12345.6, "seconds_left": 3725.0}  # noqa: RUF012

    @staticmethod
    def show(terminal: bool, logs: list[dict[str, Any]], first_process: bool = True, quiet: bool = False) -> str:
        stream = io.StringIO()
        progress = ProgressCallback(Console(file=stream, force_terminal=terminal, soft_wrap=True, quiet=quiet))
        state, control = at_step(7, first_process=first_process), TrainerControl()
        progress.on_train_begin(ARGS, state, control)
        progress.on_step_end(ARGS, state, control)
        for entry in logs:
            progress.on_log(ARGS, state, control, entry)
        progress.on_train_end(ARGS, state, control)
        return stream.getvalue()

    def test_where_no_terminal_is_there_are_plain_lines(self) -> None:
        shown = self.show(False, [self.LOGS, {"eval_loss": 3.0, "eval_mlm_loss": 2.0}, {"train_runtime": 1.0}])
        assert shown.splitlines() == [
            "step      7  loss 12.500  mlm 6.250  tok/s 12,346  left 01:02:05",
            "step      7  held-out  loss 3.000  mlm 2.000",
        ]
        assert shown.replace("\n", "").isprintable()

    def test_a_terminal_has_a_bar_that_goes_away(self) -> None:
        shown = self.show(True, [self.LOGS])
        assert "training" in shown and "7/100" in shown and "loss 12.500" in shown
        assert shown.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in shown, "the cursor is back"

    def test_more_than_a_day_left_is_not_shown_as_less(self) -> None:
        assert "left 26:00:00" in self.show(False, [{"loss": 1.0, "seconds_left": 26 * 3600.0}])

    def test_a_jump_of_the_loss_is_explained_where_more_is_summed(self) -> None:
        before, after = (
            {"loss": 6.0, "mlm_loss": 6.0},
            {"loss": 46.0, "mlm_loss": 6.0, "ato_loss": 0.4, "sbpo_loss": 0.7},
        )
        shown = self.show(False, [before, {"eval_loss": 46.0, "eval_ato_loss": 0.4}, before, after, after])
        assert shown.splitlines()[3] == "step      7  ato and sbpo joined since the line before, and add to the loss"
        assert shown.count("joined") == 1
        correcting = after | {"correction_loss": 5.0, "correction_accuracy": 0.1}
        shown = self.show(False, [after, correcting])
        assert "  correction joined since the line before" in shown
        assert "correction 5.000" in shown and "correction acc 0.100" in shown
        assert "joined" not in self.show(False, [after, after]), "a resumed run begins with them"

    def test_other_processes_and_quiet_runs_are_silent(self) -> None:
        assert self.show(True, [self.LOGS], first_process=False) == self.show(True, [self.LOGS], quiet=True) == ""

    def test_an_error_ends_the_bar(self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True)
        monkeypatch.setattr("spanelectra.pretraining.make_console", lambda quiet: console)
        monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            pretrain(small_run(rows, tmp_path / "run"))
        assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1, "hidden, shown again"


def test_metrics_are_shown_by_their_short_names() -> None:
    metrics = {"tokens_per_second": 1234.5, "loss": 1.0, "ato_auc": 0.75, "grad_norm": 9.0, "mlm_loss": None}
    assert format_metrics(metrics) == "loss 1.000  ato auc 0.750  tok/s 1,234"
    assert format_metrics({}) == ""


class TestSignals:
    @pytest.fixture
    def stopper(self):
        stopper = SaveAndStopCallback()
        stopper.on_train_begin(ARGS, at_step(0), TrainerControl())
        yield stopper
        stopper.restore()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_one_ends_the_step_with_a_checkpoint(self, stopper, number: signal.Signals) -> None:
        control = TrainerControl()
        stopper.on_step_end(ARGS, at_step(1), control)
        assert not control.should_save and not control.should_training_stop
        os.kill(os.getpid(), number)
        stopper.on_step_end(ARGS, at_step(2), control)
        assert control.should_save and control.should_training_stop and control.should_log
        assert RunStopped(stopper.received).exit_code == 128 + number

    def test_a_second_ctrl_c_stops_at_once(self, stopper) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    def test_a_second_sigterm_waits_for_the_step_too(self, stopper) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.received == signal.SIGTERM

    def test_a_checkpoint_closes_the_window_of_the_log(self, stopper) -> None:
        control = TrainerControl(should_save=True)
        stopper.on_step_end(ARGS, at_step(1), control)
        assert control.should_log and not control.should_training_stop

    @pytest.mark.parametrize("fails", [False, True])
    def test_handlers_are_put_back_when_a_run_ends(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
    ) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        if fails:
            monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full") if fails else contextlib.nullcontext():
            pretrain(small_run(rows, tmp_path / "run"))
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    def test_two_ctrl_c_end_a_run_with_130_and_its_checkpoints_stay(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(rows, tmp_path / "run", max_steps=5000, save_steps=5, eval_steps=0)
        process = start_command("--recipe", write_recipe(settings, tmp_path))
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob("checkpoint-*")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert b"Traceback" not in process.communicate()[1]
        assert list((tmp_path / "run").glob("checkpoint-*"))


class TestAlarms:
    """Each alarm in a real run; limits are lowered, for these runs are over before the usual warm-up is."""

    @pytest.fixture(autouse=True)
    def early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = HealthLimits(warm_up_steps=4, warm_up_progress=0.5)
        monkeypatch.setattr("spanelectra.pretraining.HealthMonitor", partial(HealthMonitor, limits=limits))

    def test_a_run_that_learns_raises_none(self, rhyme_rows: Path, tmp_path: Path) -> None:
        settings = small_run(
            rhyme_rows,
            tmp_path / "run",
            max_steps=160,
            per_device_train_batch_size=8,
            logging_steps=40,
            eval_steps=80,
            learning_rate=1e-2,
            generator_size=1.0,
            mask_token_ratio=1.0,
            random_token_ratio=0.0,
            sbpo_weight=0.0,
            save_steps=0,
        )
        metrics = pretrain(settings)
        assert metrics["alarms"] == []
        assert metrics["held_out"]["mlm_loss"] < metrics["unigram_cross_entropy"] - 0.3

    def test_a_generator_that_does_not_learn(
        self, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        metrics = pretrain(small_run(rows, tmp_path / "run", method="bert", learning_rate=1e-12, quiet=False))
        (alarm,) = metrics["alarms"]
        assert "no better than guessing by frequency at step 6" in alarm
        assert f"ALARM {alarm}" in capsys.readouterr().err

    def test_a_discriminator_that_always_says_original(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def always_original(self: SpanElectraDiscriminator, hidden_states: Tensor) -> Tensor:
            return 0.0 * hidden_states.sum(-1) - 2.0

        monkeypatch.setattr(SpanElectraDiscriminator, "all_token_logits", always_original)
        settings = {"method": "electra", "generator_head_start": 0.3, "max_steps": 12, "logging_steps": 1}
        metrics = pretrain(small_run(rows, tmp_path / "run", **settings))
        (alarm,) = [alarm for alarm in metrics["alarms"] if "all-token head" in alarm]
        # the head start is 4 of the 12 steps, half of the rest is 4; step 11 is the first whose heads are looked at
        assert "no better than always giving the commoner verdict" in alarm and "AUC 0.50" in alarm

    def test_a_resumed_run_remembers_its_alarms(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(rows, tmp_path / "run", method="bert", learning_rate=1e-12)
        first = pretrain(settings)
        (tmp_path / "run" / "metrics.json").unlink()
        resumed = pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))
        assert resumed["alarms"] == first["alarms"] != []

    @pytest.mark.parametrize("number", [math.nan, math.inf])
    def test_a_loss_that_is_no_number_ends_the_run_with_exit_code_1(
        self,
        rows: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        number: float,
    ) -> None:
        monkeypatch.setattr("spanelectra.modeling_spanelectra.vocabulary_loss", break_down(number, after=4))
        settings = small_run(rows, tmp_path / "run", method="bert", save_steps=2, eval_steps=0, save_total_limit=5)
        settings.max_nonfinite_steps, settings.max_rollbacks = 2, 0
        assert main(["pretrain", "--recipe", write_recipe(settings, tmp_path)]) == 1
        errors = capsys.readouterr().err.strip().splitlines()
        assert errors[-1].startswith("error: training has diverged: 2 steps in a row had to be left out at step 6")
        assert "mlm_loss no number" in errors[-1] and "Lower the learning rate" in errors[-1]
        kept = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
        assert kept == ["checkpoint-2", "checkpoint-4"] and "checkpoint-4 is from before" in errors[-1]
        assert all(t.isfinite().all() for t in load_file(tmp_path / "run" / kept[-1] / "model.safetensors").values())
        assert read_lines(tmp_path / "run")[-1]["step"] == 4
        assert not (tmp_path / "run" / "metrics.json").exists()

    @pytest.mark.parametrize("rollbacks", [0, 2])
    def test_a_held_out_loss_that_is_no_number_ends_a_run_that_may_not_go_back_any_more(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rollbacks: int
    ) -> None:
        monkeypatch.setattr("spanelectra.modeling_spanelectra.vocabulary_loss", break_down(math.nan, after=3))
        went = "the run went back 2 time" if rollbacks else "diverged: held-out mlm_loss no number at step 3"
        with pytest.raises(TrainingDiverged, match=went):
            pretrain(small_run(rows, tmp_path / "run", method="bert", max_rollbacks=rollbacks, max_nonfinite_steps=9))


def break_down(number: float, after: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that is as it should be ``after`` times, and then ``number``."""
    from spanelectra.losses import vocabulary_loss

    calls = 0

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return vocabulary_loss(logits, labels) * (1.0 if calls <= after else number)

    return loss
