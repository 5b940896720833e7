"""The command ``probe`` from a folder of tasks to a table and a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning import probing
from spanelectra.finetuning.probing import probe
from tiny_tasks import write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small task of each kind."""
    directory = tmp_path_factory.mktemp("tasks")
    for kind in ("classification", "token", "qa"):
        write_task(directory / kind, kind, train=60, dev=20)
    return directory


def test_every_task_has_a_line(folder: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "probe.json"
    results = probe(str(tiny / "modernbert"), str(folder), out=str(out), train_examples=40, epochs=0.5)
    assert json.loads(out.read_text()) == results
    assert results["model"] == "modernbert" and list(results["tasks"]) == ["classification", "qa", "token"]
    for name, task in results["tasks"].items():
        # embeddings and two layers
        for layers in (task["layers"], task["fresh_layers"]):
            assert layers is None if name == "qa" else len(layers) == 3
        assert 0 <= task["finetuned"] <= 100 and task["metric"] in ("accuracy", "f1")
    # which word it is shows in any embedding
    assert max(results["tasks"]["token"]["layers"]) > 80 > results["tasks"]["token"]["baseline"]
    assert results["tasks"]["classification"]["layers"] != results["tasks"]["classification"]["fresh_layers"]
    table, progress = capsys.readouterr()
    # nothing is cut, but for the lines that say what goes on
    assert progress.count("…") == 3 and "…" not in table
    for name, task in results["tasks"].items():
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        assert f"{task['finetuned']:.1f}" in line and f"{task['baseline']:.1f}" in line
        assert ("-" in line) == (name == "qa")


def test_the_seed_decides_everything(folder: Path, tiny: Path) -> None:
    found = [
        probe(
            str(tiny / "bert"), str(folder), only=["token"], train_examples=20, fine_tune=False, seed=seed, quiet=True
        )
        for seed in (0, 0, 1)
    ]
    assert found[0]["tasks"] == found[1]["tasks"] != found[2]["tasks"]
    assert found[0]["tasks"]["token"]["finetuned"] is None and list(found[0]["tasks"]) == ["token"]


def test_a_run_may_be_probed(folder: Path, joint_run: Path) -> None:
    results = probe(
        str(joint_run), str(folder), only=["classification"], fine_tune=False, train_examples=20, quiet=True
    )
    assert results["model"] == "discriminator of run" and len(results["tasks"]["classification"]["layers"]) == 3


def test_a_fine_tuning_that_collapsed_is_named(
    folder: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"dev": {"accuracy": 50.0}, "collapsed": "always 'bad'"}
    monkeypatch.setattr(probing, "finetune", lambda settings: {"runs": [run]})
    results = probe(str(tiny / "bert"), str(folder), only=["classification"], train_examples=20)
    assert results["tasks"]["classification"]["collapsed"] == "always 'bad'"
    assert "ALARM classification: the fine-tuning collapsed (always 'bad')" in capsys.readouterr().err


def test_mistakes_come_before_any_work(
    folder: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "finetune", lambda settings: pytest.fail("worked already"))
    monkeypatch.setattr(probing, "fresh_encoder", lambda *given: pytest.fail("worked already"))
    model = str(tiny / "bert")
    (tmp_path / "out.json").write_text("{}")
    with pytest.raises(UserError, match=r"out\.json' exists; choose another name, or replace it with --overwrite"):
        probe(model, str(folder), out=str(tmp_path / "out.json"))
    with pytest.raises(UserError, match=r"only: there is no task 'tokens'.* its folders are classification, qa, token"):
        probe(model, str(folder), only=["tokens"])
    with pytest.raises(UserError, match="train_examples must be at least 2"):
        probe(model, str(folder), train_examples=1)
    with pytest.raises(UserError, match="epochs must be above 0"):
        probe(model, str(folder), epochs=0)
    with pytest.raises(UserError, match="holds no tokenizer: there is none of"):
        probe(str(tmp_path), str(folder))
    shutil.copytree(folder, tmp_path / "tasks")
    (tmp_path / "tasks" / "token" / "dev.conll").write_text("alone\n")
    with pytest.raises(UserError, match="task token: "):
        probe(model, str(tmp_path / "tasks"))
    assert (tmp_path / "out.json").read_text() == "{}"
