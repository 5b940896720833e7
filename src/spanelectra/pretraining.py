"""The command ``spanelectra pretrain``: settings -> data, model, trainer -> a run directory. Reads top to bottom."""

from __future__ import annotations

import dataclasses
import errno
import functools
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transformers import TrainingArguments

from spanelectra.atomic_files import disk_is_full
from spanelectra.busy_machine import BusyMachineCallback
from spanelectra.callbacks import (
    HealthCallback,
    HistoryCallback,
    ProgressCallback,
    RunStopped,
    SaveAndStopCallback,
    read_history,
    unprefixed,
)
from spanelectra.checkpointing import HISTORY_NAME, TENSORBOARD_DIRECTORY, checkpoint_step
from spanelectra.console import calm_transformers, make_console, say, sound_alarm
from spanelectra.data.step_sizes import StepSizes
from spanelectra.data.training_rows import ShuffledRows
from spanelectra.data.word_starts import word_start_table
from spanelectra.environment import has_bfloat16_units, process_count, process_rank
from spanelectra.errors import UserError
from spanelectra.health import HealthMonitor
from spanelectra.model_building import (
    build_model,
    compile_encoders,
    enable_gradient_checkpointing,
    start_from_cooccurrence,
    start_from_unigram,
)
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.numerical_safety import NumericalBreakdown, NumericalSafetyCallback, read_rollbacks, roll_back
from spanelectra.recipe_files import RECIPES_DIRECTORY, load_recipe
from spanelectra.reference_curves import matching_curves
from spanelectra.report.page import write_report
from spanelectra.run_data import RunData, read_data, with_step_budget
from spanelectra.run_directory import (
    advice_for_full_disk,
    alarms_at_start,
    check_run_directory,
    finished_metrics,
    settings_to_resume,
    settings_to_start,
    start_run_directory,
)
from spanelectra.run_report import describe_run, save_results
from spanelectra.several_processes import (
    check_launcher,
    connect_processors,
    lost_process,
    means_lost_process,
    wait_for_all,
)
from spanelectra.trainer import SpanElectraTrainer
from spanelectra.training_args import PretrainingArguments


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
        TrainingDiverged: where loss or gradient are no numbers any more, however often the run goes back.
        ProcessLost: where another process of the run has ended.
        OSError: with ``ENOSPC`` and a sentence, where the disk is full; the last complete checkpoint is there.
    """
    while True:
        try:
            return _pretrain(arguments)
        except NumericalBreakdown as caught:
            # its trace holds the model, whose memory the next one needs
            breakdown = caught.with_traceback(None)
        except Exception as error:
            run = Path(arguments.resume or arguments.out_dir).expanduser().resolve()
            if means_lost_process(error):
                raise lost_process(error, run) from error
            if disk_is_full(error):
                raise OSError(errno.ENOSPC, advice_for_full_disk(run)) from error
            raise
        roll_back(breakdown)
        arguments = PretrainingArguments(resume=str(breakdown.run), quiet=arguments.quiet)


def _pretrain(arguments: PretrainingArguments) -> dict[str, Any]:
    """A session of a run, from its start or a checkpoint to its end or a numerical breakdown."""
    check_launcher()
    # of several processes the first one speaks and writes
    is_first = process_rank() == 0
    console = make_console(arguments.quiet or not is_first)
    if arguments.resume:
        settings, checkpoint = settings_to_resume(arguments, console)
        finished = finished_metrics(settings, checkpoint)
        if finished is not None:
            say(console, f"{settings.out_dir} is finished already: {settings.max_steps} steps.")
            return finished
    else:
        settings, checkpoint = settings_to_start(arguments), None
        if is_first:
            check_run_directory(settings)
    run = Path(settings.out_dir)

    data = read_data(settings)
    settings = with_step_budget(settings, data.length)
    if arguments.resume:
        alarms = [*alarms_at_start(settings, data), *(entry["sentence"] for entry in read_rollbacks(run))]
    else:
        alarms = settings.settings_without_effect(corrupted_data=data.corrupted)
        if settings.stage == "discriminator" and not settings.has_weights():
            say(console, "discriminator: fresh weights (pass --generator to start from its weights)")
            alarms += _rates_for_trained_weights(settings)
        settings = dataclasses.replace(settings, **data.written)
    model = _model_of_run(settings, data, checkpoint, console)
    monitor = HealthMonitor(
        data.unigram_cross_entropy,
        settings.max_steps,
        math.ceil(settings.generator_head_start * settings.max_steps) if settings.stage == "joint" else 0,
        references=matching_curves(dataclasses.asdict(settings)),
    )
    for sentence in alarms:
        monitor.alarms.append(sentence)
        sound_alarm(console, sentence)
    if settings.torch_compile:
        reason = compile_encoders(model)
        if reason:
            say(console, reason)

    stopper = SaveAndStopCallback()
    trainer = build_trainer(settings, model, data, console, monitor, stopper)
    if settings.probe_tasks:
        _probe_while_training(trainer, settings.probe_tasks, data, console, monitor, goes_on=bool(arguments.resume))
    if is_first and not arguments.resume:
        # only now, when nothing of the settings can be wrong any more, an earlier run is deleted
        start_run_directory(settings, data, alarms)
    describe_run(console, settings, model, data, trainer)
    if checkpoint is not None:
        history = [line for line in read_history(run / HISTORY_NAME) if line["step"] <= checkpoint_step(checkpoint)]
        trainer.seconds_before_session = max([line.get("wall_seconds", 0.0) for line in history], default=0.0)
        for line in history:
            monitor.check(line["step"], unprefixed(line), held_out="eval_loss" in line)
    # the group that waits is made while all are there: made at the first checkpoint, it would wait for one that died
    wait_for_all()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException as error:
        # a bar that nobody ends hides the cursor and draws over the error
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        if stopper.received is None or not isinstance(error, NumericalBreakdown):
            raise
    finally:
        stopper.restore()
    if stopper.received is not None:
        under = " (under torchrun, as before)" if process_count() > 1 else ""
        step = trainer.state.global_step
        say(console, f"stopped at step {step}; go on with: spanelectra pretrain --resume {run}{under}")
        raise RunStopped(stopper.received)
    results = save_results(run, settings, model, data, trainer, monitor, console)
    if is_first and settings.report:
        write_report(run, console)
    return results


def _rates_for_trained_weights(settings: PretrainingArguments) -> list[str]:
    """An alarm for fresh weights at the rates of a shipped recipe for weights that a generator hands on."""
    recipe = settings.recipe or ""
    is_shipped = (RECIPES_DIRECTORY / f"{recipe}.yaml").is_file()
    given = load_recipe(recipe) if is_shipped else {}
    if given.get("stage") != "discriminator" or settings.learning_rate != given["learning_rate"]:
        return []
    return [
        f"the discriminator starts from fresh weights, at the rates of {recipe}, which are for weights that a "
        "generator has trained. Pass --generator GEN, also for rows that it has filled already, to start from them."
    ]


def _model_of_run(
    settings: PretrainingArguments, data: RunData, checkpoint: Path | None, console: Console
) -> SpanElectraForPreTraining:
    """A model to start with, or that of a checkpoint, for which nothing that the run started from is needed."""
    if checkpoint is None:
        model = build_model(
            settings, data.tokenizer, data.length, functools.partial(say, console), corrupted_data=data.corrupted
        )
        if settings.embedding_init != "random" and data.input_ids is not None and not settings.has_weights():
            special_ids = np.flatnonzero(word_start_table(data.tokenizer).special_ids)
            directional = settings.embedding_init == "directional_cooccurrence"
            say(
                console,
                start_from_cooccurrence(model, data.input_ids, special_ids, settings.seed, directional=directional),
            )
        has_fresh_generator = settings.stage != "discriminator" and not settings.init_from
        if settings.output_bias_init == "unigram" and has_fresh_generator and data.token_counts is not None:
            say(console, start_from_unigram(model, data.token_counts))
        return model
    model = SpanElectraForPreTraining.from_pretrained(checkpoint)
    if settings.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    return model


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
    calm_transformers()
    run = Path(settings.out_dir)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run / TENSORBOARD_DIRECTORY)
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        connect_processors(settings.ddp_timeout)
    bf16 = settings.bf16 == "true" or (settings.bf16 == "auto" and has_gpu and has_bfloat16_units())
    evaluates = settings.eval_steps > 0 and data.held_out_rows > 0
    scheduler_settings: dict[str, Any] = {}
    if settings.lr_scheduler_type == "warmup_stable_decay":
        scheduler_settings["num_decay_steps"] = max(1, round(settings.decay_ratio * settings.max_steps))
    args = TrainingArguments(
        output_dir=str(run),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.largest_batch(),
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
        ddp_timeout=settings.ddp_timeout,
        # heads rest while their weight is 0, and a prediction head rests where only the boundary head trains
        ddp_find_unused_parameters=True,
        disable_tqdm=True,
        report_to=["tensorboard"] if settings.tensorboard else [],
    )
    if args.n_gpu > 1:
        # without torchrun transformers would split batches among the GPUs by DataParallel, which our model is not for
        args._n_gpu = 1
        say(console, f"one GPU is used; all of them: torchrun --nproc_per_node {torch.cuda.device_count()} …")
    micro_batches = args.gradient_accumulation_steps * args.world_size
    sizes = StepSizes(settings.batch_size_schedule(), micro_batches, settings.max_steps)
    trainer = SpanElectraTrainer(
        model=model,
        args=args,
        settings=settings,
        train_dataset=ShuffledRows(data.rows, sizes, settings.seed),
        collate=data.collate,
        evaluation_rows=data.held_out_rows,
        collate_evaluation=data.collate_held_out,
        length=data.length,
        scored=data.scored,
        unigram_costs=data.unigram_costs,
        cutting=data.cutting,
        callbacks=[
            stopper,
            HistoryCallback(run / HISTORY_NAME),
            ProgressCallback(console),
            BusyMachineCallback(console),
            HealthCallback(monitor, console),
        ],
    )
    trainer.add_callback(NumericalSafetyCallback(trainer))
    return trainer


def _probe_while_training(
    trainer: SpanElectraTrainer, tasks: str, data: RunData, console: Console, monitor: HealthMonitor, goes_on: bool
) -> None:
    """Probe the encoder every so many steps; a run that goes on does so without its tasks, too, but says so.

    Raises:
        UserError: for tasks that do not fit, before anything is trained.
    """
    # scikit-learn and all that reads tasks, which a run without a probe need not wait for
    from spanelectra.finetuning.probe_callback import ProbeCallback, WaitForProbe

    steps = trainer.settings.probe_steps
    try:
        trainer.add_callback(ProbeCallback(trainer, data.tokenizer, tasks, steps, console, monitor.alarms))
    except UserError as error:
        if not goes_on:
            raise
        sentence = "the encoder is probed no more, for its tasks are not what they were at the start"
        # what is kept goes out with an export, and the error tells where the tasks lay
        monitor.alarms.append(f"{sentence}.")
        sound_alarm(console, f"{sentence}: {error}")
    trainer.add_callback(WaitForProbe(steps))
