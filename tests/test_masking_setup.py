"""From settings to masking: the widest that schedules ask for, and one fixed masking for held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_runs import small_run
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator, masking_policy


def collator(rows: Path, *, held_out: bool = False, **settings: Any) -> DataCollatorForSpanElectra:
    return build_collator(RowDataset(rows), small_run(rows, Path("-"), **settings).resolved(), held_out=held_out)


def batch_at(progress: float, epoch: int = 0) -> RowBatch:
    return RowBatch(np.arange(32), np.full(32, epoch), progress)


def test_the_policy_has_room_for_every_moment_of_the_run(rows: Path) -> None:
    settings = {"mask_ratio": "0:0.15 0.5:0.3 1:0.2", "max_span_words": "0:1 0.4:10", "max_span_length": 12}
    policy = masking_policy(small_run(rows, rows, span_length_probability=0.4, **settings).resolved())
    assert (policy.mask_ratio, policy.max_span_words, policy.max_span_length) == (0.3, 10, 12)
    assert policy.span_length_probability == 0.4


@pytest.mark.parametrize(
    ("settings", "masking", "decoys"),
    [
        ({}, "span", True),
        ({"decoys": False}, "span", False),
        ({"objectives": ["mlm", "sbgo", "ato"]}, "span", False),
        ({"method": "electra"}, "token", False),
        ({"method": "electra", "masking": "span"}, "span", False),
        ({"stage": "generator"}, "span", False),
        ({"stage": "discriminator"}, "span", True),
    ],
)
def test_decoys_are_for_sbpo_only(rows: Path, settings: dict[str, Any], masking: str, decoys: bool) -> None:
    policy = masking_policy(small_run(rows, rows, **settings).resolved())
    assert (policy.masking, policy.decoys) == (masking, decoys)


@pytest.mark.parametrize("objective", ["sbgo", "sbpo"])
def test_boundary_objectives_need_spans(rows: Path, objective: str) -> None:
    settings = small_run(rows, rows, masking="token", objectives=["mlm", "ato", objective])
    with pytest.raises(UserError, match="--masking span, not token"):
        masking_policy(settings.resolved())


@pytest.mark.parametrize("ratio", [0.6, "0:0.15 1:0.51"])
def test_a_ratio_that_leaves_no_boundary(rows: Path, ratio: float | str) -> None:
    with pytest.raises(UserError, match="leaves no boundary"):
        masking_policy(small_run(rows, rows, mask_ratio=ratio).resolved())


def test_schedules_reach_the_rows(rows: Path) -> None:
    collate = collator(rows, mask_ratio="0:0.1 1:0.3", max_span_words="0:1 1:10")
    masked = [int((collate(batch_at(progress))["labels"] != IGNORE_INDEX).sum()) for progress in (0.0, 0.5, 1.0)]
    assert masked[0] < masked[1] < masked[2]


def test_held_out_rows_have_one_masking_whatever_seed_and_method_say_of_it(rows: Path) -> None:
    kept = {"mask_token_ratio": 0.5, "random_token_ratio": 0.3}
    first = collator(rows, held_out=True, seed=0)(batch_at(1.0))
    other = collator(rows, held_out=True, seed=7, **kept)(batch_at(1.0))
    assert all(torch.equal(first[name], other[name]) for name in first)
    mask_id = RowDataset(rows).tokenizer().mask_token_id
    masked = first["input_ids"].gather(1, first["masked_positions"])[first["labels"] != IGNORE_INDEX]
    assert bool((masked == mask_id).all()), "every masked token is [MASK]"


def test_training_rows_follow_seed_epoch_and_kinds(rows: Path) -> None:
    same = collator(rows, seed=3)(batch_at(0.0))["input_ids"]
    assert torch.equal(same, collator(rows, seed=3)(batch_at(0.0))["input_ids"])
    assert not torch.equal(same, collator(rows, seed=4)(batch_at(0.0))["input_ids"])
    assert not torch.equal(same, collator(rows, seed=3)(batch_at(0.0, epoch=1))["input_ids"])
    kept = collator(rows, mask_token_ratio=0.0, random_token_ratio=0.0)(batch_at(0.0))
    assert torch.equal(kept["input_ids"], kept["original_ids"])
