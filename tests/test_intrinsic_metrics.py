"""Breakdowns by place in the span against walking along the rows, and what is not defined."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from factories import make_batch
from intrinsic_runs import (  # noqa: F401 - fixtures
    HEADS,
    every_row,
    joint_run,
    report_of,
    untrained_run,
)
from spanelectra.checkpointing import CONFIG_NAME
from spanelectra.data.row_dataset import RowDataset, unigram_cross_entropy
from spanelectra.data.tokenization import word_start_table
from spanelectra.data.word_starts import CONTINUES, STARTS, WordStartTable
from spanelectra.export import open_run
from spanelectra.intrinsic_metrics import BREAKDOWNS, IntrinsicMetrics
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.modeling_spanelectra import SpanElectraOutput
from spanelectra.recipe_files import load_recipe
from spanelectra.training_args import PretrainingArguments


def word_start_table_of_words() -> WordStartTable:
    """A table over the vocabulary of the factories in which every token but the first five is a word."""
    special_ids = np.arange(100) < 5
    return WordStartTable(
        special_ids, np.full(100, STARTS, np.uint8), np.full(100, CONTINUES, np.uint8), np.zeros(100, np.uint8)
    )


class TestBreakdowns:
    def slow_tokens(self, run: Path, rows: Path) -> tuple[list[dict[str, Any]], SpanElectraOutput]:
        """Every masked token with its place, found by walking along the rows."""
        model, tokenizer, _ = open_run(run)
        held_out = RowDataset(rows, "validation")
        settings = PretrainingArguments(**load_recipe(str(run / CONFIG_NAME)))
        batch = build_collator(held_out, settings, held_out=True)(every_row(held_out))
        with torch.no_grad():
            output = model(**batch)
        assert output.mlm_logits is not None and output.ato_logits is not None and output.replaced is not None
        starts = word_start_table(tokenizer).word_starts(batch["original_ids"].numpy())
        tokens = []
        for row in range(len(held_out)):
            # a word that is longer than the longest span counts as several
            begins, place = [], 0
            for start in starts[row].tolist():
                place = 0 if start else place + 1
                begins.append(place % settings.max_span_length == 0)
            masked = (batch["input_ids"][row] == tokenizer.mask_token_id).tolist()
            slot = 0
            for position in range(len(masked)):
                if not masked[position]:
                    continue
                first = last = position
                while masked[first - 1]:
                    first -= 1
                while masked[last + 1]:
                    last += 1
                assert batch["masked_positions"][row, slot] == position
                original = int(batch["original_ids"][row, position])
                tokens.append(
                    {
                        "position": position - first + 1,
                        "boundary_distance": min(position - first, last - position) + 1,
                        "span_tokens": last - first + 1,
                        "span_words": sum(begins[first : last + 1]),
                        "loss": F.cross_entropy(output.mlm_logits[row, slot], torch.tensor(original)).item(),
                        "logit": output.ato_logits[row, position].item(),
                        "replaced": bool(output.replaced[row, position]),
                        "label": original,
                    }
                )
                slot += 1
        return tokens, output

    @pytest.mark.parametrize(
        "settings",
        # masks of many short spans, which cut words to pieces; and of long ones
        [{"max_span_length": 3, "max_span_words": 2, "mask_ratio": 0.4}, {"span_length_probability": 0.05}],
        ids=["short", "long"],
    )
    def test_they_are_those_of_walking_along_the_rows(
        self, settings: dict[str, Any], rows: Path, tmp_path: Path
    ) -> None:
        run, _ = untrained_run(rows, tmp_path / "run", **settings)
        report = report_of(run, rows)
        tokens, output = self.slow_tokens(run, rows)
        assert output.ato_logits is not None and output.replaced is not None
        originals = output.ato_logits[~output.replaced].tolist()
        held_out = RowDataset(rows, "validation")
        special_ids = word_start_table(held_out.tokenizer()).special_ids
        assert len({token["span_tokens"] for token in tokens}) >= 3
        aucs = 0
        for breakdown in BREAKDOWNS:
            expected: dict[str, list[dict[str, Any]]] = {}
            for token in tokens:
                place = token[breakdown]
                expected.setdefault("10+" if place >= 10 else str(place), []).append(token)
            by = {name: {b["bucket"]: b for b in report[name]["by"][breakdown]} for name in HEADS}
            assert by["mlm"].keys() == by["restoration"].keys() == expected.keys()
            assert by["ato"].keys() == {*expected, "outside"} and list(by["ato"])[-1] == "outside"
            for bucket, found in expected.items():
                mlm, ato = by["mlm"][bucket], by["ato"][bucket]
                loss = np.mean([token["loss"] for token in found])
                assert mlm["loss"] == pytest.approx(loss, rel=1e-5)
                assert mlm["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
                labels = np.array([token["label"] for token in found])
                unigram = unigram_cross_entropy(held_out.token_counts, labels, special_ids)
                assert mlm["unigram_loss"] == unigram
                assert mlm["unigram_perplexity"] == pytest.approx(math.exp(unigram))
                replaced = [token["replaced"] for token in found]
                assert (ato["tokens"], ato["replaced"]) == (len(found), sum(replaced))
                assert by["restoration"][bucket]["restored"] == len(found) - sum(replaced)
                logits = [token["logit"] for token in found]
                if len(set(replaced)) == 2:
                    aucs += 1
                    assert ato["auc"] == pytest.approx(roc_auc_score(replaced, logits), abs=1e-6)
                else:
                    assert ato["auc"] is None
                positives = [token["logit"] for token in found if token["replaced"]]
                against_all = ato["auc_against_all_originals"]
                if positives:
                    truth = [1] * len(positives) + [0] * len(originals)
                    assert against_all == pytest.approx(roc_auc_score(truth, positives + originals), abs=1e-6)
                else:
                    assert against_all is None
        assert aucs > 3, "the samples must restore some tokens for the AUCs to be compared"

    def test_every_span_has_one_first_token(self, rows: Path, joint: Path) -> None:
        report, held_out = report_of(joint, rows), RowDataset(rows, "validation")
        settings = PretrainingArguments(**load_recipe(str(joint / CONFIG_NAME)))
        collate = build_collator(held_out, settings, held_out=True)
        masks = collate.mask(*collate.read(every_row(held_out)))
        masked, decoys = masks.statistics.masked_spans, masks.statistics.decoy_spans
        first = {name: report[name]["by"]["position"][0]["tokens"] for name in HEADS}
        assert decoys > 0
        assert first == {"mlm": masked, "sbgo": masked, "restoration": masked, "ato": masked, "sbpo": masked + decoys}
        assert report["sbpo"]["masked"]["tokens"] == masks.statistics.masked_tokens
        assert report["sbpo"]["total"]["tokens"] == masks.statistics.masked_tokens + masks.statistics.decoy_tokens
        words = {bucket["bucket"] for bucket in report["sbpo"]["by"]["span_words"]}
        assert {"1", "2", "3"} <= words <= {"1", "2", "3", "4", "5"}


class TestUndefined:
    def compute(self, ato_logits: torch.Tensor, replaced: torch.Tensor, **logits: torch.Tensor) -> dict[str, Any]:
        batch = make_batch()
        table = word_start_table_of_words()
        metrics = IntrinsicMetrics(table, 6, np.ones(100, np.int64))
        output = SpanElectraOutput(torch.zeros(()), ato_logits=ato_logits, replaced=replaced, **logits)
        metrics.update(output, batch)
        return metrics.compute()

    def test_an_auc_of_one_class_is_none_with_its_count(self) -> None:
        replaced = torch.zeros(3, 16, dtype=torch.bool)
        results = self.compute(torch.randn(3, 16), replaced)
        assert results["ato"]["total"]["auc"] is None
        assert (results["ato"]["total"]["tokens"], results["ato"]["total"]["replaced"]) == (48, 0)
        assert results["ato"]["total"]["majority_accuracy"] == 1.0
        assert results["mlm"] is None and results["restoration"]["total"]["rate"] == 1.0

    def test_numbers_that_are_not_finite_are_none(self) -> None:
        replaced = torch.zeros(3, 16, dtype=torch.bool)
        mlm_logits = torch.zeros(3, 5, 100)
        results = self.compute(
            torch.full((3, 16), math.nan), replaced, mlm_logits=mlm_logits + 1e30 * torch.eye(100)[7]
        )
        assert results["ato"]["total"]["loss"] is None
        assert results["mlm"]["total"]["loss"] > 1e20 and results["mlm"]["total"]["perplexity"] is None

    def test_rows_without_a_masked_token(self) -> None:
        batch = {name: tensor[:1] for name, tensor in make_batch().items()}
        empty = {name: torch.zeros_like(tensor) for name, tensor in batch.items()}
        empty |= {"original_ids": batch["original_ids"], "labels": torch.full_like(batch["labels"], IGNORE_INDEX)}
        metrics = IntrinsicMetrics(word_start_table_of_words(), 6, np.ones(100, np.int64))
        output = SpanElectraOutput(torch.zeros(()), mlm_logits=torch.zeros(1, 5, 100))
        metrics.update(output, empty)
        nothing = metrics.compute()["mlm"]
        assert nothing["total"]["tokens"] == 0 and nothing["total"]["loss"] is None and nothing["by"] == {}
        metrics.update(output, batch)
        assert metrics.compute()["mlm"]["total"]["loss"] == pytest.approx(math.log(100))
        assert set(metrics.compute()["mlm"]["by"]) == set(BREAKDOWNS)
