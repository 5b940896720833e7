"""How fast could a step be? Every matrix product of ours, at its own shape, alone; beside the whole step.

    python benchmarks/step_limit.py --shape tiny --json docs/step-limit-tiny.json --page

Utilisation compares a step with the largest product of square matrices. The products of a small encoder are thin (128
columns), and the processor makes fewer FLOPs a second of them, whoever calls them. This script writes down every
product and attention of one training step, forward and backward, with shapes and strides, and times each of them alone
on operands that lie in the cache where they fit: what these calls cost at least, in float32. Code around them cannot
make them cheaper; other kernels could (a bias that is added inside the product and not copied before it, bfloat16).
What is left of the step is everything else: activations, norms, the softmax over the vocabulary, sampling, gradients
of biases, the optimiser.

Rounds of everything follow one another; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from checked_out import at, checked_out
from results_page import replace_section, table
from rounds import shown, summary

ROOT = Path(__file__).parent.parent
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"


class Call(NamedTuple):
    """An operation with what its time depends on."""

    name: str
    overload: str
    operands: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]


class Operand(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any


def record_calls(step: Callable[[], None]) -> Counter[Call]:
    """The matrix products and attentions of one step, and how often each is made."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    calls: Counter[Call] = Counter()

    def describe(value: Any) -> Any:
        return Operand(tuple(value.shape), value.stride(), value.dtype) if isinstance(value, torch.Tensor) else value

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            keywords = keywords or {}
            name = function._schema.name
            if name in PRODUCTS or name.startswith(ATTENTION):
                given = tuple((key, describe(value)) for key, value in keywords.items())
                calls[Call(name, function._overloadname, tuple(map(describe, arguments)), given)] += 1
            return function(*arguments, **keywords)

    with Recorder():
        step()
    return calls


def make_runner(call: Call) -> Callable[[], Any]:
    """The operation on random operands of the same shapes and strides."""
    import torch

    def make(value: Any) -> Any:
        if not isinstance(value, Operand):
            return value
        tensor = torch.empty_strided(value.shape, value.strides, dtype=value.dtype)
        return tensor.normal_() if value.dtype.is_floating_point else tensor.zero_()

    function = getattr(getattr(torch.ops.aten, call.name.removeprefix("aten::")), call.overload)
    operands, keywords = [make(value) for value in call.operands], {key: make(value) for key, value in call.keywords}
    return lambda: function(*operands, **keywords)


def seconds_of(run: Callable[[], Any], least: float) -> float:
    """Seconds of one call: the median of calls that together take at least so long."""
    run()
    taken: list[float] = []
    while sum(taken) < least or len(taken) < 5:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(arguments: argparse.Namespace, rows: Path) -> dict[str, Any]:
    """Rounds of: the peak, the whole step, each of its products, each of its attentions."""
    import torch

    from spanelectra.flops import measure_peak_flops
    from spanelectra.memory import keep_freed_memory
    from training_steps import OBJECTIVES, SHAPES, Bench, ours

    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    shape = SHAPES[arguments.shape]
    bench = Bench(shape, rows, torch.device("cpu"), dropout=0.0, compiled=False)
    step, flops = ours(*OBJECTIVES)(bench)
    for _ in range(3):
        step()
    calls = record_calls(step)
    runners = {call: make_runner(call) for call in calls}
    rounds: list[dict[str, float]] = []
    with torch.no_grad():
        for _ in range(arguments.rounds):
            peak = measure_peak_flops(torch.device("cpu"), torch.float32)
            with torch.enable_grad():
                whole = seconds_of(step, arguments.seconds)
            parts = {True: 0.0, False: 0.0}
            for call, count in calls.items():
                parts[call.name in PRODUCTS] += count * seconds_of(runners[call], 0.02)
            alone = parts[True] + parts[False]
            rounds.append(
                {
                    "step_milliseconds": 1e3 * whole,
                    "products_milliseconds": 1e3 * parts[True],
                    "attention_milliseconds": 1e3 * parts[False],
                    "rest_milliseconds": 1e3 * (whole - alone),
                    "peak_flops": peak,
                    "utilisation": flops / whole / peak,
                    "utilisation_of_products_and_attention": flops / alone / peak,
                }
            )
    return {
        "shape": arguments.shape,
        "rows": shape.rows,
        "length": shape.length,
        "threads": arguments.threads,
        "flops": flops,
        "products": sum(count for call, count in calls.items() if call.name in PRODUCTS),
        "distinct": len(calls),
        "figures": {name: summary([found[name] for found in rounds]) for name in rounds[0]},
    }


def section(result: dict[str, Any]) -> str:
    """The section of docs/throughput.md."""
    figures = result["figures"]

    lines = [
        [part, shown(figures[f"{name}_milliseconds"], ".1f")]
        for name, part in (
            ("step", "the whole step"),
            ("products", f"its {result['products']} matrix products, each alone"),
            ("attention", "its attentions, each alone"),
            ("rest", "what is left"),
        )
    ]
    return "\n".join(
        [
            f"## What bounds our step: {result['shape']}, {result['rows']} rows of {result['length']} tokens, "
            f"{result['processor']}, threads: {result['threads']}",
            "",
            "Written by `python benchmarks/step_limit.py --page`. All four objectives, no dropout. Medians of "
            f"{figures['step_milliseconds']['rounds']} rounds (middle half). torch {result['versions']['torch']}; "
            f"{at(result['checked_out'])}, load of the machine before: {result['load']:.1f}.",
            "",
            table(["", "milliseconds"], lines),
            "",
            f"The step's utilisation is {shown(figures['utilisation'])}. Products and attention alone, on operands in "
            "the cache, with nothing between them, would come to "
            f"{shown(figures['utilisation_of_products_and_attention'])}: thin products do not reach the peak of large "
            "ones.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny", help="of throughput.py")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of steps, a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work_dir", type=Path, help="for the prepared rows; by default one that is deleted")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--page", action="store_true", help="write its section of docs/throughput.md")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    # after the number of threads is set, which libraries read as they are imported
    from spanelectra.environment import describe_environment
    from training_steps import SHAPES, prepare_rows

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        rows = prepare_rows(arguments.work_dir or Path(temporary), SHAPES[arguments.shape].length)
        result = measure(arguments, rows)
    environment = describe_environment()
    result |= {"processor": environment["processor"], "versions": environment["versions"], "load": load}
    result["checked_out"] = checked_out("src/spanelectra")
    print(section(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        name = f"limit {arguments.shape}, {result['processor']}, threads: {arguments.threads}"
        replace_section(ROOT / "docs/throughput.md", name, section(result))


if __name__ == "__main__":
    main()
