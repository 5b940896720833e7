"""Which rows a run sees, in which order: a pure function of (seed, position), so that nothing is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from spanelectra.data.step_sizes import StepSizes


@dataclass
class RowBatch:
    """Rows on their way to the collator.

    Attributes:
        rows: (batch,) int64, row numbers in the prepared data.
        epochs: (batch,) int64, how often the run has been through the data before.
        progress: fraction of the run done before this optimiser step.
    """

    rows: NDArray[np.int64]
    epochs: NDArray[np.int64]
    progress: float


class ShuffledRows(Dataset):
    """A whole run as one sequence: item ``i`` is a row number, shuffled anew in every epoch.

    Resuming means to start at another ``i``; several processes and workers take different ``i``.

    Args:
        num_rows: rows in the prepared data.
        sizes: rows of every step. There are places for the largest micro-batch in all of them; where the batch is
            smaller, the last ones of a micro-batch bring no row.
        seed: of the shuffling.
    """

    def __init__(self, num_rows: int, sizes: StepSizes, seed: int) -> None:
        self.num_rows = num_rows
        self.sizes = sizes
        self.seed = seed
        self._shuffled_epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.sizes.largest_batch * self.sizes.micro_batches * self.sizes.max_steps

    def __getitem__(self, index: int) -> RowBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> RowBatch:
        """The rows at these places of the run, all of one micro-batch: a loader asks for a whole one at once."""
        positions, step = self.sizes.positions(np.asarray(indices, dtype=np.int64))
        epochs, places = np.divmod(positions, self.num_rows)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._shuffle(int(epoch))[places[chosen]]
        return RowBatch(rows, epochs, step / self.sizes.max_steps)

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._shuffled_epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._permutation = generator.permutation(self.num_rows)
            self._shuffled_epoch = epoch
        return self._permutation


class RowsInOrder(Dataset):
    """Held-out rows, each once, in their order, with the settings of the end of a run."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> RowBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> RowBatch:
        """The rows at ``indices``, as epoch 0."""
        rows = np.asarray(indices, dtype=np.int64)
        return RowBatch(rows, np.zeros_like(rows), 1.0)
