"""The command ``spanelectra finetune``: an encoder and a task's files -> scores over seeds, and a model to ship."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spanelectra.atomic_files import write_directory, write_json
from spanelectra.callbacks import RunStopped
from spanelectra.checkpointing import METRICS_NAME, REPORT_NAME
from spanelectra.console import calm_transformers, make_console, make_results_console, say, sound_alarm, warn
from spanelectra.environment import describe_environment, process_count
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import EncoderSource, open_encoder
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.fine_tuning_directory import (
    check_run_directory,
    finished_seeds,
    seed_directory,
    start_run_directory,
)
from spanelectra.finetuning.seed_summary import format_spread, is_no_better, learned_something, rank, summarise_runs
from spanelectra.finetuning.task import Feature, Logits, Prediction, TargetScale, Task, is_label
from spanelectra.finetuning.task_data import TaskData, read_task_data
from spanelectra.finetuning.task_directory import (
    MODEL_DIRECTORY,
    fine_tuned_card,
    make_task,
    save_task_model,
    write_predictions,
)
from spanelectra.finetuning.task_models import build_task_model, fold_target_scale
from spanelectra.finetuning.task_trainer import FineTuningTrainer, peak_learning_rate
from spanelectra.flops import count_parameters
from spanelectra.interruption import stopped_by_signals
from spanelectra.memory import peak_memory_mib
from spanelectra.report.page import write_report


def finetune(arguments: FineTuningArguments) -> dict[str, Any]:
    """Fine-tune an encoder on a task, once for every seed.

    Args:
        arguments: all settings; see :class:`FineTuningArguments`.

    Returns:
        The content of ``metrics.json``: ``runs`` (every seed's scores and history), ``summary`` (mean, standard
        deviation, median), ``collapsed`` seeds, ``baseline`` (the commonest answer), ``words_alone`` (what they tell
        without order or context, or ``None``), ``data`` with fingerprints, ``config`` and ``environment``.

    Raises:
        UserError: for settings, files or models that do not fit; nothing is overwritten then.
        RunStopped: after Ctrl-C or SIGTERM; finished seeds are kept.
        TrainingDiverged: where a loss is no longer a number; finished seeds are kept.
    """
    settings = arguments.resolved()
    settings.check()
    if process_count() > 1:
        raise UserError("fine-tuning runs in one process; start it without torchrun.")
    console = make_console(settings.quiet)
    calm_transformers()
    run = check_run_directory(settings)
    source = open_encoder(settings.model, fresh=settings.random_weights)
    fitted = settings.fitted_to(source.tokenizer.model_max_length)
    task = make_task(fitted)
    data = read_task_data(task, fitted, source.tokenizer)
    inputs = {"encoder": source.fingerprint(weights=not settings.random_weights), **data.digests()}
    if fitted.dev_fraction is not None:
        # of two releases each may hold out other examples of the same file
        inputs["dev_split"] = _digest_of_inputs(task, data.splits["dev"].examples)
    learning_rate = peak_learning_rate(settings, source.encoder.config.hidden_size)
    finished = finished_seeds(run, settings, task.metric, inputs, learning_rate)
    # only now, when nothing of settings and files can be wrong any more, an earlier run is deleted
    start_run_directory(run, settings)
    _describe_run(console, source, task, fitted, data)
    if fitted.max_length != settings.max_length:
        say(console, f"max_length is {fitted.max_length}, not {settings.max_length}: more the encoder does not take")

    runs = dict(finished)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    try:
        with stopped_by_signals():
            for seed in seeds:
                if seed in finished:
                    say(console, f"seed {seed}: done already")
                    continue
                say(console, f"seed {seed}")
                best = max((rank(result, task.metric) for result in runs.values()), default=(False, float("-inf")))
                runs[seed] = _run_seed(seed, run, source, task, fitted, data, inputs, best, console)
    except RunStopped as stopped:
        kept = f"{len(runs)} of {settings.seeds} seeds are finished and kept"
        say(console, f"{stopped}; {kept}. Go on by the same command with --resume and without --overwrite.")
        raise
    results = _results([runs[seed] for seed in seeds], source, task, fitted, data)
    write_json(run / METRICS_NAME, results)
    _judge_results(console, results, run)
    if settings.report:
        write_report(run, console)
    # last: who reads it may close the pipe
    _print_scores(make_results_console(settings.quiet), results)
    return results


def _digest_of_inputs(task: Task, examples: Sequence[Any]) -> str:
    """SHA-256 in hexadecimal of the inputs of examples, in their order."""
    return hashlib.sha256("\n".join(repr(task.input_of(example)) for example in examples).encode()).hexdigest()


def _describe_run(
    console: Console, source: EncoderSource, task: Task, settings: FineTuningArguments, data: TaskData
) -> None:
    fresh = " (shape only: fresh weights)" if settings.random_weights else ""
    say(console, f"{source.name}{fresh}: {count_parameters(source.encoder) / 1e6:.2f} M parameters")
    counts = ", ".join(f"{name} {entry['examples']:,} examples" for name, entry in data.described.items())
    say(console, f"{task.kind}: {counts}; inputs of up to {settings.max_length} tokens")
    for note in task.notes():
        say(console, note)
    for remark in task.remarks:
        warn(console, remark)


def _run_seed(
    seed: int,
    run: Path,
    source: EncoderSource,
    task: Task,
    settings: FineTuningArguments,
    data: TaskData,
    inputs: dict[str, str],
    best: tuple[bool, float],
    console: Console,
) -> dict[str, Any]:
    """One seed: train, take the best weights, score in float32, save; the model where it ranks above ``best``."""
    start = time.perf_counter()
    dev = data.splits["dev"]

    def score_dev(logits: Sequence[Logits]) -> dict[str, float]:
        if task.target_scale is not None:
            logits = [task.target_scale.restored(values) for values in logits]
        task.choose(dev.examples, dev.features, logits)
        return task.score(dev.examples, task.predict(dev.examples, dev.features, logits))

    trainer = FineTuningTrainer(
        model=build_task_model(source, task, settings, seed),
        tokenizer=source.tokenizer,
        settings=settings,
        train_features=data.train_features,
        dev_features=dev.features,
        collate=task.collator(source.tokenizer),
        score_dev=score_dev,
        metric=task.metric,
        seed=seed,
        out_dir=str(run),
        console=console,
    )
    try:
        trainer.fit()
    except BaseException:
        # a bar that nobody ends hides the cursor and draws over the error
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        raise
    if task.target_scale is not None:
        _restore_units(trainer, task.target_scale, dev.features)
    result: dict[str, Any] = {"seed": seed, "dev": None, "test": None}
    predictions: dict[str, list[Prediction]] = {}
    for name, split in data.splits.items():
        # as the model ships: in float32
        logits = trainer.logits(split.features, bf16=False)
        if name == "dev":
            task.choose(split.examples, split.features, logits)
        predictions[name] = task.predict(split.examples, split.features, logits)
        result[name] = task.score(split.examples, predictions[name])
    result["collapsed"] = task.collapse(predictions["dev"])
    result |= {"best_step": trainer.best.step, "steps": trainer.state.global_step, "history": trainer.best.history}
    result |= {"learning_rate": trainer.learning_rate, "bf16": trainer.args.bf16, "inputs": inputs}
    result["seconds"] = time.perf_counter() - start
    if rank(result, task.metric) > best:
        card = fine_tuned_card(task, source.name, result)
        save_task_model(run / MODEL_DIRECTORY, trainer.model, source.tokenizer, task, card)
    with write_directory(seed_directory(run, seed), replace=True) as partial:
        for name, records in predictions.items():
            write_predictions(partial / f"predictions-{name}.jsonl", records)
        write_json(partial / METRICS_NAME, result)
    return result


def _restore_units(trainer: FineTuningTrainer, scale: TargetScale, features: Sequence[Feature]) -> None:
    """Fold the scale of the labels into the model, and see on a batch that it says the same in their units.

    Raises:
        UserError: for a model whose answer is not that of the layer that took the scale.
    """
    batch = features[: trainer.settings.eval_batch_size]
    expected = [scale.restored(logits) for logits in trainer.logits(batch, bf16=False)]
    fold_target_scale(trainer.model, scale)
    found = trainer.logits(batch, bf16=False)
    # rounding, which is coarse where matrices are multiplied in TF32, is far below a hundredth of the labels' spread
    if not np.allclose(found, expected, rtol=1e-5, atol=0.01 * scale.deviation, equal_nan=True):
        raise UserError(
            f"regression: {type(trainer.model).__name__} does not answer by its last linear layer, which should put "
            "its numbers into the units of the files. Choose an encoder of another family."
        )


def _results(
    runs: list[dict[str, Any]], source: EncoderSource, task: Task, settings: FineTuningArguments, data: TaskData
) -> dict[str, Any]:
    """The content of ``metrics.json``."""
    return {
        "task": task.kind,
        "metric": task.metric,
        "model": source.name,
        "parameters": count_parameters(source.encoder),
        "runs": runs,
        "collapsed": [result["seed"] for result in runs if result["collapsed"]],
        "summary": {name: summarise_runs(runs, name) for name in data.splits},
        "baseline": {name: dataclasses.asdict(split.baseline) for name, split in data.splits.items()},
        "words_alone": {
            name: dataclasses.asdict(split.words_alone) if split.words_alone else None
            for name, split in data.splits.items()
        },
        "data": data.described,
        "remarks": task.remarks,
        "config": dataclasses.asdict(settings),
        "environment": describe_environment(),
        "peak_memory_mib": peak_memory_mib(),
    }


def _print_scores(console: Console, results: dict[str, Any]) -> None:
    """A line for each split: the score with its spread beside those of the commonest answer and of the words alone."""
    metric, runs = results["metric"], results["runs"]
    commonest = ", the commonest of training" if is_label(results["baseline"]["dev"]["name"]) else ""
    for name, summary in results["summary"].items():
        baseline, words = results["baseline"][name], results["words_alone"][name]
        alone = f"; {words['name']}: {words['scores'][metric]:.2f}" if words else ""
        say(
            console,
            f"{name:<5} {metric} {format_spread(summary[metric])} {_of_seeds(runs, summary[metric])}"
            f"; {baseline['name']}{commonest}: {baseline['scores'][metric]:.2f}{alone}",
        )


def _of_seeds(runs: list[dict[str, Any]], summary: dict[str, Any]) -> str:
    """Of how many seeds a mean is (of all, where none trained), and their median."""
    if len(runs) == 1:
        return "(one seed, collapsed)" if runs[0]["collapsed"] else "(one seed)"
    if all(result["collapsed"] for result in runs):
        return f"over {len(runs)} seeds, all collapsed"
    count = len(summary["values"])
    of = f"{len(runs)}" if count == len(runs) else f"{count} of {len(runs)}"
    return f"over {of} seeds (median {summary['median']:.2f})"


def _judge_results(console: Console, results: dict[str, Any], run: Path) -> None:
    """Alarms and a warning for what scores alone do not say, and where the model is."""
    metric, runs = results["metric"], results["runs"]
    all_collapsed = all(result["collapsed"] for result in runs)
    left_out = "" if all_collapsed else " and is not in the mean"
    for result in runs:
        if result["collapsed"]:
            sound_alarm(
                console,
                f"seed {result['seed']} collapsed ({result['collapsed']}){left_out}: try a smaller "
                "--learning_rate, a longer --warmup_ratio or more --epochs.",
            )
        elif not learned_something(result["dev"][metric], results["baseline"]["dev"]["scores"][metric]):
            baseline = results["baseline"]["dev"]
            sound_alarm(
                console,
                f"seed {result['seed']}: {metric} {result['dev'][metric]:.2f} on dev is "
                f"{'hardly more' if result['dev'][metric] > baseline['scores'][metric] else 'no more'} than "
                f"{baseline['scores'][metric]:.2f}, {baseline['name']}: it has learned little. Try more --epochs, "
                "another --learning_rate or more examples.",
            )
        elif result["dev"].get("r2", 0.0) < 0:
            sound_alarm(
                console,
                f"seed {result['seed']}: on dev its numbers are further from the labels than the labels' mean is (r2 "
                f"{result['dev']['r2']:.2f}): they are of no use as they are. Try more --epochs"
                f"{'' if metric == 'r2' else ', or --metric r2'}.",
            )
    words = results["words_alone"]["dev"]
    if words and not all_collapsed and is_no_better(results["summary"]["dev"][metric], words["scores"][metric]):
        warn(
            console,
            f"{words['name']} scores {words['scores'][metric]:.2f} on dev, no less than these seeds: nothing shows "
            "that the encoder says more of this task than its words would. More pre-training, or on text "
            "closer to the task, may change that.",
        )
    page = f"; all seeds to look at in {run / REPORT_NAME}" if results["config"]["report"] else ""
    say(console, f"{run}: the best seed's model is in {run / MODEL_DIRECTORY}{page}")
