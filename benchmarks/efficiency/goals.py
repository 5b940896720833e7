"""The goal of the experiment in four sentences, each with what was found and whether it is met."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from efficiency.comparisons import Line, Scores, difference_at, flops_needed, holm, scores_of
from efficiency.tiers import Budget, Tier

SIGNIFICANT = 0.05
LEAST_GAIN = 1.0  # points, over the best baseline at the largest budget


@dataclass(frozen=True)
class Goal:
    """What was hoped for.

    Attributes:
        sentence: what that was.
        found: in numbers.
        met: ``None`` while it cannot be told.
        settled: whether no result that is missing can change it.
    """

    sentence: str
    found: str
    met: bool | None
    settled: bool = False

    @property
    def verdict(self) -> str:
        """In words."""
        if self.met is None:
            return "not known yet"
        return f"{'yes' if self.met else 'no'}{'' if self.settled else ', so far'}"


def others_of(tier: Tier) -> list[str]:
    """The methods that ours is compared with: all that are pre-trained."""
    return [name for name, method in tier.methods.items() if name != tier.ours and not method.fresh]


def baselines_of(tier: Tier) -> list[str]:
    """Those of them that the goals are about: a control is shown beside them."""
    return [name for name in others_of(tier) if not tier.methods[name].control]


def judged_at(tier: Tier, lines: Sequence[Line], tasks: Sequence[str], split: str) -> float:
    """The largest budget at which ours and every baseline have results; the tier's largest where there is none."""
    budgets = [set(scores_of(lines, name, tasks, split)) for name in (tier.ours, *baselines_of(tier))]
    return max(set.intersection(*budgets), default=tier.budgets[-1].flops)


def goals(tier: Tier, lines: Sequence[Line], tasks: Sequence[str], split: str) -> list[Goal]:
    """Judge the goals that a tier can: those of its baselines that it has, at the largest budget that all have.

    Args:
        tier: the tier.
        lines: results.
        tasks: those that are averaged.
        split: dev or test.
    """
    scores = {name: scores_of(lines, name, tasks, split) for name in [tier.ours, *baselines_of(tier)]}
    largest = judged_at(tier, lines, tasks, split)
    is_complete = all(_has_all_seeds(scores, budget) for budget in tier.budgets)
    found = [
        _share_of_compute(scores, tier.ours, name, largest, share)
        for name, share in ((tier.reference, 0.25), ("electra", 0.5))
        if name in scores and name != tier.ours
    ]
    found += [_never_below(tier, scores), _best_at_the_largest(tier, scores, largest)]
    return [dataclasses.replace(goal, settled=goal.settled or is_complete) for goal in found]


def _has_all_seeds(scores: dict[str, Scores], budget: Budget) -> bool:
    return all(set(budget.seeds) <= set(by_budget.get(budget.flops, {})) for by_budget in scores.values())


def _mean(scores: Scores, budget: float) -> float | None:
    return statistics.fmean(scores[budget].values()) if budget in scores else None


def _share_of_compute(scores: dict[str, Scores], ours: str, other: str, largest: float, share: float) -> Goal:
    sentence = f"{ours} reaches {other}'s score at {largest:.2g} with {share:.0%} of its FLOPs or fewer"
    level = _mean(scores[other], largest)
    needed = None if level is None else flops_needed(scores[ours], level)
    if level is None or needed is None:
        return Goal(sentence, "-", None)
    part = f"{needed} FLOPs, {needed.sign}{needed.flops / largest:.0%}, for {level:.2f}"
    is_open = needed.relation == "more than" and largest not in scores[ours]
    # "at most" so much may be any less, where no smaller budget was tried
    is_open |= needed.relation == "at most" and needed.flops > share * largest * (1 + 1e-9)
    if is_open:
        return Goal(sentence, part, None)
    return Goal(sentence, part, needed.relation != "more than" and needed.flops <= share * largest * (1 + 1e-9))


def _never_below(tier: Tier, scores: dict[str, Scores]) -> Goal:
    gaps: dict[float, float] = {}
    is_settled = False
    for budget in tier.budgets:
        by_method = {name: by_budget.get(budget.flops, {}) for name, by_budget in scores.items()}
        seeds = set.intersection(*map(set, by_method.values()))
        if seeds and len(by_method) > 1:
            # of seeds that all have: others may be lucky ones
            means = {name: statistics.fmean(by_seed[seed] for seed in seeds) for name, by_seed in by_method.items()}
            gaps[budget.flops] = means.pop(tier.ours) - max(means.values())
            is_settled |= gaps[budget.flops] < 0 and _has_all_seeds(scores, budget)
    found = ", ".join(f"{gap:+.2f} at {budget:.2g}" for budget, gap in gaps.items()) or "-"
    met = False if any(gap < 0 for gap in gaps.values()) else True if len(gaps) == len(tier.budgets) else None
    return Goal(f"{tier.ours} is at no budget below the best baseline", found, met, is_settled)


def without_pooling(tier: Tier, lines: Sequence[Line], tasks: Sequence[str], split: str) -> str | None:
    """What the last goal is judged by, with the variance of the judged budget's own pairs; ``None`` of too few."""
    largest = judged_at(tier, lines, tasks, split)
    scores = {name: scores_of(lines, name, tasks, split) for name in [tier.ours, *baselines_of(tier)]}
    alone = {name: {largest: by_budget.get(largest, {})} for name, by_budget in scores.items()}
    gains = _gains(tier, alone, largest)
    return _in_words(gains) if gains else None


def _best_at_the_largest(tier: Tier, scores: dict[str, Scores], largest: float) -> Goal:
    """Against each baseline on its own, the p values adjusted, so that the best needs not be picked by its score."""
    sentence = (
        f"at {largest:.2g} it is on average {LEAST_GAIN:g} point or more above every baseline, and above each with p < "
        f"{SIGNIFICANT} (Holm)"
    )
    gains = _gains(tier, scores, largest)
    if not gains:
        return Goal(sentence, "-", None)
    is_met = all(gain >= LEAST_GAIN and p < SIGNIFICANT for gain, p in gains.values())
    return Goal(sentence, _in_words(gains), is_met)


def _gains(tier: Tier, scores: dict[str, Scores], budget: float) -> dict[str, tuple[float, float]]:
    """Points of ours above each baseline, and p after Holm; nothing where one of them cannot be told."""
    means, values = {}, []
    for name in baselines_of(tier):
        there = difference_at(scores[tier.ours], scores[name], budget)
        if there is None or there.p is None:
            return {}
        means[name] = there.mean
        values.append(there.p)
    return {name: (mean, p) for (name, mean), p in zip(means.items(), holm(values), strict=True)}


def _in_words(gains: dict[str, tuple[float, float]]) -> str:
    return ", ".join(f"{gain:+.2f} against {name} (p = {p:.2g})" for name, (gain, p) in gains.items())
