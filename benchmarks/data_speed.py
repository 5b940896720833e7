"""Do data wait? Masking and collating, `prepare` against the bare tokenizer, and how long a run takes to start.

    python benchmarks/data_speed.py --work_dir WORK --json docs/data-speed.json --page

- collating: tokens/s on one core, by batch size: masking alone, data set and collator, and all that the trainer's own
  loader does, from 200 MB of rows, more than most processors' caches hold (Python's documentation, again and again);
  beside it the fastest training step of `throughput.py`'s tiny shape, in the same rounds. Judged is the loader, at the
  rows of that shape and of the recipe. The step is a CPU's: that a GPU's would not wait is not shown.
- prepare: the whole call (files are read, rows written, the tokenizer opened; nothing is imported) against the
  tokenizer's `encode_batch` on the same texts, which lie in memory, by turns in a process that is held to as many cores
  as the tokenizer may use; and against `encode_batch_fast`, which `prepare` calls itself, and which it is judged by.
- start: from the shell to the first optimiser step of `spanelectra pretrain`, prepared rows in place, and
  `spanelectra --help`. Every repeat is a process of its own; a first one that does not count warms the file cache.

Text is by default what this Python's standard library has of sources, some ten megabytes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil

from checked_out import checked_out
from data_speed_page import section
from prepare_speed import make_tokenizers, measure_prepare, write_library_sources
from results_page import replace_section
from rounds import by_turns, summary

ROOT = Path(__file__).parent.parent
SIZES = (8, 16, 32, 64, 128, 256)
LENGTH = 128
ROW_BYTES = 200e6
FASTEST = "ours without boundary heads, no dropout"


def measure_collating(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens/s of what comes before a step, and of the fastest step."""
    import dataclasses

    import numpy as np
    import torch

    from spanelectra.data.training_rows import ShuffledRows
    from spanelectra.memory import keep_freed_memory
    from training_steps import SHAPES, STEPS, Bench, make_trainer, prepare_rows

    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = prepare_rows(arguments.work_dir, LENGTH)
    tiled: Any = None
    roads: dict[str, dict[int, Callable[[], Any]]] = {"masking": {}, "data set and collator": {}, "loader": {}}

    def masks_of(collate: Any, batch: Any) -> Any:
        return collate.mask(*collate.read(batch))

    def step_through(data: ShuffledRows, size: int, take: Callable[[Any], Any], place: list[int]) -> None:
        take(data.__getitems__(range(place[0], place[0] + size)))
        place[0] += size

    for size in SIZES:
        bench = Bench(dataclasses.replace(SHAPES["tiny"], rows=size), rows, torch.device("cpu"), 0.0, False)
        if tiled is None:
            few = np.asarray(bench.data.input_ids)
            tiled = np.tile(few, (math.ceil(ROW_BYTES / few.nbytes), 1))
        many = dataclasses.replace(cast(Any, bench.data.collate), input_ids=tiled)
        bench.data = dataclasses.replace(bench.data, rows=len(tiled), input_ids=tiled, collate=many)
        trainer = make_trainer(bench)
        data = trainer.train_dataset
        assert isinstance(data, ShuffledRows)
        collate: Any = bench.data.collate
        roads["masking"][size] = partial(step_through, data, size, partial(masks_of, collate), [0])
        roads["data set and collator"][size] = partial(step_through, data, size, collate, [0])
        roads["loader"][size] = partial(next, iter(trainer.get_train_dataloader()))
    shape = SHAPES["tiny"]
    choice = STEPS[FASTEST]
    assert choice.make is not None
    step, _ = choice.make(Bench(shape, rows, torch.device("cpu"), choice.dropout, choice.compiled))

    def turn(action: Callable[[], Any], tokens: int) -> float:
        """Tokens/s over a fraction of a second."""
        count, start = 0, time.perf_counter()
        while (seconds := time.perf_counter() - start) < arguments.seconds:
            action()
            count += 1
        return count * tokens / seconds

    actions = {(road, size): (action, size * LENGTH) for road, sizes in roads.items() for size, action in sizes.items()}
    actions["step", shape.rows] = (step, shape.rows * LENGTH)
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in actions}
    for number in range(arguments.rounds + 1):
        for key in by_turns(list(actions), number):
            rates[key].append(turn(*actions[key]))
    # the first round warms up
    rates = {key: values[1:] for key, values in rates.items()}
    steps = rates["step", shape.rows]
    return {
        "length": LENGTH,
        "megabytes_of_rows": tiled.nbytes / 1e6,
        "step": {"name": FASTEST, "threads": arguments.threads, "rows": shape.rows, **summary(steps)},
        "rows": [
            {
                "batch": size,
                **{road: summary(rates[road, size]) for road in roads},
                "share": summary([step / loader for step, loader in zip(steps, rates["loader", size], strict=True)]),
            }
            for size in SIZES
        ],
    }


def until_first_step(words: list[str], run: Path, limit: float = 300.0) -> tuple[float, float]:
    """Seconds from the shell to a run's first line of metrics, which the first optimiser step writes; it ends there.

    Beside those of the clock the processor's, which other work on the machine does not change much.
    """
    metrics, start = run / "metrics.jsonl", time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        while not (metrics.is_file() and metrics.stat().st_size):
            if process.poll() is not None or time.perf_counter() - start > limit:
                raise RuntimeError(f"no first step: {' '.join(words)} (exit code {process.poll()})")
            time.sleep(0.005)
        seconds, times = time.perf_counter() - start, psutil.Process(process.pid).cpu_times()
        return seconds, times.user + times.system
    finally:
        process.kill()
        process.wait()


def measure_start(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds to the first step, and to the end of ``--help``."""
    script = Path(sys.executable).with_name("spanelectra")
    program = [str(script)] if script.is_file() else [sys.executable, "-m", "spanelectra.cli"]
    words = [*program, "pretrain", "--recipe", arguments.recipe, "--data", str(arguments.work_dir / f"rows-{LENGTH}")]
    words += ["--logging_steps", "1", "--quiet"]
    first, overview = [], []
    for _ in range(arguments.repeats + 1):
        with tempfile.TemporaryDirectory(dir=arguments.work_dir, prefix="started-") as temporary:
            run = Path(temporary) / "run"
            first.append(until_first_step([*words, "--out_dir", str(run)], run))
        # a fraction of a second: more often
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([*program, "--help"], check=True, stdout=subprocess.DEVNULL)
            overview.append(time.perf_counter() - start)
    clock, processor = (list(values) for values in zip(*first[1:], strict=True))
    return {
        "recipe": arguments.recipe,
        "first step": summary(clock),
        "processor seconds to it": summary(processor),
        "help": summary(overview[3:]),
    }


def part_prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """See :func:`measure_prepare`."""
    return measure_prepare(
        arguments.text,
        arguments.document_separator,
        arguments.tokenizer,
        arguments.work_dir,
        int(arguments.cores),
        arguments.prepare_rounds,
    )


def run_part(part: str, arguments: argparse.Namespace, *words: str, threads: int) -> dict[str, Any]:
    """A part in a process of its own; both of the thread pools that there are get ``threads``."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [sys.executable, __file__, "--part", part, "--work_dir", str(arguments.work_dir), *words]
    for name in ("rounds", "prepare_rounds", "repeats", "seconds", "threads", "recipe", "document_separator"):
        command += [f"--{name}", str(getattr(arguments, name))]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found = json.loads(finished.stdout.splitlines()[-1])
    print(f"{part} {' '.join(words)}: {json.dumps(found)}", file=sys.stderr)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, help="for text, tokenizers and rows; by default one that is deleted")
    parser.add_argument("--text", type=Path, help="a folder or file for `prepare`; by default Python's own sources")
    parser.add_argument("--document_separator", default="blank_line", help="of that text")
    parser.add_argument("--only", default="collating,prepare,start")
    parser.add_argument("--rounds", type=int, default=7, help="of collating")
    parser.add_argument("--prepare_rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="of starts")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn of collating")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the step beside collating")
    parser.add_argument("--cores", default=f"1,{os.cpu_count() or 1}", help="numbers of cores for `prepare`")
    parser.add_argument("--recipe", default="tiny", help="of the run that is started")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--page", action="store_true", help="write its section of docs/throughput.md")
    parser.add_argument("--part", choices=["collating", "prepare", "start"], help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        parts = {"collating": measure_collating, "prepare": part_prepare, "start": measure_start}
        print(json.dumps(parts[arguments.part](arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work_dir = arguments.work_dir or Path(temporary)
        measure_all(arguments)


def measure_all(arguments: argparse.Namespace) -> None:
    """Every part that is asked for, the JSON and the page."""
    from spanelectra.environment import describe_environment
    from training_steps import prepare_rows

    only = arguments.only.split(",")
    text = arguments.text or write_library_sources(arguments.work_dir)
    prepare_rows(arguments.work_dir, LENGTH)
    result: dict[str, Any] = {
        "environment": describe_environment(),
        "checked_out": checked_out("src/spanelectra"),
        "load": os.getloadavg()[0],
        "text": text.name if arguments.text else "the standard library's sources",
    }
    if "collating" in only:
        result["collating"] = run_part("collating", arguments, threads=arguments.threads)
    if "prepare" in only:
        result["prepare"] = [
            run_part("prepare", arguments, "--text", str(text), "--tokenizer", str(tokenizer), "--cores", str(cores),
                     threads=cores)
            for tokenizer in make_tokenizers(arguments.work_dir, text)
            for cores in dict.fromkeys(map(int, arguments.cores.split(",")))
        ]  # fmt: skip
    if "start" in only:
        result["start"] = run_part("start", arguments, threads=arguments.threads)
    print(section(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        replace_section(ROOT / "docs" / "throughput.md", "data", section(result))


if __name__ == "__main__":
    main()
