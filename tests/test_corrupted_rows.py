"""Corrupted rows on disk: read back as written, damage found, and refused where they do not suit a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from factories import COUNT, LENGTH, VOCAB_SIZE, make_batch
from small_runs import small_run
from spanelectra.corrupted_rows import CorruptedRows, CorruptedRowsWriter, feature_files, is_corrupted_data, row_batches
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.pretraining import pretrain


def corrupted(batch: dict[str, Tensor]) -> Tensor:
    """Every masked token becomes the next one."""
    ids = batch["original_ids"].clone()
    ids[batch["input_ids"] != ids] += 1
    return ids


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two batches of three rows for training, one for validation."""
    directory = tmp_path / "fake"
    directory.mkdir()
    for split, seeds in (("train", (0, 1)), ("validation", (2,))):
        writer = CorruptedRowsWriter(directory, split, 3 * len(seeds), LENGTH, COUNT, VOCAB_SIZE)
        for seed in seeds:
            writer.write(make_batch(seed), corrupted(make_batch(seed)))
        writer.flush()
    (directory / "features.json").write_text(json.dumps({"format_version": 1, "max_span_length": 6}))
    return directory


def batch_of(*rows: int) -> RowBatch:
    return RowBatch(np.array(rows), np.zeros(len(rows), dtype=np.int64), 0.0)


def test_what_is_read_is_what_was_written(directory: Path) -> None:
    rows = CorruptedRows(directory, "train")
    assert len(rows) == 6 and rows.max_seq_length == LENGTH and is_corrupted_data(directory)
    for first, seed in ((0, 0), (3, 1)):
        read, written = rows.collate(batch_of(first, first + 1, first + 2)), make_batch(seed)
        assert torch.equal(read["corrupted_ids"], corrupted(written))
        assert set(read) == set(written) - {"input_ids", "replacement_noise"} | {"corrupted_ids"}
        for name in set(read) - {"corrupted_ids"}:
            assert read[name].dtype == written[name].dtype and torch.equal(read[name], written[name]), name


def test_rows_come_in_the_order_asked_for_and_alike_in_every_epoch(directory: Path) -> None:
    rows = CorruptedRows(directory, "train")
    whole = rows.collate(batch_of(0, 1, 2, 3, 4, 5))
    later = RowBatch(np.array([4, 1]), np.array([7, 7]), 0.9)
    for name, tensor in rows.collate(later).items():
        assert torch.equal(tensor, whole[name][[4, 1]]), name


def test_without_decoys_only_masked_spans_are_handed_on(directory: Path) -> None:
    features = CorruptedRows(directory, "train", decoys=False).collate(batch_of(0))
    assert not [name for name in features if name.startswith("decoy")] and "labels" in features


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_large_vocabularies_have_room(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    batch = make_batch()
    batch["original_ids"][1, 4] = vocab_size - 1
    writer = CorruptedRowsWriter(tmp_path, "train", 3, LENGTH, COUNT, vocab_size)
    writer.write(batch, batch["original_ids"])
    writer.flush()
    stored = np.load(tmp_path / "train.corrupted_ids.npy")
    assert stored.dtype == dtype and stored[1, 4] == vocab_size - 1


@pytest.mark.parametrize("rows", [0, 1, 5, 6])
def test_batches_are_consecutive_and_complete(rows: int) -> None:
    batches = list(row_batches(rows, 2))
    assert [int(number) for batch in batches for number in batch] == list(range(rows))
    assert all(len(batch) <= 2 for batch in batches)


def drop(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).unlink()


def overwrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


def cut(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes((directory / name).read_bytes()[:-5])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("features.json"), "holds no corrupted rows.*spanelectra corrupt"),
        (overwrite("features.json", b'{"format'), "features.json is damaged"),
        (overwrite("features.json", b"[]"), "features.json is damaged"),
        (overwrite("features.json", b"{}"), "features.json is damaged"),
        (overwrite("features.json", b"\xff\xfe"), "features.json is damaged"),
        (overwrite("features.json", b'{"format_version": 99}'), "another format version"),
        *[(drop(f"train.{name}.npy"), f"train.{name}.npy is missing") for name in ("corrupted_ids", "decoy_scored")],
        *[
            (cut(name), f"{name} is missing or damaged")
            for name in ("train.corrupted_ids.npy", "train.masked_valid.npy")
        ],
        (overwrite("train.span_positions.npy", b""), "train.span_positions.npy is missing or damaged"),
        (overwrite("train.span_positions.npy", b"text"), "train.span_positions.npy is missing or damaged"),
        (
            lambda directory: (directory / "validation.span_positions.npy").replace(
                directory / "train.span_positions.npy"
            ),
            "train.span_positions.npy has another number of rows",
        ),
    ],
)
def test_damage_is_a_clear_error_that_names_the_file(
    directory: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(directory)
    with pytest.raises(UserError, match=message):
        CorruptedRows(directory, "train")


def test_a_missing_split(directory: Path) -> None:
    for file in directory.glob("validation.*"):
        file.unlink()
    CorruptedRows(directory, "train")
    with pytest.raises(UserError, match=r"validation\.corrupted_ids\.npy is missing"):
        CorruptedRows(directory, "validation")


def test_the_list_of_files_is_what_is_written(directory: Path) -> None:
    assert sorted(feature_files()) == sorted(file.name for file in directory.glob("*.npy"))


def test_pickled_objects_are_not_loaded(directory: Path) -> None:
    np.save(directory / "train.masked_valid.npy", np.array([{"code": "runs"}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        CorruptedRows(directory, "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "joint"}, "only --stage discriminator takes"),
        ({"stage": "generator"}, "only --stage discriminator takes"),
        ({"stage": "discriminator", "max_span_length": 5}, "spans of up to 6 tokens"),
    ],
)
def test_runs_that_they_do_not_suit(directory: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pretrain(small_run(directory, tmp_path / "run", **settings))
