"""Fine-tuning: every seed, their spread, and what the commonest answer scores."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from report_runs import record, seed_results, write_fine_tuning
from spanelectra.report.fine_tuning_charts import fine_tuning_charts, fine_tuning_findings, fine_tuning_table
from spanelectra.report.run_record import read_runs

SCORES = [84.0, 86.5, 85.0]


def runs(tmp_path: Path) -> list[Any]:
    good = [seed_results(seed, score) for seed, score in enumerate(SCORES)]
    bad = [seed_results(0, 70.0), seed_results(1, 50.0, "always 'good'")]
    return read_runs([write_fine_tuning(tmp_path / "ours", good), write_fine_tuning(tmp_path / "fresh", bad)])


def test_the_table_has_mean_and_spread_of_the_seeds_that_trained(tmp_path: Path) -> None:
    rows = {(row[0], row[1]): row[2:] for row in fine_tuning_table(runs(tmp_path)).rows}
    mean = f"{statistics.fmean(SCORES):.2f} ± {statistics.stdev(SCORES):.2f}"
    assert rows["ours", "dev"] == ["accuracy", mean, "85.00", "84.00, 86.50, 85.00", "50.00", "72.00"]
    assert rows["fresh", "dev"] == ["accuracy", "70.00", "70.00", "70.00", "50.00", "72.00"]
    assert rows["ours", "test"][-2:] == ["50.00", "–"]


def test_a_collapsed_seed_is_a_cross_outside_the_box(tmp_path: Path) -> None:
    spread = fine_tuning_charts(runs(tmp_path))[0].specification["spread"]
    found = {(part["run"], part["split"], part["type"]): list(part["values"]) for part in spread}
    assert found[0, "dev", "box"] == SCORES and (0, "dev", "collapsed") not in found
    assert found[1, "test", "box"] == [69.0] and found[1, "test", "collapsed"] == [49.0]
    assert found[1, "dev", "baseline"] == [50.0]


def test_every_seed_has_its_learning_curve(tmp_path: Path) -> None:
    charts = {chart.key: chart for chart in fine_tuning_charts(runs(tmp_path))}
    curves = charts["fine_tuning_0_metric"].specification["curves"]
    assert len(curves) == 5 and curves[0]["places"] == [10, 20, 30]
    assert curves[0]["values"] == pytest.approx([79.0, 81.5, 84 - 5 / 3])
    assert charts["fine_tuning_0_loss"].specification["curves"][0]["values"] == [1, 1 / 2, 1 / 3]


def test_scores_of_other_tasks_do_not_share_a_picture(tmp_path: Path) -> None:
    seeds = [seed_results(seed, score) for seed, score in enumerate(SCORES)]
    places = [
        write_fine_tuning(tmp_path / name, seeds, metric=metric, config={"task": "classification", "dev": file})
        for name, metric, file in (
            ("a", "accuracy", "x/dev.tsv"),
            ("b", "accuracy", "y/dev.tsv"),
            ("c", "accuracy", "y/reviews.tsv"),
            ("d", "f1", "x/dev.tsv"),
        )
    ]
    charts = {chart.key: chart for chart in fine_tuning_charts(read_runs(places))}
    assert charts["fine_tuning_0"].title == "accuracy, dev.tsv: a dot for every seed"
    assert {part["run"] for part in charts["fine_tuning_0"].specification["spread"]} == {0, 1}
    assert {part["run"] for part in charts["fine_tuning_1"].specification["spread"]} == {2}
    assert [curve["run"] for curve in charts["fine_tuning_1_loss"].specification["curves"]] == [2, 2, 2]
    # no seed has the metric that d was to be judged by: its losses are all there is
    assert "fine_tuning_2" not in charts and "fine_tuning_2_loss" in charts


def test_files_of_one_name_and_other_content_do_not_share_a_picture(tmp_path: Path) -> None:
    seeds = [seed_results(seed, score) for seed, score in enumerate(SCORES)]
    for name, content in (("a", "1"), ("b", "2"), ("c", "1")):
        data = {"dev": {"file": "dev.tsv", "sha256": content}}
        config = {"task": "classification", "dev": f"{name}/dev.tsv"}
        write_fine_tuning(tmp_path / name, seeds, config=config, data=data)
    charts = {chart.key: chart for chart in fine_tuning_charts(read_runs([tmp_path / name for name in "abc"]))}
    assert {part["run"] for part in charts["fine_tuning_0"].specification["spread"]} == {0, 2}
    assert {part["run"] for part in charts["fine_tuning_1"].specification["spread"]} == {1}


def test_findings_name_collapsed_and_missing_seeds(tmp_path: Path) -> None:
    good, bad = runs(tmp_path)
    assert [finding.state for finding in fine_tuning_findings(good)] == ["good"]
    assert (
        fine_tuning_findings(bad)[0].state == "problem" and "Seed 1 collapsed" in fine_tuning_findings(bad)[0].sentence
    )
    (alone,) = read_runs(
        [write_fine_tuning(tmp_path / "one", [seed_results(0, 40.0)], config={"task": "qa", "seeds": 3})]
    )
    sentences = {finding.sentence: finding.state for finding in fine_tuning_findings(alone)}
    assert sentences["1 of 3 seeds are finished."] == "attention"
    little = "accuracy on dev: 40.00 over 1 seed; the commonest answer scores 50.00: little was learned."
    assert sentences[little] == "problem"


def test_an_encoder_below_the_words_alone_is_worth_a_look(tmp_path: Path) -> None:
    found = fine_tuning_findings(read_runs([write_fine_tuning(tmp_path / "low", [seed_results(0, 71.0)])])[0])
    (words,) = [finding for finding in found if "The words alone" in finding.sentence]
    assert words.state == "attention" and "score 72.00 on dev" in words.sentence


def test_numbers_further_off_than_the_mean_are_worth_a_look_and_remarks_are_repeated(tmp_path: Path) -> None:
    seeds = [seed_results(seed, 87.0) for seed in (0, 1)]
    for result in seeds:
        result["dev"] = {"pearson": 87.0, "r2": -200.0}
    fields = {"metric": "pearson", "baseline": {}, "words_alone": {}, "remarks": ["dev.tsv is small."]}
    (run,) = read_runs([write_fine_tuning(tmp_path / "run", seeds, **fields)])
    good, numbers, remark = fine_tuning_findings(run)
    assert [good.state, numbers.state, remark.state] == ["good", "attention", "note"]
    assert "further from dev's labels than the labels' mean" in numbers.sentence
    assert remark.sentence == "dev.tsv is small."
    for result in seeds:
        result["dev"] = {"pearson": 0.0, "r2": -3.0}
    fields["baseline"] = {"dev": {"name": "always 3", "scores": {"pearson": 0.0}}}
    (run,) = read_runs([write_fine_tuning(tmp_path / "worse", seeds, **fields)])
    assert [finding.state for finding in fine_tuning_findings(run)] == ["problem", "note"]


@pytest.mark.parametrize(
    "metrics",
    [
        {"runs": []},
        {"runs": None},
        {"runs": [None, 3, {}]},
        {"runs": [{"seed": 0, "dev": None, "history": [None, {"step": "x"}]}], "baseline": []},
        {"runs": [{"dev": {"f1": "nan", "em": 3}, "history": 5}], "baseline": {"dev": {"scores": 3}}, "metric": None},
    ],
)
def test_missing_parts_are_left_out(metrics: dict[str, Any]) -> None:
    found = record(metrics=metrics, settings={"task": "qa"})
    assert found.is_fine_tuning
    assert all(finding.state != "good" or finding.sentence for finding in fine_tuning_findings(found))
    assert all(len(row) == 8 for row in fine_tuning_table([found]).rows)
    assert all(chart.specification for chart in fine_tuning_charts([found]))
