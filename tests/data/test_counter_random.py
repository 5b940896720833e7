"""Counter-based random numbers: the law, the independence and the reproducibility that the rest relies on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanelectra.data.counter_random import Stream, random_bits, row_keys, to_uniform, uniform

MASK = 2**64 - 1
GOLDEN = [
    [0.42519762659402427, 0.4175608595470177, 0.9414429436218015],
    [0.6313851954060283, 0.36816190993636577, 0.6390734768806707],
]


def splitmix64(state: int, index: int) -> int:
    """The published algorithm with Python integers: advance ``index + 1`` times, then finalise."""
    mixed = (state + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def test_published_sequence_of_splitmix64():
    # the reference C program's first numbers from state 1234567
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_bits(1234567, np.arange(4)).tolist() == expected


@given(st.integers(0, MASK), st.integers(0, 2**40))
def test_bits_equal_plain_integer_arithmetic(key, counter):
    assert int(random_bits(key, counter)) == splitmix64(key, counter)


def test_golden_values_never_change():
    """A change here changes every mask of every run: only with a new major version."""
    numbers = uniform(1, 2, np.array([0, 7]), Stream.SPAN_LENGTH, 3)
    key = splitmix64(splitmix64(splitmix64(splitmix64(1, 0), 1), 2), 7)
    assert numbers[1].tolist() == [(splitmix64(key, counter) >> 11) / 2**53 for counter in range(3)]
    np.testing.assert_array_equal(numbers, GOLDEN)


def test_streams_keep_their_numbers():
    assert [(stream.name, stream.value) for stream in Stream] == [
        ("SPAN_LENGTH", 1),
        ("SPAN_OFFSET", 2),
        ("SPAN_PRIORITY", 3),
        ("TOKEN_CHOICE", 4),
        ("MASK_KIND", 5),
        ("RANDOM_TOKEN", 6),
        ("REPLACEMENT_NOISE", 7),
    ]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_uniform_by_chi_square_and_kolmogorov_smirnov(dtype):
    numbers = uniform(3, 0, np.arange(2000), Stream.SPAN_OFFSET, 200, dtype).ravel()
    assert numbers.dtype == dtype
    counts = np.histogram(numbers, bins=1000, range=(0, 1))[0]
    chi_square = np.sum((counts - numbers.size / 1000) ** 2) / (numbers.size / 1000)
    assert abs(chi_square - 999) < 4 * np.sqrt(2 * 999)
    ranks = (np.arange(numbers.size) + 0.5) / numbers.size
    assert np.max(np.abs(np.sort(numbers) - ranks)) < 1.95 / np.sqrt(numbers.size)  # the 0.1% point


def test_every_bit_is_fair():
    bits = random_bits(row_keys(0, 0, np.arange(100), Stream.MASK_KIND)[:, None], np.arange(400)).ravel()
    ones = np.array([np.count_nonzero(bits >> np.uint64(place) & np.uint64(1)) for place in range(64)])
    assert np.all(np.abs(ones - bits.size / 2) < 4.5 * np.sqrt(bits.size) / 2)


def test_rows_streams_epochs_seeds_and_counters_are_uncorrelated():
    shape = (300, 300)
    base = uniform(5, 1, np.arange(300), Stream.SPAN_LENGTH, 301)
    views = {
        "numbers": base[:, :-1],
        "next counter": base[:, 1:],
        "next row": uniform(5, 1, np.arange(1, 301), Stream.SPAN_LENGTH, 300),
        "next stream": uniform(5, 1, np.arange(300), Stream.SPAN_OFFSET, 300),
        "next epoch": uniform(5, 2, np.arange(300), Stream.SPAN_LENGTH, 300),
        "next seed": uniform(6, 1, np.arange(300), Stream.SPAN_LENGTH, 300),
        "epoch and row swapped": uniform(5, np.arange(300), np.ones(300, np.int64), Stream.SPAN_LENGTH, 300),
    }
    # the swapped view shares its row 1 with the base, which is the point of leaving that row out
    rows = np.arange(300) != 1
    for (first, one), (second, other) in itertools.combinations(views.items(), 2):
        assert one.shape == other.shape == shape
        correlation = np.corrcoef(one[rows].ravel(), other[rows].ravel())[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(rows.sum() * 300), f"{first} and {second}"
    assert np.unique(np.concatenate([view[rows].ravel() for view in views.values()])).size > 4 * 300 * 299


@settings(max_examples=50)
@given(
    seed=st.integers(-(2**70), 2**70),
    rows=st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    epochs=st.lists(st.integers(0, 1000), min_size=8, max_size=8),
    count=st.integers(0, 40),
    data=st.data(),
)
def test_a_row_is_the_same_in_any_company(seed, rows, epochs, count, data):
    rows, epochs = np.array(rows), np.array(epochs[: len(rows)])
    together = uniform(seed, epochs, rows, Stream.TOKEN_CHOICE, count)
    np.testing.assert_array_equal(together, uniform(seed, epochs, rows, Stream.TOKEN_CHOICE, count))
    order = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5)))
    np.testing.assert_array_equal(
        together[order], uniform(seed, epochs[order], rows[order], Stream.TOKEN_CHOICE, count)
    )
    alone = uniform(seed, int(epochs[0]), rows[:1], Stream.TOKEN_CHOICE, count + 3)
    np.testing.assert_array_equal(together[:1], alone[:, :count])


def test_blocks_do_not_show():
    """``uniform`` works in blocks of rows; many rows, long rows and no rows give what single rows give."""
    for row_count, count in ((1000, 100), (3, 20_000), (0, 5)):
        numbers = uniform(0, 0, np.arange(row_count), Stream.MASK_KIND, count)
        assert numbers.shape == (row_count, count)
        for row in range(0, row_count, 499):
            np.testing.assert_array_equal(numbers[row], uniform(0, 0, np.array([row]), Stream.MASK_KIND, count)[0])


def test_uniform_never_reaches_one():
    extreme = np.array([0, MASK], dtype=np.uint64)
    assert to_uniform(extreme).tolist() == [0.0, 1 - 2**-53]
    assert to_uniform(extreme, np.float32).tolist() == [0.0, 1 - 2**-24]
    with pytest.raises(TypeError, match="float64 or float32"):
        to_uniform(extreme, np.float16)
