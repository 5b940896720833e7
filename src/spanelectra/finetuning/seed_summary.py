"""Several seeds -> numbers that can be trusted: mean, spread, and the runs that collapsed by name."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (``None`` of one value), median and the values themselves."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "median": statistics.median(values),
        "values": list(values),
    }


def summarise_runs(runs: Sequence[dict[str, Any]], split: str) -> dict[str, dict[str, Any]]:
    """Metric -> :func:`summarise` over the runs that did not collapse; over all of them where all did.

    A run that gives always one answer has failed to train (Devlin et al. 2019, section 5; Mosbach et al. 2021): its
    score says nothing about the encoder, and an average that holds it says little about the others.

    Args:
        runs: results of single seeds: ``split`` -> metric -> value, and ``collapsed``.
        split: dev or test.
    """
    scored = [run for run in runs if run.get(split)]
    trained = [run for run in scored if not run["collapsed"]] or scored
    metrics = list(trained[0][split]) if trained else []
    return {
        metric: summarise([run[split][metric] for run in trained if run[split].get(metric) is not None])
        for metric in metrics
        if any(run[split].get(metric) is not None for run in trained)
    }


def rank(run: dict[str, Any], metric: str) -> tuple[bool, float]:
    """What runs are ordered by, the best last: one that trained before any that collapsed, then the score on dev."""
    return not run["collapsed"], run["dev"][metric]


def learned_something(score: float, commonest: float) -> bool:
    """Whether a score (100 at most) is clearly above the commonest answer's: by a point, or half of what is left."""
    return score >= commonest + min(1.0, (100 - commonest) / 2)


def is_no_better(summary: dict[str, Any], score: float) -> bool:
    """Whether a mean of :func:`summarise` is no higher than a score that a baseline makes without any pre-training."""
    return summary["mean"] <= score


def format_spread(summary: dict[str, Any]) -> str:
    """``85.31 ± 0.42`` (standard deviation), or the value alone of one run."""
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2f}"
    return f"{summary['mean']:.2f}{spread}"
