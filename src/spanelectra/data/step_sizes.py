"""How many rows every optimiser step of a run reads, where the batch grows or shrinks on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spanelectra.schedules import Schedule


def batch_rows_at(batch_size: Schedule, progress: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows of a micro-batch, whole ones, at moments of a run."""
    return np.rint(batch_size.values(progress)).astype(np.int64)


class StepSizes:
    """Rows of every step: a function of the schedule alone, so that a run that is resumed knows what it has read.

    Args:
        batch_size: schedule of the rows of a micro-batch, rounded to whole ones.
        micro_batches: of a step, over all processes.
        max_steps: length of the run in optimiser steps.

    Attributes:
        largest_batch: most rows that a micro-batch ever has, as the schedule's points say.
        batch_rows: (max_steps,) int64, rows of a micro-batch at each step; takes no memory where they are the same.
    """

    def __init__(self, batch_size: Schedule, micro_batches: int, max_steps: int) -> None:
        self.micro_batches = micro_batches
        self.max_steps = max_steps
        self.largest_batch = round(batch_size.maximum)
        self._before: NDArray[np.int64] | None = None
        if batch_size.minimum == batch_size.maximum:
            self.batch_rows = np.broadcast_to(np.int64(self.largest_batch), max_steps)
        else:
            self.batch_rows = batch_rows_at(batch_size, np.arange(max_steps) / max_steps)
            self._before = np.concatenate(([0], np.cumsum(self.batch_rows)))

    @classmethod
    def for_rows(cls, batch_size: Schedule, micro_batches: int, rows: int) -> StepSizes:
        """A run that reads so many rows and hardly more, found by bisection.

        Its steps stretch with it, so that where a batch has a narrow peak a shorter run may do.
        """
        smallest, largest = (round(size) * micro_batches for size in (batch_size.minimum, batch_size.maximum))
        too_few, enough = max(0, -(-rows // largest) - 1), max(1, -(-rows // smallest))
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            is_enough = cls(batch_size, micro_batches, middle).rows_before(middle) >= rows
            too_few, enough = (too_few, middle) if is_enough else (middle, enough)
        return cls(batch_size, micro_batches, enough)

    def rows_before(self, step: int) -> int:
        """Rows that all steps before this one have read, over all processes."""
        return self.micro_batches * int(step * self.largest_batch if self._before is None else self._before[step])

    def positions(self, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Which rows of the run a micro-batch reads.

        Args:
            slots: (batch,) int64, places that a loader asks for: ``largest_batch`` for every micro-batch of the run,
                of which one micro-batch's are asked for at once.

        Returns:
            Positions in the run's sequence of rows, as many as the schedule says of the places, and the step.
        """
        batch, places = np.divmod(slots, self.largest_batch)
        step, number = divmod(int(batch[0]), self.micro_batches)
        rows = int(self.batch_rows[step])
        return self.rows_before(step) + number * rows + places[places < rows], step
