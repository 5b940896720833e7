"""What an intrinsic report reads: text as prepare packs it, rows, and what does not fit the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from intrinsic_runs import (  # noqa: F401 - fixtures
    HEADS,
    check_against_trainer,
    corrupted_rows,
    joint_run,
    report_of,
    untrained_run,
)
from spanelectra.atomic_files import write_json, write_text
from spanelectra.checkpointing import METRICS_NAME
from spanelectra.data.packing import prepare
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError
from spanelectra.export import export, open_run


class TestText:
    TEXT = "\n\n".join(f"Chapter {n}. The list of names in the module is {n} items long, or so." for n in range(60))

    def test_text_is_packed_as_prepare_packs_it(self, rows: Path, joint: Path, tmp_path: Path) -> None:
        write_text(tmp_path / "text.txt", self.TEXT)
        records = "".join(json.dumps({"body": part}) + "\n" for part in self.TEXT.split("\n\n"))
        write_text(tmp_path / "text.jsonl", records)
        prepared = tmp_path / "prepared"
        prepare(
            str(tmp_path / "text.txt"),
            str(rows / "tokenizer"),
            str(prepared),
            max_seq_length=32,
            validation_fraction=0.0,
            quiet=True,
        )
        expected = report_of(joint, prepared, rows=1000)
        assert expected["kind"] == "training rows" and "holds out no rows" in expected["notices"][0]
        text = report_of(joint, tmp_path / "text.txt", rows=1000)
        assert (text["kind"], text["max_seq_length"], text["notices"]) == ("text", 32, [])
        assert text["rows"] == text["rows_available"] == len(RowDataset(prepared))
        folder = report_of(joint, tmp_path / "text.jsonl", rows=1000, text_column="body")
        for key in (*HEADS, "unigram_cross_entropy", "masking"):
            assert text[key] == folder[key] == expected[key]

    def test_a_few_rows_come_from_all_over_the_text(self, joint: Path, tmp_path: Path) -> None:
        first, last = "one two three four " * 300, "seven eight nine ten " * 300
        write_text(tmp_path / "a.txt", first)
        write_text(tmp_path / "b.txt", last)
        both = report_of(joint, tmp_path, rows=10)
        assert both["rows"] == 10 < both["rows_available"]
        beginning = report_of(joint, tmp_path / "a.txt", rows=10)
        # rows of one text alone hold fewer kinds of tokens
        assert both["unigram_cross_entropy"] > beginning["unigram_cross_entropy"] + 0.3

    def test_the_length_of_rows_can_be_chosen_and_is_the_runs_otherwise(
        self, rows: Path, joint: Path, tmp_path: Path
    ) -> None:
        write_text(tmp_path / "text.txt", self.TEXT)
        assert report_of(joint, tmp_path / "text.txt", max_seq_length=20)["max_seq_length"] == 20
        export(str(joint), str(tmp_path / "out"), quiet=True)
        exported = report_of(tmp_path / "out" / "checkpoint", tmp_path / "text.txt")
        assert exported["max_seq_length"] == 128
        assert any("length of the run's rows is not known" in notice for notice in exported["notices"])
        # an export keeps the run's masking; without it the defaults are assumed, where the run had 5 words
        report = report_of(tmp_path / "out" / "checkpoint", rows)
        assert report["masking"]["max_span_words"] == 5 and report["notices"] == []
        (tmp_path / "out" / "checkpoint" / "config.yaml").unlink()
        report = report_of(tmp_path / "out" / "checkpoint", rows)
        assert report["masking"]["max_span_words"] == 10 and len(report["notices"]) == 1
        assert "has no config.yaml" in report["notices"][0]

    def test_an_exported_baseline_keeps_its_masking(self, rows: Path, tmp_path: Path) -> None:
        run, expected = untrained_run(rows, tmp_path / "run", method="electra")
        write_json(run / METRICS_NAME, {"method": "electra", "stage": "joint"})
        export(str(run), str(tmp_path / "out"), quiet=True)
        report = report_of(tmp_path / "out" / "checkpoint", rows)
        assert report["masking"]["masking"] == "token"
        assert {"mlm_loss", "ato_auc"} <= check_against_trainer(report, expected)


class TestMistakes:
    def test_what_cannot_be_is_said(
        self, rows: Path, other_rows: Path, fake: Path, joint: Path, generator_run: Path,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        run = joint
        write_text(tmp_path / "short.txt", "too short")
        for error, arguments, settings in (
            ("prepared with another tokenizer than the run's", (run, other_rows), {}),
            ("rows must be at least 1, got 0", (run, rows), {"rows": 0}),
            ("batch_size must be at least 1", (run, rows), {"batch_size": 0}),
            ("seed must be at least 0", (run, rows), {"seed": -1}),
            ("has rows of 32 tokens", (run, rows), {"max_seq_length": 64}),
            ("takes 512 tokens at most", (run, tmp_path / "short.txt"), {"max_seq_length": 1000}),
            ("Too little text", (run, tmp_path / "short.txt"), {}),
            ("does not exist", (run, tmp_path / "none.txt"), {}),
            ("no discriminator to judge them", (generator_run, fake), {}),
            ("holds no finished model", (rows, rows), {}),
        ):
            with pytest.raises(UserError, match=error):
                report_of(*arguments, **settings)

    def test_a_run_that_diverged(self, rows: Path, tmp_path: Path) -> None:
        run, _ = untrained_run(rows, tmp_path / "run", method="bert")
        model, _, source = open_run(run)
        next(model.parameters()).data.fill_(math.nan)
        model.save_pretrained(source)
        with pytest.raises(UserError, match="not numbers: the run diverged"):
            report_of(run, rows)

    def test_rows_that_the_encoder_cannot_take(self, rows: Path, tmp_path: Path) -> None:
        run, _ = untrained_run(rows, tmp_path / "run", max_position_embeddings=32)
        text, long = tmp_path / "text.txt", tmp_path / "long"
        write_text(text, TestText.TEXT)
        prepare(str(text), str(rows / "tokenizer"), str(long), max_seq_length=64, quiet=True)
        with pytest.raises(UserError, match="has rows of 64 tokens, the run takes 32 at most"):
            report_of(run, long)
