"""What a run says of itself: a few lines before the first step, model and ``metrics.json`` after the last."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spanelectra.atomic_files import write_directory, write_json
from spanelectra.callbacks import format_metrics
from spanelectra.checkpointing import METRICS_NAME, MODEL_DIRECTORY
from spanelectra.console import say
from spanelectra.corrupted_rows import describe_fakes
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.training_rows import RowBatch
from spanelectra.environment import has_bfloat16_instructions, library_versions, peak_device_memory_mib
from spanelectra.flops import count_parameters
from spanelectra.health import HealthMonitor
from spanelectra.memory import peak_memory_mib
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.run_data import RunData
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments

# Rows that the masks of a run are described on.
MASKS_SHOWN = 512


def describe_run(
    console: Console,
    settings: PretrainingArguments,
    model: SpanElectraForPreTraining,
    data: RunData,
    trainer: SpanElectraTrainer,
) -> None:
    """A few lines before the first step: what is trained, on what, how long."""
    parts = [
        f"{name} {count_parameters(part) / 1e6:.2f} M parameters"
        for name, part in (("generator", model.generator), ("discriminator", model.discriminator))
        if part is not None
    ]
    weights = {name: getattr(settings, f"{name}_weight") for name in settings.objectives or ()}
    # the loss that is shown is their weighted sum; a weight may be a schedule
    texts = {name: weight if isinstance(weight, str) else f"{weight:g}" for name, weight in weights.items()}
    objectives = ", ".join(name if text == "1" else f"{name} x {text}" for name, text in texts.items())
    tokens = trainer.tokens_before(settings.max_steps)
    epochs = tokens / (data.rows * data.length)
    # a method without a discriminator has one stage
    is_alone = settings.stage == "joint" and model.discriminator is None
    say(
        console,
        f"{f'recipe {settings.recipe}: ' if settings.recipe else ''}{settings.method}"
        f"{'' if is_alone else f', stage {settings.stage}'}: {', '.join(parts)} "
        f"({count_parameters(model) / 1e6:.2f} M together); objectives {objectives}",
    )
    console.print(
        f"{data.rows:,} rows of {data.length} tokens; {settings.max_steps:,} steps of {_size_of_steps(trainer)} "
        f"= {f'{tokens / 1e6:.1f} M' if tokens >= 1e5 else f'{tokens:,}'} tokens, {epochs:.2f} times the data",
        highlight=False,
    )
    head_start = math.ceil(settings.generator_head_start * settings.max_steps)
    if settings.stage == "joint" and head_start and model.discriminator is not None:
        say(console, f"the discriminator, and its losses, join at step {head_start:,}; held-out lines show them before")
    if isinstance(data.collate, DataCollatorForSpanElectra):
        say(console, _describe_masks(data.collate, min(data.rows, MASKS_SHOWN)))
    if data.written:
        say(console, describe_fakes(data.written))
    if settings.bf16 == "auto" and trainer.args.device.type == "cpu" and has_bfloat16_instructions():
        say(console, "this processor has instructions for bfloat16: --bf16 true may be faster (docs/throughput.md)")
    if epochs > 20:
        say(console, "that is many times: a smaller --max_steps may do as well, more text would do better")
    if len(texts) > 1:
        say(console, "the loss in the lines to come is the sum of all that train, each times its weight")
    if data.unigram_cross_entropy is not None and "mlm" in weights:
        say(
            console,
            f"guessing held-out tokens by frequency makes an mlm loss of {data.unigram_cross_entropy:.3f} (in nats a "
            "token, as all losses; less is better)",
        )
    say(
        console,
        "in the lines to come tok/s is tokens trained a second, mfu the share that training has of the "
        f"{trainer.peak_flops / 1e9:,.0f} GFLOP/s that matrix products reach here now",
    )
    if data.collate_held_out is None:
        console.print("no held-out rows: nothing will be evaluated (prepare with a validation split to have some)")


def _size_of_steps(trainer: SpanElectraTrainer) -> str:
    """How many tokens a step reads, or the fewest and the most; and the lengths that rows are cut to."""
    rows = trainer.sizes.batch_rows
    tokens = sorted({int(count) * trainer.sizes.micro_batches * trainer.length for count in (rows.min(), rows.max())})
    text = f"{' to '.join(f'{count:,}' for count in tokens)} tokens"
    if trainer.cutting is None:
        return text
    lengths = np.unique(trainer.cutting.lengths(np.arange(trainer.sizes.max_steps) / trainer.sizes.max_steps))
    return f"{text} (rows cut to {', '.join(map(str, lengths))})"


def _describe_masks(collate: DataCollatorForSpanElectra, rows: int) -> str:
    """What the masking at the end of the run comes to on the first rows, and how many stay below their budget."""
    numbers = np.arange(rows)
    statistics = collate.mask(*collate.read(RowBatch(numbers, np.zeros_like(numbers), 1.0))).statistics
    spans = f" in spans of {statistics.masked_tokens / max(1, statistics.masked_spans):.1f} tokens on average"
    return (
        f"masks: {statistics.masked_tokens / max(1, statistics.budget_tokens):.1%} of the budget is used"
        f"{spans if collate.policy.masking == 'span' else ''}; {statistics.rows_below_budget} of "
        f"{statistics.rows} rows have no room for all of theirs"
    )


def save_results(
    run: Path,
    settings: PretrainingArguments,
    model: SpanElectraForPreTraining,
    data: RunData,
    trainer: SpanElectraTrainer,
    monitor: HealthMonitor,
    console: Console,
) -> dict[str, Any]:
    """Save the model and ``metrics.json``."""
    # in memory, for only the first process writes the file
    history = trainer.state.log_history
    evaluations = [line for line in history if "eval_loss" in line]
    if data.held_out_rows and (not evaluations or evaluations[-1]["step"] != trainer.state.global_step):
        trainer.evaluate()
        evaluations = [line for line in history if "eval_loss" in line]
    rates = [line["tokens_per_second"] for line in history if "tokens_per_second" in line]
    utilisation = [line["model_flops_utilisation"] for line in history if "model_flops_utilisation" in line]
    metrics: dict[str, Any] = {
        "stage": settings.stage,
        "method": settings.method,
        "max_seq_length": data.length,
        "steps": trainer.state.global_step,
        "tokens": trainer.tokens_before(trainer.state.global_step),
        "tokens_per_second": sorted(rates)[len(rates) // 2] if rates else None,
        "model_flops_utilisation": sorted(utilisation)[len(utilisation) // 2] if utilisation else None,
        "training_flops": float(trainer.state.total_flos),
        "wall_seconds": trainer.wall_seconds(),
        "peak_memory_mib": peak_memory_mib(),
        "peak_device_memory_mib": peak_device_memory_mib(),
        "seed": settings.seed,
        "held_out": {
            name.removeprefix("eval_"): value
            for name, value in (evaluations[-1] if evaluations else {}).items()
            if name.startswith("eval_")
        },
        "unigram_cross_entropy": data.unigram_cross_entropy,
        "alarms": monitor.alarms,
        "versions": library_versions(),
    }
    if trainer.is_world_process_zero():
        with write_directory(run / MODEL_DIRECTORY, replace=True) as partial:
            model.save_pretrained(partial)
            data.tokenizer.save_pretrained(partial)
        write_json(run / METRICS_NAME, metrics)
        shortest = monitor.limits.warm_up_steps
        if trainer.state.global_step < shortest:
            say(console, f"fewer than {shortest} steps are too few for alarms to judge the run")
        say(console, f"{run}: finished. held-out  {format_metrics(metrics['held_out'])}")
    return metrics
