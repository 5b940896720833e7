"""The command `spanelectra report`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import report_runs
from report_runs import copy_run, seed_results, write_fine_tuning
from spanelectra.errors import UserError
from spanelectra.run_page import report

finished_run = report_runs.finished_run


def test_the_model_reads_held_out_rows_once_more(finished_run: Path, tmp_path: Path) -> None:
    file = report([str(finished_run)], str(tmp_path / "new" / "page.html"), rows=4, quiet=True)
    text = file.read_text(encoding="utf-8")
    assert file == tmp_path / "new" / "page.html"
    assert "4 rows, " in text and "by the length of the span" in text and "joint: left out" not in text


def test_rows_that_are_gone_leave_a_sentence(
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("checkpoint-*",))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings, "data": str(tmp_path / "gone")}))
    file = report([str(run)], str(tmp_path / "page.html"))
    assert "run: left out: " in file.read_text(encoding="utf-8")
    assert f"run: left out: '{tmp_path / 'gone'}' does not exist" in " ".join(capsys.readouterr().err.split())


def test_no_rows_are_read_where_none_are_asked_for(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*"))
    text = report([str(run)], str(tmp_path / "page.html"), rows=0, quiet=True).read_text(encoding="utf-8")
    assert "left out, for it takes the model a while" in text


def test_an_existing_file_is_replaced_only_on_demand(tmp_path: Path) -> None:
    task = write_fine_tuning(tmp_path / "task", [seed_results(0, 80.0)])
    file = tmp_path / "page.html"
    file.write_text("mine")
    with pytest.raises(UserError, match=r"exists already.*--overwrite"):
        report([str(task)], str(file))
    assert file.read_text() == "mine"
    assert "80.00" in report([str(task)], str(file), overwrite=True, quiet=True).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("runs", "out", "rows", "message"),
    [
        ([], "page.html", 0, "RUN is missing"),
        (["gone"], "page.html", 0, "gone does not exist"),
        (["task"], "task", 0, "is a directory"),
        (["task"], "page.html", -1, "rows must be 0 or more"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    tmp_path: Path, runs: list[str], out: str, rows: int, message: str
) -> None:
    write_fine_tuning(tmp_path / "task", [seed_results(0, 80.0)])
    with pytest.raises(UserError, match=message):
        report([str(tmp_path / run) for run in runs], str(tmp_path / out), rows=rows)
    assert not (tmp_path / "page.html").exists()


def test_a_fine_tuning_run_needs_no_rows(tmp_path: Path) -> None:
    task = write_fine_tuning(tmp_path / "task", [seed_results(0, 80.0)])
    text = report([str(task)], str(tmp_path / "page.html"), quiet=True).read_text(encoding="utf-8")
    assert 'id="chart-fine_tuning_0"' in text and "Spans and tokens" not in text
