"""Every setting of a pre-training run, in groups, with defaults, checks and the recipes that set them.

A recipe is a YAML file of these names (recipe_files.py); a flag of the same name overrides it. This file imports
neither torch nor transformers, so that asking for help is quick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from spanelectra.errors import UserError
from spanelectra.recipe_files import check_ranges, checked_value, load_recipe
from spanelectra.schedules import Schedule

Objective = Literal["mlm", "sbgo", "ato", "sbpo"]

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
class RunArguments:
    """What to run, on what, and where to put it.

    Args:
        data: directory that `spanelectra prepare` wrote, or for the discriminator stage one of `spanelectra corrupt`.
        out_dir: directory of the run; it must not hold one already.
        resume: directory of an interrupted run; it goes on with its own settings from its newest complete checkpoint.
        stage: joint training, or one of the two stages.
        method: sets the objectives and the masking; bert, spanbert and electra are the baselines.
        generator: run (or saved model) of the generator stage, for the discriminator stage.
        warm_start: how the discriminator starts from that generator.
        init_from: Hugging Face encoder to start from, instead of fresh weights; sets the encoder's shape.
        init_generator_from: the same for the generator; by default the layers of init_from.
        seed: of weights, shuffling, masks, sampling and dropout.
        ddp_timeout: seconds that processes wait for one that does not answer; one that ends is noticed at once.
        overwrite: delete a run that is in out_dir already.
        quiet: no progress, no pictures, only errors.
    """

    data: str = ""
    out_dir: str = ""
    resume: str | None = None
    stage: Literal["joint", "generator", "discriminator"] = "joint"
    method: Literal["bert", "spanbert", "electra", "spanelectra"] = "spanelectra"
    generator: str | None = None
    warm_start: Literal["full", "embeddings", "grow"] = "full"
    init_from: str | None = None
    init_generator_from: str | None = None
    seed: int = 0
    ddp_timeout: int = 300
    overwrite: bool = False
    quiet: bool = False


@dataclass
class ModelArguments:
    """The shape of the encoder that is kept, and of its generator.

    Args:
        encoder: electra (the original, post-norm) or modernbert (pre-norm, rotary positions, gated MLP).
        hidden_size: width.
        num_hidden_layers: depth.
        num_attention_heads: heads; must divide hidden_size.
        intermediate_size: width of the MLP (ModernBERT's is gated: two matrices of this width go in).
        embedding_size: width of the token embeddings, electra only; the hidden size by default.
        max_position_embeddings: longest sequence that the encoder can take; the rows' length at least.
        dropout: dropout probability in pre-training; export sets another one for fine-tuning.
        generator_size: fraction of width (and of heads) that the generator gets; by default 0.5 in joint training and
            1.0 in the generator stage and for methods without a discriminator.
        generator_depth: fraction of the layers that the generator gets.
        sharing: what generator and discriminator share in joint training.
        sampling_source: logits that replacements are drawn from.
        sampling_temperature: divides those logits.
        objectives: overrides the method's objectives: some of mlm, sbgo, ato, sbpo, such as mlm,ato.
        span_position_size: width of the boundary heads' position embeddings.
        embedding_init: how token embeddings start: random, or from which tokens occur together in the training rows
            (a decomposition of their mutual information, in seconds).
    """

    encoder: Literal["electra", "modernbert"] = "modernbert"
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    intermediate_size: int = 256
    embedding_size: int | None = None
    max_position_embeddings: int = 512
    dropout: float = 0.0
    generator_size: float | None = None
    generator_depth: float = 1.0
    sharing: Literal["embeddings", "gradient_disentangled", "encoder", "none"] = "embeddings"
    sampling_source: Literal["mlm", "sbgo", "mixed"] = "mlm"
    sampling_temperature: float = 1.0
    objectives: list[Objective] | None = None
    span_position_size: int = 64
    embedding_init: Literal["random", "cooccurrence"] = "random"


@dataclass
class MaskingArguments:
    """How rows are masked. A schedule is a number or 'progress:value' pairs such as '0:0.15 0.5:0.3'.

    Args:
        masking: spans of whole words, or single tokens; by default the method's.
        mask_ratio: share of a row's tokens that is masked, 0.15 to 0.35; a number or a schedule.
        max_span_words: longest span in words; a number or a schedule (start short: spans are hard to start from).
        span_length_probability: p of the geometric law of span lengths.
        max_span_length: longest span in tokens.
        mask_token_ratio: probability that a masked span (token) becomes [MASK]; by default the method's.
        random_token_ratio: probability that it becomes random tokens; the rest is kept.
        decoys: score SBPO on as many unmasked spans too.
    """

    masking: Literal["span", "token"] | None = None
    mask_ratio: float | str = 0.15
    max_span_words: int | str = 10
    span_length_probability: float = 0.2
    max_span_length: int = 20
    mask_token_ratio: float | None = None
    random_token_ratio: float | None = None
    decoys: bool = True


@dataclass
class OptimisationArguments:
    """Budget, optimiser and loss weights. Weights take schedules too.

    Args:
        max_steps: optimiser steps.
        max_tokens: budget in tokens instead; sets max_steps.
        per_device_train_batch_size: rows a process and micro-batch.
        gradient_accumulation_steps: micro-batches an optimiser step.
        optimizer: adamw, or muon for the matrices of the layers with AdamW for the rest.
        learning_rate: peak, of AdamW.
        muon_learning_rate: peak, of Muon's matrices.
        weight_decay: decoupled.
        adam_beta1: first moment.
        adam_beta2: second moment.
        adam_epsilon: added to the root of the second moment.
        lr_scheduler_type: linear, cosine, constant_with_warmup or warmup_stable_decay.
        warmup_ratio: fraction of the steps that warm up.
        decay_ratio: fraction of the steps that decay, for warmup_stable_decay.
        max_grad_norm: clip at this norm; 0 for none.
        max_nonfinite_steps: steps in a row whose loss or gradient is not a number, each left out, after which the run
            goes back to its last good checkpoint with half the learning rate.
        max_rollbacks: how often it may go back before it stops with a diagnosis.
        mlm_weight: weight of masked language modelling.
        sbgo_weight: weight of the span-boundary generative objective.
        ato_weight: weight of the all-token objective (50 in ELECTRA).
        sbpo_weight: weight of the span-boundary predictive objective.
        generator_head_start: fraction of the steps before the discriminator's losses switch on.
        bf16: bfloat16 autocast; auto where a GPU has it.
        torch_compile: compile the encoders; falls back to eager where there is no compiler.
        gradient_checkpointing: recompute activations to save memory.
        dataloader_num_workers: processes that mask rows ahead; masking is fast, so 0 is usually best.
    """

    max_steps: int = 1000
    max_tokens: int | None = None
    per_device_train_batch_size: int = 16
    gradient_accumulation_steps: int = 1
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 2e-3
    muon_learning_rate: float = 2e-2
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-6
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup", "warmup_stable_decay"] = "linear"
    warmup_ratio: float = 0.05
    decay_ratio: float = 0.2
    max_grad_norm: float = 1.0
    max_nonfinite_steps: int = 10
    max_rollbacks: int = 3
    mlm_weight: float | str = 1.0
    sbgo_weight: float | str = 1.0
    ato_weight: float | str = 50.0
    sbpo_weight: float | str = 10.0
    generator_head_start: float = 0.0
    bf16: Literal["auto", "true", "false"] = "auto"
    torch_compile: bool = False
    gradient_checkpointing: bool = False
    dataloader_num_workers: int = 0


@dataclass
class ReportingArguments:
    """What is shown and kept.

    Args:
        logging_steps: steps between lines of the log.
        eval_steps: steps between held-out evaluations; 0 for one at the end only.
        eval_rows: held-out rows that are evaluated.
        per_device_eval_batch_size: rows at once in evaluation.
        save_steps: steps between checkpoints; 0 for one at the end only.
        save_total_limit: newest checkpoints kept; the one with the least held-out loss is kept besides.
        probe_tasks: folder of tasks (docs/fine-tuning.md) on which the encoder is probed while it trains.
        probe_steps: steps between probes.
        tensorboard: write TensorBoard event files.
        report: write report.html at the end: one page to look at.
    """

    logging_steps: int = 50
    eval_steps: int = 500
    eval_rows: int = 512
    per_device_eval_batch_size: int = 32
    save_steps: int = 500
    save_total_limit: int = 2
    probe_tasks: str | None = None
    probe_steps: int = 1000
    tensorboard: bool = True
    report: bool = True


@dataclass
class PretrainingArguments(ReportingArguments, OptimisationArguments, MaskingArguments, ModelArguments, RunArguments):
    """All settings of a run; see the groups it is made of."""

    recipe: str | None = field(default=None, metadata={"help": "name of a shipped recipe or path of a YAML file"})

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

    def _check_that_something_trains(self) -> None:
        """At every moment of the run some objective must have a weight."""
        schedules = {name: s for name, s in self.loss_weight_schedules().items() if name in (self.objectives or ())}
        head_start = self.generator_head_start if self.stage == "joint" else 0.0
        moments = {0.0, head_start, 1.0, *(moment for s in schedules.values() for moment, _ in s.points)}
        for moment in sorted(moments | {max(0.0, moment - 1e-6) for moment in moments}):
            active = [name for name in schedules if moment >= head_start or name in ("mlm", "sbgo")]
            if schedules and not any(schedules[name](moment) > 0 for name in active):
                raise UserError(
                    f"at {moment:.0%} of the run no objective has a weight above 0: raise one of "
                    f"{', '.join(f'{name}_weight' for name in schedules)}, or shorten generator_head_start."
                )

    def _check_stage(self) -> None:
        if not self.resolved().objectives:
            needed = {"generator": "mlm, sbgo", "discriminator": "ato, sbpo"}.get(self.stage, "mlm, sbgo, ato, sbpo")
            if self.stage == "discriminator" and not {"ato", "sbpo"} & set(METHODS[self.method]["objectives"]):
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
            raise UserError(f"--generator is for --stage discriminator, not for --stage {self.stage}.")
        elif self.init_generator_from and not self.init_from:
            raise UserError("--init_generator_from goes with --init_from.")

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
            objectives = [name for name in objectives if name in ("mlm", "sbgo")]
        elif settings.stage == "discriminator":
            objectives = [name for name in objectives if name in ("ato", "sbpo")]
        filled["objectives"] = objectives
        if settings.generator_size is None:
            is_half = {"ato", "sbpo"} & set(objectives) and settings.sharing != "encoder"
            filled["generator_size"] = 0.5 if is_half else 1.0
        return dataclasses.replace(settings, **filled)

    @property
    def discriminator_objectives(self) -> list[str]:
        """Those of the objectives that train the discriminator."""
        objectives = self.objectives if self.objectives is not None else METHODS[self.method]["objectives"]
        return [name for name in objectives if name in ("ato", "sbpo")]

    def has_chosen_shape(self) -> bool:
        """Whether a setting of the encoder's shape differs from its default."""
        defaults = PretrainingArguments()
        return any(getattr(self, name) != getattr(defaults, name) for name in _SHAPE.split())

    def has_weights(self) -> bool:
        """Whether the run starts from weights that exist."""
        return self.init_from is not None or (self.stage == "discriminator" and self.generator is not None)

    def loss_weight_schedules(self) -> dict[str, Schedule]:
        """Objective -> its weight over the run, without the head start."""
        return {
            name: Schedule.parse(getattr(self, f"{name}_weight"), f"{name}_weight")
            for name in ("mlm", "sbgo", "ato", "sbpo")
        }

    def settings_without_effect(self, *, corrupted_data: bool = False) -> list[str]:
        """Settings of this (resolved) run that were chosen, against recipe and defaults, and change nothing."""
        unchosen = PretrainingArguments(**(load_recipe(self.recipe) if self.recipe else {}))
        by_method = dataclasses.replace(
            unchosen, method=self.method, stage=self.stage, objectives=self.objectives, sharing=self.sharing
        ).resolved()
        sentences: dict[str, str] = {}
        for is_idle, names, reason in self._idle_settings(corrupted_data):
            for name in names.split() if is_idle else ():
                value, default = getattr(self, name), getattr(unchosen, name)
                if value != (getattr(by_method, name) if default is None else default):
                    sentences.setdefault(name, f"{name}={value} has no effect: {reason}")
        return list(sentences.values())

    def _idle_settings(self, corrupted_data: bool) -> list[tuple[bool, str, str]]:
        """(whether they change nothing, settings, why) of a resolved run; the first reason counts."""
        objectives = set(self.objectives or ())
        joint, second = self.stage == "joint", self.stage == "discriminator"
        discriminates, continued = bool({"ato", "sbpo"} & objectives), self.init_from is not None
        by_tokens, corrupted = self.masking == "token", corrupted_data
        boundaries = bool({"sbgo", "sbpo"} & objectives) or (second and not corrupted and self.sampling_source != "mlm")
        masks = "masking mask_ratio max_span_words span_length_probability mask_token_ratio random_token_ratio"
        written, tokens = "the rows were masked and filled when they were written", "single tokens are masked"
        return [
            ("mlm" not in objectives, "mlm_weight", "MLM is not among the objectives"),
            ("sbgo" not in objectives, "sbgo_weight", "SBGO is not among the objectives"),
            ("ato" not in objectives, "ato_weight", "ATO is not among the objectives"),
            ("sbpo" not in objectives, "sbpo_weight", "SBPO is not among the objectives"),
            ("sbpo" not in objectives, "decoys", "only SBPO scores decoys"),
            (second, "generator_size generator_depth", "the generator is there already"),
            (bool(self.init_generator_from), "generator_size generator_depth", "--init_generator_from has its shape"),
            (self.has_weights() or corrupted, "embedding_init", "the embeddings come with the weights"),
            (continued, "generator_size", "the width of --init_from cannot be cut"),
            (not joint or not discriminates, "generator_head_start", "generator and discriminator train apart"),
            (not joint or not discriminates, "sharing", "nothing is there to share with"),
            (corrupted, f"sampling_source sampling_temperature {masks}", written),
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
