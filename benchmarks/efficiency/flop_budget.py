"""How many steps a budget of training FLOPs buys, the generator's included; by the formula of `spanelectra.flops`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from efficiency.tiers import Method
from spanelectra.configuration_spanelectra import SAMPLED_HEADS
from spanelectra.errors import UserError
from spanelectra.flops import row_training_flops
from spanelectra.masking_setup import masking_policy
from spanelectra.model_building import build_model
from spanelectra.training_args import PretrainingArguments


@dataclass(frozen=True)
class StepCost:
    """FLOPs of an optimiser step.

    Attributes:
        before: of a step before the discriminator joins.
        after: of one after that.
        head_start: fraction of the steps before it joins; 0 where it is there from the start, or never.
    """

    before: float
    after: float
    head_start: float = 0.0

    def total(self, steps: int, of: int | None = None) -> float:
        """FLOPs of the first ``steps`` of a run of ``of`` steps (by default of all of them)."""
        joins = math.ceil(self.head_start * (steps if of is None else of))
        return min(steps, joins) * self.before + max(0, steps - joins) * self.after

    def steps_within(self, flops: float) -> int:
        """The most steps whose FLOPs do not exceed a budget.

        Raises:
            UserError: for a budget below one step.
        """
        low, high = 0, math.floor(flops / min(self.before, self.after)) + 1
        # a longer run never costs less, for each step adds one of either kind
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

    Raises:
        UserError: for weights that switch the discriminator off within the run, which only a head start may do.
    """
    schedules = settings.loss_weight_schedules()
    discriminates = settings.discriminator_objectives
    if discriminates and all(schedules[name].minimum == 0 for name in discriminates):
        raise UserError("the discriminator's weights are 0 for some time: say so by generator_head_start instead.")
    shape = settings
    if settings.stage == "discriminator":
        assert first is not None
        # there is no generator yet to be opened: it has the shape of a joint run's, with the heads that are drawn from
        shape = dataclasses.replace(
            settings,
            stage="joint",
            sharing="none",
            objectives=[*SAMPLED_HEADS[settings.sampling_source], *discriminates],
            generator_size=first.generator_size,
            generator_depth=first.generator_depth,
        )
    with torch.device("meta"):
        model = build_model(shape, tokenizer, length, lambda sentence: None)
    model.config.freeze_generator = settings.stage == "discriminator"
    model.config.objectives = settings.objectives
    count = masking_policy(settings).capacity(length)
    rows = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
    before, after = (
        rows * row_training_flops(model, length, count, with_discriminator=joined) for joined in (False, True)
    )
    head_start = settings.generator_head_start if settings.stage == "joint" and discriminates else 0.0
    return StepCost(before if head_start else after, after, head_start)


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
        tokens = steps * settings.per_device_train_batch_size * settings.gradient_accumulation_steps * length
        plans.append(StagePlan(stage.name, steps, cost.total(steps), tokens, cost))
    return tuple(plans)
