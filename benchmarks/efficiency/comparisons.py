"""Results -> means, paired differences and crossing points, as docs/efficiency-protocol.md fixed them beforehand."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats

from efficiency.tiers import Tier

Line = dict[str, Any]
# budget -> seed -> score
Scores = dict[float, dict[int, float]]

CONFIDENCE = 0.95
# standard deviations by which the reference must be above fresh weights for a task to count
TELLS_APART = 2.0


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (``None`` of one value) and number of values."""

    mean: float
    deviation: float | None
    count: int

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {self.deviation:.2f}"
        return f"{self.mean:.2f}{spread} ({self.count})"


def summarise(values: Collection[float]) -> Summary:
    """Of one value or more."""
    found = list(values)
    return Summary(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def evaluated(lines: Sequence[Line], method: str, budget: float | None = None) -> list[Line]:
    """The lines of a method's evaluations, at one budget or all."""
    return [
        line
        for line in lines
        if line["purpose"] == "evaluation" and line["method"] == method and budget in (None, line["budget"])
    ]


def scores_of(lines: Sequence[Line], method: str, tasks: Collection[str], split: str = "dev") -> Scores:
    """Mean over tasks of every evaluated unit of a method; without tasks, or where one was not scored, nothing."""
    scores: Scores = {}
    for line in evaluated(lines, method) if tasks else []:
        values = [line["tasks"].get(task, {}).get(split) for task in tasks]
        if None not in values:
            scores.setdefault(line["budget"], {})[line["seed"]] = statistics.fmean(values)
    return dict(sorted(scores.items()))


def probe_scores(lines: Sequence[Line], method: str, task: str) -> Scores:
    """Best layer of a linear probe of every evaluated unit of a method."""
    scores: Scores = {}
    for line in evaluated(lines, method):
        if task in line["probe"]:
            scores.setdefault(line["budget"], {})[line["seed"]] = max(line["probe"][task]["layers"])
    return dict(sorted(scores.items()))


@dataclass(frozen=True)
class Judgement:
    """Whether a task tells pre-trained encoders from fresh ones; ``None`` while that is not known.

    Attributes:
        budget: at which the reference was compared with fresh weights; the rule is about the tier's largest.
    """

    task: str
    counts: bool | None
    budget: float = 0.0
    reference: Summary | None = None
    fresh: Summary | None = None
    deviation: float | None = None


def judge_task(tier: Tier, lines: Sequence[Line], task: str) -> Judgement:
    """A task counts where the reference, at its largest budget, is two standard deviations above fresh weights on dev.

    The standard deviation is that of seeds, pooled over the two groups.
    """
    reference = scores_of(lines, tier.reference, [task])
    fresh = scores_of(lines, tier.fresh_method or "", [task]).get(0.0, {})
    budget = max(reference, default=0.0)
    largest = reference.get(budget, {})
    if not largest or not fresh or len(largest) + len(fresh) < 3:
        return Judgement(task, None)
    groups = [list(largest.values()), list(fresh.values())]
    squares = sum((value - statistics.fmean(group)) ** 2 for group in groups for value in group)
    deviation = math.sqrt(squares / (sum(map(len, groups)) - 2))
    above = statistics.fmean(groups[0]) - statistics.fmean(groups[1])
    counts = above > TELLS_APART * deviation
    return Judgement(task, counts, budget, summarise(groups[0]), summarise(groups[1]), deviation)


def averaged_tasks(judgements: Collection[Judgement]) -> list[str]:
    """Tasks of the primary metric: those that count, and those of which it is not known yet."""
    return [judgement.task for judgement in judgements if judgement.counts is not False]


@dataclass(frozen=True)
class Difference:
    """Ours minus another over the seeds that both have, at a budget.

    Attributes:
        budget: training FLOPs.
        mean: of the differences.
        count: of seeds.
        half_width: of the 95% confidence interval; ``None`` where no budget has two seeds.
        p: of the two-sided paired t test; ``None`` likewise.
    """

    budget: float
    mean: float
    count: int
    half_width: float | None
    p: float | None

    def __str__(self) -> str:
        if self.half_width is None or self.p is None:
            return f"{self.mean:+.2f} ({self.count})"
        return f"{self.mean:+.2f} ± {self.half_width:.2f} ({self.count}; p = {self.p:.2g})"


def paired_differences(ours: Scores, other: Scores) -> list[Difference]:
    """Paired t test at every budget, its variance pooled over the budgets.

    Two or three seeds at the largest budget say little of their spread; the seeds of the smaller budgets do, if the
    spread of differences is the same at all of them, which is assumed. Degrees of freedom: seeds less budgets.
    """
    pairs = {
        budget: [ours[budget][seed] - other[budget][seed] for seed in sorted(set(ours[budget]) & set(other[budget]))]
        for budget in sorted(set(ours) & set(other))
    }
    pairs = {budget: differences for budget, differences in pairs.items() if differences}
    freedom = sum(len(differences) - 1 for differences in pairs.values())
    squares = sum((d - statistics.fmean(differences)) ** 2 for differences in pairs.values() for d in differences)
    results = []
    for budget, differences in pairs.items():
        mean, half_width, p = statistics.fmean(differences), None, None
        error = math.sqrt(squares / freedom / len(differences)) if freedom else 0.0
        if error:
            half_width = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
            p = float(2 * stats.t.sf(abs(mean) / error, freedom))
        results.append(Difference(budget, mean, len(differences), half_width, p))
    return results


def difference_at(ours: Scores, other: Scores, budget: float) -> Difference | None:
    """The paired difference at one budget; ``None`` where the two have no seed in common there."""
    return next((found for found in paired_differences(ours, other) if found.budget == budget), None)


def holm(values: Sequence[float]) -> list[float]:
    """P values of several tests, adjusted by Holm's method, in the order given."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _means(scores: Scores) -> dict[float, float]:
    return {budget: statistics.fmean(by_seed.values()) for budget, by_seed in sorted(scores.items())}


def _between(low: float, high: float, share: float) -> float:
    """A budget between two, on the logarithmic scale."""
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


def crossings(first: Scores, second: Scores) -> list[float]:
    """Training FLOPs at which the curves of two methods cross, interpolated in log FLOPs; none beyond the budgets.

    The curves are of the seeds that both have at a budget, as the paired differences are.
    """
    gaps = [(difference.budget, difference.mean) for difference in paired_differences(first, second)]
    found = []
    # at budgets at which they are equal, the ones beside those tell whether they cross there
    unequal = [place for place, (_, gap) in enumerate(gaps) if gap]
    for start, end in itertools.pairwise(unequal):
        (low, before), (high, after) = gaps[start], gaps[end]
        if before * after < 0:
            is_beside = end == start + 1
            found.append(_between(low, high, before / (before - after)) if is_beside else gaps[start + 1][0])
    return found


@dataclass(frozen=True)
class Needed:
    """Training FLOPs for a score, and how they stand to those that a curve shows."""

    flops: float
    relation: Literal["exactly", "at most", "more than"] = "exactly"

    @property
    def sign(self) -> str:
        """What is written before the number."""
        return {"exactly": "", "at most": "≤ ", "more than": "> "}[self.relation]

    def __str__(self) -> str:
        return f"{self.sign}{self.flops:.2g}"


def flops_needed(scores: Scores, level: float) -> Needed | None:
    """Where a method's curve first reaches a score, interpolated in log FLOPs; ``None`` without results."""
    means = list(_means(scores).items())
    if not means:
        return None
    if means[0][1] >= level:
        return Needed(means[0][0], "at most")
    for (low, before), (high, after) in itertools.pairwise(means):
        if before < level <= after:
            return Needed(_between(low, high, (level - before) / (after - before)))
    return Needed(means[-1][0], "more than")


def needed_by_seed(scores: Scores, level: float) -> list[Needed]:
    """The same for each seed that all budgets have: its spread."""
    seeds = set.intersection(*(set(by_seed) for by_seed in scores.values())) if scores else set()
    found = [flops_needed({budget: {0: scores[budget][seed]} for budget in scores}, level) for seed in sorted(seeds)]
    return [needed for needed in found if needed is not None]
