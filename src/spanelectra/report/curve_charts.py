"""Panels and curves -> what the page's script draws, and the table of numbers beside each picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from spanelectra.reference_curves import LAGS, matching_curves, value_of
from spanelectra.report.curves import Column, Curves
from spanelectra.report.panels import Panel
from spanelectra.report.run_record import RunRecord
from spanelectra.report.tolerance import number
from spanelectra.report.words import short

# What the page calls the lines of training, and those of evaluations.
KINDS = ("training", "held-out")


@dataclass
class Chart:
    """One picture of the page.

    Attributes:
        key: its id in the page.
        title: heading.
        sentence: what it means.
        specification: what ``page.js`` draws: either ``curves`` with ``lines_of_reference`` and perhaps ``bands``, or
            Plotly's ``traces``.
        heading: of the columns of ``rows``.
        rows: the picture's numbers as text, for those who read tables.
    """

    key: str
    title: str
    sentence: str
    specification: dict[str, Any]
    heading: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def curve_chart(panel: Panel, records: list[RunRecord], curves: list[tuple[Curves, Curves]]) -> Chart | None:
    """The picture of a panel; ``None`` where no run has anything for it.

    Args:
        panel: what to draw.
        records: the runs on the page.
        curves: for each run those of training and of held-out text.
    """
    drawn: list[dict[str, Any]] = []
    rows = []
    for place, (record, both) in enumerate(zip(records, curves, strict=True)):
        for metric, label in panel.metrics.items():
            for kind, lines in zip(KINDS, both, strict=True):
                column = lines.values.get(metric)
                if column is None:
                    continue
                drawn.append(
                    {
                        "run": place,
                        "metric": metric,
                        "label": label,
                        "kind": kind,
                        "lines": f"{place} {kind}",
                        "values": [None if value is None else float(f"{value:.7g}") for value in column],
                    }
                )
                rows.append([record.name, label, kind, *_extent(column)])
    if not drawn or (panel.only_above_zero and not any(any(curve["values"]) for curve in drawn)):
        return None
    specification = {
        "unit": panel.unit,
        "exact": panel.is_exact,
        "from_zero": panel.from_zero,
        "curves": drawn,
        "lines_of_reference": _lines_of_reference(panel, records, curves),
        "bands": _bands(panel, records, curves),
    }
    heading = ["run", "curve", "text", "first", "lowest", "highest", "last"]
    return Chart(panel.key, panel.title, panel.sentence, specification, heading, rows)


def _extent(column: Column) -> list[str]:
    known = [value for value in column if value is not None]
    return [short(value) for value in (known[0], min(known), max(known), known[-1])]


def _lines_of_reference(
    panel: Panel, records: list[RunRecord], curves: list[tuple[Curves, Curves]]
) -> list[dict[str, Any]]:
    """Horizontal lines, one for each different value of the panel's baseline; of several each names its runs."""
    found: dict[float, tuple[float, list[int]]] = {}
    for place, (record, (_, held_out)) in enumerate(zip(records, curves, strict=True)):
        value = baseline(panel.baseline, record, held_out)
        if value is not None:
            found.setdefault(round(value, 4), (value, []))[1].append(place)
    lines: list[dict[str, Any]] = []
    for value, runs in found.values():
        label = BASELINES[str(panel.baseline)]
        owners = ", ".join(records[run].name for run in runs)
        lines.append({"value": value, "label": f"{label}: {owners}" if len(found) > 1 else label, "runs": runs})
    return lines


def _bands(panel: Panel, records: list[RunRecord], curves: list[tuple[Curves, Curves]]) -> list[dict[str, Any]]:
    """What is healthy at each evaluation of a run: as good as the best reference run, or not yet lagging behind them.

    ``None`` where that is not known.
    """
    bands = []
    for place, (record, (_, held_out)) in enumerate(zip(records, curves, strict=True)):
        max_steps, unigram = number(record.settings.get("max_steps")), baseline("unigram", record, held_out)
        for curve in matching_curves(record.settings) if max_steps else []:
            if curve.metric not in panel.metrics or curve.metric not in held_out.values:
                continue
            ends: list[tuple[float | None, float | None]] = []
            for step, tokens in zip(held_out.axes["steps"], held_out.axes["tokens"], strict=True):
                gains = curve.expected(tokens, tokens / step * max_steps) if step and tokens and max_steps else None
                least, most = (LAGS * gains[0], gains[1]) if gains else (None, None)
                ends.append((value_of(curve.metric, least, unigram), value_of(curve.metric, most, unigram)))
            if any(None not in pair for pair in ends):
                known = {"least": [least for least, _ in ends], "most": [most for _, most in ends]}
                label = f"healthy: as reference runs ({curve.runs}), down to half of their gain over guessing"
                bands.append({"run": place, "lines": f"{place} {KINDS[1]}", "label": label, **known})
    return bands


# Baseline of a panel -> what its line is called.
BASELINES = {
    "chance": "guessing",
    "unigram": "guessing by frequency",
    "ato_base_rate": "the same probability for all",
    "sbpo_base_rate": "the same probability for all",
}


def baseline(kind: str | None, record: RunRecord, held_out: Curves) -> float | None:
    """What guessing would score on a run's held-out text.

    ``unigram`` is the cross-entropy of guessing by frequency, a ``…_base_rate`` the entropy of replaced or not: the
    lowest loss without looking at the text.
    """
    if kind == "chance":
        return 0.5
    if kind == "unigram":
        return number(record.metrics.get("unigram_cross_entropy"))
    majority = held_out.values.get(f"{kind.removesuffix('_base_rate')}_majority_accuracy") if kind else None
    share = majority[-1] if majority else None
    if share is None or not 0 < share < 1:
        return None
    return -share * math.log(share) - (1 - share) * math.log(1 - share)
