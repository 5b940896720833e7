"""The command ``spanelectra probe``: in minutes, what an encoder is good for, one line a task."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table

from spanelectra.atomic_files import write_json
from spanelectra.console import calm_transformers, make_console, make_results_console, say, sound_alarm
from spanelectra.environment import describe_environment
from spanelectra.errors import UserError
from spanelectra.finetuning.encoder_source import open_encoder
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.linear_probe import fresh_encoder
from spanelectra.finetuning.task_bench import read_benches
from spanelectra.finetuning.task_folder import read_task_folder


def probe(
    model: str,
    tasks: str,
    out: str | None = None,
    only: list[str] | None = None,
    train_examples: int = 2000,
    fine_tune: bool = True,
    epochs: float = 3.0,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe an encoder on a folder of tasks: a linear classifier on every frozen layer, and a quick fine-tuning.

    Args:
        model: a run, an export, or any Hugging Face encoder.
        tasks: folder with a subfolder for every task (see `docs/fine-tuning.md`).
        out: JSON file to write.
        only: names of the tasks to take; by default all.
        train_examples: examples that are trained on, drawn by the seed.
        fine_tune: also fine-tune, on as many examples.
        epochs: of the fine-tuning.
        seed: of the examples, of the fresh encoder that is compared with, and of the fine-tuning.
        overwrite: replace an earlier file.
        quiet: print nothing.

    Returns:
        ``tasks``: for each its ``metric``, the ``baseline`` (commonest answer), ``layers`` and ``fresh_layers`` (the
        linear probe of the encoder and of fresh weights of its shape, from the embeddings up; ``None`` for question
        answering), ``finetuned`` and ``collapsed`` (the one answer of a fine-tuning that failed, in words).

    Raises:
        UserError: for a model, a task or a file that does not fit.
    """
    console = make_console(quiet)
    target = None if out is None else Path(out).expanduser()
    if target is not None and target.exists() and not overwrite:
        raise UserError(f"out '{out}' exists; choose another name, or replace it with --overwrite.")
    if train_examples < 2:
        raise UserError(f"train_examples must be at least 2, got {train_examples}.")
    calm_transformers()
    chosen = {
        name: dataclasses.replace(
            settings, max_train_examples=train_examples, seed=seed, epochs=epochs, quiet=True
        ).resolved()
        for name, settings in read_task_folder(tasks, model, only).items()
    }
    source = open_encoder(model)
    benches = read_benches(chosen, source.tokenizer)
    encoder = source.encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    fresh = fresh_encoder(encoder, seed)
    table = Table(title=source.name, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left")
    for heading in ("task", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("training's\ncommonest", "fresh\nweights", "best (its\nlayer)", "last\nlayer", "fine-\ntuned"):
        table.add_column(heading, justify="right", no_wrap=True)
    results: dict[str, Any] = {}
    for name, bench in benches.items():
        say(console, f"{name} …")
        for remark in bench.task.remarks:
            say(console, f"  {remark}")
        # first what takes seconds and may refuse
        layers, fresh_layers = (bench.layers(probed, source.tokenizer) for probed in (encoder, fresh))
        tuned = _quick_fine_tuning(chosen[name]) if fine_tune else {}
        results[name] = {
            "metric": bench.task.metric,
            "baseline": bench.baseline,
            "layers": layers,
            "fresh_layers": fresh_layers,
            "finetuned": tuned["dev"][bench.task.metric] if tuned else None,
            "collapsed": tuned.get("collapsed"),
        }
        table.add_row(name, *_cells(results[name]))
    for name, result in results.items():
        if result["collapsed"]:
            sound_alarm(console, f"{name}: the fine-tuning collapsed ({result['collapsed']}).")
    content = {"model": source.name, "tasks": results, "train_examples": train_examples, "seed": seed}
    content["environment"] = describe_environment()
    try:
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, content)
            say(console, f"{target}: written")
    finally:
        # last, for who reads it may close the pipe; and also where nothing can be written
        make_results_console(quiet).print(table)
    return content


def _quick_fine_tuning(settings: FineTuningArguments) -> dict[str, Any]:
    """Results of one short fine-tuning, of which nothing is kept."""
    with tempfile.TemporaryDirectory() as directory:
        results = finetune(dataclasses.replace(settings, out_dir=str(Path(directory) / "run"), report=False))
    return results["runs"][0]


def _cells(result: dict[str, Any]) -> list[str]:
    """A table's row after the task's name."""
    layers, fresh = result["layers"], result["fresh_layers"]
    best = "-" if layers is None else f"{max(layers):.1f} ({layers.index(max(layers))})"
    numbers = (result["baseline"], None if fresh is None else max(fresh))
    cells = [result["metric"], *("-" if number is None else f"{number:.1f}" for number in numbers), best]
    last = None if layers is None else layers[-1]
    return cells + ["-" if number is None else f"{number:.1f}" for number in (last, result["finetuned"])]
