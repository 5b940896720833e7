"""The command ``finetune`` from files to a model: what it learns, writes and says, and how it goes on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fine_tuned_runs import files_of, metrics_of, predictions_of
from transformers import PreTrainedModel, TrainerCallback

from spanelectra.atomic_files import file_digest
from spanelectra.callbacks import RunStopped, TrainingDiverged
from spanelectra.errors import UserError
from spanelectra.finetuning import fine_tuning, task_data
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.task_trainer import FineTuningTrainer
from tiny_tasks import quick, save_encoder, write_classification

# by kind: what a finished run may differ in from another of the same settings
TIMES = ("seconds", "environment", "peak_memory_mib", "config")


def timeless(content: Any) -> Any:
    """Results without what differs from session to session."""
    if isinstance(content, dict):
        return {name: timeless(value) for name, value in content.items() if name not in TIMES}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def model_digest(run: Path) -> str:
    return file_digest(run / "model" / "model.safetensors")


def contents(directory: Path) -> dict[str, str]:
    """File -> digest, of everything below a directory."""
    files = [file for file in directory.rglob("*") if file.is_file()]
    return {str(file.relative_to(directory)): file_digest(file) for file in files}


def assert_same_run(found: Path, expected: Path) -> None:
    assert timeless(metrics_of(found)) == timeless(metrics_of(expected))
    assert model_digest(found) == model_digest(expected)
    for seed in expected.glob("seed-*"):
        for file in seed.glob("predictions-*.jsonl"):
            assert file_digest(found / seed.name / file.name) == file_digest(file)
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())


def test_what_it_says(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = {"epochs": 1, "max_length": 64, "metric": "matthews", "quiet": False}
    finetune(quick(tiny / "modernbert", files_of(tiny, "classification"), tmp_path / "run", **shown))
    captured = capsys.readouterr()
    said = captured.err
    for words in (
        "modernbert: 0.02 M parameters",
        "classification: train 160 examples, dev 40 examples, test 40 examples; inputs of up to 40 tokens",
        "/dev.tsv, ",
        "/test.tsv: 'sentence' is the text, 'label' is the label",
        "max_length is 40, not 64",
        "epoch 1.00  loss 0.",
        "  dev matthews ",
        f"the best seed's model is in {tmp_path / 'run' / 'model'}",
    ):
        assert words in said
    # what it found stands alone, for a pipe
    scores = captured.out.splitlines()
    assert [line.split()[:2] for line in scores] == [["dev", "matthews"], ["test", "matthews"]]
    assert all("(one seed); always 'bad', the commonest of training: 0.00" in line for line in scores)
    assert metrics_of(tmp_path / "run")["config"]["max_length"] == 40


def test_another_seed_is_added_and_finished_ones_stay(
    tiny: Path, fine_tuned_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fine_tuned_runs["classification"], tmp_path / "run")
    before = contents(tmp_path / "run")
    built: list[int] = []
    build = fine_tuning.build_task_model
    monkeypatch.setattr(fine_tuning, "build_task_model", lambda *given: (built.append(given[-1]), build(*given))[1])
    settings = quick(tiny / "modernbert", files_of(tiny, "classification"), tmp_path / "run", seeds=3, resume=True)
    results = finetune(settings)
    assert built == [2]
    after = contents(tmp_path / "run")
    assert all(after[file] == digest for file, digest in before.items() if file.startswith("seed-"))
    assert [result["seed"] for result in results["runs"]] == [0, 1, 2]
    assert timeless(results["runs"][:2]) == timeless(metrics_of(fine_tuned_runs["classification"])["runs"])
    # a tie does not take the earlier seed's place
    is_better = results["runs"][2]["dev"]["accuracy"] > max(r["dev"]["accuracy"] for r in results["runs"][:2])
    assert (model_digest(tmp_path / "run") == model_digest(fine_tuned_runs["classification"])) == (not is_better)


def test_changed_files_do_not_go_on(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "modernbert", tmp_path / "m")
    files = {
        name: shutil.copy(file, tmp_path) for name, file in files_of(tiny, "classification", "train", "dev").items()
    }
    settings = {"epochs": 0.2, "max_train_examples": 32}
    finetune(quick(tmp_path / "m", files, tmp_path / "run", **settings))
    before = contents(tmp_path / "run")
    save_encoder("modernbert", tmp_path / "m", detector=True, seed=5)
    with pytest.raises(UserError, match="--resume: encoder changed since seed 0 was trained"):
        finetune(quick(tmp_path / "m", files, tmp_path / "run", resume=True, seeds=2, **settings))
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(tiny / "modernbert", tmp_path / "m")
    write_classification(Path(files["dev"]), 40, seed=9)
    with pytest.raises(UserError, match="--resume: dev changed"):
        finetune(quick(tmp_path / "m", files, tmp_path / "run", resume=True, seeds=2, **settings))
    assert contents(tmp_path / "run") == before


def test_a_run_goes_on_with_the_examples_that_it_held_out(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"train": files_of(tiny, "classification")["train"], "dev": "0.25"}
    settings = {"epochs": 0.2, "max_train_examples": 32}
    run = tmp_path / "run"
    first = finetune(quick(tiny / "modernbert", files, run, **settings))
    before = contents(run)
    with monkeypatch.context() as patch:
        # as another release might draw them
        hold_out = task_data._hold_out
        patch.setattr(
            task_data, "_hold_out", lambda task, examples, count, seed: hold_out(task, examples, count, seed + 1)
        )
        with pytest.raises(UserError, match="--resume: dev_split changed since seed 0 was trained"):
            finetune(quick(tiny / "modernbert", files, run, resume=True, seeds=2, **settings))
    assert contents(run) == before
    again = finetune(quick(tiny / "modernbert", files, run, resume=True, seeds=2, **settings))
    assert timeless(again["runs"][0]) == timeless(first["runs"][0])


def test_a_regression_whose_answer_is_of_another_layer_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = fine_tuning.build_task_model

    def with_another_output(*given: Any) -> PreTrainedModel:
        model = build(*given)
        model.confidence = torch.nn.Linear(32, 1)
        return model

    monkeypatch.setattr(fine_tuning, "build_task_model", with_another_output)
    files = files_of(tiny, "classification", "train", "dev")
    for name, file in files.items():
        text = Path(file).read_text().replace("\tgood", "\t9000").replace("\tbad", "\t1000")
        (tmp_path / f"{name}.tsv").write_text(text)
        files[name] = str(tmp_path / f"{name}.tsv")
    settings = {"epochs": 0.2, "max_train_examples": 32, "regression": True}
    with pytest.raises(UserError, match=r"regression: .* does not answer by its last linear layer"):
        finetune(quick(tiny / "bert", files, tmp_path / "run", **settings))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml"]


def test_a_regression_that_is_right_in_order_alone_sounds_an_alarm(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(tiny, "classification", "train", "dev")
    for name, file in files.items():
        good, bad = ("2", "1") if name == "train" else ("102", "101")
        (tmp_path / f"{name}.tsv").write_text(
            Path(file).read_text().replace("\tgood", f"\t{good}").replace("\tbad", f"\t{bad}")
        )
        files[name] = str(tmp_path / f"{name}.tsv")
    settings = quick(tiny / "modernbert", files, tmp_path / "run", epochs=3, regression=True)
    scores = finetune(dataclasses.replace(settings, quiet=False))["runs"][0]["dev"]
    assert scores["pearson"] > 80 and scores["r2"] < -1000
    shown = " ".join(capsys.readouterr().err.split())
    assert "ALARM seed 0: on dev its numbers are further from the labels than the labels' mean is (r2 -" in shown


class SignalAt(TrainerCallback):
    """Sends this process a signal in a step of a seed."""

    def __init__(self, seed: int, step: int, number: int) -> None:
        self.seed, self.step, self.number = seed, step, number

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if (args.seed, state.global_step) == (self.seed, self.step):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_seeds_and_the_run_goes_on(
    number: signal.Signals,
    code: int,
    tiny: Path,
    fine_tuned_runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, run = files_of(tiny, "classification"), tmp_path / "run"
    # seed 0 need not be trained once more
    shutil.copytree(fine_tuned_runs["classification"], run, ignore=shutil.ignore_patterns("seed-1", "metrics.json"))
    settings = {"seeds": 2, "resume": True}
    with monkeypatch.context() as patch:
        make = FineTuningTrainer.__init__

        def with_signal(self: FineTuningTrainer, **given: Any) -> None:
            make(self, **given)
            self.add_callback(SignalAt(1, 7, number))

        patch.setattr(FineTuningTrainer, "__init__", with_signal)
        with pytest.raises(RunStopped) as stopped:
            finetune(quick(tiny / "modernbert", files, run, quiet=False, **settings))
    assert stopped.value.exit_code == code
    assert "1 of 2 seeds are finished and kept. Go on by the same command with --resume" in capsys.readouterr().err
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "model", "seed-0"]
    finetune(quick(tiny / "modernbert", files, run, **settings))
    assert_same_run(run, fine_tuned_runs["classification"])


def test_a_killed_run_goes_on_to_the_same_end(tiny: Path, fine_tuned_runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = quick(tiny / "modernbert", files_of(tiny, "classification"), run, seeds=2)
    flags = [f"--{name}={getattr(settings, name)}" for name in ("task", "model", "train", "dev", "test", "out_dir")]
    flags += ["--learning_rate=3e-3", "--epochs=4", "--batch_size=16", "--max_length=32", "--bf16=false", "--seeds=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spanelectra.cli", "finetune", *flags, "--quiet"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    while process.poll() is None and not (run / "seed-0").exists():
        time.sleep(0.01)
    process.kill()
    _, errors = process.communicate()
    assert (run / "seed-0").exists(), errors.decode()
    settings.resume = True
    finetune(settings)
    assert_same_run(run, fine_tuned_runs["classification"])


def test_divergence_keeps_finished_seeds(
    tiny: Path, fine_tuned_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fine_tuned_runs["classification"], tmp_path / "run", ignore=shutil.ignore_patterns("seed-1"))
    compute = FineTuningTrainer.compute_loss
    monkeypatch.setattr(FineTuningTrainer, "compute_loss", lambda *given, **more: compute(*given, **more) * torch.nan)
    settings = quick(tiny / "modernbert", files_of(tiny, "classification"), tmp_path / "run", seeds=2, resume=True)
    with pytest.raises(TrainingDiverged, match="of seed 1"):
        finetune(settings)
    assert sorted(path.name for path in (tmp_path / "run").glob("seed-*")) == ["seed-0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dev": "{tmp}/dev.tsv"}, "dev.tsv:3: the label 'unheard' is not among those"),
        ({"train": "{tmp}/nowhere.tsv"}, "There is no file"),
        ({"model": "{tmp}"}, "holds no tokenizer: there is none of"),
        ({"label_column": "7"}, "no column 7"),
        ({"metric": "f2"}, "metric 'f2' does not fit"),
    ],
)
def test_bad_input_leaves_an_earlier_run_as_it_was(
    changes: dict[str, str], message: str, tiny: Path, fine_tuned_runs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nfine\tgood\nold\tunheard\n")
    files, run = files_of(tiny, "classification"), fine_tuned_runs["classification"]
    before = contents(run)
    settings = quick(tiny / "modernbert", files, run, overwrite=True)
    for name, value in changes.items():
        setattr(settings, name, value.replace("{tmp}", str(tmp_path)))
    with pytest.raises(UserError, match=message):
        finetune(settings)
    assert contents(run) == before


def test_an_earlier_run_is_replaced_only_when_asked(tiny: Path, tmp_path: Path) -> None:
    files, small = files_of(tiny, "classification", "train", "dev"), {"epochs": 0.2, "max_train_examples": 32}
    finetune(quick(tiny / "modernbert", files, tmp_path / "run", seeds=2, **small))
    before = contents(tmp_path / "run")
    with pytest.raises(UserError, match="holds a run already"):
        finetune(quick(tiny / "modernbert", files, tmp_path / "run", **small))
    assert contents(tmp_path / "run") == before
    results = finetune(quick(tiny / "modernbert", files, tmp_path / "run", seed=1, overwrite=True, **small))
    assert [path.name for path in (tmp_path / "run").glob("seed-*")] == ["seed-1"]
    assert metrics_of(tmp_path / "run") == results
    # the seed's results do not depend on which seed came first, but for the examples that it draws
    assert results["data"]["train"]["examples"] == 32


def test_a_part_of_training_is_held_out(tiny: Path, tmp_path: Path) -> None:
    files = files_of(tiny, "token", "train") | {"dev": "0.25"}
    results = finetune(quick(tiny / "bert", files, tmp_path / "run", epochs=0.5, max_train_examples=50))
    assert (results["data"]["train"]["examples"], results["data"]["dev"]["examples"]) == (50, 40)
    assert results["runs"][0]["test"] is None and set(results["summary"]) == {"dev"}
    assert len(predictions_of(tmp_path / "run", "dev")) == 40


def test_fresh_weights_need_a_shape_only(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tiny / "electra", tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = {"epochs": 0.2, "max_train_examples": 32, "random_weights": True}
    for model in (tmp_path / "m", tiny / "electra"):
        run = tmp_path / f"run-{model.parent.name}"
        finetune(quick(model, files_of(tiny, "token", "train", "dev"), run, quiet=False, **settings))
        assert "(shape only: fresh weights)" in capsys.readouterr().err
    digests = {model_digest(run) for run in tmp_path.glob("run-*")}
    assert len(digests) == 1


def test_a_collapsed_seed_is_named(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # sentences that tell nothing, most of them good
    for name, count in (("train", 40), ("dev", 8)):
        rows = [f"the mill\t{'good' if number % 4 else 'bad'}" for number in range(count)]
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    files = {name: str(tmp_path / f"{name}.tsv") for name in ("train", "dev")}
    results = finetune(quick(tiny / "modernbert", files, tmp_path / "run", epochs=2, quiet=False))
    assert results["collapsed"] == [0] and results["runs"][0]["collapsed"] == "always 'good'"
    said = capsys.readouterr()
    assert "ALARM seed 0 collapsed (always 'good'): try a smaller --learning_rate" in said.err
    assert "warning: 8 of 8 records" in said.err
    assert "(one seed, collapsed)" in said.out
    assert results["data"]["dev"]["also_in_train"] == 8


def test_a_seed_that_learned_nothing_is_named(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = Path(files_of(tiny, "classification")["train"])
    sentences = [line.split("\t")[0] for line in train.read_text().splitlines()[1:41]]
    # whatever is said of a sentence, half of it is wrong
    rows = [f"{sentence}\t{label}" for sentence in sentences for label in ("good", "bad")]
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    files = {"train": str(train), "dev": str(tmp_path / "dev.tsv")}
    results = finetune(quick(tiny / "modernbert", files, tmp_path / "run", quiet=False))
    assert results["collapsed"] == []
    assert (
        "ALARM seed 0: accuracy 50.00 on dev is no more than 50.00, always 'bad': it has learned little"
        in capsys.readouterr().err
    )


def test_a_report_is_written_unless_it_is_not_wanted(tiny: Path, tmp_path: Path) -> None:
    files = files_of(tiny, "classification")
    for report in (True, False):
        finetune(quick(tiny / "modernbert", files, tmp_path / "run", epochs=1, report=report, overwrite=True))
        page = tmp_path / "run" / "report.html"
        # an earlier run's does not outlive it
        assert page.is_file() == report
    finetune(quick(tiny / "modernbert", files, tmp_path / "run", epochs=1, seeds=2, resume=True))
    assert "accuracy on dev" in page.read_text(encoding="utf-8")
    finetune(quick(tiny / "modernbert", files, tmp_path / "run", epochs=1, seeds=2, resume=True, report=False))
    assert not page.exists()


def test_it_is_a_program_of_one_process(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="fine-tuning runs in one process; start it without torchrun"):
        finetune(quick(tiny / "bert", files_of(tiny, "token"), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
