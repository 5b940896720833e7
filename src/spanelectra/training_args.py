"""A run's settings as a whole: what a method and a recipe make of them, and whether they fit together.

A recipe is a YAML file of their names (recipe_files.py); a flag of the same name overrides it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from spanelectra.argument_groups import (
    DISCRIMINATOR_OBJECTIVES,
    GENERATOR_OBJECTIVES,
    OBJECTIVES,
    MaskingArguments,
    ModelArguments,
    OptimisationArguments,
    ReportingArguments,
    RunArguments,
)
from spanelectra.errors import UserError
from spanelectra.recipe_files import check_ranges, checked_value, load_recipe
from spanelectra.schedules import Schedule

# What makes a method: its objectives, its masking, and what becomes of a masked token (BERT: section 3.1; SpanBERT:
# section 3; ELECTRA: its authors' code keeps 15%, which the paper does not mention). What is kept matters: copying it
# is the first thing a model learns, and gets it off the plateau of word frequencies (docs/log.md).
METHODS: dict[str, dict[str, Any]] = {
    "bert": {"objectives": ["mlm"], "masking": "token", "mask_token_ratio": 0.8, "random_token_ratio": 0.1},
    "spanbert": {"objectives": ["mlm", "sbgo"], "masking": "span", "mask_token_ratio": 0.8, "random_token_ratio": 0.1},
    "electra": {"objectives": ["mlm", "ato"], "masking": "token", "mask_token_ratio": 0.85, "random_token_ratio": 0.0},
    "spanelectra": {
        "objectives": ["mlm", "sbgo", "ato", "sbpo"],
        "masking": "span",
        "mask_token_ratio": 0.85,
        "random_token_ratio": 0.0,
    },
}


_SHAPE = "encoder hidden_size num_hidden_layers num_attention_heads intermediate_size embedding_size"


@dataclass
class PretrainingArguments(ReportingArguments, OptimisationArguments, MaskingArguments, ModelArguments, RunArguments):
    """All settings of a run; see the groups it is made of.

    Args:
        recipe: name of a shipped recipe, or path of a YAML file of settings; flags beside it win. In Python this writes
            down where the settings are from, and :meth:`from_recipe` takes them from there.
    """

    recipe: str | None = None

    @classmethod
    def from_recipe(cls, recipe: str, **settings: Any) -> PretrainingArguments:
        """The settings of a recipe, those beside it winning.

        Raises:
            UserError: for an unknown recipe, or one that cannot be read.
        """
        return cls(**{**load_recipe(recipe), **settings, "recipe": recipe})

    def check(self) -> None:
        """Raise :class:`UserError` for a setting that is missing, out of range or at odds with another."""
        settings = self._with_checked_values()
        for name in ("data", "out_dir"):
            if not getattr(settings, name):
                raise UserError(f"{name} is missing: pass --{name} DIRECTORY.")
        check_ranges(settings)
        masked, random = settings.mask_token_ratio or 0.0, settings.random_token_ratio or 0.0
        if min(masked, random, 1 - masked - random) < -1e-9:
            raise UserError("mask_token_ratio and random_token_ratio are probabilities: 0 or more, together 1 at most.")
        for name in settings.objectives or ():
            if (settings.objectives or []).count(name) > 1:
                raise UserError(f"objectives: {name} is there twice.")
        settings._check_schedules()
        settings._check_that_something_trains()
        settings._check_stage()

    def _with_checked_values(self) -> PretrainingArguments:
        """A copy in which every value is of its setting's type."""
        kinds = get_type_hints(PretrainingArguments)
        return dataclasses.replace(
            self, **{name: checked_value(getattr(self, name), kind, name) for name, kind in kinds.items()}
        )

    def _check_schedules(self) -> None:
        for name, schedule in self.loss_weight_schedules().items():
            if schedule.minimum < 0:
                raise UserError(f"{name}_weight must not be negative.")
        ratio = Schedule.parse(self.mask_ratio, "mask_ratio")
        if ratio.minimum <= 0 or ratio.maximum > 0.5:
            raise UserError(f"mask_ratio must be above 0 and at most 0.5, got {self.mask_ratio}; 0.15 is usual.")
        words = Schedule.parse(self.max_span_words, "max_span_words")
        if words.minimum < 1 or words.maximum > 1000:
            raise UserError(f"max_span_words must be from 1 to 1000, got {self.max_span_words}.")
        if self.temperature_schedule().minimum <= 0:
            raise UserError(f"sampling_temperature must be above 0, got {self.sampling_temperature}.")
        if self.lr_scheduler_type == "warmup_stable_decay" and self.warmup_ratio + self.decay_ratio > 1:
            raise UserError(
                f"warmup_ratio {self.warmup_ratio:g} and decay_ratio {self.decay_ratio:g} are shares of the run, and "
                "together more than all of it."
            )
        if round(self.batch_size_schedule().minimum) < 1:
            raise UserError(f"per_device_train_batch_size must be at least 1, got {self.per_device_train_batch_size}.")

    def _check_that_something_trains(self) -> None:
        """At every moment of the run some objective must have a weight."""
        schedules = {name: s for name, s in self.loss_weight_schedules().items() if name in (self.objectives or ())}
        head_start = self.generator_head_start if self.stage == "joint" else 0.0
        moments = {0.0, head_start, 1.0, *(moment for s in schedules.values() for moment, _ in s.points)}
        for moment in sorted(moments | {max(0.0, moment - 1e-6) for moment in moments}):
            active = [name for name in schedules if moment >= head_start or name in GENERATOR_OBJECTIVES]
            if schedules and not any(schedules[name](moment) > 0 for name in active):
                raise UserError(
                    f"at {moment:.0%} of the run no objective has a weight above 0: raise one of "
                    f"{', '.join(f'{name}_weight' for name in schedules)}, or shorten generator_head_start."
                )

    def _check_stage(self) -> None:
        if not self.resolved().objectives:
            stages = {"generator": GENERATOR_OBJECTIVES, "discriminator": DISCRIMINATOR_OBJECTIVES}
            needed = ", ".join(stages.get(self.stage, OBJECTIVES))
            if self.stage == "discriminator" and not set(DISCRIMINATOR_OBJECTIVES) & set(
                METHODS[self.method]["objectives"]
            ):
                raise UserError(
                    "--stage discriminator needs a method that trains a discriminator (electra or spanelectra), not "
                    f"{self.method}."
                )
            raise UserError(f"objectives: name at least one of {needed} for --stage {self.stage}.")
        if self.stage == "discriminator":
            if self.init_generator_from:
                raise UserError(
                    "--init_generator_from has no place here: the discriminator stage's generator is --generator."
                )
            if self.sharing == "encoder":
                raise UserError(
                    "--sharing encoder is for joint training: the discriminator stage trains an encoder alone."
                )
        elif self.generator:
            raise UserError(
                "--generator GEN is what a discriminator starts from: add --stage discriminator (it is "
                f"{self.stage} now), or leave it out."
            )
        elif self.init_generator_from and not self.init_from:
            raise UserError("--init_generator_from goes with --init_from.")
        elif self.init_generator_from and self.resolved().discriminator_objectives and self.sharing != "none":
            raise UserError(
                "--init_generator_from has embeddings of its own, which sharing throws away: add --sharing none."
            )

    def resolved(self) -> PretrainingArguments:
        """A copy in which everything that depends on method and stage is filled in.

        Raises:
            UserError: for a value that is not of its setting's type.
        """
        settings = self._with_checked_values()
        method = METHODS[settings.method]
        filled: dict[str, Any] = {
            name: method[name] for name in method if name != "objectives" and getattr(settings, name) is None
        }
        objectives = list(settings.objectives if settings.objectives is not None else method["objectives"])
        if settings.stage == "generator":
            objectives = [name for name in objectives if name in GENERATOR_OBJECTIVES]
        elif settings.stage == "discriminator":
            objectives = [name for name in objectives if name in DISCRIMINATOR_OBJECTIVES]
        filled["objectives"] = objectives
        if settings.generator_size is None:
            is_half = set(DISCRIMINATOR_OBJECTIVES) & set(objectives) and settings.sharing != "encoder"
            filled["generator_size"] = 0.5 if is_half else 1.0
        return dataclasses.replace(settings, **filled)

    @property
    def discriminator_objectives(self) -> list[str]:
        """Those of the objectives that train the discriminator."""
        objectives = self.objectives if self.objectives is not None else METHODS[self.method]["objectives"]
        return [name for name in objectives if name in DISCRIMINATOR_OBJECTIVES]

    def has_chosen_shape(self) -> bool:
        """Whether a setting of the encoder's shape differs from its default."""
        defaults = PretrainingArguments()
        return any(getattr(self, name) != getattr(defaults, name) for name in _SHAPE.split())

    def has_weights(self) -> bool:
        """Whether the run starts from weights that exist."""
        return self.init_from is not None or (self.stage == "discriminator" and self.generator is not None)

    def loss_weight_schedules(self) -> dict[str, Schedule]:
        """Objective -> its weight over the run, without the head start."""
        return {name: Schedule.parse(getattr(self, f"{name}_weight"), f"{name}_weight") for name in OBJECTIVES}

    def loss_weights_at(self, progress: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Objective -> its weight at moments of the run, of any shape; 0 for the discriminator's in a head start."""
        weights = {name: schedule.values(progress) for name, schedule in self.loss_weight_schedules().items()}
        if self.stage == "joint":
            has_joined = progress >= self.generator_head_start
            weights.update({name: weights[name] * has_joined for name in DISCRIMINATOR_OBJECTIVES})
        return weights

    def batch_size_schedule(self) -> Schedule:
        """Rows of a micro-batch over the run, before they are rounded."""
        return Schedule.parse(self.per_device_train_batch_size, "per_device_train_batch_size")

    def largest_batch(self) -> int:
        """The most rows that a micro-batch ever has."""
        return round(self.batch_size_schedule().maximum)

    def temperature_schedule(self) -> Schedule:
        """The sampling temperature over the run."""
        return Schedule.parse(self.sampling_temperature, "sampling_temperature")

    def settings_without_effect(self, *, corrupted_data: bool = False) -> list[str]:
        """Settings of this (resolved) run that were chosen, against recipe and defaults, and change nothing."""
        unchosen = PretrainingArguments(**(load_recipe(self.recipe) if self.recipe else {}))
        by_method = dataclasses.replace(
            unchosen, method=self.method, stage=self.stage, objectives=self.objectives, sharing=self.sharing
        ).resolved()
        sentences = []
        for name, reason in self.idle_settings(corrupted_data=corrupted_data).items():
            value, default = getattr(self, name), getattr(unchosen, name)
            if value != (getattr(by_method, name) if default is None else default):
                sentences.append(f"{name}={value} has no effect: {reason}")
        return sentences

    def idle_settings(self, *, corrupted_data: bool = False) -> dict[str, str]:
        """Setting of this (resolved) run that changes nothing, chosen or not -> why."""
        reasons: dict[str, str] = {}
        for is_idle, names, reason in self._reasons_to_be_idle(corrupted_data):
            for name in names.split() if is_idle else ():
                reasons.setdefault(name, reason)
        return reasons

    def _reasons_to_be_idle(self, corrupted_data: bool) -> list[tuple[bool, str, str]]:
        """(whether they change nothing, settings, why); the first reason counts."""
        objectives = set(self.objectives or ())
        joint, second = self.stage == "joint", self.stage == "discriminator"
        discriminates, continued = bool(self.discriminator_objectives), self.init_from is not None
        by_tokens, corrupted = self.masking == "token", corrupted_data
        boundaries = bool({"sbgo", "sbpo"} & objectives) or (second and not corrupted and self.sampling_source != "mlm")
        masks = "masking mask_ratio max_span_words span_length_probability mask_token_ratio random_token_ratio"
        written, tokens = "the rows were masked and filled when they were written", "single tokens are masked"
        return [
            ("mlm" not in objectives, "mlm_weight", "MLM is not among the objectives"),
            ("sbgo" not in objectives, "sbgo_weight", "SBGO is not among the objectives"),
            ("ato" not in objectives, "ato_weight", "ATO is not among the objectives"),
            ("sbpo" not in objectives, "sbpo_weight", "SBPO is not among the objectives"),
            ("correction" not in objectives, "correction_weight", "correction is not among the objectives"),
            ("sbpo" not in objectives, "decoys", "only SBPO scores decoys"),
            (second, "generator_size generator_depth", "the generator is there already"),
            (second and not corrupted, "mask_token_ratio random_token_ratio", "a frozen generator sees [MASK] alone"),
            (bool(self.init_generator_from), "generator_size generator_depth", "--init_generator_from has its shape"),
            (self.has_weights(), "embedding_init", "the embeddings come with the weights"),
            (corrupted, "embedding_init", "only rows as `prepare` wrote them are counted"),
            (second or continued, "output_bias_init", "no generator starts from fresh weights"),
            (continued, "generator_size", "the width of --init_from cannot be cut"),
            (not joint or not discriminates, "generator_head_start", "generator and discriminator train apart"),
            (not joint or not discriminates, "sharing", "nothing is there to share with"),
            (corrupted, f"sampling_source sampling_temperature sequence_length {masks}", written),
            (not discriminates, "sampling_temperature", "nothing is sampled"),
            # the first stage hands its source on to `spanelectra corrupt`
            (not discriminates and joint, "sampling_source", "nothing is sampled"),
            (by_tokens, "max_span_words span_length_probability", tokens),
            (by_tokens and not boundaries and not corrupted, "max_span_length", tokens),
            (not boundaries, "span_position_size", "no objective predicts from span boundaries"),
            (self.probe_tasks is None, "probe_steps", "there are no --probe_tasks"),
            (self.optimizer != "muon", "muon_learning_rate", "the optimiser is AdamW"),
            (self.lr_scheduler_type != "warmup_stable_decay", "decay_ratio", "only warmup_stable_decay decays apart"),
            (not second, "warm_start", "only the discriminator stage starts from a generator"),
            (continued, "warm_start", "the discriminator starts from --init_from"),
            (self.generator is None, "warm_start", "there is no --generator to start from"),
            (
                second and self.generator is not None and not self.has_chosen_shape(),
                "max_position_embeddings dropout",
                "the discriminator takes the generator's shape and dropout",
            ),
            (continued, f"{_SHAPE} max_position_embeddings dropout", "--init_from brings its shape and dropout"),
        ]
