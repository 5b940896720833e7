"""A task's files become what a run reads: held out by a fraction, drawn, and described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spanelectra.atomic_files import file_digest
from spanelectra.errors import UserError
from spanelectra.finetuning.classification import Classification
from spanelectra.finetuning.task import Task
from spanelectra.finetuning.task_data import read_splits, read_task_data
from spanelectra.finetuning.task_directory import make_task
from tiny_tasks import QUESTION, make_tokenizer, quick, write_task


def write(path: Path, rows: list[str]) -> str:
    path.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    return str(path)


def split(train: str, dev: str, **settings: Any) -> tuple[Task, dict[str, list[Any]]]:
    resolved = quick(Path("m"), {"train": train, "dev": dev}, Path("o"), **settings).resolved()
    task = make_task(resolved)
    return task, read_splits(task, resolved)


def lines(examples: list[Any]) -> list[int]:
    return [example.line for example in examples]


@pytest.fixture
def train(tmp_path: Path) -> str:
    return write(tmp_path / "train.tsv", [f"sentence {n}\t{'ab'[n % 2]}" for n in range(40)])


def test_a_fraction_is_held_out_by_the_seed(train: str) -> None:
    _, found = split(train, "0.25")
    assert len(found["dev"]) == 10 and len(found["train"]) == 30
    assert sorted(lines(found["dev"]) + lines(found["train"])) == list(range(2, 42))
    assert lines(found["dev"]) == sorted(lines(found["dev"])) != list(range(2, 12))
    assert lines(split(train, "0.25")[1]["dev"]) == lines(found["dev"])
    assert lines(split(train, "0.25", seed=1)[1]["dev"]) != lines(found["dev"])


def test_a_fraction_is_at_least_one_example_and_never_all(train: str, tmp_path: Path) -> None:
    assert len(split(train, "0.001")[1]["dev"]) == 1
    two = write(tmp_path / "two.tsv", ["one\ta", "two\tb"])
    with pytest.raises(UserError, match=r"two.tsv has 2 example\(s\): dev 0.9 leaves none to train on"):
        split(two, "0.9")


def test_a_label_that_only_the_held_out_part_has_is_known(tmp_path: Path) -> None:
    rows = [f"sentence {n}\t{'ab'[n % 2]}" for n in range(39)] + ["the only one\tc"]
    path = write(tmp_path / "train.tsv", rows)
    for seed in range(20):
        task, found = split(path, "0.5", seed=seed)
        assert isinstance(task, Classification) and task.labels == ["a", "b", "c"]
        if any(example.label == "c" for example in found["dev"]):
            return
    pytest.fail("no seed held it out")


def test_what_repeats_is_held_out_together(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", [f"sentence {n % 10}\t{'ab'[n % 3 == 0]}" for n in range(40)])
    task, found = split(path, "0.25")
    sides = [{task.input_of(example) for example in found[name]} for name in ("train", "dev")]
    assert len(found["dev"]) == 8 and not sides[0] & sides[1]
    # what would be more than the share stays in training
    often = write(tmp_path / "often.tsv", ["n/a\ta"] * 30 + [f"sentence {n}\t{'ab'[n % 2]}" for n in range(10)])
    for seed in range(5):
        _, found = split(often, "0.1", seed=seed)
        assert len(found["dev"]) == 4 and all(example.text != "n/a" for example in found["dev"])
    one = write(tmp_path / "one.tsv", ["the same\ta"] * 8)
    with pytest.raises(UserError, match=r"one.tsv has 8 example\(s\): dev 0.25 leaves none to train on"):
        split(one, "0.25")


@pytest.mark.parametrize("kind", ["classification", "token", "qa"])
def test_what_is_trained_on_and_scored_is_counted_and_said_once(kind: str, tmp_path: Path) -> None:
    files = write_task(tmp_path, kind, train=30, dev=10)
    text = Path(files["train"]).read_text()
    if kind == "qa":
        # other questions about the same contexts
        Path(files["dev"]).write_text(text.replace(QUESTION, "one number"))
    else:
        Path(files["dev"]).write_text(text)
    settings = quick(Path("m"), files, Path("o"), max_train_examples=12).resolved()
    task = make_task(settings)
    data = read_task_data(task, settings, make_tokenizer())
    train = read_splits(make_task(settings), settings)["train"]
    assert len({task.input_of(example) for example in train}) == 12
    assert [data.described[name].get("also_in_train") for name in data.described] == [None, 12, 0]
    (said,) = [remark for remark in task.remarks if "in the training data" in remark]
    standing = "have a context that stands" if kind == "qa" else "stand"
    assert said.startswith(f"12 of 30 {task.unit} of {files['dev']} {standing} in the training data, too: scores tell")
    Path(files["test"]).write_text(text)
    task = make_task(settings)
    read_splits(task, settings)
    (said,) = [remark for remark in task.remarks if "in the training data" in remark]
    assert f"{files['dev']} and 12 of 30 {task.unit} of {files['test']} {standing}" in said


def test_a_sentence_or_two_in_both_are_no_cause_for_alarm(tmp_path: Path) -> None:
    train = [f"sentence {number}\t{'ab'[number % 2]}" for number in range(100)]
    dev = train[:2] + [f"other {number}\t{'ab'[number % 2]}" for number in range(98)]
    files = {name: write(tmp_path / f"{name}.tsv", rows) for name, rows in (("train", train), ("dev", dev))}
    settings = quick(Path("m"), files, Path("o")).resolved()
    task = make_task(settings)
    read_splits(task, settings)
    (said,) = [remark for remark in task.remarks if "in the training data" in remark]
    assert said.startswith("2 of 100 records of") and said.endswith(
        "too: they can change a score by no more than their share."
    )


@pytest.mark.parametrize(("count", "is_said"), [(49, True), (50, False)])
def test_a_score_of_few_examples_is_said_to_say_little(tmp_path: Path, count: int, is_said: bool) -> None:
    rows = [f"sentence {number}\t{'ab'[number % 2]}" for number in range(200)]
    files = {"train": write(tmp_path / "train.tsv", rows[:100]), "dev": write(tmp_path / "dev.tsv", rows[-count:])}
    task = make_task(quick(Path("m"), files, Path("o")).resolved())
    read_splits(task, task.settings)
    assert (f"dev has {count} records ({files['dev']}): a score of so few" in " ".join(task.remarks)) == is_said
    task = make_task(quick(Path("m"), {"train": files["train"], "dev": "0.1"}, Path("o")).resolved())
    read_splits(task, task.settings)
    assert f"dev has 10 records (held out of {files['train']})" in " ".join(task.remarks)


def test_a_label_that_is_in_dev_alone_is_a_mistake(train: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dev.tsv:3: the label 'c' is not among those"):
        split(train, write(tmp_path / "dev.tsv", ["x\ta", "y\tc"]))


def test_examples_are_drawn_and_labels_are_not_lost(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", [f"sentence {n}\t{'ab'[n % 2]}" for n in range(59)] + ["rare\tc"])
    dev = write(tmp_path / "dev.tsv", ["something\tc", "else\ta"])
    drawn = []
    for seed in range(3):
        task, found = split(path, dev, max_train_examples=10, seed=seed)
        assert isinstance(task, Classification) and task.labels == ["a", "b", "c"]
        assert len(found["train"]) == 10 and lines(found["train"]) == sorted(lines(found["train"]))
        drawn.append(tuple(lines(found["train"])))
        # but it is said that none is left to learn it from
        is_said = any(f"{path} (10 records drawn): 1 of 3 classes" in remark for remark in task.remarks)
        assert is_said == (61 not in drawn[-1])
    assert len(set(drawn)) == 3
    assert len(split(path, dev, max_train_examples=1000)[1]["train"]) == 60


@pytest.mark.parametrize("kind", ["classification", "token", "qa"])
def test_everything_is_described(kind: str, tiny: Path) -> None:
    ending = {"classification": "tsv", "token": "conll", "qa": "json"}[kind]
    files = {name: str(tiny / kind / f"{name}.{ending}") for name in ("train", "dev", "test")}
    settings = quick(tiny, files, tiny / "out").resolved()
    task = make_task(settings)
    data = read_task_data(task, settings, make_tokenizer())
    assert list(data.splits) == ["dev", "test"] and list(data.described) == ["train", "dev", "test"]
    for name, entry in data.described.items():
        assert entry["file"] == f"{name}.{ending}"
        assert entry["sha256"] == data.digests()[name] == file_digest(Path(files[name]))
        features = data.train_features if name == "train" else data.splits[name].features
        assert entry["features"] == len(features) and entry["examples"] == (160 if name == "train" else 40)
        assert entry["tokens"] == sum(len(feature["input_ids"]) for feature in features)
        labelled = {"labels", "start_positions"} & features[0].keys()
        assert bool(labelled) == (name == "train")
    for split_ in data.splits.values():
        assert task.metric in split_.baseline.scores


def test_a_held_out_part_is_described_as_of_its_file(train: str) -> None:
    settings = quick(Path("m"), {"train": train, "dev": "0.25"}, Path("o")).resolved()
    data = read_task_data(make_task(settings), settings, make_tokenizer())
    assert data.described["dev"]["file"] == "train.tsv" and data.described["dev"]["examples"] == 10
    assert data.digests()["dev"] == data.digests()["train"]
