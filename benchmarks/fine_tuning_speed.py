"""What batches of similar length bring in fine-tuning: the steps of `spanelectra finetune`, padded less and more.

    python benchmarks/fine_tuning_speed.py --tasks TASKS --json docs/fine-tuning-speed.json --page

``TASKS`` is a folder with sst2/train.tsv, sst2/dev.tsv, conll2003/eng.train and conll2003/eng.testa, as their authors
publish them; ``--sst2_train`` and its like name files elsewhere. The encoder is an ELECTRA of 128 x 4 with fresh
weights and a WordPiece vocabulary of 10,000 from the task's own training text: speed does not depend on what it knows.

Every turn is a `FineTuningTrainer` of its own that trains on a megabatch: as many batches as its sampler sorts by
length together, so that short and long ones are in every turn. With the same seed the same examples come in the same
batches; only how they are padded differs, and every turn checks that. Ratios are taken within a round. A third way, a
random order padded to the longest of each batch, is what transformers' Trainer does by default, and so what most people
have: that ratio tells what the grouping brings. Its examples are others. An epoch's order is made before its first
step; what it takes, sorting by length included, is measured apart and counted, a step's share of it for every step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from checked_out import at, checked_out
from fine_tuning_turns import (
    EIGHT_AT_ONCE,
    GROUPED,
    PADDED,
    RANDOM,
    Bench,
    CountingCollator,
    padded_batches,
)
from results_page import replace_section, table
from rounds import by_turns, shown, summary
from spanelectra.console import calm_transformers
from spanelectra.environment import describe_environment
from spanelectra.finetuning.task_trainer import use_bfloat16
from spanelectra.memory import keep_freed_memory

ROOT = Path(__file__).parent.parent
FILES = {
    "sst2": {"train": "sst2/train.tsv", "dev": "sst2/dev.tsv"},
    "conll2003": {"train": "conll2003/eng.train", "dev": "conll2003/eng.testa"},
}
TARGET = 2.0


def measure_training(bench: Bench, rounds: int) -> dict[str, Any]:
    """Seconds of the same steps, three ways by turns."""
    ways = [GROUPED, PADDED, RANDOM]
    for way in ways:
        bench.train(way, 1000, 2)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ordering: dict[str, list[float]] = {way: [] for way in ways}
    tokens, places = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for number in range(rounds):
        held = {}
        for way in by_turns(ways, number):
            ordering[way].append(bench.ordering(way, number))
            taken, collate = bench.train(way, number, bench.steps)
            seconds[way].append(taken + bench.steps * ordering[way][-1])
            held[way] = collate.tokens[: bench.steps]
            tokens[way] += sum(held[way])
            places[way] += sum(collate.places[: bench.steps])
        if held[GROUPED] != held[PADDED]:
            raise AssertionError(f"round {number}: not the same batches")
    return {
        "steps_a_round": bench.steps,
        "batch_size": bench.settings.batch_size,
        "rows": make_rows(seconds, bench.steps * bench.settings.batch_size, GROUPED),
        "padding": {way: 1 - tokens[way] / places[way] for way in ways},
        "ordering_share": {way: bench.steps * sum(ordering[way]) / sum(seconds[way]) for way in ways},
    }


def measure_evaluation(bench: Bench, rounds: int, examples: int) -> dict[str, Any]:
    """Seconds to score a random part of dev; that the answers are the same is measured, too."""
    features = bench.data.splits["dev"].features
    drawn = np.random.default_rng(0).permutation(len(features))[:examples].tolist()
    features = [features[index] for index in sorted(drawn)]
    trainer = bench.trainer(CountingCollator(bench.task.collator(bench.source.tokenizer), None), 0)
    size = bench.settings.eval_batch_size
    ways: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        GROUPED: contextlib.nullcontext,
        PADDED: lambda: padded_batches(bench.length, size),
        EIGHT_AT_ONCE: lambda: padded_batches(bench.length, 8),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers: dict[str, list[Any]] = {}
    for number in range(rounds + 1):
        for way in by_turns(list(ways), number):
            # the first round, which warms up, on a few
            part = features[: 2 * size] if number == 0 else features
            start = time.perf_counter()
            with ways[way]():
                answers[way] = trainer.logits(part)
            seconds[way].append(time.perf_counter() - start)
    gaps = [float(np.abs(ours - padded).max()) for ours, padded in zip(answers[GROUPED], answers[PADDED], strict=True)]
    return {
        "batch_size": size,
        "rows": make_rows({way: values[1:] for way, values in seconds.items()}, len(features), GROUPED),
        "largest_difference_of_logits": max(gaps),
    }


def make_rows(seconds: dict[str, list[float]], examples: int, ours: str) -> list[dict[str, Any]]:
    """One dictionary a way: examples/s, and how many times as long as ours it takes."""
    return [
        {
            "name": way,
            "examples_per_second": summary([examples / value for value in values]),
            "times_ours": summary([value / own for value, own in zip(values, seconds[ours], strict=True)]),
        }
        for way, values in seconds.items()
    ]


def section(result: dict[str, Any]) -> str:
    """The Markdown of all tasks."""
    environment, versions = result["environment"], result["environment"]["versions"]
    lines = [
        f"## Fine-tuning, {environment['processor']}, threads: {environment['threads']}",
        "",
        "Written by `python benchmarks/fine_tuning_speed.py --page`; every figure is in "
        "[fine-tuning-speed.json](fine-tuning-speed.json). An ELECTRA encoder of 128 x 4 with a vocabulary of 10,000, "
        f"fresh weights, dropout 0.1, {'bfloat16' if result['bf16'] else 'float32'}. Medians of rounds (middle half), "
        f"{at(result['checked_out'])}. torch {versions['torch']}, transformers {versions['transformers']}; load of the "
        f"machine before: {result['load']:.1f}.",
    ]
    for name, found in result["tasks"].items():
        train, score = found["training"], found["evaluation"]
        rows = [
            [
                f"{kind}: {row['name']}",
                shown(row["examples_per_second"], ",.0f"),
                f"{train['padding'][row['name']]:.0%}" if kind == "training" else "-",
                shown(row["times_ours"]),
            ]
            for kind, part in (("training", train), ("scoring", score))
            for row in part["rows"]
        ]
        ratios = {row["name"]: row["times_ours"] for row in train["rows"]}
        verdict = "met" if ratios[PADDED]["median"] > TARGET else "missed"
        lines += [
            "",
            f"### {name}: {found['tokens_an_example']:.0f} tokens an example, maximum {found['max_length']}",
            "",
            table(["", "examples/s", "padding", "times as long"], rows),
            "",
            f"Rounds of {train['steps_a_round']} steps of {train['batch_size']}; scored are {found['scored']:,} of "
            f"dev, {score['batch_size']} at once, in inference mode. Largest difference of a logit by padding: "
            f"{score['largest_difference_of_logits']:.1g}. Making the order is counted: "
            f"{train['ordering_share'][GROUPED]:.3%} of our time, {train['ordering_share'][RANDOM]:.3%} of a random "
            "order's.",
            "",
            f"- training against a random order padded to the longest of each batch, transformers' default: "
            f"{shown(ratios[RANDOM])} times as long",
            f"- training against padding all to {found['max_length']}, which few do: {shown(ratios[PADDED])} times as "
            f"long; target, against this padding alone, more than {TARGET:g}: {verdict}",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, default=Path())
    for name, files in FILES.items():
        for split, file in files.items():
            parser.add_argument(f"--{name}_{split}", type=Path, help=f"in place of {file} of TASKS")
    parser.add_argument("--only", default=",".join(FILES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps a round, in place of a megabatch: to try it out")
    parser.add_argument("--eval_examples", type=int, default=1000)
    parser.add_argument("--work_dir", type=Path, help="for the vocabularies; by default one that is deleted")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--page", action="store_true", help="write its section of docs/throughput.md")
    arguments = parser.parse_args()
    keep_freed_memory()
    calm_transformers()
    load, tasks = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only.split(","):
            chosen: dict[str, Path] = {
                split: getattr(arguments, f"{name}_{split}") or arguments.tasks / file
                for split, file in FILES[name].items()
            }
            bench = Bench(name, chosen, arguments.work_dir or Path(temporary))
            bench.steps = arguments.steps or bench.steps
            lengths = [len(feature["input_ids"]) for feature in bench.data.train_features]
            tasks[name] = {
                "tokens_an_example": float(np.mean(lengths)),
                "max_length": bench.length,
                "scored": min(arguments.eval_examples, len(bench.data.splits["dev"].features)),
                "training": measure_training(bench, arguments.rounds),
                "evaluation": measure_evaluation(bench, arguments.rounds, arguments.eval_examples),
            }
    result = {
        "environment": describe_environment(),
        "checked_out": checked_out("src/spanelectra"),
        "load": load,
        "bf16": use_bfloat16(bench.settings),
        "tasks": tasks,
    }
    print(section(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        replace_section(ROOT / "docs" / "throughput.md", "fine-tuning", section(result))


if __name__ == "__main__":
    main()
