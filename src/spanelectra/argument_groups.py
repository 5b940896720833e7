"""Every setting of a pre-training run, in groups, with its meaning and its default.

This file imports neither torch nor transformers, so that asking for help is quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Objective = Literal["mlm", "sbgo", "ato", "sbpo", "correction"]
GENERATOR_OBJECTIVES = ("mlm", "sbgo")
DISCRIMINATOR_OBJECTIVES = ("ato", "sbpo", "correction")
OBJECTIVES = get_args(Objective)


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
        sampling_temperature: divides those logits; a number or a schedule such as '0:2 1:1' (Fast-ELECTRA: a trained
            generator's fakes are easy at first). Held-out rows are filled at the value of the run's end.
        objectives: overrides the method's objectives, such as mlm,ato; correction, of no method's, can be added.
        span_position_size: width of the boundary heads' position embeddings.
        embedding_init: how token embeddings start: random, or from which tokens occur together in the training rows
            (a decomposition of their mutual information, in seconds); directional_cooccurrence tells neighbours to the
            left and to the right apart.
        output_bias_init: how the biases of the vocabulary projection start: zero, or the logarithms of the tokens'
            frequencies in the training rows, so that frequencies need not be learned.
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
    sampling_temperature: float | str = 1.0
    objectives: list[Objective] | None = None
    span_position_size: int = 64
    embedding_init: Literal["random", "cooccurrence", "directional_cooccurrence"] = "random"
    output_bias_init: Literal["zero", "unigram"] = "zero"


@dataclass
class MaskingArguments:
    """How rows are masked.

    A schedule is 'progress:value' pairs: '0:0.15 0.5:0.3' rises over the first half of the run and then stays,
    '0:0.15 0.5:0.15 0.5:0.3' jumps in the middle.

    Args:
        masking: spans of whole words, or single tokens; by default the method's.
        mask_ratio: share of a row's tokens that is masked, above 0 and at most 0.5, 0.15 to 0.35 as a rule; a number or
            a schedule.
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
        per_device_train_batch_size: rows a process and micro-batch; a number or a schedule such as '0:4 0.5:16'.
        sequence_length: tokens in a row while it is trained on, by default all of them; a number or a schedule such as
            '0:32 0.3:32 0.3:128'. Rows are cut into equal parts, so a step reads as many tokens as with whole ones;
            held-out rows stay whole.
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
        correction_weight: weight of the correction objective (the discriminator names what replaced tokens were).
        generator_head_start: fraction of the steps before the discriminator's losses switch on.
        bf16: bfloat16 autocast; auto where a GPU has it. Processors with instructions for it may gain from true.
        torch_compile: compile the encoders; falls back to eager where there is no compiler.
        gradient_checkpointing: recompute activations to save memory.
        dataloader_num_workers: processes that mask rows ahead; masking is fast, so 0 is usually best.
    """

    max_steps: int = 1000
    max_tokens: int | None = None
    per_device_train_batch_size: int | str = 16
    sequence_length: int | str | None = None
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
    correction_weight: float | str = 1.0
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
