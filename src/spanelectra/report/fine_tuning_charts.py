"""What fine-tuning runs scored: every seed, their mean and spread, beside the commonest answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spanelectra.finetuning.seed_summary import format_spread, is_no_better, learned_something, summarise
from spanelectra.report.curve_charts import Chart
from spanelectra.report.findings import Finding
from spanelectra.report.run_record import RunRecord
from spanelectra.report.run_tables import Table
from spanelectra.report.tolerance import listed, mapping, number
from spanelectra.report.words import short

_SPLITS = ("dev", "test")
_DESCRIBED = (
    "task",
    "preset",
    "model",
    "train",
    "dev",
    "test",
    "learning_rate",
    "layerwise_lr_decay",
    "epochs",
    "random_weights",
)


def seeds_of(record: RunRecord) -> list[dict[str, Any]]:
    """The results of single seeds that are readable."""
    return [result for result in listed(record.metrics.get("runs")) if isinstance(result, dict)]


def scores_of(record: RunRecord, split: str) -> dict[str, list[tuple[dict[str, Any], float]]]:
    """Metric -> (seed's results, score) for every seed that has one."""
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for result in seeds_of(record):
        for metric, value in mapping(result.get(split)).items():
            score = number(value)
            if score is not None:
                found.setdefault(metric, []).append((result, score))
    return found


def fine_tuning_findings(record: RunRecord) -> list[Finding]:
    """Whether the seeds trained, and whether they learned more than the commonest answer."""
    seeds, planned = seeds_of(record), number(record.settings.get("seeds"))
    found = []
    if planned and len(seeds) < planned:
        found.append(Finding("attention", f"{len(seeds)} of {planned:.0f} seeds are finished."))
    if len(seeds) == 1:
        found.append(Finding("attention", "One seed says little: scores vary by a point or more from seed to seed."))
    for result in seeds:
        if result.get("collapsed"):
            found.append(
                Finding("problem", f"Seed {result.get('seed')} collapsed ({result['collapsed']}): it learned nothing.")
            )
    metric = str(record.metrics.get("metric"))
    scores, common = scores_of(record, "dev").get(metric), number(_baseline_scores(record, "dev").get(metric))
    if scores:
        summary = summarise(_trained(scores))
        count = len(summary["values"])
        sentence = f"{metric} on dev: {format_spread(summary)} over {count} seed{'' if count == 1 else 's'}"
        better = common is None or learned_something(summary["mean"], common)
        if common is not None:
            sentence += f"; the commonest answer scores {common:.2f}"
        sentence += "." if better else ": little was learned."
        found.append(Finding("good" if better else "problem", sentence))
        words = number(_words_scores(record, "dev").get(metric))
        if better and words is not None and is_no_better(summary, words):
            found.append(
                Finding(
                    "attention",
                    f"The words alone, without order or context, score {words:.2f} on dev, no less than that: nothing "
                    "shows that the encoder says more of this task than they would.",
                )
            )
        variance = scores_of(record, "dev").get("r2")
        if better and variance and summarise(_trained(variance))["mean"] < 0:
            found.append(
                Finding(
                    "attention",
                    "Its numbers are further from dev's labels than the labels' mean is, and of no use as they are.",
                )
            )
    found += [Finding("note", str(remark)) for remark in listed(record.metrics.get("remarks"))]
    return [*found, *(Finding("attention", sentence) for sentence in record.problems)]


def _trained(scores: list[tuple[dict[str, Any], float]]) -> list[float]:
    """The scores of the seeds that did not collapse; all where all did."""
    return [score for result, score in scores if not result.get("collapsed")] or [score for _, score in scores]


def _baseline(record: RunRecord, split: str) -> dict[str, Any]:
    return mapping(mapping(record.metrics.get("baseline")).get(split))


def _baseline_scores(record: RunRecord, split: str) -> dict[str, Any]:
    return mapping(_baseline(record, split).get("scores"))


def _words_scores(record: RunRecord, split: str) -> dict[str, Any]:
    return mapping(mapping(mapping(record.metrics.get("words_alone")).get(split)).get("scores"))


def fine_tuning_table(records: list[RunRecord]) -> Table:
    """Mean, spread and median of every metric, a line for each run and split."""
    rows = []
    for record in records:
        for split in _SPLITS:
            for metric, seeds in scores_of(record, split).items():
                summary = summarise(_trained(seeds))
                references = [number(found(record, split).get(metric)) for found in (_baseline_scores, _words_scores)]
                rows.append(
                    [
                        record.name,
                        split,
                        metric,
                        format_spread(summary),
                        f"{summary['median']:.2f}",
                        ", ".join(f"{value:.2f}" for value in summary["values"]),
                        *("–" if score is None else f"{score:.2f}" for score in references),
                    ]
                )
    headings = ["run", "split", "metric", "mean ± deviation", "median", "seeds", "commonest answer", "words alone"]
    return Table(headings, rows)


def fine_tuning_overview(records: list[RunRecord]) -> Table:
    """Task, encoder and settings of each run."""
    columns = []
    for record in records:
        column = {"directory": str(record.directory)}
        for name in _DESCRIBED:
            value = record.metrics.get(name) if name in ("task", "model") else None
            value = record.settings.get(name) if value is None else value
            if value not in (None, False):
                column[name.replace("_", " ")] = "yes" if value is True else str(value)
        machine = record.environment.get("processor")
        columns.append(column | ({"processor": str(machine)} if machine else {}))
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return Table(["", *(record.name for record in records)], rows)


def fine_tuning_charts(records: list[RunRecord]) -> list[Chart]:
    """For each task that was learned: its metric by seed, and how each seed learned. Other metrics are in the table."""
    exams: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        exams.setdefault((str(record.metrics.get("metric")), _examined_text(record)), []).append(place)
    charts = []
    for task, ((metric, _), places) in enumerate(exams.items()):
        examination = _examination(records[places[0]])
        name = f"{metric}, {examination}" if len(exams) > 1 and examination else metric
        spread = _spread_chart(f"fine_tuning_{task}", records, places, metric, name)
        charts += [spread] if spread.rows else []
        charts += _learning_charts(f"fine_tuning_{task}", records, places, metric, name)
    return charts


def _examination(record: RunRecord) -> str:
    """What the runs were scored on, for people: the preset, or the names of the files."""
    files = [Path(str(name)).name for name in map(record.settings.get, _SPLITS) if name]
    return str(record.settings.get("preset") or ", ".join(files))


def _examined_text(record: RunRecord) -> str:
    """What tells runs apart that chose by other text: the preset, dev's checksum, or for want of both file names."""
    data = record.metrics.get("data")
    dev = data.get("dev") if isinstance(data, dict) else None
    checksum = dev.get("sha256") if isinstance(dev, dict) else None
    return str(record.settings.get("preset") or checksum or _examination(record))


def _spread_chart(key: str, records: list[RunRecord], places: list[int], metric: str, name: str) -> Chart:
    parts, rows = [], []
    for place in places:
        record = records[place]
        for split in _SPLITS:
            seeds = scores_of(record, split).get(metric, [])
            common = number(_baseline_scores(record, split).get(metric))
            trained = [(f"seed {result.get('seed')}", score) for result, score in seeds if not result.get("collapsed")]
            collapsed = [(f"seed {result.get('seed')}", score) for result, score in seeds if result.get("collapsed")]
            answer = [(str(_baseline(record, split).get("name", "the commonest answer")), common)]
            for kind, points in (("box", trained), ("collapsed", collapsed), ("baseline", answer)):
                known = [(remark, value) for remark, value in points if value is not None]
                if seeds and known:
                    remarks, values = zip(*known, strict=True)
                    parts.append({"run": place, "type": kind, "split": split, "values": values, "remarks": remarks})
            rows += [
                [record.name, split, str(result.get("seed")), short(score), str(result.get("collapsed") or "no")]
                for result, score in seeds
            ]
    return Chart(
        key,
        f"{name}: a dot for every seed",
        "The box holds the middle half of the seeds, its line the median, the dashed one the mean. A cross is a seed "
        "that collapsed and is not in the box; the diamond is what the commonest answer scores. Two encoders whose "
        "dots mingle are not known to differ.",
        {"unit": metric, "spread": parts},
        ["run", "split", "seed", metric, "collapsed"],
        rows,
    )


def _learning_charts(prefix: str, records: list[RunRecord], places: list[int], metric: str, name: str) -> list[Chart]:
    charts = []
    for key, title, unit, sentence in (
        ("metric", f"{name}: dev while learning", metric, "One curve a seed. The best point of each is what is kept."),
        (
            "loss",
            f"{name}: training loss",
            "mean loss",
            "Mean since the evaluation before. It falls on, also when dev no longer improves.",
        ),
    ):
        curves: list[dict[str, Any]] = []
        for place in places:
            for result in seeds_of(records[place]):
                points = _history(result, metric, key)
                if points:
                    steps, values = zip(*points, strict=True)
                    label = f"seed {result.get('seed')}"
                    curve = {"run": place, "metric": label, "label": label, "kind": "held-out"}
                    curves.append({**curve, "places": list(steps), "values": list(values)})
        if curves:
            specification = {"unit": unit, "axis": "optimiser steps", "curves": curves, "lines_of_reference": []}
            charts.append(Chart(f"{prefix}_{key}", title, sentence, specification))
    return charts


def _history(result: dict[str, Any], metric: str, key: str) -> list[tuple[float, float]]:
    """(step, value) of a seed's evaluations, those that are whole."""
    points = []
    for entry in map(mapping, listed(result.get("history"))):
        value = number(entry.get("loss") if key == "loss" else mapping(entry.get("dev")).get(metric))
        step = number(entry.get("step"))
        if step is not None and value is not None:
            points.append((step, value))
    return points
