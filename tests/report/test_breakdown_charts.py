"""Breakdowns and hardest tokens as the page shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.intrinsic_report import intrinsic_report
from spanelectra.report.breakdown_charts import HeldOutPass, breakdown_charts, token_tables
from spanelectra.report.run_record import read_runs
from spanelectra.report.token_difficulty import TokenDifficulty, TokenScore


def test_points_are_the_intrinsic_reports_buckets(joint: Path, rows: Path) -> None:
    breakdowns = intrinsic_report(str(joint), str(rows), rows=32, quiet=True)
    held_out = HeldOutPass(read_runs([joint])[0], breakdowns)
    charts = {chart.key: chart for chart in breakdown_charts([held_out])}
    assert len(charts) == 6
    for breakdown in ("span_tokens", "position", "boundary_distance"):
        curves = {curve["label"]: curve for curve in charts[f"{breakdown}_loss"].specification["curves"]}
        assert list(curves) == ["MLM", "SBGO", "guessing by frequency"]
        for head, label in (("mlm", "MLM"), ("sbgo", "SBGO")):
            buckets = [bucket for bucket in breakdowns[head]["by"][breakdown] if bucket["tokens"] >= 10]
            assert curves[label]["values"] == [bucket["loss"] for bucket in buckets]
            assert curves[label]["places"] == [bucket["bucket"] for bucket in buckets]
        verdicts = charts[f"{breakdown}_auc_against_all_originals"].specification["curves"]
        assert [curve["label"] for curve in verdicts] == ["ATO", "SBPO"]
        assert all("outside" not in curve["places"] for curve in verdicts)


def test_runs_without_a_pass_have_no_pictures(joint: Path) -> None:
    assert breakdown_charts([HeldOutPass(read_runs([joint])[0], left_out="left out")]) == []


@pytest.mark.parametrize(("token", "shown"), [(" the", "“ the”"), ("\n", "“\\n”"), ("\x1b", "“\\x1b”")])
def test_tokens_are_written_out(token: str, shown: str) -> None:
    difficulty = TokenDifficulty(1, 1, 1, {"mlm": [TokenScore(token, 1200, 2.5, 0.5)]}, [], [])
    (table,) = token_tables(difficulty)
    assert table.table.rows == [[shown, "1,200", "2.50", "50%"]]
