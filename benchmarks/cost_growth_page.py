"""The points of `cost_growth.py` as `docs/cost-growth.md` and its pictures.

An axis is a section between two marks; what is written by hand outside of them, such as why a curve bends, stays.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from checked_out import at
from results_page import replace_section, table

TITLES = {
    "length": "Sequence length (16 rows)",
    "vocabulary": "Vocabulary",
    "batch": "Rows a batch",
    "encoder": "Encoder",
    "processes": "Processes",
    "base": "`base` at 512 tokens: would it fit 8 GB?",
}
UTILISATION_TOLERANCE, MEMORY_TOLERANCE = 0.15, 0.25
# MiB; of 8 GB one is left to the system
SEVEN_GIGABYTES = 7e9 / (1 << 20)
SECONDS = "s a step (least - most; steps)"
TITLE = "# How the cost of a step grows\n"


def falls(values: Sequence[float], tolerance: float = UTILISATION_TOLERANCE) -> list[int]:
    """Places of values that are below ``1 - tolerance`` times the best one before them: utilisation that is lost."""
    return [place for place in range(1, len(values)) if values[place] < (1 - tolerance) * max(values[:place])]


def rises(values: Sequence[float], tolerance: float = MEMORY_TOLERANCE) -> list[int]:
    """Places of values that are above ``1 + tolerance`` times the least one before them: memory that grows faster."""
    return [place for place in range(1, len(values)) if values[place] > (1 + tolerance) * min(values[:place])]


def memory_of_more_tokens(points: list[dict[str, Any]]) -> list[float]:
    """KiB that a token more takes at the peak, from each point to the next: what a process has anyway drops out."""
    return [
        (large["peak_memory_mib"] - small["peak_memory_mib"]) * (1 << 10) / (large["tokens"] - small["tokens"])
        for small, large in itertools.pairwise(points)
    ]


def surprises(axis: str, points: list[dict[str, Any]]) -> list[str]:
    """Sentences about time that grows faster than arithmetic, and memory that grows faster than tokens."""
    labels = [point["point"]["label"] for point in points]
    utilisation = [point["utilisation"] for point in points]
    found = [
        f"At {labels[place]} a step makes {utilisation[place] / max(utilisation[:place]):.0%} of the best utilisation "
        "before it: its time grows faster than its FLOPs."
        for place in falls(utilisation)
    ]
    # on the other axes tokens do not grow
    grows = axis in ("length", "batch")
    memory = memory_of_more_tokens(points) if grows else []
    found += [
        f"From {labels[place]} to {labels[place + 1]} a token more takes {memory[place]:,.0f} KiB, before as few as "
        f"{min(memory[:place]):,.0f}."
        for place in rises(memory)
    ]
    return found or [
        f"No point loses more than {UTILISATION_TOLERANCE:.0%} of the best utilisation before it"
        + (f", and no token more takes {MEMORY_TOLERANCE:.0%} more memory than one before." if grows else ".")
    ]


def steps_section(axis: str, points: list[dict[str, Any]]) -> str:
    """The section of an axis of bare steps."""
    rows = [
        [
            point["point"]["label"],
            f"{point['parameters'] / 1e6:.1f} M",
            f"{point['tokens']:,}",
            f"{point['flops'] / 1e9:,.0f}",
            seconds_cell(point),
            f"{point['tokens'] / point['seconds']:,.0f}",
            f"{point['utilisation']:.2f}",
            "-" if point["kept_mib"] is None else f"{point['kept_mib']:,.0f}",
            f"{point['peak_memory_mib']:,.0f}",
            load_cell(point),
        ]
        for point in points
    ]
    headings = ["", "parameters", "tokens a step", "GFLOP a step (counted)", SECONDS, "tokens/s"]
    headings += ["utilisation", "kept for the backward pass, MiB (counted)", "peak MiB", "load before"]
    lines = [*(f"- {line}" for line in surprises(axis, points)), *busy_lines(points)]
    return "\n".join([*section_opening(axis), table(headings, rows), "", *lines])


def processes_section(points: list[dict[str, Any]]) -> str:
    """The section of real runs of one process and several."""
    rates = {
        (point["point"]["processes"], point["point"]["threads"]): point["tokens"] / point["seconds"] for point in points
    }
    rows = [
        [
            point["point"]["label"],
            f"{point['tokens']:,}",
            seconds_cell(point),
            f"{point['tokens'] / point['seconds']:,.0f}",
            f"{point['utilisation']:.2f}",
            f"{point['peak_memory_mib']:,.0f}",
            load_cell(point),
        ]
        for point in points
    ]
    headings = ["", "tokens a step", SECONDS, "tokens/s", "utilisation", "peak MiB of the first", "load before"]
    lines = [*section_opening("processes"), table(headings, rows), "", *busy_lines(points)]
    ones = [(threads, rates[1, threads]) for threads in (1, 2) if (1, threads) in rates]
    if ones and (2, 1) in rates:
        compared = [f"{rates[2, 1] / rate:.2f} times those of one with {threads}" for threads, rate in ones]
        lines += [f"- Tokens/s of two processes of one thread: {', '.join(compared)}."]
    return "\n".join(lines)


def base_section(points: list[dict[str, Any]]) -> str:
    """The section of what fits into 8 GB."""
    rows = [
        [
            point["point"]["label"],
            f"{point['vocabulary'] if point['point']['processes'] else point['point']['vocabulary']:,}",
            seconds_cell(point),
            f"{point['tokens'] / point['seconds']:,.0f}",
            # a run takes its peak at its start, a bare step in its process: they do not compare
            "-" if point["point"]["processes"] else f"{point['utilisation']:.2f}",
            f"{point['peak_memory_mib']:,.0f}",
            "yes" if point["peak_memory_mib"] < SEVEN_GIGABYTES else "no",
            load_cell(point),
        ]
        for point in points
    ]
    headings = ["4 rows a step", "vocabulary", SECONDS, "tokens/s", "utilisation", "peak MiB"]
    headings += ["at most 7 GB, one of 8 left to the system", "load before"]
    return "\n".join([*section_opening("base"), table(headings, rows), "", *busy_lines(points)])


def seconds_cell(point: dict[str, Any]) -> str:
    """``0.21 (0.20 - 0.23; 14)``; of a single step no spread is known."""
    if point["steps"] == 1:
        return f"{point['seconds']:.3g} (1)"
    least, most = point["least_and_most"]
    return f"{point['seconds']:.3g} ({least:.3g} - {most:.3g}; {point['steps']})"


def is_busy(point: dict[str, Any]) -> bool:
    """Whether more was running before a point than the machine has cores for."""
    return point["load"] > point["environment"]["cores"]


def load_cell(point: dict[str, Any]) -> str:
    """The load average of the minute before a point, marked where it is above the cores."""
    return f"{point['load']:.1f}" + (" (!)" if is_busy(point) else "")


def busy_lines(points: list[dict[str, Any]]) -> list[str]:
    """A sentence about points that other work disturbed."""
    busy = [point["point"]["label"] for point in points if is_busy(point)]
    if not busy:
        return []
    return [f"- (!) Other work kept all cores busy before {'; '.join(busy)}: times and utilisation are worse for it."]


def section_opening(axis: str) -> list[str]:
    """Heading and picture of a section."""
    return [f"## {TITLES[axis]}", "", f"![tokens per second, utilisation and memory](cost-growth-{axis}.png)", ""]


def draw(axis: str, points: list[dict[str, Any]], file: Path) -> None:
    """Tokens/s with utilisation, and the peak of memory, at each point."""
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 3.2), constrained_layout=True)
    places = range(len(points))
    labels = [point["point"]["label"].replace("`", "").replace(", ", ",\n") for point in points]
    rates = [point["tokens"] / point["seconds"] for point in points]
    style = "o-" if axis in ("length", "vocabulary", "batch") else "o"
    speed.plot(places, rates, style, color="C0")
    speed.set_title("tokens/s (blue), utilisation (orange, right)", fontsize=10)
    speed.set_ylim(0, 1.15 * max(rates))
    used = speed.twinx()
    used.plot(places, [point["utilisation"] for point in points], style, color="C1")
    used.set_ylim(0, 1)
    peaks = [point["peak_memory_mib"] for point in points]
    memory.plot(places, peaks, style, color="C2")
    memory.set_title("peak memory, MiB", fontsize=10)
    memory.set_ylim(0, 1.15 * max(peaks))
    if axis == "base":
        memory.axhline(SEVEN_GIGABYTES, color="grey", linewidth=0.8)
    for part in (speed, memory):
        part.set_xticks(list(places), labels, fontsize=8)
        part.grid(alpha=0.3)
    figure.savefig(file, dpi=80)
    plt.close(figure)


def where(points: list[dict[str, Any]]) -> str:
    """The machine; where there are several, how many points of each, for their curves do not fit together."""
    counts = Counter(
        f"{environment['processor']}, {environment['cores']} cores; torch {environment['versions']['torch']}, "
        f"transformers {environment['versions']['transformers']}, Python {environment['versions']['python']}"
        for environment in (point["environment"] for point in points)
    )
    if len(counts) == 1:
        return next(iter(counts))
    return "**Not of one machine**: " + "; and ".join(f"{count} on {name}" for name, count in counts.items())


def how_measured(result: dict[str, Any]) -> str:
    """How it was measured."""
    measured = sorted({at(point) for point in result["points"].values()})
    threads = sorted(
        {point["point"]["threads"] for point in result["points"].values() if not point["point"]["processes"]}
    )
    loads = [point["load"] for point in result["points"].values()]
    return (
        "Written by `python benchmarks/cost_growth.py`; every figure is in [cost-growth.json](cost-growth.json). "
        "All four objectives, no dropout, AdamW, float32; where nothing else is said an ELECTRA of 128 x 4 with a "
        "generator half as wide, 16 rows of 128 tokens and a vocabulary of 10,000, random ids (processes, and "
        "the recipe, are real runs on real rows). Every point ran in a "
        "process of its own, one after the other, minutes apart; medians of its steps, without the first, and how many "
        "they are. Utilisation is the FLOPs that a step needs over what the largest matrix product made in the same "
        f"process. {where(list(result['points'].values()))}; threads: {', '.join(map(str, threads)) or 'as said'}; "
        f"measured {', '.join(measured)}; load of the machine before a point: {min(loads):.1f} to {max(loads):.1f}."
    )


def write_page(result: dict[str, Any], out: Path) -> None:
    """Write page and pictures of every axis that has points."""
    if not result["points"]:
        return
    page = out / "cost-growth.md"
    if not page.is_file():
        page.write_text(TITLE, encoding="utf-8")
    replace_section(page, "about", how_measured(result))
    for axis in TITLES:
        points = [point for point in result["points"].values() if point["point"]["axis"] == axis]
        if not points:
            continue
        draw(axis, points, out / f"cost-growth-{axis}.png")
        sections = {"processes": processes_section, "base": base_section}
        text = sections[axis](points) if axis in sections else steps_section(axis, points)
        replace_section(page, axis, text)
