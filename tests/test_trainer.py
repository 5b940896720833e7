"""The trainer in real runs: a golden curve, loss weights, throughput, evaluation, checkpoints, two processes."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from prepared_rows import LENGTH
from small_runs import (
    OBJECTIVES,
    losses_of,
    make_trainer,
    pretrain_with_a_stop,
    read_lines,
    small_run,
    start_command,
    weights,
    write_recipe,
)
from spanelectra import modeling_spanelectra
from spanelectra.atomic_files import find_damage
from spanelectra.checkpointing import list_checkpoints
from spanelectra.data.training_rows import RowBatch
from spanelectra.flops import row_training_flops
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

# Losses of a run on `rhyme_rows` as they were when this was written; a change of the code that is no change of the
# method leaves them. Other machines and versions round differently, hence the tolerance.
GOLDEN: dict[str, list[float]] = {
    "mlm": [4.59322, 4.62604, 4.52387, 4.50273, 4.48589, 4.49304, 4.40161, 4.45473],
    "sbgo": [4.61569, 4.64233, 4.51892, 4.54226, 4.5717, 4.62563, 4.48025, 4.70132],
    "ato": [0.77802, 0.42975, 0.32056, 0.23159, 0.2258, 0.2314],
    "sbpo": [0.77653, 0.69702, 0.68509, 0.65689, 0.7144, 0.70061],
}
GOLDEN_SETTINGS: dict[str, Any] = {
    "max_steps": 8,
    "logging_steps": 1,
    "eval_steps": 0,
    "learning_rate": 5e-3,
    "mask_token_ratio": 1.0,
    "random_token_ratio": 0.0,
    "sbpo_weight": "0:1 1:10",
    "generator_head_start": 0.25,
    "seed": 3,
}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_losses_of_a_run_stay_what_they_were(rhyme_rows: Path, tmp_path: Path, one_thread: None) -> None:
    for name in ("a", "b"):
        pretrain(small_run(rhyme_rows, tmp_path / name, **GOLDEN_SETTINGS))
    first, second = read_lines(tmp_path / "a"), read_lines(tmp_path / "b")
    assert [losses_of(line) for line in first] == [losses_of(line) for line in second], "two runs, bit for bit"
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    for name in OBJECTIVES:
        curve = [losses_of(line)[name] for line in first if name in losses_of(line)]
        assert curve == pytest.approx(GOLDEN[name], rel=2e-3), name


class TestLossWeights:
    def test_they_follow_their_schedules_and_the_head_start(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(
            rows, tmp_path, max_steps=10, mlm_weight="0:2 1:0", ato_weight="0:0 0.5:0 0.5:30", generator_head_start=0.3
        )
        trainer = make_trainer(settings)
        assert [trainer.loss_weights(step)["mlm"] for step in (0, 5, 10)] == pytest.approx([2.0, 1.0, 0.0])
        assert [trainer.loss_weights(step)["ato"] for step in (0, 2, 4, 5, 9)] == [0.0, 0.0, 0.0, 30.0, 30.0]
        assert [trainer.loss_weights(step)["sbpo"] for step in (0, 2, 3, 9)] == [0.0, 0.0, 10.0, 10.0]
        assert [trainer.loss_weights(step)["correction"] for step in (0, 2, 3, 9)] == [0.0, 0.0, 1.0, 1.0]
        assert all(trainer.loss_weights(step)["sbgo"] == 1.0 for step in range(11))

    def test_a_head_start_is_for_joint_training_only(self, rows: Path, generator_run: Path, tmp_path: Path) -> None:
        settings = {"stage": "discriminator", "generator": str(generator_run), "generator_head_start": 0.5}
        assert make_trainer(small_run(rows, tmp_path, **settings)).loss_weights(0)["ato"] == 50.0

    def test_an_objective_of_weight_0_is_not_computed(self, rows: Path, tmp_path: Path) -> None:
        settings = {"sbgo_weight": "0:0 0.5:0 0.5:1", "sbpo_weight": "0:1 0.5:1 0.5:0", "logging_steps": 1}
        pretrain(small_run(rows, tmp_path / "run", **settings))
        computed = [set(losses_of(line)) for line in read_lines(tmp_path / "run")]
        assert computed == [{"mlm", "ato", "sbpo"}] * 3 + [{"mlm", "sbgo", "ato"}] * 3

    def test_the_logged_loss_is_the_weighted_sum_of_the_logged_losses(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(
            rows, tmp_path / "run", logging_steps=1, ato_weight="0:5 1:50", sbpo_weight=3.0, generator_head_start=0.3
        )
        pretrain(settings)
        trainer = make_trainer(small_run(**{**vars(settings), "rows": rows, "out_dir": tmp_path / "other"}))
        lines = read_lines(tmp_path / "run")
        assert len(lines) == 6
        for line in lines:
            weight = trainer.loss_weights(line["step"] - 1)
            total = sum(weight[name] * loss for name, loss in losses_of(line).items())
            assert line["loss"] == pytest.approx(total, rel=1e-5)

    def test_over_several_steps_both_are_means(self, rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(rows, tmp_path / "run", logging_steps=3, ato_weight=7.0))
        for line in read_lines(tmp_path / "run"):
            losses = losses_of(line)
            total = losses["mlm"] + losses["sbgo"] + 7 * losses["ato"] + 10 * losses["sbpo"]
            assert line["loss"] == pytest.approx(total, rel=1e-5)


class TestSamplingTemperature:
    @pytest.mark.parametrize("stage", ["joint", "discriminator"])
    def test_each_step_has_its_own_and_evaluations_the_last(
        self, rows: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
    ) -> None:
        drawn: list[tuple[bool, float]] = []
        sample = modeling_spanelectra.sample_tokens

        def remember(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
            drawn.append((len(noise) == 8, temperature))
            return sample(logits, noise, temperature)

        monkeypatch.setattr(modeling_spanelectra, "sample_tokens", remember)
        settings = {"stage": stage, "generator": str(generator_run) if stage == "discriminator" else None}
        settings |= {"sampling_temperature": "0:2 0.5:1 1:0.5", "gradient_accumulation_steps": 2}
        pretrain(small_run(rows, tmp_path / "run", **settings))
        # the rows of an evaluation come at once
        in_training = [temperature for is_evaluation, temperature in drawn if not is_evaluation]
        assert in_training[::2] == in_training[1::2] == pytest.approx([2, 5 / 3, 4 / 3, 1, 5 / 6, 2 / 3])
        assert [temperature for is_evaluation, temperature in drawn if is_evaluation] == [0.5, 0.5]
        saved = SpanElectraForPreTraining.from_pretrained(tmp_path / "run" / "model")
        assert saved.config.sampling_temperature == 0.5
        assert load_recipe(str(tmp_path / "run" / "config.yaml"))["sampling_temperature"] == "0:2 0.5:1 1:0.5"

    def test_a_constant_schedule_is_the_number_bit_for_bit(self, rows: Path, tmp_path: Path) -> None:
        for name, temperature in (("number", 0.7), ("schedule", "0:0.7 1:0.7")):
            pretrain(small_run(rows, tmp_path / name, sampling_temperature=temperature))
        assert weights(tmp_path / "number") == weights(tmp_path / "schedule")

    def test_a_resumed_run_goes_on_along_its_schedule(self, rows: Path, tmp_path: Path) -> None:
        settings = {"sampling_temperature": "0:4 1:0.5"}
        pretrain(small_run(rows, tmp_path / "whole", **settings))
        pretrain_with_a_stop(small_run(rows, tmp_path / "stopped", **settings))
        assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


class TestThroughput:
    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_every_line_counts_tokens_and_says_how_fast(self, rows: Path, tmp_path: Path, accumulation: int) -> None:
        pretrain(small_run(rows, tmp_path / "run", gradient_accumulation_steps=accumulation))
        lines, tokens_per_step = read_lines(tmp_path / "run"), 4 * accumulation * LENGTH
        for line in lines:
            assert line["tokens"] == line["step"] * tokens_per_step
            assert line["tokens_per_second"] > 0 and 0 < line["model_flops_utilisation"] < 1
            left = (6 - line["step"]) * tokens_per_step / line["tokens_per_second"]
            assert line["seconds_left"] == pytest.approx(left)
        assert lines[-1]["seconds_left"] == 0
        seconds = [line["wall_seconds"] for line in lines]
        assert seconds == sorted(seconds) and seconds[0] > 0

    def test_a_peak_of_a_busy_moment_is_measured_again(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peaks = iter([1.0, 1e15])
        monkeypatch.setattr("spanelectra.trainer.measure_peak_flops", lambda *_: next(peaks))
        pretrain(small_run(rows, tmp_path / "run"))
        assert all(0 < line["model_flops_utilisation"] < 1e-2 for line in read_lines(tmp_path / "run"))

    def test_flops_are_those_of_the_rows_and_smaller_in_a_head_start(self, rows: Path, tmp_path: Path) -> None:
        for name, head_start in (("run", 0.0), ("late", 0.5)):
            metrics = pretrain(small_run(rows, tmp_path / name, generator_head_start=head_start))
            trainer = make_trainer(small_run(rows, tmp_path / "other"))
            count = trainer.data_collator(RowBatch(*[torch.zeros(1, dtype=torch.int64).numpy()] * 2, 0.0))
            positions = count["masked_positions"].shape[1]
            whole = row_training_flops(trainer.model, LENGTH, positions)
            generator = row_training_flops(trainer.model, LENGTH, positions, ["mlm", "sbgo"])
            assert generator < whole
            rested = round(6 * head_start)
            assert metrics["training_flops"] == pytest.approx(4 * (rested * generator + (6 - rested) * whole))

    def test_evaluations_and_checkpoints_are_not_counted_as_slow_training(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trainer = make_trainer(small_run(rows, tmp_path / "run"))
        now = [100.0]
        monkeypatch.setattr("spanelectra.trainer.time.perf_counter", lambda: now[0])
        collate = trainer.collate_evaluation
        assert collate is not None

        def slow_collate(batch: RowBatch) -> dict[str, torch.Tensor]:
            now[0] += 50
            return collate(batch)

        trainer.collate_evaluation = slow_collate
        trainer._window_start, trainer.state.global_step = (now[0], 0, 0.0), 4
        now[0] += 2
        trainer.evaluate()
        assert trainer._throughput()["tokens_per_second"] == pytest.approx(4 * 4 * LENGTH / 2)


class TestEvaluation:
    def test_held_out_rows_are_masked_alike_whatever_the_seed(self, rows: Path, tmp_path: Path) -> None:
        batch = RowBatch(*[torch.arange(8).numpy()] * 2, 1.0)
        batch.epochs[:] = 0
        inputs = []
        for seed in (0, 1):
            collate = make_trainer(small_run(rows, tmp_path / str(seed), seed=seed)).collate_evaluation
            assert collate is not None
            inputs.append(collate(batch))
        assert all(torch.equal(inputs[0][name], inputs[1][name]) for name in inputs[0])

    def test_twice_gives_the_same_numbers_and_leaves_the_mode(self, rows: Path, tmp_path: Path) -> None:
        trainer = make_trainer(small_run(rows, tmp_path / "run", dropout=0.2))
        trainer.model.train()
        assert trainer.evaluate() == trainer.evaluate()
        assert trainer.model.training
        assert {f"eval_{name}_loss" for name in OBJECTIVES} <= set(trainer.evaluate())

    def test_it_changes_nothing_in_training(self, rows: Path, tmp_path: Path) -> None:
        for name, steps in (("often", 1), ("once", 0)):
            pretrain(small_run(rows, tmp_path / name, eval_steps=steps, dropout=0.1, logging_steps=6))
        assert [line["step"] for line in read_lines(tmp_path / "often", "eval_loss")] == [1, 2, 3, 4, 5, 6]
        assert [line["step"] for line in read_lines(tmp_path / "once", "eval_loss")] == [6]
        assert weights(tmp_path / "often") == weights(tmp_path / "once")
        often, once = (read_lines(tmp_path / name)[-1] for name in ("often", "once"))
        assert losses_of(often) == losses_of(once), "metrics of training hold no held-out rows"

    def test_it_uses_the_weights_of_the_end_of_the_run(self, rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(rows, tmp_path / "run", generator_head_start=0.9, eval_steps=2, sbgo_weight="0:1 1:4"))
        for line in read_lines(tmp_path / "run", "eval_loss"):
            losses = {name: line[f"eval_{name}_loss"] for name in OBJECTIVES}
            total = losses["mlm"] + 4 * losses["sbgo"] + 50 * losses["ato"] + 10 * losses["sbpo"]
            assert line["eval_loss"] == pytest.approx(total, rel=1e-5)


class TestCheckpoints:
    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_what_is_in_one(self, rows: Path, tmp_path: Path, optimizer: str) -> None:
        pretrain(small_run(rows, tmp_path / "run", optimizer=optimizer, lr_scheduler_type="cosine"))
        checkpoint = tmp_path / "run" / "checkpoint-6"
        names = {file.name for file in checkpoint.iterdir()}
        assert names == {
            "config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "manifest.json",
        }  # fmt: skip
        assert set(json.loads((checkpoint / "manifest.json").read_text())) == names - {"manifest.json"}
        assert find_damage(checkpoint) is None
        final = load_file(tmp_path / "run" / "model" / "model.safetensors")
        assert load_file(checkpoint / "model.safetensors").keys() == final.keys()
        # no pickled object that a stranger's file could run code with
        optimiser = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        assert len(optimiser["state"]) == len(final)
        assert torch.load(checkpoint / "scheduler.pt", weights_only=True)["last_epoch"] == 6
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        assert state["global_step"] == 6 and state["total_flos"] > 0

    def test_no_other_file_of_the_run_is_a_pickle(self, rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(rows, tmp_path / "run"))
        endings = {file.suffix for file in (tmp_path / "run").rglob("*") if file.is_file()}
        assert endings == {".json", ".jsonl", ".yaml", ".safetensors", ".pt"}
        assert {file.name for file in (tmp_path / "run").rglob("*.pt")} == {"optimizer.pt", "scheduler.pt"}

    @pytest.mark.parametrize(("limit", "left"), [(1, [6]), (2, [4, 6]), (9, [2, 4, 6])])
    def test_the_newest_are_kept(self, rows: Path, tmp_path: Path, limit: int, left: list[int]) -> None:
        pretrain(small_run(rows, tmp_path / "run", save_steps=2, save_total_limit=limit))
        assert [path.name for path in list_checkpoints(tmp_path / "run")] == [f"checkpoint-{step}" for step in left]

    def test_the_best_one_is_kept_besides_and_found_again_after_a_kill(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = {2: 5.0, 4: 3.0, 6: 4.0, 8: 3.5}
        evaluate = SpanElectraTrainer.log

        def log(self: SpanElectraTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
            evaluate(self, {**logs, "eval_loss": losses[self.state.global_step]} if "eval_loss" in logs else logs)

        monkeypatch.setattr(SpanElectraTrainer, "log", log)
        settings = small_run(rows, tmp_path / "run", max_steps=8, save_steps=2, eval_steps=2, save_total_limit=1)
        pretrain_with_a_stop(settings, step=6)
        assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-4", "checkpoint-8"]

    @pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt"])
    def test_a_crash_while_saving_leaves_the_one_before(
        self, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        save = torch.save

        def broken_disk(content: Any, stream: Any) -> None:
            if "checkpoint-4" in stream.name and Path(stream.name).name == file:
                stream.write(b"half")
                raise OSError("Input/output error")
            save(content, stream)

        settings = small_run(rows, tmp_path / "run", save_steps=2, dropout=0.1)
        monkeypatch.setattr(torch, "save", broken_disk)
        with pytest.raises(OSError, match="Input/output error"):
            pretrain(settings)
        monkeypatch.undo()
        assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["checkpoint-2"]
        assert find_damage(tmp_path / "run" / "checkpoint-2") is None
        assert not list((tmp_path / "run").glob(".*")), "nothing half-written is left"

        pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))
        pretrain(small_run(rows, tmp_path / "whole", save_steps=2, dropout=0.1))
        assert weights(tmp_path / "run") == weights(tmp_path / "whole")


class TestTwoProcesses:
    SETTINGS: ClassVar[dict[str, Any]] = {
        "logging_steps": 1,
        "learning_rate": 1e-4,
        "save_steps": 3,
        "tensorboard": True,
    }

    @staticmethod
    def launch(*arguments: str) -> tuple[int, str]:
        launcher = ("--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
        process = start_command(*arguments, launcher=launcher)
        _, errors = process.communicate(timeout=240)
        return process.returncode, errors.decode()

    def test_they_train_like_one_with_twice_the_batch(self, rows: Path, tmp_path: Path) -> None:
        settings = small_run(rows, tmp_path / "two", **{**self.SETTINGS, "quiet": False})
        code, errors = self.launch("--recipe", write_recipe(settings, tmp_path))
        assert code == 0, errors
        pretrain(small_run(rows, tmp_path / "one", **{**self.SETTINGS, "per_device_train_batch_size": 8}))

        two, one = read_lines(tmp_path / "two"), read_lines(tmp_path / "one")
        assert [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
        for ours, theirs in zip(two, one, strict=True):
            # means of two means: a process scores few tokens here, SBPO's some forty, and rows hold different numbers
            # of them, so that a mean of means is off by a few per cent; a wrong division would be off by half
            assert losses_of(ours) == pytest.approx(losses_of(theirs), rel=0.05)
            total = sum(w * losses_of(ours)[n] for n, w in {"mlm": 1, "sbgo": 1, "ato": 50, "sbpo": 10}.items())
            assert ours["loss"] == pytest.approx(total, rel=1e-5), "losses by name are of both processes"
            assert ours["tokens"] == theirs["tokens"]
        flops = [
            json.loads((tmp_path / name / "metrics.json").read_text())["training_flops"] for name in ("one", "two")
        ]
        assert flops[0] == pytest.approx(flops[1])
        # the first process alone writes and speaks
        assert {path.name for path in (tmp_path / "two").iterdir()} == {
            path.name for path in (tmp_path / "one").iterdir()
        }
        assert not list((tmp_path / "two").glob(".*"))
        assert len(list((tmp_path / "two" / "tensorboard").rglob("events*"))) == 1
        for sentence in ("together)", "step      6  loss", "finished. held-out"):
            assert errors.count(sentence) == 1, errors

    @pytest.mark.slow
    def test_stopped_in_different_steps_they_stop_together_and_go_on(self, rows: Path, tmp_path: Path) -> None:
        settings = {"max_steps": 300, "logging_steps": 20, "eval_steps": 100, "save_steps": 50, "dropout": 0.1}
        recipe = write_recipe(small_run(rows, tmp_path / "stopped", **settings), tmp_path)
        launcher = ("--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0")
        process = start_command("--recipe", recipe, launcher=launcher)
        deadline = time.monotonic() + 120
        while not list_checkpoints(tmp_path / "stopped"):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) != 0
        before = list_checkpoints(tmp_path / "stopped")[-1]
        assert find_damage(before) is None and not (tmp_path / "stopped" / "metrics.json").exists()
        assert int(before.name.removeprefix("checkpoint-")) % 50, "it saved where it was stopped"

        code, errors = self.launch("--resume", str(tmp_path / "stopped"))
        assert code == 0, errors
        code, errors = self.launch("--recipe", recipe, "--out_dir", str(tmp_path / "whole"))
        assert code == 0, errors
        stopped, whole = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("stopped", "whole"))
        assert all(torch.equal(stopped[name], whole[name]) for name in whole)


def test_a_wrong_key_in_a_checkpoint_is_an_error(rows: Path, tmp_path: Path) -> None:
    trainer = make_trainer(small_run(rows, tmp_path / "run"))
    other = make_trainer(small_run(rows, tmp_path / "other", hidden_size=64))
    other.model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="does not fit this model"):
        trainer._load_from_checkpoint(str(tmp_path / "saved"))


def test_a_run_without_held_out_rows_evaluates_nothing(rows: Path, tmp_path: Path) -> None:
    trainer = make_trainer(small_run(rows, tmp_path / "run"))
    trainer.collate_evaluation = None
    assert trainer.evaluate() == {}
    assert math.isfinite(trainer.wall_seconds())
