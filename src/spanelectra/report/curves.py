"""A run's history as columns of numbers over steps, tokens, FLOPs and wall time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from spanelectra.argument_groups import DISCRIMINATOR_OBJECTIVES
from spanelectra.report.run_record import RunRecord, discriminator_start, known_flops
from spanelectra.report.tolerance import number

Column: TypeAlias = "list[float | None]"

# What curves may be drawn over -> what it is called.
AXES = {
    "steps": "optimiser steps",
    "tokens": "tokens read",
    "flops": "training FLOPs",
    "minutes": "wall time in minutes",
}
# A curve of more points is no better to look at; neighbours are averaged until it has at most so many.
MOST_POINTS = 1000
# Where a run stands, and no measure of it.
_BOOKKEEPING = {"step", "epoch", "tokens", "wall_seconds", "seconds_left", "total_flos", "peak_flops"}
# Evaluations of the discriminator.
_OF_DISCRIMINATOR = tuple(f"eval_{name}_" for name in DISCRIMINATOR_OBJECTIVES)


@dataclass
class Curves:
    """The lines of training, or those of evaluations, as columns of equal length; ``None`` where nothing is known.

    Attributes:
        axes: one column for each of :data:`AXES`.
        values: metric, without its ``eval_``, -> its column.
        averaged: how many neighbouring lines became one point.
    """

    axes: dict[str, Column]
    values: dict[str, Column]
    averaged: int = 1


def read_curves(record: RunRecord) -> tuple[Curves, Curves]:
    """The curves of training, and of held-out text.

    What evaluations say of a discriminator that has not learned yet, during its generator's head start, is left out.
    """
    minutes, flops, start = _minutes(record), _flops(record), discriminator_start(record)
    held_out = [
        line
        if line["step"] > start
        else {name: value for name, value in line.items() if not name.startswith(_OF_DISCRIMINATOR)}
        for line in record.lines(held_out=True)
    ]
    clocks = {"tokens": _tokens(record), "flops": flops, "minutes": minutes}
    return _columns(record.lines(held_out=False), clocks), _columns(held_out, clocks)


def _columns(lines: list[dict[str, Any]], clocks: dict[str, _Clock]) -> Curves:
    names = dict.fromkeys(name.removeprefix("eval_") for line in lines for name in line)
    steps = [line["step"] for line in lines]
    axes: dict[str, Column] = {"steps": [float(step) for step in steps]}
    axes |= {name: [clock(step) for step in steps] for name, clock in clocks.items()}
    values = {
        name: [number(line.get(name, line.get(f"eval_{name}"))) for line in lines]
        for name in names
        if name not in _BOOKKEEPING
    }
    averaged = -(-len(lines) // MOST_POINTS) or 1
    return Curves(
        {name: _average(column, averaged) for name, column in axes.items()},
        {name: _average(column, averaged) for name, column in values.items() if any(x is not None for x in column)},
        averaged,
    )


def _average(column: Column, count: int) -> Column:
    """Means of ``count`` neighbours each, of those that are known."""
    if count == 1:
        return column
    blocks = [[x for x in column[first : first + count] if x is not None] for first in range(0, len(column), count)]
    return [float(np.mean(block)) if block else None for block in blocks]


class _Clock:
    """Something that grows over a run, known at some steps: linear between them, unknown without any."""

    def __init__(self, known: dict[int, float]) -> None:
        self._steps, self._readings = list(known), list(known.values())

    def __call__(self, step: int) -> float | None:
        return float(np.interp(step, self._steps, self._readings)) if len(self._steps) > 1 else None


def _tokens(record: RunRecord) -> _Clock:
    readings = {0: 0.0}
    for line in (*record.lines(held_out=False), *record.lines(held_out=True)):
        tokens = number(line.get("tokens"))
        if tokens is not None:
            readings[line["step"]] = tokens
    return _Clock(dict(sorted(readings.items())))


def _minutes(record: RunRecord) -> _Clock:
    readings = {0: 0.0}
    for line in record.lines(held_out=False):
        seconds = number(line.get("wall_seconds"))
        if seconds is not None:
            readings[line["step"]] = seconds / 60
    return _Clock(readings)


def _flops(record: RunRecord) -> _Clock:
    """FLOPs at each line of training.

    A line tells the utilisation of the machine and the speed since the line before: tokens / speed * utilisation is, up
    to the machine's peak, what was computed in between. Their sum is scaled to what the run has counted. (Runs of older
    versions do not say what the peak was, and a resumed one measured it anew, which shifts the points in between.)
    """
    known = known_flops(record)
    if known is None:
        return _Clock({})
    readings, total = {0: 0.0}, 0.0
    # lines of a probe have no tokens
    lines = [{"step": 0, "tokens": 0.0}, *(line for line in record.lines(held_out=False) if "tokens" in line)]
    for before, line in pairwise(lines):
        start, end = number(before.get("tokens")), number(line.get("tokens"))
        speed, utilisation = number(line.get("tokens_per_second")), number(line.get("model_flops_utilisation"))
        if start is not None and end is not None and speed and utilisation is not None:
            total += (end - start) / speed * utilisation * (number(line.get("peak_flops")) or 1.0)
            readings[line["step"]] = total
    at_known = _Clock(readings)(known[0])
    if not at_known:
        return _Clock({0: 0.0, known[0]: known[1]} if known[0] else {})
    return _Clock({step: reading * known[1] / at_known for step, reading in readings.items()})
