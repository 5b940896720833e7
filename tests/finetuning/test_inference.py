"""Logits in padded batches are those of each feature alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from factories import FAMILIES, encoder_config, perturb
from spanelectra.finetuning.inference import length_batches, predict_logits
from tiny_tasks import make_tokenizer

LENGTHS = [3, 30, 7, 7, 12, 3, 25]


def make_features(lengths: list[int]) -> list[dict[str, Any]]:
    """Random ids, with segments, and keys that no model takes."""
    random = np.random.default_rng(0)
    return [
        {
            "input_ids": random.integers(5, 50, length).tolist(),
            "attention_mask": [1] * length,
            "token_type_ids": [0] * (length // 2) + [1] * (length - length // 2),
            "labels": 1,
            "example": number,
        }
        for number, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "head", [AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering]
)
def test_batches_change_nothing(family: str, head: Any, padding_side: str) -> None:
    torch.manual_seed(0)
    model, tokenizer = head.from_config(encoder_config(family, dropout=0.5)), make_tokenizer()
    perturb(model)
    model.train()
    tokenizer.padding_side = padding_side
    done: list[tuple[int, int]] = []
    features = make_features(LENGTHS)
    logits = predict_logits(
        model, tokenizer, features, batch_size=3, on_progress=lambda *progress: done.append(progress)
    )
    counts, totals = zip(*done, strict=True)
    assert counts[-1] == len(LENGTHS) and sorted({*counts}) == list(counts) and {*totals} == {len(LENGTHS)}
    assert not model.training
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if family != "modernbert" else [])
    for feature, found in zip(features, logits, strict=True):
        with torch.no_grad():
            output = model(**{name: torch.tensor([feature[name]]) for name in names})
        expected = (
            torch.stack([output.start_logits, output.end_logits], dim=-1)
            if head is AutoModelForQuestionAnswering
            else output.logits
        )
        assert found.dtype == np.float32 and found.base is None
        np.testing.assert_allclose(found, expected[0], atol=1e-5)


def test_bfloat16_is_near_and_comes_back_as_float32() -> None:
    torch.manual_seed(0)
    model, features = AutoModelForTokenClassification.from_config(encoder_config("bert")), make_features(LENGTHS)
    exact, rounded = (predict_logits(model, make_tokenizer(), features, 4, bf16=bf16) for bf16 in (False, True))
    for left, right in zip(exact, rounded, strict=True):
        assert right.dtype == np.float32
        np.testing.assert_allclose(right, left, atol=0.02)
    assert any((left != right).any() for left, right in zip(exact, rounded, strict=True))


def test_nothing_gives_nothing(tiny: Path) -> None:
    model = AutoModelForTokenClassification.from_config(encoder_config("bert"))
    assert predict_logits(model, make_tokenizer(), [], 4) == []


@given(lengths=st.lists(st.integers(1, 600), max_size=30), batch_size=st.integers(1, 8))
def test_every_feature_is_in_one_batch_of_bounded_size(lengths: list[int], batch_size: int) -> None:
    features = make_features(lengths)
    seen: list[int] = []
    longest_before = 10**9
    for chosen, batch in length_batches(make_tokenizer(), features, ["input_ids", "attention_mask"], batch_size):
        rows, columns = batch["input_ids"].shape
        own = [lengths[index] for index in chosen]
        assert rows == len(chosen) and columns == max(own) <= longest_before
        assert rows == 1 or rows * max(columns, 128) <= batch_size * 128
        assert batch["attention_mask"].sum(dim=1).tolist() == own
        longest_before = min(own)
        seen += chosen
    assert sorted(seen) == list(range(len(lengths)))
