"""A folder of tasks: what is guessed, what `task.yaml` says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.task_folder import read_task_folder


def make(folder: Path, *files: str, task: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).touch()
    if task is not None:
        (folder / "task.yaml").write_text(task)
    return folder


def test_files_and_endings_tell_the_task(tmp_path: Path) -> None:
    make(tmp_path / "entities", "train.conll", "valid.conll")
    make(tmp_path / "reviews", "train.tsv.gz", "dev.tsv.gz")
    make(tmp_path / "squad_of_mine", "train-v2.json")
    make(tmp_path / "notes", "readme.md")
    make(tmp_path / ".hidden", "train.tsv")
    found = read_task_folder(str(tmp_path), "M")
    assert {name: settings.task for name, settings in found.items()} == {
        "entities": "token",
        "reviews": "classification",
        "squad_of_mine": "qa",
    }
    assert found["entities"].dev == str(tmp_path / "entities" / "valid.conll")
    assert found["squad_of_mine"].dev_fraction == 0.1
    assert all(settings.model == "M" for settings in found.values())


def test_a_folder_named_as_a_preset_is_that_task(tmp_path: Path) -> None:
    make(tmp_path / "cola", "in_domain_train.tsv", "in_domain_dev.tsv", "out_of_domain_dev.tsv")
    make(tmp_path / "conll2003", "eng.train", "eng.testa", "eng.testb")
    found = read_task_folder(str(tmp_path), "M")
    assert found["cola"].metric == "matthews" and found["cola"].dev.endswith("in_domain_dev.tsv")
    assert "out_of" not in found["cola"].dev
    assert found["conll2003"].label_column == "3" and found["conll2003"].dev.endswith("eng.testa")


def test_the_folder_may_be_a_task_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "mine", "train.csv")
    monkeypatch.chdir(tmp_path / "mine")
    assert list(read_task_folder(".", "M")) == ["mine"]


def test_task_yaml_says_what_files_are(tmp_path: Path) -> None:
    text = "task: classification\ntrain: a.txt\ndev: 0.2\ntext_column: 1\ntext_pair_column: 2\nlabel_column: 0\n"
    make(tmp_path / "pairs", "a.txt", "train.tsv", task=text + "header: 'no'\nmetric: f1\nmax_length: 64\n")
    (settings,) = read_task_folder(str(tmp_path), "M").values()
    assert settings.train == str(tmp_path / "pairs" / "a.txt") and settings.dev_fraction == 0.2
    assert (settings.text_column, settings.text_pair_column, settings.label_column) == ("1", "2", "0")
    assert (settings.header, settings.metric, settings.max_length) == ("no", "f1", 64)


def test_task_yaml_may_name_files_elsewhere(tmp_path: Path) -> None:
    make(tmp_path / "pool", "eng.txt")
    make(tmp_path / "tasks" / "x", task="preset: conll2003\ntrain: ../../pool/eng.txt\ndev: 0.1\n")
    (settings,) = read_task_folder(str(tmp_path / "tasks"), "M").values()
    assert Path(settings.train).samefile(tmp_path / "pool" / "eng.txt")


@pytest.mark.parametrize(
    ("files", "task", "message"),
    [
        (["readme.md"], None, "holds no task: a task is a folder with a file whose name has 'train' in it"),
        (["train.xyz"], None, r"what kind of task is train.xyz\? Write a task.yaml there"),
        (["train_a.tsv", "train_b.tsv"], None, "which is the train file, train_a.tsv or train_b.tsv"),
        (["train.tsv", "dev1.tsv", "dev2.tsv"], None, "which is the dev file, dev1.tsv or dev2.tsv"),
        (["dev.tsv"], None, "a dev file, and none with 'train' in its name"),
        (["train.tsv"], "tsk: token\n", "unknown field 'tsk'. Did you mean 'task'"),
        (["train.tsv"], "model: x\n", "unknown field 'model'"),
        (["train.tsv"], "- task\n", "a task is a list of 'field: value' lines"),
        (["train.tsv"], "task: [\n", "not valid YAML"),
        (["train.tsv"], "task: tokens\n", "Did you mean 'token'"),
        (["train.tsv"], "preset: sst\n", "unknown preset 'sst'"),
        (["train.tsv"], "dev: 1.5\n", "neither a file nor a fraction"),
        (["train.tsv"], "task: classification\nmetric: f2\n", "metric 'f2' does not fit"),
    ],
)
def test_mistakes_name_the_folder(files: list[str], task: str | None, message: str, tmp_path: Path) -> None:
    make(tmp_path / "mine", *files, task=task)
    with pytest.raises(UserError, match=message) as caught:
        read_task_folder(str(tmp_path), "M")
    assert str(tmp_path) in str(caught.value)


def test_a_blank_field_is_one_that_is_not_there(tmp_path: Path) -> None:
    make(tmp_path / "mine", "train.tsv", "dev.tsv", task="task: classification\ntrain:\ndev:\n")
    (settings,) = read_task_folder(str(tmp_path), "M").values()
    assert Path(settings.train).name == "train.tsv" and Path(settings.dev).name == "dev.tsv"


def test_a_task_alone_is_taken_whatever_is_beside_it(tmp_path: Path) -> None:
    make(tmp_path / "mine", "train.tsv", task="task: classification\n")
    make(tmp_path / "unclear", "train-a.tsv", "train-b.tsv")
    assert list(read_task_folder(str(tmp_path), "M", ["mine"])) == ["mine"]
    with pytest.raises(UserError, match="which is the train file"):
        read_task_folder(str(tmp_path), "M")
    with pytest.raises(UserError, match=r"there is no task 'other' in .*; its folders are mine, unclear"):
        read_task_folder(str(tmp_path), "M", ["other"])


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        read_task_folder(str(tmp_path / "nowhere"), "M")
