"""Two pictures of a tier: scores over training FLOPs and wall time, and what was held out while it trained."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from efficiency.comparisons import Line, evaluated, scores_of, summarise
from efficiency.tiers import Tier

# of the intrinsic curves
PANELS = {
    "mlm_loss": "held-out MLM loss (nats)",
    "ato_auc": "held-out AUC of ATO",
    "sbpo_auc": "held-out AUC of SBPO",
}


def plot_scores(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], out: Path) -> None:
    """Draw the mean over tasks and every task; dots are seeds, bars one standard deviation."""
    measures: dict[str, list[str]] = {"mean": list(averaged)} if len(averaged) > 1 else {}
    measures |= {task: [task] for task in tier.tasks}
    figure, axes = plt.subplots(
        2, len(measures), figsize=(4.2 * len(measures), 6.4), constrained_layout=True, squeeze=False
    )
    for column, (measure, tasks) in enumerate(measures.items()):
        for axis, name in zip(axes[:, column], ("training FLOPs", "wall hours"), strict=True):
            axis.set_title(f"{measure}, dev", fontsize=10)
            axis.set_xlabel(name)
            axis.grid(alpha=0.3, which="both")
            for number, method in enumerate(tier.methods):
                _draw(axis, tier, lines, method, tasks, f"C{number % 10}", over_hours=name.startswith("wall"))
            # only now, for a line across the axis trips over logarithms of a single budget
            axis.set_xscale("log")
            if axis.get_legend_handles_labels()[0] and column == 0:
                axis.legend(fontsize=7)
    figure.savefig(out, dpi=80)
    plt.close(figure)


def _draw(
    axis: Any, tier: Tier, lines: Sequence[Line], method: str, tasks: list[str], colour: str, *, over_hours: bool
) -> None:
    scores = scores_of(lines, method, tasks)
    if tier.methods[method].fresh:
        if scores:
            mean = summarise(scores[0.0].values()).mean
            axis.axhline(mean, color="grey", linewidth=0.8, linestyle="--", label="fresh weights")
        return
    if not scores:
        return
    places = {budget: _hours(lines, method, budget) if over_hours else budget for budget in scores}
    found = {budget: summarise(by_seed.values()) for budget, by_seed in scores.items()}
    axis.errorbar(
        [places[budget] for budget in found],
        [summary.mean for summary in found.values()],
        yerr=[summary.deviation or 0.0 for summary in found.values()],
        color=colour,
        label=method,
        linewidth=1.3,
        capsize=3,
    )
    dots = [(places[budget], score) for budget, by_seed in scores.items() for score in by_seed.values()]
    axis.plot(*zip(*dots, strict=True), ".", color=colour, alpha=0.5, markersize=4)


def _hours(lines: Sequence[Line], method: str, budget: float) -> float:
    return statistics.fmean(line["wall_seconds"] / 3600 for line in evaluated(lines, method, budget))


def plot_curves(tier: Tier, lines: Sequence[Line], out: Path) -> None:
    """Draw every evaluated run's held-out metrics over its FLOPs; dots are where it ends."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4.2 * len(PANELS), 3.4), constrained_layout=True)
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("training FLOPs")
        axis.grid(alpha=0.3, which="both")
        for number, method in enumerate(tier.methods):
            runs = evaluated(lines, method)
            for run in runs:
                curve = [(flops, at[name]) for stage in run["stages"] for flops, at in stage["curve"] if name in at]
                if curve:
                    label = method if run is runs[0] else None
                    axis.plot(*zip(*curve, strict=True), color=f"C{number % 10}", linewidth=0.8, label=label)
                    axis.plot(*curve[-1], ".", color=f"C{number % 10}", markersize=4)
        axis.set_xscale("log")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    figure.savefig(out, dpi=80)
    plt.close(figure)
