"""The points of `cost_growth.py`: what they are, and how one is measured."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, LENGTH, VOCABULARY = 16, 128, 10_000


@dataclasses.dataclass(frozen=True)
class Point:
    """What is measured.

    Attributes:
        axis: what is varied.
        label: its value, in words.
        shape: an encoder of `training_steps.SHAPES`; for runs a recipe.
        rows: of a micro-batch.
        micro_batches: of a step.
        checkpointing: whether activations are computed again in the backward pass.
        processes: of a real run; 0 for a bare step in one process.
        threads: of a process.
    """

    axis: str
    label: str
    shape: str = "tiny"
    rows: int = ROWS
    length: int = LENGTH
    vocabulary: int = VOCABULARY
    micro_batches: int = 1
    checkpointing: bool = False
    processes: int = 0
    threads: int = 1

    @property
    def name(self) -> str:
        """What it is called in the JSON."""
        return f"{self.axis} {self.label}"


def make_points(threads: int) -> list[Point]:
    """Every point, axis by axis, from small to large."""
    base = Point("base", "", "base", length=512, vocabulary=30_522, threads=threads)
    again = dataclasses.replace(base, checkpointing=True)
    points = [
        *(Point("length", str(n), length=n, threads=threads) for n in (64, 128, 256, 512, 1024)),
        *(Point("vocabulary", f"{n:,}", vocabulary=n, threads=threads) for n in (5000, 10_000, 20_000, 30_522, 50_000)),
        *(Point("batch", str(n), rows=n, threads=threads) for n in (8, 16, 32, 64, 128, 256)),
        *(Point("encoder", shape, shape=shape, threads=threads) for shape in ("tiny", "small", "base")),
        Point("processes", "1 of 1 thread", "tiny-electra", processes=1),
        Point("processes", "2 of 1 thread", "tiny-electra", processes=2),
    ]
    if threads > 1:
        points.append(Point("processes", f"1 of {threads} threads", "tiny-electra", processes=1, threads=threads))
    run = "`pretrain --recipe base-electra`, micro-batches of 2, checkpointing"
    return [
        *points,
        dataclasses.replace(base, label="micro-batches of 1", rows=1, micro_batches=4),
        dataclasses.replace(again, label="micro-batches of 2, checkpointing", rows=2, micro_batches=2),
        dataclasses.replace(again, label="one batch of 4, checkpointing", rows=4),
        dataclasses.replace(again, label=run, shape="base-electra", rows=2, micro_batches=2, processes=1),
    ]


def measure_step(point: Point, seconds: float, steps: int) -> dict[str, Any]:
    """A bare step in this process.

    Args:
        seconds: measure for so long.
        steps: and for so many steps at most, one at least; a first one does not count.
    """
    import torch

    from cost_model import kept_bytes, make_batch, make_model, masked_count
    from spanelectra.flops import count_parameters, measure_peak_flops, row_training_flops
    from spanelectra.memory import keep_freed_memory, peak_memory_mib
    from spanelectra.model_building import enable_gradient_checkpointing
    from spanelectra.optimization import build_optimizer
    from training_steps import SHAPES

    keep_freed_memory()
    torch.manual_seed(0)
    torch.set_num_threads(point.threads)
    shape, device = SHAPES[point.shape], torch.device("cpu")
    peaks = [measure_peak_flops(device, torch.float32)]
    model = make_model(
        shape.encoder,
        shape.hidden_size,
        shape.num_hidden_layers,
        shape.num_attention_heads,
        shape.intermediate_size,
        point.vocabulary,
        point.length,
        embedding_size=shape.embedding_size,
        generator_size=shape.generator_size,
    )
    model.train()
    if point.checkpointing:
        enable_gradient_checkpointing(model)
    optimizer = build_optimizer(
        model, optimizer="adamw", learning_rate=1e-4, muon_learning_rate=1e-3, weight_decay=0.01, betas=(0.9, 0.98),
        eps=1e-6,
    )  # fmt: skip
    batches = [make_batch(point.rows, point.length, point.vocabulary) for _ in range(point.micro_batches)]
    taken: list[float] = []
    # twice at least: the optimiser's state is there only from the second step on
    while len(taken) < 2 or (sum(taken[1:]) < seconds and len(taken) <= steps):
        start = time.perf_counter()
        for batch in batches:
            (model(**batch).loss / point.micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - start)
    peak_memory = peak_memory_mib()
    peaks.append(measure_peak_flops(device, torch.float32))
    rows = point.rows * point.micro_batches
    flops = rows * row_training_flops(model, point.length, masked_count(point.length))
    step = statistics.median(taken[1:])
    kept = None if point.checkpointing else kept_bytes(model, point.rows, point.length, point.vocabulary) / (1 << 20)
    return {
        "seconds": step,
        "least_and_most": [min(taken[1:]), max(taken[1:])],
        "steps": len(taken) - 1,
        "tokens": rows * point.length,
        "flops": flops,
        "utilisation": flops / step / max(peaks),
        "peak_flops": max(peaks),
        "peak_memory_mib": peak_memory,
        "parameters": count_parameters(model),
        "kept_mib": kept,
    }


def make_rows(point: Point, work: Path) -> Path:
    """Prepared rows: `throughput.py`'s, or where a larger vocabulary is asked for those of Python's sources."""
    from prepare_speed import write_library_sources
    from spanelectra.data.packing import prepare
    from spanelectra.data.tokenization import vocab
    from training_steps import prepare_rows

    if point.vocabulary == VOCABULARY:
        return prepare_rows(work, point.length)
    text, tokenizer = write_library_sources(work), work / f"tokenizer-{point.vocabulary}"
    if not tokenizer.is_dir():
        vocab(str(text), str(tokenizer), "BERT", point.vocabulary, quiet=True)
    rows = work / f"rows-{point.length}-{point.vocabulary}"
    if not rows.is_dir():
        prepare(str(text), str(tokenizer), str(rows), max_seq_length=point.length, quiet=True)
    return rows


def measure_run(point: Point, work: Path, steps: int, windows: int) -> dict[str, Any]:
    """`spanelectra pretrain`, under torchrun where it has several processes; medians of its own log's lines.

    Args:
        steps: of a line of the log.
        windows: lines, after a first one that does not count.
    """
    rows = make_rows(point, work)
    words = ["-m", "spanelectra.cli", "pretrain", "--recipe", point.shape, "--data", str(rows)]
    settings = {
        "per_device_train_batch_size": point.rows,
        "gradient_accumulation_steps": point.micro_batches,
        "gradient_checkpointing": point.checkpointing,
        "max_steps": steps * (windows + 1),
        "logging_steps": steps,
        "eval_steps": 0,
        "eval_rows": point.rows,
        "save_steps": 0,
        "generator_head_start": 0.0,
        "dropout": 0.0,
        "optimizer": "adamw",
        "tensorboard": False,
        "report": False,
        "overwrite": True,
        "quiet": True,
    }
    words += [f"--{name}={str(value).lower()}" for name, value in settings.items()]
    launcher = [sys.executable]
    if point.processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(point.processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(point.threads)}
    # a folder of its own: whatever else is in WORK stays
    with tempfile.TemporaryDirectory(dir=work, prefix="run-") as temporary:
        run = Path(temporary) / "run"
        subprocess.run([*launcher, *words, f"--out_dir={run}"], check=True, env=environment)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        results = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    lines = [line for line in lines if "tokens_per_second" in line]
    # the clock starts at the first step; of a run of one line that is the one
    lines = lines[1:] or lines
    rates = [line["tokens_per_second"] for line in lines]
    tokens = point.rows * point.micro_batches * point.length * point.processes
    return {
        "seconds": tokens / statistics.median(rates),
        "least_and_most": [tokens / max(rates), tokens / min(rates)],
        "steps": steps * len(rates),
        "tokens": tokens,
        "utilisation": statistics.median(line["model_flops_utilisation"] for line in lines),
        "peak_memory_mib": results["peak_memory_mib"],
        "vocabulary": json.loads((rows / "dataset.json").read_text(encoding="utf-8"))["vocab_size"],
    }
