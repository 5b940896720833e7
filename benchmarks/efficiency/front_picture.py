"""The README's picture: score over training FLOPs, a line a method, named where it ends."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from scipy.optimize import isotonic_regression

from efficiency.comparisons import Scores, summarise

# of the height of a panel: names that are nearer to one another than this are set apart
NAME_HEIGHT = 0.07


def draw(panels: Mapping[str, Mapping[str, Scores]], fresh: Mapping[str, float], out: Path) -> None:
    """Draw a panel a title; dots are means, hollow of one seed, faint ones seeds, bars one standard deviation.

    A line that ends in a single seed is dashed.

    Args:
        panels: title -> method's name -> its scores, one budget or more.
        fresh: title -> score of fresh weights, a dashed line.
        out: the picture, in the format that its name ends with.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.0 * len(panels), 4.4), constrained_layout=True, squeeze=False
    )
    for axis, (title, methods) in zip(axes[0], panels.items(), strict=True):
        axis.set_title(title, fontsize=11)
        axis.set_xscale("log")
        axis.set_xlabel("training FLOPs, generator included")
        all_budgets = sorted({budget for scores in methods.values() for budget in scores})
        axis.set_xticks(all_budgets, [f"{budget:.2g}".replace("e+", "e") for budget in all_budgets])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.axhline(fresh[title], color="grey", linewidth=1, linestyle="--")
        ends = {"fresh weights": (fresh[title], "grey")}
        for number, (name, scores) in enumerate(methods.items()):
            # at one place the bars of several methods would hide one another
            shift = 1.03 ** (number - len(methods) / 2)
            budgets = [budget * shift for budget in scores]
            found = [summarise(by_seed.values()) for by_seed in scores.values()]
            axis.errorbar(
                budgets,
                [summary.mean for summary in found],
                yerr=[summary.deviation or 0.0 for summary in found],
                color=f"C{number}",
                marker="o",
                markersize=4,
                linestyle="none",
                elinewidth=0.9,
                capsize=2,
            )
            points = list(zip(budgets, found, strict=True))
            for (start, before), (end, after) in itertools.pairwise(points):
                style = "--" if 1 in (before.count, after.count) else "-"
                axis.plot([start, end], [before.mean, after.mean], style, color=f"C{number}", linewidth=1.6)
            for budget, by_seed in zip(budgets, scores.values(), strict=True):
                axis.plot([budget] * len(by_seed), list(by_seed.values()), ".", color=f"C{number}", alpha=0.35)
                if len(by_seed) == 1:
                    axis.plot(
                        budget,
                        *by_seed.values(),
                        "o",
                        color=f"C{number}",
                        markersize=4,
                        markerfacecolor="white",
                        zorder=5,
                    )
            ends[name] = (found[-1].mean, f"C{number}")
        _name(axis, ends)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _name(axis: plt.Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write every line's name beside its end; names that would touch give way to one another, up and down."""
    low, high = axis.get_ylim()
    heights = _apart([score for score, _ in ends.values()], NAME_HEIGHT * (high - low))
    for (name, (_, colour)), height in zip(ends.items(), heights, strict=True):
        place = (1.02, height)
        axis.annotate(name, place, xycoords=("axes fraction", "data"), color=colour, fontsize=9, va="center")


def _apart(heights: Sequence[float], distance: float) -> list[float]:
    """The nearest heights in the same order that are ``distance`` or more from one another.

    Least squares under an order is isotonic regression, once what the distances take is subtracted.
    """
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    steps = [distance * rank for rank in range(len(order))]
    free = [heights[index] - step for index, step in zip(order, steps, strict=True)]
    set_apart = [float(height) + step for height, step in zip(isotonic_regression(free).x, steps, strict=True)]
    return [set_apart[order.index(index)] for index in range(len(order))]
