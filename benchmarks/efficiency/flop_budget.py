"""How many steps a budget of training FLOPs buys, the generator's included; by the formula of `spanelectra.flops`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from efficiency.tiers import Method
from spanelectra.configuration_spanelectra import SAMPLED_HEADS
from spanelectra.data.step_sizes import StepSizes, batch_rows_at
from spanelectra.errors import UserError
from spanelectra.masking_setup import build_cutting, masking_policy
from spanelectra.model_building import build_model
from spanelectra.run_flops import row_flops_over_run
from spanelectra.training_args import PretrainingArguments


@dataclass(frozen=True)
class StepCost:
    """FLOPs of an optimiser step, which may change over a run.

    Attributes:
        at: (n,) moments of the run, from 0 to 1 -> (n,) FLOPs of a step.
    """

    at: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def total(self, steps: int, of: int | None = None) -> float:
        """FLOPs of the first ``steps`` of a run of ``of`` steps (by default of all of them)."""
        return float(self.at(np.arange(steps) / (steps if of is None else of)).sum()) if steps else 0.0

    def steps_within(self, flops: float) -> int:
        """The most steps whose FLOPs do not exceed a budget, found by bisection.

        A longer run costs more where its steps cost ever more, or ever less, or the same; with a peak in between it may
        not, and then the answer is within the budget but not the most.

        Raises:
            UserError: for a budget below one step.
        """
        low, high = 0, 1
        while self.total(high) <= flops:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.total(middle) <= flops else (low, middle)
        if low < 1:
            raise UserError(f"a budget of {flops:.3g} FLOPs does not pay for one step of {self.total(1):.3g}.")
        return low


@dataclass(frozen=True)
class StagePlan:
    """A stage of a run: its steps, what they cost together and one by one, and the tokens they read."""

    name: str
    steps: int
    flops: float
    tokens: int
    cost: StepCost


def step_cost(
    settings: PretrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    first: PretrainingArguments | None = None,
) -> StepCost:
    """FLOPs of a step of a stage.

    Args:
        settings: resolved.
        tokenizer, length: of the rows.
        first: resolved settings of the generator stage, whose generator a discriminator stage draws from.
    """
    shape = settings
    if settings.stage == "discriminator":
        assert first is not None
        # there is no generator yet to be opened: it has the shape of a joint run's, with the heads that are drawn from
        shape = dataclasses.replace(
            settings,
            stage="joint",
            sharing="none",
            objectives=[*SAMPLED_HEADS[settings.sampling_source], *settings.discriminator_objectives],
            generator_size=first.generator_size,
            generator_depth=first.generator_depth,
        )
    with torch.device("meta"):
        model = build_model(shape, tokenizer, length, lambda sentence: None)
    model.config.freeze_generator = settings.stage == "discriminator"
    model.config.objectives = settings.objectives
    capacity = masking_policy(settings).capacity
    cutting, batch = build_cutting(tokenizer, length, settings), settings.batch_size_schedule()

    def at(progress: NDArray[np.float64]) -> NDArray[np.float64]:
        flops = row_flops_over_run(model, settings, length, cutting, capacity, progress)
        return batch_rows_at(batch, progress) * settings.gradient_accumulation_steps * flops

    return StepCost(at)


def plan_stages(method: Method, flops: float, tokenizer: PreTrainedTokenizerBase, length: int) -> tuple[StagePlan, ...]:
    """Steps of every stage of a method, which together cost the budget but for less than a step of the last one.

    What the steps of a stage leave over of its share goes to the next one. A method of fresh weights takes one step,
    from which only the shape is kept.
    """
    plans: list[StagePlan] = []
    first, allowed = method.stages[0].arguments(), 0.0
    for stage in method.stages:
        settings = stage.arguments()
        cost = step_cost(settings, tokenizer, length, first)
        allowed += stage.share * flops
        steps = 1 if method.fresh else cost.steps_within(allowed - sum(plan.flops for plan in plans))
        sizes = StepSizes(settings.batch_size_schedule(), settings.gradient_accumulation_steps, steps)
        tokens = sizes.rows_before(steps) * length
        plans.append(StagePlan(stage.name, steps, cost.total(steps), tokens, cost))
    return tuple(plans)
