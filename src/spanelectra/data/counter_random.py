"""Random numbers that are a function of what they are for, not of when they are drawn.

A stateful generator gives other numbers when the batch size, the number of workers or the order of the rows changes.
Here every number is a hash of (seed, stream, epoch, row, counter), so that row 7 of epoch 2 is masked the same way in
any batch, in any worker and after any resume, and nothing needs to be saved. The idea is that of Salmon et al., 2011,
"Parallel random numbers: as easy as 1, 2, 3"; the hash is SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable
pseudorandom number generators") with its usual constants: a Weyl step by the golden ratio, then a finaliser in which
every input bit changes every output bit with probability about one half. Not for cryptography.

Keys split: the 64 bits drawn from a key are themselves a key, so ``random_bits(random_bits(keys, segments), draws)``
is a fresh sequence per segment. That is how the seed becomes a key per row here.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_MULTIPLIER = np.uint64(0x94D049BB133111EB)
_ALL_BITS = 2**64 - 1
_NUMBERS_IN_CACHE = 8192  # a dozen passes over 64 KiB are ten times faster than over main memory


class Stream(IntEnum):
    """What a random number is for. Numbers of different streams are independent; a member's value never changes."""

    SPAN_LENGTH = 1
    SPAN_OFFSET = 2
    SPAN_PRIORITY = 3
    TOKEN_CHOICE = 4
    MASK_KIND = 5
    RANDOM_TOKEN = 6
    REPLACEMENT_NOISE = 7


def random_bits(keys: npt.ArrayLike, counters: npt.ArrayLike) -> UInt64Array:
    """Return the number ``counters`` of the SplitMix64 sequence that starts at ``keys``.

    Args:
        keys: uint64, any shape.
        counters: integers, any shape that broadcasts with ``keys``; negative ones wrap modulo 2**64.

    Returns:
        uint64 of the broadcast shape, uniform over all 64 bits.
    """
    # Counter 0 must move too, since 0 is the finaliser's fixed point. These functions wrap silently even on scalars,
    # where the operators warn.
    steps = np.multiply(np.add(_as_uint64(counters), np.uint64(1)), _GOLDEN)
    bits = np.asarray(np.add(_as_uint64(keys), steps))
    scratch = np.empty_like(bits)
    for shift, multiplier in ((30, _FIRST_MULTIPLIER), (27, _SECOND_MULTIPLIER)):
        np.right_shift(bits, np.uint64(shift), out=scratch)
        np.bitwise_xor(bits, scratch, out=bits)
        np.multiply(bits, multiplier, out=bits)
    np.right_shift(bits, np.uint64(31), out=scratch)
    return np.bitwise_xor(bits, scratch, out=bits)


def row_keys(seed: int, epochs: npt.ArrayLike, rows: npt.ArrayLike, stream: Stream) -> UInt64Array:
    """Return the key of each row for one stream: the start of that row's own sequence.

    Args:
        seed: any Python integer, taken modulo 2**64.
        epochs: integer, scalar or (B,).
        rows: integer numbers of the rows in the data set, (B,).
        stream: what the numbers are for.

    Returns:
        (B,) uint64.
    """
    return random_bits(random_bits(_stream_key(int(seed) & _ALL_BITS, int(stream)), epochs), rows)


# a single number costs numpy as much as a batch of them, and these are the same for every batch
@lru_cache
def _stream_key(seed: int, stream: int) -> UInt64Array:
    return random_bits(random_bits(seed, 0), stream)


def to_uniform(bits: UInt64Array, dtype: type[np.floating[Any]] = np.float64) -> npt.NDArray[Any]:
    """Turn 64 random bits into a number in [0, 1), by as many leading bits as the type's mantissa holds.

    Args:
        bits: uint64, any shape.
        dtype: ``numpy.float64`` (53 bits) or ``numpy.float32`` (24 bits).

    Returns:
        ``dtype`` of the same shape; never 1.0, since no rounding takes place.

    Raises:
        TypeError: for another ``dtype``.
    """
    if dtype not in (np.float64, np.float32):
        raise TypeError(f"uniform numbers are float64 or float32, not {dtype!r}")
    digits = np.finfo(dtype).nmant + 1
    return np.multiply(np.right_shift(bits, np.uint64(64 - digits)), dtype(2.0**-digits), dtype=dtype, casting="unsafe")


def uniform(
    seed: int,
    epochs: npt.ArrayLike,
    rows: npt.ArrayLike,
    stream: Stream,
    count: int,
    dtype: type[np.floating[Any]] = np.float64,
) -> npt.NDArray[Any]:
    """Return the first ``count`` uniform numbers of each row: a function of (seed, epoch, row, stream, counter) only.

    Args:
        seed, epochs, rows, stream: as for :func:`row_keys`.
        count: how many numbers per row, K.
        dtype: ``numpy.float64`` or ``numpy.float32``.

    Returns:
        (B, K) of ``dtype`` in [0, 1); a larger K only adds columns.
    """
    keys = np.atleast_1d(row_keys(seed, epochs, rows, stream))
    counters = np.arange(count)
    numbers = np.empty((keys.size, count), dtype)
    block = max(1, _NUMBERS_IN_CACHE // max(1, count))
    for start in range(0, keys.size, block):
        numbers[start : start + block] = to_uniform(random_bits(keys[start : start + block, None], counters), dtype)
    return numbers


def _as_uint64(integers: npt.ArrayLike) -> UInt64Array:
    # astype wraps negative integers silently; a Python integer of 2**63 or more already arrives as uint64
    return np.asarray(integers).astype(np.uint64, copy=False)
