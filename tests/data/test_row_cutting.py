"""Parts of rows look like rows, and nothing of the text but two tokens a cut is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanelectra.data.row_cutting import RowCutting, part_lengths
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.schedules import Schedule

CLS, SEP = 2, 3


def cutting(lengths: int | str, row_length: int) -> RowCutting:
    return RowCutting(Schedule.parse(lengths, "sequence_length"), row_length, CLS, SEP)


def rows_of_text(count: int, length: int) -> np.ndarray:
    rows = np.arange(10, 10 + count * length).reshape(count, length)
    rows[:, 0], rows[:, -1] = CLS, SEP
    return rows


@given(row_length=st.integers(8, 600))
def test_rows_are_cut_into_equal_parts_of_eight_tokens_or_more(row_length: int) -> None:
    lengths = part_lengths(row_length)
    assert list(lengths) == [n for n in range(row_length, 7, -1) if row_length % n == 0]


@given(parts=st.sampled_from([1, 2, 4]), count=st.integers(1, 5))
def test_a_part_has_its_text_between_its_special_tokens(parts: int, count: int) -> None:
    rows = rows_of_text(count, 32)
    batch = RowBatch(np.arange(count) + 7, np.arange(count), 0.5)
    cut, numbers = cutting(32 // parts, 32)(rows.copy(), batch)
    assert cut.shape == (count * parts, 32 // parts)
    assert (cut[:, 0] == CLS).all() and (cut[:, -1] == SEP).all()
    together = cut.reshape(count, 32)
    lost = np.count_nonzero(together != rows, axis=1)
    assert lost.tolist() == [2 * (parts - 1)] * count
    assert len(set(numbers.rows.tolist())) == count * parts
    assert numbers.epochs.tolist() == np.repeat(batch.epochs, parts).tolist() and numbers.progress == 0.5


def test_between_two_points_rows_have_the_nearest_length_that_they_can_have() -> None:
    lengths = cutting("0:32 0.5:32 0.5:64 1:128", 128).lengths(np.array([0.0, 0.4999, 0.5, 0.74, 0.76, 1.0]))
    assert lengths.tolist() == [32, 32, 64, 64, 128, 128]
    moments = np.linspace(0, 1, 999)
    assert cutting("0:8 1:128", 128).lengths(moments).tolist() == [
        min((8, 16, 32, 64, 128), key=lambda n: abs(n - (8 + 120 * moment))) for moment in moments
    ]


def test_lengths_that_rows_cannot_have_are_refused() -> None:
    for lengths in ("0:32 1:256", 7, "0:32 0.5:100 1:128"):
        with pytest.raises(UserError, match="rows of 128 tokens can be trained on whole, or cut to 64, 32, 16, 8"):
            cutting(lengths, 128)
    with pytest.raises(UserError, match="no other length"):
        cutting(64, 127)
    with pytest.raises(UserError, match="no other length"):
        cutting(4, 12)
