"""Rows cut into shorter ones: a run may begin with short sequences, which are cheaper, and end with whole rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.schedules import Schedule

# [CLS], [SEP], and spans that have a boundary on either side
SHORTEST_PART = 8


@lru_cache
def part_lengths(row_length: int) -> tuple[int, ...]:
    """Tokens of the equal parts that rows can be cut into, longest first, the whole row among them."""
    counts = range(1, max(1, row_length // SHORTEST_PART) + 1)
    return tuple(row_length // count for count in counts if row_length % count == 0)


@dataclass(frozen=True)
class RowCutting:
    """Cuts rows into equal parts, as long as a schedule says; checked when made.

    The first and the last token of a part become [CLS] and [SEP]: so it looks like any other row, every span has its
    boundaries, and two tokens of text are lost at every cut.

    Attributes:
        sequence_length: schedule of the tokens of a part. Between two of its points, where it may be no length that
            rows can be cut to, the nearest of those is taken.
        row_length: tokens of a whole row.
        cls_token_id, sep_token_id: ids of [CLS] and [SEP].

    Raises:
        UserError: for a point of the schedule that is no length that rows can be cut to.
    """

    sequence_length: Schedule
    row_length: int
    cls_token_id: int
    sep_token_id: int

    def __post_init__(self) -> None:
        possible = part_lengths(self.row_length)
        for _, tokens in self.sequence_length.points:
            if tokens not in possible:
                raise UserError(
                    f"sequence_length {tokens:g}: rows of {self.row_length} tokens can be trained on whole, or cut to "
                    f"{', '.join(map(str, possible[1:])) or 'no other length'}."
                )

    def lengths(self, progress: NDArray[np.float64]) -> NDArray[np.int64]:
        """Tokens of a part at each of these moments of the run, from 0 to 1; of any shape."""
        rising = np.array(part_lengths(self.row_length)[::-1])
        halfway = (rising[1:] + rising[:-1]) / 2
        return rising[np.searchsorted(halfway, self.sequence_length.values(progress), side="left")]

    def __call__(self, input_ids: NDArray[np.int64], batch: RowBatch) -> tuple[NDArray[np.int64], RowBatch]:
        """Cut a batch of rows.

        Args:
            input_ids: (batch, row length) of whole rows, [CLS] first and [SEP] last; written to.
            batch: which rows they are.

        Returns:
            (batch times parts, length), the parts of a row one after another, and numbers and epochs for them.
        """
        length = int(self.lengths(np.asarray(batch.progress)))
        count = self.row_length // length
        if count == 1:
            return input_ids, batch
        parts = input_ids.reshape(-1, length)
        parts[:, 0], parts[:, -1] = self.cls_token_id, self.sep_token_id
        rows = (batch.rows[:, None] * count + np.arange(count)).ravel()
        return parts, RowBatch(rows, np.repeat(batch.epochs, count), batch.progress)
