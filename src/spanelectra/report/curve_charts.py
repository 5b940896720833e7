"""Panels and curves -> what the page's script draws, and the table of numbers beside each picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

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
        specification: what ``page.js`` draws: either ``curves`` with ``lines_of_reference``, or Plotly's ``traces``.
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
