"""Which units of a tier are to be run, in which order: a function of the tier and of the results that are there.

A unit is one pre-training run of a method with what is measured of it. The order leaves a balanced comparison behind
wherever it is cut: smallest budgets first, and within a budget every method with one seed before any with the next.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from efficiency.tiers import Tier

State = Literal["done", "ready", "waiting", "failed", "dropped"]
Line = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One run.

    Attributes:
        purpose: tuning chooses the learning rate, evaluation is reported.
        method: its name.
        budget: training FLOPs; 0 for fresh weights.
        seed: of pre-training; that of fine-tuning follows from it.
        multiple: of the learning rates; ``None`` while it is not chosen.
    """

    purpose: Literal["tuning", "evaluation"]
    method: str
    budget: float
    seed: int
    multiple: float | None

    @property
    def name(self) -> str:
        """For people and directories."""
        budget = f"-{self.budget:g}" if self.budget else ""
        multiple = "" if self.multiple is None else f"-x{self.multiple:g}"
        return f"{self.method}{budget}-seed{self.seed}{multiple}"

    def is_that_of(self, line: Line) -> bool:
        """Whether a line of results is this unit's; an evaluation is done once, whatever the rates were."""
        names = ("purpose", "method", "budget", "seed", *(("multiple",) if self.purpose == "tuning" else ()))
        return all(line[name] == getattr(self, name) for name in names)


@dataclass(frozen=True)
class Planned:
    """A unit and whether it can be run now; ``share`` of such units will be, as far as is known."""

    unit: Unit
    state: State
    share: float = 1.0


def dev_score(line: Line, tasks: Collection[str]) -> float:
    """Mean over tasks of the score on dev, by which everything is chosen."""
    return statistics.fmean(line["tasks"][task]["dev"] for task in tasks)


def chosen_multiple(tier: Tier, method: str, lines: list[Line], failed: Collection[str]) -> float | None:
    """The learning-rate multiple of a method; ``None`` while its grid is not finished, or where all of it failed.

    A choice that an evaluation was run with stays, whatever comes later.
    """
    definition = tier.methods[method]
    if definition.fresh:
        return 1.0
    used = [line["multiple"] for line in lines if line["purpose"] == "evaluation" and line["method"] == method]
    if used:
        return used[0]
    if definition.learning_rate_multiple is not None or tier.rates_from is not None:
        return definition.learning_rate_multiple
    if len(tier.learning_rate_multiples) == 1:
        return tier.learning_rate_multiples[0]
    scores: dict[float, float] = {}
    for unit in _tuning_units(tier, method):
        assert unit.multiple is not None
        line = next((line for line in lines if unit.is_that_of(line)), None)
        if line is not None:
            scores[unit.multiple] = dev_score(line, tier.tasks)
        elif unit.name not in failed:
            return None
    # of equals the smaller
    return max(sorted(scores), key=lambda multiple: scores[multiple], default=None)


def _tuning_units(tier: Tier, method: str) -> list[Unit]:
    definition = tier.methods[method]
    is_fixed = definition.learning_rate_multiple is not None or tier.rates_from is not None
    if definition.fresh or is_fixed or len(tier.learning_rate_multiples) == 1:
        return []
    smallest = tier.budgets[0].flops
    return [Unit("tuning", method, smallest, tier.tuning_seed, multiple) for multiple in tier.learning_rate_multiples]


def _kept(tier: Tier, number: int, lines: list[Line], failed: Collection[str]) -> tuple[list[str] | None, float]:
    """Methods that a budget is for, ``None`` while it is open; and the share of all methods that they are.

    Ours and the reference stay, wherever they stand, and the method that a kept variant is a variant of: what goes on
    is compared with them.
    """
    names = [name for name, method in tier.methods.items() if not method.fresh]
    share = 1.0
    known: list[str] | None = names
    for earlier, budget in zip(tier.budgets, tier.budgets[1 : number + 1], strict=False):
        share *= budget.keep
        if budget.keep >= 1 or known is None:
            continue
        scores: dict[str, float] = {}
        for name in known:
            multiple = chosen_multiple(tier, name, lines, failed)
            units = [Unit("evaluation", name, earlier.flops, seed, multiple) for seed in earlier.seeds]
            found = [line for unit in units for line in lines if unit.is_that_of(line)]
            if len(found) + sum(unit.name in failed for unit in units) < len(units):
                return None, share
            if found:
                scores[name] = statistics.fmean(dev_score(line, tier.tasks) for line in found)
        count = math.ceil(budget.keep * len(known))
        best = sorted(scores, key=lambda name: -scores[name])[:count]
        beside = {tier.methods[name].rates_of for name in best} | {tier.ours, tier.reference}
        known = [name for name in known if name in best or name in beside]
    return known, share


def plan(tier: Tier, lines: list[Line], failed: Collection[str] = ()) -> list[Planned]:
    """All units of a tier in the order in which they are run.

    Args:
        tier: the tier.
        lines: results that are there.
        failed: names of units that are passed over.
    """
    return [_with_state(*entry, lines, failed) for entry in _units(tier, lines, failed)]


def open_units(planned: Collection[Planned]) -> list[Unit]:
    """Those without a result that the tier wants, units that failed included."""
    return [entry.unit for entry in planned if entry.state in ("ready", "waiting", "failed")]


def _units(tier: Tier, lines: list[Line], failed: Collection[str]) -> Iterator[tuple[Unit, bool, bool, float]]:
    """Units in order, each with whether all is known that it needs, whether it was dropped, and its share."""
    grids = {name: _tuning_units(tier, name) for name in tier.methods}
    for row in range(max((len(grid) for grid in grids.values()), default=0)):
        yield from ((grid[row], True, False, 1.0) for grid in grids.values() if row < len(grid))
    for number, budget in enumerate(tier.budgets):
        kept, share = _kept(tier, number, lines, failed)
        for seed in budget.seeds:
            for name, method in tier.methods.items():
                if method.fresh:
                    # costs nothing to pre-train, so there is one for every seed, and not one for every budget
                    if number == 0:
                        yield Unit("evaluation", name, 0.0, seed, 1.0), True, False, 1.0
                    continue
                multiple = chosen_multiple(tier, name, lines, failed)
                unit = Unit("evaluation", name, budget.flops, seed, multiple)
                is_dropped = kept is not None and name not in kept
                yield unit, kept is not None and multiple is not None, is_dropped, 1.0 if kept is not None else share


def _with_state(
    unit: Unit, is_known: bool, is_dropped: bool, share: float, lines: list[Line], failed: Collection[str]
) -> Planned:
    state: State = "ready" if is_known else "waiting"
    if is_dropped:
        state = "dropped"
    if unit.name in failed:
        state = "failed"
    line = next((line for line in lines if unit.is_that_of(line)), None)
    if line is not None:
        unit, state = dataclasses.replace(unit, multiple=line["multiple"]), "done"
    return Planned(unit, state, share)
