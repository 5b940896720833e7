"""The goal of the experiment in four sentences, each with what was found and whether it is met."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from efficiency.comparisons import Line, Scores, flops_needed, holm, paired_differences, scores_of
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


def _best_at_the_largest(tier: Tier, scores: dict[str, Scores], largest: float) -> Goal:
    """Against each baseline on its own, the p values adjusted, so that the best needs not be picked by its score."""
    sentence = f"at {largest:.2g} it beats every baseline by {LEAST_GAIN:g} point or more, outside the noise of seeds"
    found = {}
    for name in baselines_of(tier):
        differences = paired_differences(scores[tier.ours], scores[name])
        there = next((difference for difference in differences if difference.budget == largest), None)
        if there is None or there.p is None:
            return Goal(sentence, "-", None)
        found[name] = there
    adjusted = holm([difference.p for difference in found.values() if difference.p is not None])
    shown = ", ".join(
        f"{difference.mean:+.2f} against {name} (p = {p:.2g})"
        for (name, difference), p in zip(found.items(), adjusted, strict=True)
    )
    is_met = all(difference.mean >= LEAST_GAIN for difference in found.values()) and max(adjusted) < SIGNIFICANT
    return Goal(sentence, f"{shown}; p adjusted by Holm", is_met)
