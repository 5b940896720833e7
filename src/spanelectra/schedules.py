"""Numbers that change over a run: loss weights, mask ratio, span length, temperature, sizes of batch and sequence."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spanelectra.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """A piecewise-linear function of the run's progress from 0 to 1.

    Attributes:
        points: (progress, value) pairs in rising order of progress; constant before the first and after the last. Two
            points at the same progress make a step.
    """

    points: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str | float | int, field: str) -> Schedule:
        """Read ``0.15`` or ``"0:0.15 0.5:0.3"`` (progress:value, separated by spaces).

        Raises:
            UserError: naming ``field`` and what is wrong, where the text is neither.
        """
        points: list[tuple[float, float]] = []
        parts = str(text).split()
        is_constant = len(parts) < 2 and ":" not in str(text)
        for part in parts or [""]:
            progress, _, value = ("0", ":", part) if is_constant else part.partition(":")
            try:
                points.append((float(progress), float(value)))
            except ValueError:
                raise _unreadable(text, field, f"'{part}' is no {'number' if is_constant else 'pair'}") from None
            if not 0 <= points[-1][0] <= 1:
                raise _unreadable(text, field, f"{progress} is no fraction of the run, from 0 to 1")
            if not math.isfinite(points[-1][1]):
                raise _unreadable(text, field, f"{value} is no number")
        for first, second in itertools.pairwise(points):
            if first[0] > second[0]:
                raise _unreadable(text, field, f"{second[0]:g} comes after {first[0]:g}")
        return cls(tuple(points))

    def __call__(self, progress: float) -> float:
        """The value at ``progress`` (0 at the start of the run, 1 at its end)."""
        before = [point for point in self.points if point[0] <= progress]
        after = [point for point in self.points if point[0] > progress]
        if not before:
            return after[0][1]
        if not after:
            return before[-1][1]
        (start, low), (end, high) = before[-1], after[0]
        value = low + (high - low) * (progress - start) / (end - start)
        # rounding must not carry it past its ends
        return min(max(value, min(low, high)), max(low, high))

    def values(self, progress: ArrayLike) -> NDArray[np.float64]:
        """The same for many moments at once, to the last bit."""
        moments = np.asarray(progress, dtype=np.float64)
        starts, levels = np.array(self.points, dtype=np.float64).T
        after = np.searchsorted(starts, moments, side="right")
        first, last = np.maximum(after - 1, 0), np.minimum(after, len(starts) - 1)
        low, high, span = levels[first], levels[last], starts[last] - starts[first]
        climbed = np.divide((high - low) * (moments - starts[first]), span, out=np.zeros_like(moments), where=span > 0)
        return np.clip(low + climbed, np.minimum(low, high), np.maximum(low, high))

    @property
    def maximum(self) -> float:
        """The largest value it ever takes."""
        return max(value for _, value in self.points)

    @property
    def minimum(self) -> float:
        """The smallest value it ever takes."""
        return min(value for _, value in self.points)


def _unreadable(text: object, field: str, reason: str) -> UserError:
    return UserError(
        f"{field}: '{text}' is neither a number nor a schedule ({reason}). A schedule is 'progress:value' pairs with "
        "spaces between them: '0:1 0.5:1 1:4' is 1 for the first half of the run and then rises to 4."
    )
