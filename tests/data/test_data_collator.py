"""The collator: what it lays out agrees with the text, and draws depend on (seed, epoch, row) alone."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.packing import RowDataset
from spanelectra.data.training_rows import RowBatch
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.schedules import Schedule
from spanelectra.training_args import PretrainingArguments


def collator(rows: Path, **settings: object) -> DataCollatorForSpanElectra:
    return build_collator(RowDataset(rows), PretrainingArguments(**settings).resolved())  # type: ignore[arg-type]


def batch_of(numbers: list[int], epoch: int = 0, progress: float = 1.0) -> RowBatch:
    rows = np.array(numbers)
    return RowBatch(rows, np.full_like(rows, epoch), progress)


def test_labels_are_the_text_and_masked_positions_hold_the_mask(rows: Path) -> None:
    collate = collator(rows, mask_token_ratio=1.0)
    batch = collate(batch_of([0, 1, 2, 3]))
    scored = batch["labels"] != IGNORE_INDEX
    assert scored.any(dim=1).all()
    original = batch["original_ids"].gather(1, batch["masked_positions"])
    assert torch.equal(original[scored], batch["labels"][scored])
    assert (batch["input_ids"].gather(1, batch["masked_positions"])[scored] == collate.mask_token_id).all()
    changed = (batch["input_ids"] != batch["original_ids"]).sum()
    assert changed == scored.sum()


def test_boundaries_and_decoys_stand_on_unmasked_text(rows: Path) -> None:
    batch = collator(rows)(batch_of(list(range(8))))
    scored, decoys = batch["labels"] != IGNORE_INDEX, batch["decoy_scored"]
    assert decoys.any()
    untouched = batch["input_ids"] == batch["original_ids"]
    for name, valid in (
        ("left_boundaries", scored),
        ("right_boundaries", scored),
        ("decoy_positions", decoys),
        ("decoy_left_boundaries", decoys),
        ("decoy_right_boundaries", decoys),
    ):
        assert untouched.gather(1, batch[name])[valid].all(), name


def test_a_row_is_masked_alike_in_any_company(rows: Path) -> None:
    collate = collator(rows, mask_token_ratio=0.8, random_token_ratio=0.1)
    together, alone = collate(batch_of([5, 1, 3], epoch=2)), collate(batch_of([3], epoch=2))
    for name, tensor in alone.items():
        assert torch.equal(together[name][2:], tensor), name


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_epochs_and_seeds_mask_differently(rows: Path, other: dict[str, int]) -> None:
    collate = collator(rows)
    changed = dataclasses.replace(collate, seed=other.get("seed", 0))
    first, second = collate(batch_of([0, 1])), changed(batch_of([0, 1], epoch=other.get("epoch", 0)))
    assert not torch.equal(first["input_ids"], second["input_ids"])
    assert not torch.equal(first["replacement_noise"], second["replacement_noise"])


def test_schedules_follow_the_progress(rows: Path) -> None:
    collate = dataclasses.replace(
        collator(rows, mask_ratio=0.3),
        mask_ratio=Schedule.parse("0:0.1 1:0.3", "mask_ratio"),
        max_span_words=Schedule.parse("0:1 1:10", "max_span_words"),
    )
    early, late = (collate(batch_of(list(range(8)), progress=progress)) for progress in (0.0, 1.0))
    assert early["labels"].shape == late["labels"].shape
    count = [(batch["labels"] != IGNORE_INDEX).sum().item() for batch in (early, late)]
    assert 2 * count[0] < count[1]
    assert early["span_positions"].max() < late["span_positions"].max()


def test_a_pickled_collator_maps_the_file_again_instead_of_carrying_it(rows: Path) -> None:
    collate = collator(rows)
    pickled = pickle.dumps(collate)
    again = pickle.loads(pickled)
    assert isinstance(again.input_ids, np.memmap) and len(pickled) < collate.input_ids.nbytes / 2
    for name, tensor in collate(batch_of([0, 5])).items():
        assert torch.equal(again(batch_of([0, 5]))[name], tensor), name


def test_token_masking_has_no_decoys(rows: Path) -> None:
    batch = collator(rows, method="electra")(batch_of([0, 1]))
    assert not batch["decoy_scored"].any() and (batch["labels"] != IGNORE_INDEX).any()
