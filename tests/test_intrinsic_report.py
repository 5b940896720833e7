"""The intrinsic report's totals against the trainer's own evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from intrinsic_runs import (  # noqa: F401 - fixtures
    HEADS,
    IN_ONE_BATCH,
    check_against_trainer,
    corrupted_rows,
    every_row,
    joint_run,
    report_of,
    untrained_run,
)
from small_runs import small_run
from spanelectra.checkpointing import CONFIG_NAME
from spanelectra.data.row_dataset import RowDataset
from spanelectra.export import open_run
from spanelectra.intrinsic_metrics import BREAKDOWNS
from spanelectra.masking_setup import build_collator
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from spanelectra.training_args import PretrainingArguments


class TestTotals:
    @pytest.mark.parametrize("method", ["spanelectra", "electra", "bert", "spanbert"])
    def test_they_are_those_of_the_trainers_evaluation(self, method: str, rows: Path, tmp_path: Path) -> None:
        run, expected = untrained_run(rows, tmp_path / "run", method=method)
        report = report_of(run, rows)
        common = check_against_trainer(report, expected)
        objectives = {
            "spanelectra": {"mlm", "sbgo", "ato", "sbpo"},
            "electra": {"mlm", "ato"},
            "bert": {"mlm"},
            "spanbert": {"mlm", "sbgo"},
        }[method]
        assert {f"{name}_loss" for name in objectives} <= common
        judging = objectives & {"ato", "sbpo"}
        assert {f"{name}{part}_auc" for name in judging for part in ("", "_masked")} <= common
        assert {name for name in HEADS if report[name]} == objectives | {"restoration"}
        assert set(report["missing"]) == set(HEADS) - objectives - {"restoration"}
        assert (report["kind"], report["rows"]) == ("held-out rows", report["rows_available"])
        assert report["max_seq_length"] == 32
        # single tokens have no place in a span
        spans = "span" in method
        assert all(set(report[name]["by"]) == (set(BREAKDOWNS) if spans else set()) for name in HEADS if report[name])
        assert report["masking"]["masking"] == ("span" if spans else "token")
        assert report["correction"] is None

    @pytest.mark.parametrize("method", ["spanelectra", "electra"])
    def test_correction_is_judged_on_what_was_replaced(self, method: str, rows: Path, tmp_path: Path) -> None:
        objectives = ["mlm", "ato", "correction"]
        run, expected = untrained_run(rows, tmp_path / "run", method=method, objectives=objectives)
        report = report_of(run, rows)
        assert {"correction_loss", "correction_accuracy"} <= check_against_trainer(report, expected)
        restored = report["restoration"]["total"]
        assert report["correction"]["total"]["tokens"] == restored["tokens"] - restored["restored"]
        assert set(report["correction"]["by"]) == (set(BREAKDOWNS) if method == "spanelectra" else set())
        assert "correction" not in report["missing"] and report["notices"] == []

    def test_a_real_run_and_its_metrics(self, rows: Path, tmp_path: Path) -> None:
        metrics = pretrain(
            small_run(
                rows,
                tmp_path / "run",
                **{**IN_ONE_BATCH, "max_steps": 2, "mask_ratio": "0:0.15 1:0.3", "max_span_words": "0:1 1:4"},
            )
        )
        report = report_of(tmp_path / "run", rows)
        assert len(check_against_trainer(report, metrics["held_out"])) == 27
        assert report["unigram_cross_entropy"] == metrics["unigram_cross_entropy"]
        assert report["masking"] == {"masking": "span", "mask_ratio": 0.3, "max_span_words": 4}
        assert report["notices"] == [] and report["missing"] == {}
        for checkpoint in (tmp_path / "run" / "model", tmp_path / "run" / "checkpoint-2"):
            again = report_of(checkpoint, rows)
            assert [again[name] for name in HEADS] == [report[name] for name in HEADS]

    def test_a_discriminator_with_a_frozen_generator(self, rows: Path, generator_run: Path, tmp_path: Path) -> None:
        settings = {"stage": "discriminator", "generator": str(generator_run)}
        run, expected = untrained_run(rows, tmp_path / "run", **settings)
        report = report_of(run, rows)
        common = check_against_trainer(report, expected)
        assert {"ato_loss", "sbpo_loss", "ato_auc", "replaced_rate", "generator_accuracy"} <= common
        # the trainer gives no loss for what does not train
        assert report["mlm"]["total"]["loss"] > 0
        assert report["sbgo"] is None and "frozen" in report["missing"]["sbgo"]

    def test_a_discriminator_of_corrupted_rows(self, rows: Path, fake: Path, tmp_path: Path) -> None:
        run, expected = untrained_run(fake, tmp_path / "run", stage="discriminator")
        report = report_of(run, fake)
        common = check_against_trainer(report, expected)
        assert {"ato_loss", "sbpo_loss", "ato_auc", "sbpo_auc", "replaced_rate"} <= common
        assert report["kind"] == "corrupted held-out rows" and report["unigram_cross_entropy"] is None
        assert set(report["missing"]) == {"mlm", "sbgo"} and set(report["ato"]["by"]) == set(BREAKDOWNS)
        assert any("holds the samples already" in notice for notice in report["notices"])
        # on other text there is nothing to draw samples from
        random = report_of(run, rows)
        assert set(random["missing"]) == {"mlm", "sbgo", "restoration"} and random["ato"]["total"]["auc"] is not None
        assert any("random tokens stand in" in notice for notice in random["notices"])

    def test_a_generator_samples_what_its_discriminator_will_read(self, rows: Path, generator_run: Path) -> None:
        report = report_of(generator_run, rows)
        model, _, _ = open_run(generator_run)
        held_out = RowDataset(rows, "validation")
        settings = PretrainingArguments(**load_recipe(str(generator_run / CONFIG_NAME)))
        batch = build_collator(held_out, settings, held_out=True)(every_row(held_out))
        replaced = model.draw_replacements(batch).replaced
        assert replaced is not None
        total = report["restoration"]["total"]
        assert total["tokens"] - total["restored"] == int(replaced.sum()) and total["tokens"] > 0
        assert set(report["missing"]) == {"ato", "sbpo"}

    def test_an_untrained_head_samples_nothing(self, rows: Path, tmp_path: Path) -> None:
        run, _ = untrained_run(rows, tmp_path / "run", stage="generator", objectives=["sbgo"])
        report = report_of(run, rows)
        assert report["mlm"] is None and "drawn from mlm" in report["missing"]["restoration"]

    def test_neither_the_batch_size_nor_repeating_changes_anything_but_the_seed_does(
        self, rows: Path, joint: Path
    ) -> None:
        report = report_of(joint, rows)
        one_by_one = report_of(joint, rows, batch_size=1)
        for name in HEADS:
            for key, value in report[name]["total"].items():
                assert one_by_one[name]["total"][key] == pytest.approx(value, rel=1e-5), (name, key)
            buckets = [(b["bucket"], b["tokens"]) for b in report[name]["by"]["span_words"]]
            assert [(b["bucket"], b["tokens"]) for b in one_by_one[name]["by"]["span_words"]] == buckets
        assert report_of(joint, rows) == report
        assert report_of(joint, rows, seed=1)["mlm"]["total"]["loss"] != report["mlm"]["total"]["loss"]
