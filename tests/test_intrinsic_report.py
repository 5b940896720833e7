"""The intrinsic report's totals against the trainer's own evaluation, and how it prints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

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
from spanelectra.intrinsic_report import FEWEST_TOKENS, print_intrinsic_report
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


class TestPrinted:
    def printed(self, report: dict[str, Any]) -> str:
        file = io.StringIO()
        print_intrinsic_report(report, Console(file=file, width=80))
        text = file.getvalue()
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text
        return text

    def test_the_numbers_stand_in_80_columns(self, rows: Path, joint: Path) -> None:
        report = report_of(joint, rows)
        text = self.printed(report)
        for head in ("mlm", "sbgo"):
            assert f"{report[head]['total']['loss']:.3f}" in text
            assert all(f"{bucket['loss']:.3f}" in text for bucket in report[head]["by"]["boundary_distance"])
        for head in ("ato", "sbpo"):
            assert f"{report[head]['total']['auc']:.3f}" in text
            assert f"{100 * report[head]['total']['majority_accuracy']:.1f}" in text
        assert f"{100 * report['restoration']['total']['rate']:.1f} %" in text
        # an AUC of one class alone is a dash
        outside = next(line for line in text.splitlines() if line.strip().startswith("outside"))
        assert outside.split()[4:6] == ["-", "-"]

    def test_lines_of_few_tokens_are_named_and_not_shown(self, rows: Path, joint: Path) -> None:
        report = report_of(joint, rows)
        for head in HEADS:
            for place, bucket in enumerate(report[head]["by"]["span_words"]):
                bucket["tokens"] = FEWEST_TOKENS - 1 if place in (0, 2) else FEWEST_TOKENS
        text = self.printed(report)
        first, _, third = [bucket["bucket"] for bucket in report["sbpo"]["by"]["span_words"]][:3]
        few = f"{first}, {third} not shown, of fewer than {FEWEST_TOKENS} tokens"
        assert f"Discriminator, by length of the span in words: {few}" in " ".join(text.split())

    def test_a_head_with_few_tokens_in_a_line_says_nothing_there(self, rows: Path, joint: Path) -> None:
        report = report_of(joint, rows)
        for head in HEADS:
            for bucket in report[head]["by"]["span_words"]:
                bucket["tokens"] = 3 if head == "sbpo" else 200
        table = self.printed(report).split("Discriminator, by length of the span in words")[1]
        first = next(line.split() for line in table.splitlines() if "200" in line)
        # bucket, ATO's five, SBPO's count and its three
        assert first[1] == "200" and first[6:] == ["3", "-", "-", "-"]

    def test_buckets_of_one_head_alone_stand_in_order(
        self, rows: Path, joint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("spanelectra.intrinsic_report.FEWEST_TOKENS", 0)
        report = report_of(joint, rows)
        for name in ("mlm", "sbgo", "restoration", "ato"):
            del report[name]["by"]["span_words"][1]
        text = self.printed(report).split("Discriminator, by length of the span in words")[1]
        buckets = [bucket["bucket"] for bucket in report["sbpo"]["by"]["span_words"]]
        assert [line.split()[0] for line in text.splitlines()[6 : 6 + len(buckets)]] == buckets

    @pytest.mark.parametrize(("number", "shown"), [(999_999, "999,999"), (65_536_000, "65.5M")])
    def test_large_numbers_fit_too(self, number: int, shown: str, rows: Path, joint: Path) -> None:
        report = report_of(joint, rows)
        for head in HEADS:
            lines = [report[head]["total"], *(b for buckets in report[head]["by"].values() for b in buckets)]
            for line in lines + ([report[head]["masked"]] if "masked" in report[head] else []):
                line["tokens"] = number
                large = {
                    "loss": 123.456,
                    "perplexity": 4.1e53,
                    "unigram_loss": 12.3456,
                    "unigram_perplexity": 229_914.0,
                }
                line.update({name: value for name, value in large.items() if name in line})
        text = self.printed(report)
        assert shown in text and "229,914" in text and "4.1e+53" in text

    def test_what_is_missing_is_said(self, rows: Path, fake: Path, generator_run: Path, tmp_path: Path) -> None:
        text = self.printed(report_of(generator_run, rows))
        assert "no ATO: this run has no discriminator" in text and "Discriminator" not in text
        run, _ = untrained_run(fake, tmp_path / "run", stage="discriminator")
        text = self.printed(report_of(run, fake))
        assert "no MLM: the rows hold samples already" in text and "note:" in text
        assert "restored" in text
        run, _ = untrained_run(rows, tmp_path / "electra", method="electra")
        text = self.printed(report_of(run, rows))
        assert "single tokens" in text and "by length of the span" not in text
