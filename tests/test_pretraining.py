"""The command ``pretrain``, end to end on small real text: stages, resuming, stopping, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate import PartialState
from safetensors.torch import load_file
from transformers import TrainingArguments

from small_runs import (
    interrupt_after,
    make_trainer,
    read_lines,
    small_run,
    start_command,
    weights,
    write_recipe,
)
from spanelectra.checkpointing import list_checkpoints
from spanelectra.corruption import corrupt
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError
from spanelectra.model_building import load_generator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from spanelectra.training_args import PretrainingArguments


@pytest.mark.parametrize("encoder", ["electra", "modernbert"])
def test_a_joint_run_leaves_model_metrics_history_and_settings(rows: Path, tmp_path: Path, encoder: str) -> None:
    metrics = pretrain(small_run(rows, tmp_path / "run", encoder=encoder))
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored == json.loads(json.dumps(metrics))
    for name in ("tokens_per_second", "wall_seconds", "peak_memory_mib", "versions", "seed", "training_flops"):
        assert stored[name] is not None
    assert (stored["peak_device_memory_mib"] is None) is not torch.cuda.is_available()
    assert stored["tokens"] == 6 * 4 * 32
    for name in ("mlm_loss", "sbgo_loss", "ato_loss", "sbpo_loss", "ato_auc", "generator_accuracy", "replaced_rate"):
        assert name in stored["held_out"]
    assert [line["step"] for line in read_lines(tmp_path / "run")] == [2, 3, 4, 6]
    assert [line["step"] for line in read_lines(tmp_path / "run", "eval_loss")] == [3, 6]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["encoder"] == encoder
    assert "processor" in json.loads((tmp_path / "run" / "environment.json").read_text())
    SpanElectraForPreTraining.from_pretrained(tmp_path / "run" / "model")


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(rows: Path, tmp_path: Path) -> None:
    for name, settings in {"a": {}, "b": {"dataloader_num_workers": 2}, "c": {"seed": 1}}.items():
        pretrain(small_run(rows, tmp_path / name, dropout=0.1, **settings))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulated_micro_batches_train_like_one_large_batch(rows: Path, tmp_path: Path, optimizer: str) -> None:
    pretrain(small_run(rows, tmp_path / "large", per_device_train_batch_size=8, optimizer=optimizer))
    pretrain(small_run(rows, tmp_path / "accumulated", gradient_accumulation_steps=2, optimizer=optimizer))
    large = load_file(tmp_path / "large" / "model" / "model.safetensors")
    accumulated = load_file(tmp_path / "accumulated" / "model" / "model.safetensors")
    # rows hold slightly different numbers of masked tokens, so means of means differ a little
    difference = max(float((large[name] - accumulated[name]).abs().max()) for name in large)
    change = max(float(tensor.abs().max()) for tensor in large.values())
    assert difference < 0.05 * change


def test_the_two_stages_and_corrupted_rows(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "generator", stage="generator"))
    generator = load_generator(tmp_path / "generator", print)
    assert generator.discriminator is None
    settings = {"stage": "discriminator", "generator": str(tmp_path / "generator")}
    metrics = pretrain(small_run(rows, tmp_path / "discriminator", **settings))
    assert "ato_auc" in metrics["held_out"] and "mlm_loss" not in metrics["held_out"]

    frozen = SpanElectraForPreTraining.from_pretrained(tmp_path / "discriminator" / "model").generator
    assert frozen is not None and generator.generator is not None
    for name, tensor in generator.generator.language_model.state_dict().items():
        assert torch.equal(tensor, frozen.language_model.state_dict()[name]), name

    corrupt(str(tmp_path / "generator"), str(rows), str(tmp_path / "fake"), quiet=True)
    fake = pretrain(small_run(tmp_path / "fake", tmp_path / "from_fake", **settings))
    assert "sbpo_auc" in fake["held_out"]
    assert SpanElectraForPreTraining.from_pretrained(tmp_path / "from_fake" / "model").generator is None


def test_the_first_step_of_the_discriminator_stage_starts_from_the_generator(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "generator", stage="generator"))
    settings = {"stage": "discriminator", "generator": str(tmp_path / "generator"), "learning_rate": 1e-12}
    pretrain(small_run(rows, tmp_path / "discriminator", weight_decay=0.0, **settings))
    model = SpanElectraForPreTraining.from_pretrained(tmp_path / "discriminator" / "model")
    assert model.generator is not None and model.discriminator is not None
    source = model.generator.language_model.base_model.state_dict()
    target = model.discriminator.detector.base_model.state_dict()
    for name in source:
        torch.testing.assert_close(target[name], source[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["bert", "spanbert", "electra"])
def test_the_baselines_are_the_same_program(rows: Path, tmp_path: Path, method: str) -> None:
    metrics = pretrain(small_run(rows, tmp_path / "run", method=method))
    losses = {name for name in metrics["held_out"] if name.endswith("_loss")}
    expected = {"bert": {"mlm_loss"}, "spanbert": {"mlm_loss", "sbgo_loss"}, "electra": {"mlm_loss", "ato_loss"}}
    assert losses == expected[method]
    assert not metrics["alarms"]


def test_the_discriminator_rests_during_a_head_start(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "run", generator_head_start=0.5, logging_steps=1))
    with_discriminator = [line["step"] for line in read_lines(tmp_path / "run", "ato_loss")]
    assert with_discriminator == [4, 5, 6]


def test_a_budget_in_tokens_becomes_steps(rows: Path, tmp_path: Path) -> None:
    assert pretrain(small_run(rows, tmp_path / "run", max_tokens=4 * 32 * 4 + 1))["steps"] == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(
    rows: Path, tmp_path: Path, number: signal.Signals
) -> None:
    # dropout draws from the global generator; the steps cross the end of an epoch; a kill leaves loader processes, too
    workers = 2 if number == signal.SIGKILL else 0
    settings = small_run(rows, tmp_path / "stopped", max_steps=400, save_steps=20, dropout=0.1, eval_steps=50)
    settings.dataloader_num_workers = workers
    process = start_command("--recipe", write_recipe(settings, tmp_path))
    deadline = time.monotonic() + 120
    while len(list_checkpoints(tmp_path / "stopped")) == 0:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert not (tmp_path / "stopped" / "metrics.json").exists()

    resumed = pretrain(PretrainingArguments(resume=str(tmp_path / "stopped"), quiet=True))
    whole = pretrain(dataclasses.replace(settings, out_dir=str(tmp_path / "whole"), dataloader_num_workers=0))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert resumed["held_out"] == whole["held_out"]
    steps = [line["step"] for line in read_lines(tmp_path / "stopped", "eval_loss")]
    assert steps == [50, 100, 150, 200, 250, 300, 350, 400]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", ["joint", "generator", "discriminator", "corrupted"])
def test_every_stage_goes_on_to_the_bit_and_over_the_end_of_an_epoch(
    rows: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, workers: int
) -> None:
    data, settings = rows, {"stage": stage}
    if stage in ("discriminator", "corrupted"):
        settings = {"stage": "discriminator", "generator": str(generator_run)}
    if stage == "corrupted":
        data = tmp_path / "fake"
        corrupt(str(generator_run), str(rows), str(data), quiet=True)
    steps_an_epoch = len(RowDataset(rows)) / (2 * 8 * 2)
    settings |= {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "max_steps": 20, "save_steps": 5}
    settings |= {"logging_steps": 1, "eval_steps": 5, "dropout": 0.1, "optimizer": "muon", "weight_decay": 0.1}
    assert 10 < steps_an_epoch < 20
    for name in ("whole", "stopped"):
        with monkeypatch.context() as patched:
            if name == "stopped":
                patched.setattr("spanelectra.trainer.remove_old_checkpoints", interrupt_after(10))
            with pytest.raises(KeyboardInterrupt) if name == "stopped" else contextlib.nullcontext():
                pretrain(small_run(data, tmp_path / name, dataloader_num_workers=workers, **settings))
    resumed = pretrain(PretrainingArguments(resume=str(tmp_path / "stopped"), quiet=True))
    whole = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    for name in ("held_out", "tokens", "training_flops", "steps", "alarms"):
        assert resumed[name] == whole[name], name
    timed = {"wall_seconds", "tokens_per_second", "model_flops_utilisation", "peak_flops", "seconds_left"}
    lines = [
        [
            {key: value for key, value in line.items() if key not in timed}
            for line in read_lines(tmp_path / name, "step")
        ]
        for name in ("stopped", "whole")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 24, "neither gaps nor repeats"
    checkpoints = [load_file(tmp_path / name / "checkpoint-20" / "model.safetensors") for name in ("stopped", "whole")]
    assert all(torch.equal(checkpoints[0][name], checkpoints[1][name]) for name in checkpoints[1])
    states = [torch.load(tmp_path / name / "checkpoint-20" / "optimizer.pt") for name in ("stopped", "whole")]
    for number, state in states[0]["state"].items():
        assert all(torch.equal(tensor, states[1]["state"][number][key]) for key, tensor in state.items())


def test_in_bfloat16_a_run_learns_alike_keeps_float32_weights_and_goes_on_to_the_bit(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_steps": 20, "save_steps": 10, "logging_steps": 1, "bf16": "true"}
    exact = pretrain(small_run(rows, tmp_path / "exact", **{**settings, "bf16": "false"}))
    rounded = pretrain(small_run(rows, tmp_path / "rounded", **settings))
    assert weights(tmp_path / "rounded") != weights(tmp_path / "exact")
    # what is drawn from the generator may fall otherwise by the rounding, and with it what the discriminator judges
    for name, tolerance in (("mlm_loss", 2e-3), ("sbgo_loss", 2e-3), ("ato_loss", 2e-2), ("sbpo_loss", 2e-2)):
        assert rounded["held_out"][name] == pytest.approx(exact["held_out"][name], rel=tolerance)
    tensors = load_file(tmp_path / "rounded" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    with monkeypatch.context() as patched:
        patched.setattr("spanelectra.trainer.remove_old_checkpoints", interrupt_after(10))
        with pytest.raises(KeyboardInterrupt):
            pretrain(small_run(rows, tmp_path / "stopped", **settings))
    resumed = pretrain(PretrainingArguments(resume=str(tmp_path / "stopped"), quiet=True))
    assert weights(tmp_path / "stopped") == weights(tmp_path / "rounded")
    assert resumed["held_out"] == rounded["held_out"]


def test_a_finished_run_is_not_run_again(rows: Path, tmp_path: Path) -> None:
    first = pretrain(small_run(rows, tmp_path / "run"))
    digest = weights(tmp_path / "run")
    again = pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))
    assert again == json.loads(json.dumps(first)) and weights(tmp_path / "run") == digest


def test_a_run_killed_between_its_last_checkpoint_and_its_end_is_finished(rows: Path, tmp_path: Path) -> None:
    first = pretrain(small_run(rows, tmp_path / "run"))
    digest = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    shutil.rmtree(tmp_path / "run" / "model")
    again = pretrain(PretrainingArguments(resume=str(tmp_path / "run"), quiet=True))
    assert weights(tmp_path / "run") == digest
    for name in ("held_out", "tokens", "training_flops", "steps"):
        assert again[name] == first[name]


def test_a_path_with_brackets_is_no_markup(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "[bold]a[" / "x]"
    pretrain(small_run(rows, run, quiet=False))
    assert f"{run}: finished." in capsys.readouterr().err


def test_several_gpus_without_torchrun_are_not_split_by_data_parallel(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(_pretend_two_gpus))
    trainer = make_trainer(small_run(rows, tmp_path / "run"))
    assert trainer.args.n_gpu == 1 and trainer.args.train_batch_size == 4


def _pretend_two_gpus(args: TrainingArguments) -> torch.device:
    if "_n_gpu" not in vars(args) or args._n_gpu == -1:
        args._n_gpu = 2
    args.distributed_state = PartialState(cpu=True)
    return torch.device("cpu")


def test_a_damaged_checkpoint_is_named_and_passed_over(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(small_run(rows, tmp_path / "run"))
    digest = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    file = tmp_path / "run" / "checkpoint-6" / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-7])
    pretrain(PretrainingArguments(resume=str(tmp_path / "run")))
    assert "checkpoint-6 is damaged" in " ".join(capsys.readouterr().err.split())
    assert weights(tmp_path / "run") == digest


class TestRefusals:
    """Each mistake is one clear sentence, and costs nothing that was there."""

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"mask_ratio": 0.9}, "at most 0.5"),
            ({"mask_ratio": 0}, "mask_ratio must be above 0"),
            ({"hidden_size": 33}, "not a multiple"),
            ({"method": "electra", "objectives": ["mlm", "sbpo"]}, "--masking span"),
            ({"objectives": ["mlm", "atos"]}, "Did you mean 'ato'"),
            ({"stage": "discriminator"}, "needs --generator"),
            ({"stage": "discriminator", "method": "bert"}, "not bert"),
            ({"generator": "somewhere"}, "--stage discriminator"),
            ({"data": "nowhere"}, "nowhere"),
            ({"init_from": "nowhere"}, "'nowhere' is no directory here"),
            ({"learning_rate": 0.0}, "learning_rate"),
            ({"sharing": "encoder", "generator_size": 0.5}, "own shape"),
            ({"generator_size": 0.3}, "whole fraction"),
        ],
    )
    def test_settings_that_cannot_work(
        self, rows: Path, tmp_path: Path, settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            pretrain(small_run(**{"rows": rows, "out_dir": tmp_path / "run", **settings}))
        assert not (tmp_path / "run" / "config.yaml").exists()

    def test_a_generator_of_another_tokenizer(self, rows: Path, other_rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(other_rows, tmp_path / "generator", stage="generator"))
        with pytest.raises(UserError, match=r"another tokenizer"):
            pretrain(small_run(rows, tmp_path / "run", stage="discriminator", generator=str(tmp_path / "generator")))

    def test_a_smaller_generator_names_the_parameter_and_the_way_out(self, rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(rows, tmp_path / "generator", stage="generator", generator_size=0.5))
        settings = {"stage": "discriminator", "generator": str(tmp_path / "generator")}
        with pytest.raises(UserError, match=r"warm_start 'full' cannot fill \S+ .*grow"):
            pretrain(small_run(rows, tmp_path / "run", **settings))
        pretrain(small_run(rows, tmp_path / "grown", warm_start="grow", **settings))


def test_corrupted_rows_without_a_generator_start_from_fresh_weights_and_say_so(
    rows: Path, generator_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), quiet=True)
    sentence = "discriminator: fresh weights (pass --generator to start from its weights)"
    settings = {"stage": "discriminator", "quiet": False, "max_steps": 1}
    assert not pretrain(small_run(tmp_path / "fake", tmp_path / "fresh", **settings))["alarms"]
    assert sentence in capsys.readouterr().err
    pretrain(small_run(tmp_path / "fake", tmp_path / "warm", generator=str(generator_run), **settings))
    assert sentence not in capsys.readouterr().err
    # the recipe's rates are for trained weights
    rate = load_recipe("tiny-discriminator")["learning_rate"]
    for name, learning_rate, alarms in (("low", rate, 1), ("high", 10 * rate, 0)):
        chosen = {**settings, "recipe": "tiny-discriminator", "learning_rate": learning_rate}
        said = pretrain(small_run(tmp_path / "fake", tmp_path / name, **chosen))["alarms"]
        assert sum("at the rates of tiny-discriminator, which are for weights" in alarm for alarm in said) == alarms


def test_a_setting_without_effect_raises_an_alarm(rows: Path, tmp_path: Path) -> None:
    metrics = pretrain(small_run(rows, tmp_path / "run", method="bert", sbpo_weight=3.0))
    assert any("sbpo_weight=3.0 has no effect" in alarm for alarm in metrics["alarms"])


def test_a_run_from_an_existing_encoder(rows: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(rows / "tokenizer")
    torch.manual_seed(0)
    encoder = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    encoder.save_pretrained(tmp_path / "bert")
    settings = {"init_from": str(tmp_path / "bert"), "generator_depth": 0.67, "learning_rate": 1e-12}
    pretrain(small_run(rows, tmp_path / "run", weight_decay=0.0, **settings))
    model = SpanElectraForPreTraining.from_pretrained(tmp_path / "run" / "model")
    assert model.generator is not None and model.discriminator is not None
    source = AutoModel.from_pretrained(tmp_path / "bert").state_dict()
    for part in (model.discriminator.detector, model.generator.language_model):
        for name, tensor in part.base_model.state_dict().items():
            torch.testing.assert_close(tensor, source[name], atol=1e-6, rtol=0)
    assert model.generator.config.num_hidden_layers == 2
