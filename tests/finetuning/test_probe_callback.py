"""Probing while a run trains: training does not notice, the history has it, and a useless encoder is said to be one."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from prepared_rows import RHYME
from small_runs import make_trainer, small_run
from spanelectra.checkpointing import HISTORY_NAME
from spanelectra.console import make_console
from spanelectra.data.row_dataset import TOKENIZER_DIRECTORY
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.finetuning.linear_probe import fresh_encoder
from spanelectra.finetuning.probe_callback import ProbeCallback, find_alarm, margin
from spanelectra.finetuning.task_bench import TaskBench
from spanelectra.finetuning.task_folder import read_task_folder
from spanelectra.pretraining import pretrain
from spanelectra.trainer import SpanElectraTrainer
from tiny_tasks import write_task

TASKS = ("rhymes", "words")


@pytest.fixture(autouse=True)
def judge_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs here are of few steps, which nobody would be judged by."""
    monkeypatch.setattr("spanelectra.finetuning.probe_callback.FEWEST_STEPS", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification and a token task in the words of the rhyme, and one of question answering, which is left out."""
    directory, words = tmp_path_factory.mktemp("tasks"), RHYME.split()
    for name in (*TASKS, "questions"):
        (directory / name).mkdir()
    for split, count in (("train", 40), ("dev", 20)):
        texts = [[words[(7 * n + place) % len(words)] for place in range(4 + n % 3)] for n in range(count)]
        rows = [f"{' '.join(text)}\t{'ab'[len(text) % 2]}" for text in texts]
        (directory / "rhymes" / f"{split}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
        blocks = ["\n".join(f"{word} {'NUM' if words.index(word) < 10 else 'X'}" for word in text) for text in texts]
        (directory / "words" / f"{split}.conll").write_text("\n\n".join(blocks) + "\n")
    write_task(directory / "questions", "qa", train=4, dev=2)
    return directory


def start(
    rows: Path, out_dir: Path, folder: Path | None, steps: int = 2, **settings: Any
) -> tuple[SpanElectraTrainer, list[str]]:
    """A trainer that probes, where there is a folder, and the run's alarms."""
    trainer = make_trainer(small_run(rows, out_dir, **settings))
    alarms: list[str] = []
    if folder is not None:
        tokenizer = load_tokenizer(rows / TOKENIZER_DIRECTORY)
        console = make_console(quiet=True)
        trainer.add_callback(ProbeCallback(trainer, tokenizer, str(folder), steps, console, alarms))
    return trainer, alarms


def of_training(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries without what a clock says, and without those of the probe."""
    clocks = ("wall_seconds", "second", "runtime", "utilisation", "per_second", "peak_flops")
    kept = [line for line in history if not any("probe_" in name for name in line)]
    return [{name: line[name] for name in line if not any(clock in name for clock in clocks)} for line in kept]


def of_probe(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "epoch"}
        for line in history
        if any("probe_" in name for name in line)
    ]


@pytest.fixture(scope="module")
def probed(rhyme_rows: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SpanElectraTrainer:
    """A run of six steps, probed every two, with dropout."""
    trainer, _ = start(rhyme_rows, tmp_path_factory.mktemp("probed") / "run", folder, dropout=0.1)
    trainer.train()
    return trainer


def test_training_does_not_notice(probed: SpanElectraTrainer, rhyme_rows: Path, tmp_path: Path) -> None:
    plain, _ = start(rhyme_rows, tmp_path / "run", None, dropout=0.1)
    plain.train()
    found, expected = probed.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert of_training(probed.state.log_history) == of_training(plain.state.log_history)
    assert plain.state.log_history[-1].keys() == probed.state.log_history[-1].keys()


def test_the_history_has_fresh_weights_and_every_probe(probed: SpanElectraTrainer) -> None:
    lines = of_probe(probed.state.log_history)
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert lines[0].keys() == {"step", *(f"fresh_probe_{task}" for task in TASKS)}
    assert all(line.keys() == {"step", *(f"probe_{task}" for task in TASKS)} for line in lines[1:])
    assert all(0 <= line[name] <= 100 for line in lines for name in line if name != "step")


def test_scores_are_the_best_layers_of_the_encoder_that_people_keep(
    probed: SpanElectraTrainer, rhyme_rows: Path, folder: Path
) -> None:
    tokenizer = load_tokenizer(rhyme_rows / TOKENIZER_DIRECTORY)
    assert probed.model.discriminator is not None
    encoder = probed.model.discriminator.detector.base_model
    tasks = read_task_folder(str(folder), "")
    lines = of_probe(probed.state.log_history)
    for name in TASKS:
        bench = TaskBench.read(tasks[name], tokenizer)
        assert max(bench.layers(encoder, tokenizer) or ()) == lines[-1][f"probe_{name}"]
        fresh = fresh_encoder(encoder, probed.args.seed)
        assert max(bench.layers(fresh, tokenizer) or ()) == lines[0][f"fresh_probe_{name}"]


def test_modes_and_generators_are_as_before(rhyme_rows: Path, folder: Path, tmp_path: Path) -> None:
    trainer, _ = start(rhyme_rows, tmp_path / "run", folder)
    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, ProbeCallback))
    modes = {name: module.training for name, module in trainer.model.train().named_modules()}
    state, control = torch.get_rng_state(), trainer.control
    trainer.state.global_step, trainer.state.max_steps, control.should_log = 2, 6, True
    callback.on_train_begin(trainer.args, trainer.state, control)
    assert len(of_probe(trainer.state.log_history)) == 2 and control.should_log
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in trainer.model.named_modules()} == modes
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


class StopAt(TrainerCallback):
    """Stops a run as a signal does: with a checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def test_a_stopped_run_catches_up_and_ends_the_same(
    probed: SpanElectraTrainer, rhyme_rows: Path, folder: Path, tmp_path: Path
) -> None:
    trainer, _ = start(rhyme_rows, tmp_path / "run", folder, dropout=0.1)
    # before the probe, whose place is at the end of the list
    trainer.callback_handler.callbacks.insert(0, StopAt(4))
    trainer.train()
    assert [line["step"] for line in of_probe(trainer.state.log_history)] == [0, 2]
    resumed, _ = start(rhyme_rows, tmp_path / "run", folder, dropout=0.1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert of_probe(resumed.state.log_history) == of_probe(probed.state.log_history)
    found, expected = resumed.model.state_dict(), probed.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_last_step_is_probed(rhyme_rows: Path, folder: Path, tmp_path: Path) -> None:
    trainer, _ = start(rhyme_rows, tmp_path / "run", folder, steps=100, max_steps=2)
    trainer.train()
    assert [line["step"] for line in of_probe(trainer.state.log_history)] == [0, 2]


def test_the_generator_is_probed_where_there_is_nothing_else(rhyme_rows: Path, folder: Path, tmp_path: Path) -> None:
    trainer, _ = start(rhyme_rows, tmp_path / "run", folder, stage="generator", max_steps=2)
    trainer.train()
    assert [line["step"] for line in of_probe(trainer.state.log_history)] == [0, 2]


def test_an_encoder_that_learns_nothing_sounds_one_alarm(
    rhyme_rows: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the same score for fresh weights and the run's
    monkeypatch.setattr(TaskBench, "layers", lambda *given: [40.0, 50.0, 45.0])
    make = functools.partial(start, rhyme_rows, tmp_path / "run", folder, save_steps=4)
    trainer, alarms = make()
    trainer.train()
    (sentence,) = alarms
    assert sentence == find_alarm(trainer.state.log_history, 6, dict.fromkeys(TASKS, margin(20)))
    assert "nothing that shows in rhymes or words: at step 4 of 6" in sentence
    resumed, alarms = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert alarms == [sentence]


def test_an_alarm_is_shown_once_in_a_run(
    rhyme_rows: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TaskBench, "layers", lambda *given: [50.0])
    for checkpoint in (None, str(tmp_path / "run" / "checkpoint-4")):
        trainer = make_trainer(small_run(rhyme_rows, tmp_path / "run", save_steps=4))
        tokenizer = load_tokenizer(rhyme_rows / TOKENIZER_DIRECTORY)
        trainer.add_callback(ProbeCallback(trainer, tokenizer, str(folder), 2, make_console(), []))
        trainer.train(resume_from_checkpoint=checkpoint)
        shown = capsys.readouterr().err
        assert "not probed: questions; no linear probe is for question answering" in shown
        assert shown.count("ALARM the encoder has learned nothing") == (1 if checkpoint is None else 0)
        assert ("step      0  probe of fresh weights  rhymes accuracy 50.00  words accuracy 50.00" in shown) == (
            checkpoint is None
        )


def line(step: int, **scores: float) -> dict[str, Any]:
    return {"step": step, **{f"probe_{name}": score for name, score in scores.items()}}


def test_when_an_alarm_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = {"step": 0, "fresh_probe_a": 60.0, "fresh_probe_b": 30.0}
    margins = {"a": margin(400), "b": margin(100)}
    assert margins == {"a": 5.0, "b": 10.0}
    low, high = {"a": 65.0, "b": 20.0}, {"a": 20.0, "b": 40.1}
    alarm = functools.partial(find_alarm, max_steps=10, margins=margins)
    assert alarm([]) is alarm([fresh]) is None
    # in the first half nobody judges, nor before some hundred steps
    monkeypatch.setattr("spanelectra.finetuning.probe_callback.FEWEST_STEPS", 9)
    assert alarm([fresh, line(8, **low)]) is None and alarm([fresh, line(9, **low)]) is not None
    monkeypatch.setattr("spanelectra.finetuning.probe_callback.FEWEST_STEPS", 2)
    assert alarm([fresh, line(4, **low)]) is None
    assert alarm([fresh, {"step": 5, "loss": 1.0}, line(5, **high)]) is None
    sentence = alarm([fresh, line(2, **low), line(6, **low), line(8, **low)])
    assert sentence is not None and "at step 6 of 10" in sentence
    assert "a 65.0 against 60.0, b 20.0 against 30.0" in sentence
    # what was learned may be lost again
    assert alarm([fresh, line(6, **high), line(8, **low)]) is not None
    # a task that is in the folder no more
    assert alarm([fresh, line(6, a=20.0, b=50.0)], margins={"a": 5.0}) is not None


def test_the_command_writes_probes_into_its_history(
    rhyme_rows: Path, folder: Path, tmp_path: Path, probed: SpanElectraTrainer
) -> None:
    run = tmp_path / "run"
    pretrain(small_run(rhyme_rows, run, dropout=0.1, probe_tasks=str(folder), probe_steps=2))
    written = [json.loads(text) for text in (run / HISTORY_NAME).read_text(encoding="utf-8").splitlines()]
    assert of_probe(written) == of_probe(probed.state.log_history)


def test_mistakes_come_before_training(rhyme_rows: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        start(rhyme_rows, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no task that a linear probe is for"):
        start(rhyme_rows, tmp_path / "run", folder / "questions")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.conll").write_text("alone\n")
    with pytest.raises(UserError, match="task broken: "):
        start(rhyme_rows, tmp_path / "run", tmp_path / "broken")
