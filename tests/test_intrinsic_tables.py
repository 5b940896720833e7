"""How the intrinsic report prints: every number in 80 columns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from intrinsic_runs import HEADS, corrupted_rows, joint_run, report_of, untrained_run  # noqa: F401 - fixtures
from spanelectra.intrinsic_tables import FEWEST_TOKENS, print_intrinsic_report


def printed(report: dict[str, Any]) -> str:
    file = io.StringIO()
    print_intrinsic_report(report, Console(file=file, width=80))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    return text


def test_the_numbers_stand_in_80_columns(rows: Path, joint: Path) -> None:
    report = report_of(joint, rows)
    text = printed(report)
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


def test_first_comes_whether_heads_are_better_than_guessing(rows: Path, joint: Path) -> None:
    report = report_of(joint, rows)
    for loss, auc, verdict in ((0.1, 0.9, "better"), (0.01, 0.52, "no better")):
        for head in ("mlm", "sbgo"):
            report[head]["total"]["loss"] = report[head]["total"]["unigram_loss"] - loss
        for head in ("ato", "sbpo"):
            report[head]["total"]["auc"] = auc
        text = " ".join(printed(report).split())
        for head in ("MLM", "SBGO"):
            assert f"{head}: {verdict} than guessing by frequency, with" in text
        for head in ("ATO", "SBPO"):
            assert f"{head}: {verdict} than guessing, with an AUC of {auc:.3f}" in text
    report["mlm"] = report["ato"] = None
    assert "MLM:" not in printed(report) and "ATO:" not in printed(report) and "SBPO:" in printed(report)
    # random tokens are no exam
    report["restoration"] = None
    assert "SBPO: " not in printed(report).split("Generator")[0]


def test_lines_of_few_tokens_are_named_and_not_shown(rows: Path, joint: Path) -> None:
    report = report_of(joint, rows)
    for head in HEADS:
        for place, bucket in enumerate(report[head]["by"]["span_words"]):
            bucket["tokens"] = FEWEST_TOKENS - 1 if place in (0, 2) else FEWEST_TOKENS
    text = printed(report)
    first, _, third = [bucket["bucket"] for bucket in report["sbpo"]["by"]["span_words"]][:3]
    few = f"{first}, {third} not shown, of fewer than {FEWEST_TOKENS} tokens"
    assert f"Discriminator, by length of the span in words: {few}" in " ".join(text.split())


def test_a_head_with_few_tokens_in_a_line_says_nothing_there(rows: Path, joint: Path) -> None:
    report = report_of(joint, rows)
    for head in HEADS:
        for bucket in report[head]["by"]["span_words"]:
            bucket["tokens"] = 3 if head == "sbpo" else 200
    table = printed(report).split("Discriminator, by length of the span in words")[1]
    first = next(line.split() for line in table.splitlines() if "200" in line)
    # bucket, ATO's five, SBPO's count and its three
    assert first[1] == "200" and first[6:] == ["3", "-", "-", "-"]


def test_buckets_of_one_head_alone_stand_in_order(rows: Path, joint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanelectra.intrinsic_tables.FEWEST_TOKENS", 0)
    report = report_of(joint, rows)
    for name in ("mlm", "sbgo", "restoration", "ato"):
        del report[name]["by"]["span_words"][1]
    text = printed(report).split("Discriminator, by length of the span in words")[1]
    buckets = [bucket["bucket"] for bucket in report["sbpo"]["by"]["span_words"]]
    assert [line.split()[0] for line in text.splitlines()[6 : 6 + len(buckets)]] == buckets


@pytest.mark.parametrize(("number", "shown"), [(999_999, "999,999"), (65_536_000, "65.5M")])
def test_large_numbers_fit_too(number: int, shown: str, rows: Path, joint: Path) -> None:
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
    text = printed(report)
    assert shown in text and "229,914" in text and "4.1e+53" in text


def test_what_is_missing_is_said(rows: Path, fake: Path, generator_run: Path, tmp_path: Path) -> None:
    text = printed(report_of(generator_run, rows))
    assert "no ATO: this run has no discriminator" in text and "Discriminator" not in text
    run, _ = untrained_run(fake, tmp_path / "run", stage="discriminator")
    text = printed(report_of(run, fake))
    assert "no MLM: the rows hold samples already" in text and "note:" in text
    assert "restored" in text
    run, _ = untrained_run(rows, tmp_path / "electra", method="electra")
    text = printed(report_of(run, rows))
    assert "single tokens" in text and "by length of the span" not in text


def test_correction_has_a_table_of_its_own(rows: Path, tmp_path: Path) -> None:
    run, _ = untrained_run(rows, tmp_path / "run", objectives=["mlm", "ato", "correction"])
    report = report_of(run, rows)
    text = printed(report)
    total = text.split("Discriminator, what replaced tokens were")[1].split("\n\n")[0]
    assert f"{report['correction']['total']['loss']:.3f}" in total
    for bucket in report["correction"]["by"]["span_words"]:
        if bucket["tokens"] >= FEWEST_TOKENS:
            assert f"{bucket['loss']:.3f}" in text.split("Correction, by length of the span in words")[1]
