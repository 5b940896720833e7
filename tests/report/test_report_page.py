"""The page: all of a run in one file that asks nobody, whatever the run's files hold."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from report_runs import copy_run, seed_results, write_fine_tuning
from spanelectra.report import page
from spanelectra.report.breakdown_charts import HeldOutPass
from spanelectra.report.page import write_page, write_report
from spanelectra.report.run_record import read_runs
from spanelectra.report.token_difficulty import TokenDifficulty, TokenScore

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'{{ 7*7 }}"


class Outline(HTMLParser):
    """A page's tags with their attributes, its text outside of scripts, and its scripts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += f" {data}"

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script draws."""
        return json.loads(self.scripts[1])


def outline_of(*runs: Path, file: Path) -> Outline:
    """The page of runs whose models are not run again."""
    records = read_runs(runs)
    write_page(file, records, [HeldOutPass(found) for found in records if not found.is_fine_tuning])
    return Outline(file)


def test_a_run_leaves_a_page_of_its_own(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "mine", without=("model", "checkpoint-*"))
    file = write_report(run, Console(quiet=True))
    assert file == run / "report.html"
    outline = Outline(file)
    (record,) = read_runs([run])
    for words in ("mine: what it did", "Finished: 6 steps", "left out", f"spanelectra report {run}", "modernbert"):
        assert words in outline.text
    charts = {chart["key"]: chart for chart in outline.data["charts"]}
    training, held_out = charts["mlm_loss"]["curves"]
    logged = [line["mlm_loss"] for line in record.lines(held_out=False)]
    assert training["values"] == pytest.approx(logged, rel=1e-6) and held_out["kind"] == "held-out"
    assert charts["mlm_loss"]["lines_of_reference"][0]["value"] == record.metrics["unigram_cross_entropy"]
    assert outline.data["lines"]["0 training"]["tokens"] == [line["tokens"] for line in record.lines(held_out=False)]


def test_the_file_asks_nobody(finished_run: Path, tmp_path: Path) -> None:
    outline = outline_of(finished_run, file=tmp_path / "page.html")
    addresses = [attrs.get(name) for _, attrs in outline.tags for name in ("src", "href") if name in attrs]
    assert all(str(address).startswith("#") for address in addresses)
    (policy,) = [attrs["content"] for tag, attrs in outline.tags if attrs.get("http-equiv")]
    assert str(policy).startswith("default-src 'none';") and "http" not in str(policy)
    assert "plotly.js v" in outline.scripts[0][:100]


def test_every_picture_has_its_place_and_its_numbers(finished_run: Path, tmp_path: Path) -> None:
    outline = outline_of(finished_run, file=tmp_path / "page.html")
    ids = [str(attrs["id"]) for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    keys = [chart["key"] for chart in outline.data["charts"]]
    assert len(keys) > 15 and {f"chart-{key}" for key in keys} <= set(ids)
    assert sum(tag == "details" for tag, _ in outline.tags) == len(keys) + 1
    for _, attrs in outline.tags:
        labelled = attrs.get("aria-labelledby")
        assert labelled is None or labelled in ids


def test_whatever_files_hold_is_shown_as_text(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / HOSTILE.replace("/", "|"), without=("model", "checkpoint-*"))
    history = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*history, json.dumps({"step": 7, "loss": 1.0, HOSTILE: 2.0})]))
    for name in ("environment.json", "metrics.json", "start.json"):
        (run / name).write_text(json.dumps({"processor": HOSTILE, "alarms": [HOSTILE], "versions": {HOSTILE: HOSTILE}}))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**settings, "recipe": HOSTILE, HOSTILE: 1}))
    task = write_fine_tuning(tmp_path / "task", [seed_results(0, 1.0, HOSTILE)], model=HOSTILE, metric=HOSTILE)
    records = read_runs([run, task])
    hardest = TokenDifficulty(1, 1, 1, {"mlm": [TokenScore(HOSTILE, 5, 1.0, 1.0)]}, [], [])
    file = tmp_path / "page.html"
    write_page(file, records, [HeldOutPass(records[0], difficulty=hardest), HeldOutPass(records[0], left_out=HOSTILE)])
    outline = Outline(file)
    assert [tag for tag, _ in outline.tags].count("script") == 3 and "img" not in [tag for tag, _ in outline.tags]
    assert outline.text.count(HOSTILE) > 8 and f"Alarm: {HOSTILE}" in outline.text and f"“{HOSTILE}”" in outline.text
    assert outline.data["runs"] == [records[0].name]
    assert "<" not in outline.scripts[1]


@pytest.mark.parametrize(
    "gone", [("metrics.json",), ("metrics.jsonl",), ("config.yaml", "environment.json", "start.json")]
)
def test_what_is_missing_is_left_out(finished_run: Path, tmp_path: Path, gone: tuple[str, ...]) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*", *gone))
    outline = outline_of(run, file=tmp_path / "page.html")
    assert ("Not finished" in outline.text) == ("metrics.json" in gone)
    assert bool(outline.data["charts"]) == ("metrics.jsonl" not in gone)


def test_damage_is_told(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*"))
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 9, "lo')
    (run / "environment.json").write_text("{")
    outline = outline_of(run, file=tmp_path / "page.html")
    assert "1 damaged line(s) were left out" in outline.text and "environment.json could not be read" in outline.text


def test_runs_stand_side_by_side(finished_run: Path, generator_run: Path, tmp_path: Path) -> None:
    task = write_fine_tuning(tmp_path / "task", [seed_results(seed, 80.0 + seed) for seed in range(3)])
    outline = outline_of(finished_run, generator_run, task, file=tmp_path / "page.html")
    assert "3 runs side by side" in outline.text and outline.data["runs"] == ["joint", "generator"]
    charts = {chart["key"]: chart for chart in outline.data["charts"]}
    assert {curve["run"] for curve in charts["mlm_loss"]["curves"]} == {0, 1}
    assert {curve["run"] for curve in charts["ato_loss"]["curves"]} == {0}
    assert charts["fine_tuning_0"]["names"] == ["task"] and "81.00 ± 1.00" in outline.text
    boxes = [attrs["value"] for tag, attrs in outline.tags if attrs.get("class") == "run"]
    assert boxes == ["0", "1"]


def test_a_page_that_cannot_be_written_is_said_and_no_error(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_run(finished_run, tmp_path / "run", without=("model", "checkpoint-*"))
    said = io.StringIO()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_text", fail)
    assert write_report(run, Console(file=said, width=500)) is None
    assert re.search(r"report\.html was not written \(.*No space left.*spanelectra report", said.getvalue())
    assert not list(run.glob("*report.html"))
