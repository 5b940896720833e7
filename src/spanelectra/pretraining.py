"""The command ``spanelectra pretrain``: settings -> data, model, trainer -> a run directory. Reads top to bottom."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainingArguments
from transformers.utils import logging as transformers_logging

from spanelectra.atomic_files import write_directory, write_json, write_text
from spanelectra.callbacks import (
    HealthCallback,
    HistoryCallback,
    ProgressCallback,
    RunStopped,
    SaveAndStopCallback,
    format_metrics,
    read_history,
    unprefixed,
)
from spanelectra.checkpointing import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    HISTORY_NAME,
    METRICS_NAME,
    MODEL_DIRECTORY,
    TOKENIZER_DIRECTORY,
    checkpoint_step,
    holds_run,
    newest_complete_checkpoint,
)
from spanelectra.console import make_console, say, sound_alarm
from spanelectra.corrupted_rows import CorruptedRows, is_corrupted_data
from spanelectra.data.packing import RowDataset, unigram_cross_entropy
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.data.training_rows import RowBatch, ShuffledRows
from spanelectra.environment import (
    describe_environment,
    library_versions,
    peak_memory_mib,
    process_count,
    process_rank,
)
from spanelectra.errors import UserError
from spanelectra.flops import count_parameters
from spanelectra.health import HealthMonitor
from spanelectra.masking_setup import build_collator
from spanelectra.model_building import build_model, compile_encoders
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments, as_yaml, load_recipe

Collate = Callable[[RowBatch], dict[str, Tensor]]


@dataclass
class RunData:
    """What a run reads.

    Attributes:
        tokenizer: of the rows.
        length: tokens in a row.
        rows: number of training rows.
        collate: row batch -> model inputs.
        held_out_rows: number of held-out rows.
        collate_held_out: the same for them; ``None`` without any.
        unigram_cross_entropy: nats a token of guessing by frequency on held-out text; ``None`` if unknown.
        corrupted: whether the rows hold fake spans already.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    rows: int
    collate: Collate
    held_out_rows: int
    collate_held_out: Collate | None
    unigram_cross_entropy: float | None
    corrupted: bool = False


def pretrain(arguments: PretrainingArguments) -> dict[str, Any]:
    """Pre-train a generator, a discriminator, or both together.

    Args:
        arguments: all settings; see :class:`PretrainingArguments`.

    Returns:
        The content of ``metrics.json``: final held-out metrics, tokens seen, tokens/s, wall seconds, peak memory, seed,
        versions and health alarms.

    Raises:
        UserError: for settings, data or directories that do not fit; nothing is overwritten then.
        RunStopped: after SIGTERM or Ctrl-C, with a checkpoint written.
        TrainingDiverged: where a loss is no longer a number.
    """
    # of several processes the first one speaks and writes
    is_first = process_rank() == 0
    console = make_console(arguments.quiet or not is_first)
    checkpoint = None
    if arguments.resume:
        settings, checkpoint = _settings_to_resume(arguments.resume, console)
        finished = _finished_metrics(settings, checkpoint)
        if finished is not None:
            say(console, f"{settings.out_dir} is finished already: {settings.max_steps} steps.")
            return finished
    else:
        settings = arguments.resolved()
        settings.check()
    run = Path(settings.out_dir)

    data = read_data(settings)
    settings = _with_step_budget(settings, data.length)
    if is_first and not arguments.resume:
        _prepare_run_directory(run, settings)
    report = functools.partial(say, console)
    model = build_model(settings, data.tokenizer, data.length, report, corrupted_data=data.corrupted)
    monitor = HealthMonitor(
        data.unigram_cross_entropy,
        settings.max_steps,
        math.ceil(settings.generator_head_start * settings.max_steps) if settings.stage == "joint" else 0,
    )
    for sentence in settings.settings_without_effect(corrupted_data=data.corrupted):
        monitor.alarms.append(sentence)
        sound_alarm(console, sentence)
    if is_first and not arguments.resume:
        write_text(run / CONFIG_NAME, as_yaml(settings))
        write_json(run / ENVIRONMENT_NAME, describe_environment())
    # also where a kill came between the two
    if is_first and not (run / TOKENIZER_DIRECTORY).is_dir():
        data.tokenizer.save_pretrained(run / TOKENIZER_DIRECTORY)
    if settings.torch_compile:
        reason = compile_encoders(model)
        if reason:
            say(console, reason)

    stopper = SaveAndStopCallback()
    trainer = build_trainer(settings, model, data, console, monitor, stopper)
    _describe_run(console, settings, model, data, trainer)
    if checkpoint is not None:
        history = [line for line in read_history(run / HISTORY_NAME) if line["step"] <= checkpoint_step(checkpoint)]
        trainer.seconds_before_session = max([line.get("wall_seconds", 0.0) for line in history], default=0.0)
        for line in history:
            monitor.check(line["step"], unprefixed(line))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        # a bar that nobody ends hides the cursor and draws over the error
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        raise
    finally:
        stopper.restore()
    if stopper.received is not None:
        say(console, f"stopped at step {trainer.state.global_step}; go on with: spanelectra pretrain --resume {run}")
        raise RunStopped(stopper.received)
    return _finish(run, settings, model, data, trainer, monitor, console)


def read_data(settings: PretrainingArguments) -> RunData:
    """Open prepared rows, or corrupted ones, and check that they suit the settings."""
    if is_corrupted_data(settings.data):
        return _read_corrupted_data(settings)
    rows, held_out = RowDataset(settings.data, "train"), RowDataset(settings.data, "validation")
    if settings.stage == "discriminator" and not settings.generator:
        raise UserError("--stage discriminator needs --generator GEN to draw samples from, or --data of `corrupt`.")
    tokenizer = rows.tokenizer()
    unigram = None
    if len(held_out):
        special_ids = word_start_table(tokenizer).special_ids
        unigram = unigram_cross_entropy(rows.token_counts, held_out.input_ids[: settings.eval_rows], special_ids)
    return RunData(
        tokenizer=tokenizer,
        length=rows.max_seq_length,
        rows=len(rows),
        collate=build_collator(rows, settings),
        held_out_rows=min(len(held_out), settings.eval_rows),
        collate_held_out=build_collator(held_out, settings, held_out=True) if len(held_out) else None,
        unigram_cross_entropy=unigram,
    )


def _read_corrupted_data(settings: PretrainingArguments) -> RunData:
    if settings.stage != "discriminator":
        raise UserError(f"{settings.data} holds corrupted rows, which only --stage discriminator takes.")
    train, held_out = (CorruptedRows(settings.data, split, settings.decoys) for split in ("train", "validation"))
    if train.metadata["max_span_length"] > settings.max_span_length:
        raise UserError(
            f"{settings.data} has spans of up to {train.metadata['max_span_length']} tokens: set --max_span_length so."
        )
    tokenizer = load_tokenizer(str(Path(settings.data) / TOKENIZER_DIRECTORY))
    return RunData(
        tokenizer=tokenizer,
        length=train.max_seq_length,
        rows=len(train),
        collate=train.collate,
        held_out_rows=min(len(held_out), settings.eval_rows),
        collate_held_out=held_out.collate if len(held_out) else None,
        unigram_cross_entropy=None,
        corrupted=True,
    )


def _with_step_budget(settings: PretrainingArguments, length: int) -> PretrainingArguments:
    """Turn a budget in tokens into steps."""
    if settings.max_tokens is None:
        return settings
    rows_per_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * process_count()
    steps = math.ceil(settings.max_tokens / (rows_per_step * length))
    return dataclasses.replace(settings, max_steps=steps, max_tokens=None)


def _prepare_run_directory(run: Path, settings: PretrainingArguments) -> None:
    """Make sure that no earlier run is lost."""
    if holds_run(run):
        if not settings.overwrite:
            raise UserError(
                f"{run} holds a run already. Go on with it by `spanelectra pretrain --resume {run}`, choose another "
                "--out_dir, or pass --overwrite to delete it."
            )
        shutil.rmtree(run)
    elif run.is_file() or (run.is_dir() and any(run.iterdir())):
        raise UserError(f"{run} is not empty and holds no run; choose another --out_dir.")
    run.mkdir(parents=True, exist_ok=True)


def _settings_to_resume(directory: str, console: Console) -> tuple[PretrainingArguments, Path | None]:
    """The settings of an interrupted run and its newest complete checkpoint, ``None`` if it wrote none yet."""
    run = Path(directory)
    if not (run / CONFIG_NAME).is_file():
        raise UserError(f"--resume {run}: no run there ({CONFIG_NAME} is missing).")
    settings = PretrainingArguments(**load_recipe(str(run / CONFIG_NAME)))
    # the run may have been moved since
    settings.out_dir = str(run)
    environment = run / ENVIRONMENT_NAME
    started = json.loads(environment.read_text(encoding="utf-8")).get("processes", 1) if environment.is_file() else None
    if started not in (None, process_count()):
        raise UserError(
            f"--resume {run}: it was started with {started} process(es), not {process_count()}, and would see other "
            f"rows. Resume it with as many: torchrun --nproc_per_node {started} -m spanelectra.cli pretrain …"
        )
    checkpoint, passed_over = newest_complete_checkpoint(run)
    for sentence in passed_over:
        say(console, sentence)
    say(console, f"resuming {run} from {checkpoint.name if checkpoint else 'its start: no checkpoint was written'}")
    return settings, checkpoint


def _finished_metrics(settings: PretrainingArguments, checkpoint: Path | None) -> dict[str, Any] | None:
    metrics = Path(settings.out_dir) / METRICS_NAME
    if checkpoint is None or checkpoint_step(checkpoint) < settings.max_steps or not metrics.is_file():
        return None
    return json.loads(metrics.read_text(encoding="utf-8"))


def build_trainer(
    settings: PretrainingArguments,
    model: SpanElectraForPreTraining,
    data: RunData,
    console: Console,
    monitor: HealthMonitor,
    stopper: SaveAndStopCallback,
) -> SpanElectraTrainer:
    """Put transformers' arguments, callbacks and our trainer together."""
    # our own console says what transformers would repeat
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    run = Path(settings.out_dir)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / "tensorboard")
    has_gpu = torch.cuda.is_available()
    bf16 = settings.bf16 == "true" or (settings.bf16 == "auto" and has_gpu and torch.cuda.is_bf16_supported())
    evaluates = settings.eval_steps > 0 and data.held_out_rows > 0
    scheduler_settings: dict[str, Any] = {}
    if settings.lr_scheduler_type == "warmup_stable_decay":
        scheduler_settings["num_decay_steps"] = max(1, round(settings.decay_ratio * settings.max_steps))
    args = TrainingArguments(
        output_dir=str(run),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        lr_scheduler_kwargs=scheduler_settings,
        warmup_steps=math.ceil(settings.warmup_ratio * settings.max_steps),
        max_grad_norm=settings.max_grad_norm,
        logging_strategy="steps",
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_steps if evaluates else None,
        save_strategy="steps",
        save_steps=settings.save_steps or settings.max_steps,
        bf16=bf16,
        use_cpu=not has_gpu,
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_num_workers=settings.dataloader_num_workers,
        dataloader_pin_memory=has_gpu,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=[],
        # heads rest while their weight is 0, and a prediction head rests where only the boundary head trains
        ddp_find_unused_parameters=True,
        disable_tqdm=True,
        report_to=["tensorboard"] if settings.tensorboard else [],
    )
    if args.n_gpu > 1:
        # without torchrun transformers would split batches among the GPUs by DataParallel, which our model is not for
        args._n_gpu = 1
        say(console, f"one GPU is used; all of them: torchrun --nproc_per_node {torch.cuda.device_count()} …")
    rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return SpanElectraTrainer(
        model=model,
        args=args,
        settings=settings,
        train_dataset=ShuffledRows(data.rows, rows_per_step, settings.max_steps, settings.seed),
        collate=data.collate,
        evaluation_rows=data.held_out_rows,
        collate_evaluation=data.collate_held_out,
        length=data.length,
        callbacks=[
            stopper,
            HistoryCallback(run / HISTORY_NAME),
            ProgressCallback(console),
            HealthCallback(monitor, console),
        ],
    )


def _describe_run(
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
    tokens = settings.max_steps * trainer.tokens_per_step
    epochs = tokens / (data.rows * data.length)
    say(
        console,
        f"{settings.method}, stage {settings.stage}: {', '.join(parts)} "
        f"({count_parameters(model) / 1e6:.2f} M together); objectives {', '.join(settings.objectives or ())}",
    )
    console.print(
        f"{data.rows:,} rows of {data.length} tokens; {settings.max_steps:,} steps of {trainer.tokens_per_step:,} "
        f"tokens = {tokens / 1e6:.1f} M tokens, {epochs:.2f} times the data",
        highlight=False,
    )
    if data.unigram_cross_entropy is not None:
        console.print(
            f"guessing held-out tokens by frequency costs {data.unigram_cross_entropy:.3f} nats each", highlight=False
        )
    if data.collate_held_out is None:
        console.print("no held-out rows: nothing will be evaluated (prepare with a validation split to have some)")


def _finish(
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
        "steps": trainer.state.global_step,
        "tokens": trainer.state.global_step * trainer.tokens_per_step,
        "tokens_per_second": sorted(rates)[len(rates) // 2] if rates else None,
        "model_flops_utilisation": sorted(utilisation)[len(utilisation) // 2] if utilisation else None,
        "training_flops": float(trainer.state.total_flos),
        "wall_seconds": trainer.wall_seconds(),
        "peak_memory_mib": peak_memory_mib(),
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
        say(console, f"{run}: finished. held-out  {format_metrics(metrics['held_out'])}")
    return metrics
