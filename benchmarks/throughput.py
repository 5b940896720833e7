"""How fast a training step is, ours beside what people use: tokens/s, utilisation, memory, and the ratio.

    python benchmarks/throughput.py --shape tiny --quick --json throughput.json

Every step runs in a process of its own, so that memory is its own; the processes take turns of about a second, round
after round, so that a busy moment hits all of them. Reported are medians over rounds, and the middle half's spread.
Ratios are taken within a round, to the naive step with the same dropout. Utilisation is (FLOPs that the step needs) /
(seconds x the matrix-product peak of the same round): only scored positions count as needed, so a step that projects
every position to the vocabulary is charged for it. The peak is one of the step's own arithmetic: on a GPU all steps run
under bfloat16 autocast, on a processor that has instructions for it those whose names say so. "At the peak" is how many
times naive a step would be if all its FLOPs ran at that peak and nothing else took time: no code that needs as many of
them can be faster.

The rows of electra-pytorch need `pip install --no-deps electra-pytorch==0.1.2` (its own requirements ask for
transformers 3.0.2; the module runs without); they are left out, and named, where it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from checked_out import at, checked_out
from results_page import replace_section, table
from rounds import by_turns, quartiles

ROOT = Path(__file__).parent.parent
PEAK = "matrix-product peak"


class Finished(BaseException):
    """Ends a worker's loop, whoever runs it; not an Exception, so that nothing on the way catches it."""


class Gate:
    """A worker's side: runs so many steps when it is told to, and says how long they took."""

    def __init__(self, pipe: Connection, synchronise: Any) -> None:
        self.pipe, self.synchronise = pipe, synchronise
        self.left, self.start = 1, time.perf_counter()

    def after_step(self) -> None:
        """To be called after every step; the first one, in which things are made and compiled, counts for nothing."""
        self.left -= 1
        if self.left:
            return
        self.synchronise()
        self.pipe.send(time.perf_counter() - self.start)
        self.left = self.pipe.recv()
        if not self.left:
            raise Finished
        self.synchronise()
        self.start = time.perf_counter()


def work(pipe: Connection, name: str, shape_name: str, rows: Path, threads: int, device_name: str) -> None:
    """A process: one step, run when the parent says so."""
    try:
        _work(pipe, name, shape_name, rows, threads, device_name)
    except Exception as error:  # whatever a peer raises, the others go on
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200])


def _work(pipe: Connection, name: str, shape_name: str, rows: Path, threads: int, device_name: str) -> None:
    import torch

    from spanelectra.environment import peak_device_memory_mib
    from spanelectra.flops import measure_peak_flops
    from spanelectra.memory import keep_freed_memory, peak_memory_mib
    from training_steps import OBJECTIVES, SHAPES, STEPS, Bench, run_trainer

    torch.set_num_threads(threads)
    device = torch.device(device_name)
    on_gpu = device.type == "cuda"
    gate = Gate(pipe, torch.cuda.synchronize if on_gpu else lambda: None)
    flops = 0.0
    try:
        if name == PEAK:
            pipe.send(0.0)
            while arithmetics := pipe.recv():
                pipe.send({name: measure_peak_flops(device, getattr(torch, name)) for name in arithmetics})
            raise Finished
        choice = STEPS[name]
        if choice.keeps_memory:
            keep_freed_memory()
        bench = Bench(SHAPES[shape_name], rows, device, choice.dropout, choice.compiled, on_gpu or choice.bf16)
        if choice.make is None:
            flops = bench.flops(*OBJECTIVES)
            run_trainer(bench, gate.after_step)
        else:
            step, flops = choice.make(bench)
            while True:
                step()
                gate.after_step()
    except Finished:
        memory = peak_device_memory_mib() if on_gpu else peak_memory_mib()
        pipe.send({"flops": flops, "peak_memory_mib": memory})


class Worker:
    """The parent's side of a process."""

    def __init__(self, name: str, arguments: argparse.Namespace, rows: Path, device: str) -> None:
        import torch.multiprocessing as multiprocessing

        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        settings = (theirs, name, arguments.shape, rows, arguments.threads, device)
        self.process = context.Process(target=work, args=settings, daemon=True)
        self.process.start()
        # held open here, a process that is killed would never be noticed
        theirs.close()
        self.receive()

    def receive(self) -> Any:
        """An answer; raises :class:`LeftOut` where there is none."""
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(10)
            why = (
                "; -9 is mostly for want of memory: take fewer steps with --only" if self.process.exitcode == -9 else ""
            )
            raise LeftOut(f"the process ended with {self.process.exitcode}{why}") from None
        if isinstance(answer, str):
            raise LeftOut(answer)
        return answer

    def ask(self, count: int | list[str]) -> Any:
        """Seconds of so many steps, the peaks of these arithmetics, or what the process says at its end, for 0."""
        # what was killed cannot be asked; why it says nothing is found out by `receive`
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(count)
        return self.receive()


class LeftOut(RuntimeError):
    """A step does not run here; the message says why."""


def arithmetic_of(name: str, device: str) -> str:
    """What a step multiplies in."""
    from training_steps import STEPS

    return "bfloat16" if device == "cuda" or STEPS[name].bf16 else "float32"


def measure(names: list[str], arguments: argparse.Namespace, rows: Path, device: str) -> dict[str, Any]:
    """Let the steps take turns; returns seconds a step by name and round, and the peaks of each round."""
    peak = Worker(PEAK, arguments, rows, device)
    workers: dict[str, Worker] = {}
    failed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in names:
        try:
            workers[name] = Worker(name, arguments, rows, device)
            workers[name].ask(1)
            seconds = workers[name].ask(2) / 2
        except LeftOut as error:
            failed[name] = str(error)
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        counts[name] = max(1, round(arguments.seconds / seconds))
        print(f"{name}: ready, {seconds:.3f} s a step", file=sys.stderr)
    seconds_a_step: dict[str, list[float]] = {name: [] for name in counts}
    peaks = []
    for number in range(arguments.rounds):
        peaks.append(peak.ask(sorted({arithmetic_of(name, device) for name in counts})))
        for name in by_turns(list(counts), number):
            try:
                seconds_a_step[name].append(workers[name].ask(counts[name]) / counts[name])
            except LeftOut as error:
                failed[name] = str(error)
                del counts[name], seconds_a_step[name]
    about = {name: workers[name].ask(0) | {"arithmetic": arithmetic_of(name, device)} for name in counts}
    for worker in [peak, *workers.values()]:
        worker.process.terminate()
    return {"seconds": seconds_a_step, "peaks": peaks, "about": about, "failed": failed}


def make_rows(measured: dict[str, Any], tokens: int) -> list[dict[str, Any]]:
    """One dictionary a step, of medians."""
    from training_steps import STEPS

    rows = []
    for name, seconds in measured["seconds"].items():
        naive = measured["seconds"].get(STEPS[name].baseline)
        about = measured["about"][name]
        rates = [tokens / value for value in seconds]
        first, third = quartiles(rates)
        peaks = [found[about["arithmetic"]] for found in measured["peaks"]]
        used = [about["flops"] / value / peak for value, peak in zip(seconds, peaks, strict=True)]
        ratios = [other / value for other, value in zip(naive, seconds, strict=True)] if naive else []
        rows.append(
            {
                "name": name,
                "tokens_per_second": statistics.median(rates),
                "tokens_per_second_quartiles": [first, third],
                "mfu": statistics.median(used),
                "peak_memory_mib": about["peak_memory_mib"],
                "ratio_to_naive": statistics.median(ratios) if ratios else None,
                "ratio_quartiles": list(quartiles(ratios)) if ratios else None,
                "rounds": len(seconds),
            }
        )
    return rows


def compare(measured: dict[str, Any], faster: str, slower: str) -> dict[str, Any] | None:
    """Median over rounds of how many times faster one step is than another."""
    pairs = [measured["seconds"].get(name) for name in (faster, slower)]
    if not all(pairs):
        return None
    ratios = [slow / fast for fast, slow in zip(*pairs, strict=True)]
    return {"faster": faster, "slower": slower, "ratio": statistics.median(ratios), "quartiles": quartiles(ratios)}


# (faster, slower): the same dropout on both sides, and the same arithmetic but where a name says otherwise
COMPARISONS = [
    ("ours without boundary heads", "naive Hugging Face"),
    ("ours without boundary heads", "electra-pytorch"),
    ("ours without boundary heads, no dropout", "naive Hugging Face, no dropout"),
    ("ours without boundary heads, no dropout", "electra-pytorch, no dropout"),
    ("ours without boundary heads, no dropout", "ours, no dropout"),
    ("ours, no dropout", "plain MLM, no dropout"),
    ("ours, no dropout", "ours"),
    ("ours, no dropout, compiled", "ours, no dropout"),
    ("ours, no dropout", "ours, no dropout, freed memory returned"),
    ("naive Hugging Face, no dropout", "naive Hugging Face, no dropout, freed memory returned"),
    ("ours, no dropout", "ours, no dropout, in the trainer"),
    ("ours without boundary heads, no dropout, bfloat16", "naive Hugging Face, no dropout"),
    ("ours without boundary heads, no dropout, bfloat16", "ours without boundary heads, no dropout"),
    ("ours, no dropout, bfloat16", "ours, no dropout"),
    ("ours, no dropout, bfloat16", "plain MLM, no dropout, bfloat16"),
]


def _peaks(peaks: dict[str, float]) -> str:
    return " and ".join(f"{flops / 1e9:,.0f} GFLOP/s in {arithmetic}" for arithmetic, flops in peaks.items())


def section(result: dict[str, Any]) -> str:
    """The Markdown of one shape."""
    rows = [
        [
            row["name"],
            f"{row['tokens_per_second']:,.0f} ({row['tokens_per_second_quartiles'][0]:,.0f} - "
            f"{row['tokens_per_second_quartiles'][1]:,.0f})",
            f"{row['mfu']:.2f}",
            f"{row['peak_memory_mib']:,.0f}",
            f"{row['ratio_to_naive']:.2f}" if row["ratio_to_naive"] else "-",
            # the same FLOPs, all of them at the speed of the largest product
            f"{row['ratio_to_naive'] / row['mfu']:.2f}" if row["ratio_to_naive"] else "-",
        ]
        for row in result["rows"]
    ]
    compared = [
        [f"{pair['faster']} against {pair['slower']}", f"{pair['ratio']:.2f}",
         f"{pair['quartiles'][0]:.2f} - {pair['quartiles'][1]:.2f}"]
        for pair in result["comparisons"]
    ]  # fmt: skip
    versions = result["environment"]["versions"]
    return "\n".join(
        [
            f"## {result['shape']}, {result['rows_a_step']} rows of {result['length']} tokens, {result['where']}",
            "",
            f"{result['about_shape']}. Medians of {result['round_count']} rounds (middle half); utilisation against a "
            f"matrix-product peak of {_peaks(result['peak_flops'])}. "
            f"torch {versions['torch']}, transformers {versions['transformers']}, Python {versions['python']}; "
            f"{at(result['checked_out'])}, load of the machine before: {result['load']:.1f}.",
            "",
            table(["step", "tokens/s", "utilisation", "peak MiB", "times naive", "at the peak"], rows),
            "",
            table(["", "times faster", "middle half"], compared),
            *[f"\nLeft out: {name} ({reason})." for name, reason in result["left_out"].items()],
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny", help="tiny, small, base, or one of these with -modern")
    parser.add_argument("--quick", action="store_true", help="five rounds, and nothing compiled")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--only", help="names of steps, separated by semicolons")
    parser.add_argument("--work_dir", type=Path, help="for the prepared rows; by default one that is deleted")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--page", action="store_true", help="write this shape's section of docs/throughput.md")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, 5)

    import torch

    from spanelectra.environment import describe_environment, has_bfloat16_instructions
    from training_steps import SHAPES, STEPS, prepare_rows

    shape = SHAPES[arguments.shape]
    names = [name for name, choice in STEPS.items() if not (arguments.quick and choice.compiled)]
    if shape.encoder != "electra":
        names = [name for name in names if not name.startswith("electra-pytorch")]
    device = arguments.device if arguments.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" or not has_bfloat16_instructions():
        # on a GPU all steps are in bfloat16; a processor without instructions for it emulates them, slowly
        names = [name for name in names if not STEPS[name].bf16]
    if arguments.only:
        names = [name for name in names if name in arguments.only.split(";")]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        rows = prepare_rows(arguments.work_dir or Path(temporary), shape.length)
        measured = measure(names, arguments, rows, device)
    environment = describe_environment()
    processor = f"{environment['processor']}, threads: {arguments.threads}"
    result = {
        "shape": arguments.shape,
        "about_shape": f"{shape.encoder} {shape.hidden_size} x {shape.num_hidden_layers}, generator "
        f"{shape.generator_size:.2g} as wide, vocabulary {shape.vocab_size:,}, 15% masked",
        "rows_a_step": shape.rows,
        "length": shape.length,
        "where": environment["devices"][0] if device == "cuda" else processor,
        "peak_flops": {
            arithmetic: statistics.median(found[arithmetic] for found in measured["peaks"])
            for arithmetic in measured["peaks"][-1]
        },
        "round_count": arguments.rounds,
        "checked_out": checked_out("src/spanelectra"),
        "load": load,
        "rows": make_rows(measured, shape.rows * shape.length),
        "comparisons": [pair for names in COMPARISONS if (pair := compare(measured, *names))],
        "left_out": measured["failed"],
        "environment": environment,
    }
    text = section(result)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        page = ROOT / "docs" / "throughput.md"
        if not page.is_file():
            page.write_text("# Throughput\n", encoding="utf-8")
        replace_section(page, f"{arguments.shape}, {result['where']}", text)


if __name__ == "__main__":
    main()
