"""How far healthy runs were after so many tokens: what a run can be compared with, beyond guessing.

``reference_curves.json`` is what ``benchmarks/reference_curves.py`` makes of runs in docs/efficiency.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# A run is a match for a reference where it has the same of these; the rest moves a curve less than LAGS forgives.
MATCHED = ("method", "stage", "encoder", "hidden_size", "num_hidden_layers", "embedding_init", "init_from")
# A run lags where its gain is below this share of that of the worst reference run: other text and another vocabulary
# move a curve, too.
LAGS = 0.5
# What is measured -> the gain, in nats or AUC, below which a reference run itself has hardly begun to learn.
LEAST_GAINS = {"mlm_loss": 0.5, "ato_auc": 0.03}
FILE = Path(__file__).with_name("reference_curves.json")


@dataclass(frozen=True)
class ReferenceCurve:
    """What runs had gained over guessing: nats below the unigram cross-entropy, or AUC above 0.5.

    Attributes:
        metric: a name of :data:`LEAST_GAINS`.
        runs: how many there were.
        tokens: (points,) read, growing; the last is the length of the runs.
        lowest, highest: (points,) gain of the worst and of the best run.
    """

    metric: str
    runs: int
    tokens: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    def expected(self, tokens: float, planned: float) -> tuple[float, float] | None:
        """The least and the most of the reference runs, as far on; ``None`` where they had hardly begun to learn.

        A run that is to read more than they did warms up and decays later. It is compared at the same share of its
        way, where it has read more than they had, and not at the same number of tokens.

        Args:
            tokens: read so far.
            planned: to be read in all.
        """
        place = tokens * min(1.0, self.tokens[-1] / planned)
        if place < self.tokens[0]:
            return None
        lowest, highest = (float(np.interp(place, self.tokens, gains)) for gains in (self.lowest, self.highest))
        return (lowest, highest) if lowest >= LEAST_GAINS[self.metric] else None


@dataclass(frozen=True)
class Standing:
    """A run beside its reference.

    Attributes:
        metric: what is compared.
        gain: the run's.
        lowest, highest: of the reference runs.
        runs: how many these were.
    """

    metric: str
    gain: float
    lowest: float
    highest: float
    runs: int

    def sentence(self) -> str:
        """The comparison in words."""
        if self.metric == "ato_auc":
            what, unit, digits = "the AUC of the discriminator, reading every token, is", "above guessing", 3
        else:
            what, unit, digits = "the generator's held-out loss is", "nats below guessing by frequency", 2
        theirs = f"{self.lowest:.{digits}f}"
        if self.runs > 1:
            theirs += f" to {self.highest:.{digits}f} in {self.runs} runs"
        return (
            f"{what} {self.gain:.{digits}f} {unit}, where reference runs, as far on, had {theirs} (English text, a "
            "vocabulary of 10,000; your text may be easier or harder)."
        )

    @property
    def lags(self) -> bool:
        """Whether it is behind by more than another text would explain."""
        return self.gain < LAGS * self.lowest


def gain_of(metric: str, value: float, unigram_cross_entropy: float | None) -> float | None:
    """What a value is better than guessing; ``None`` where that is not known."""
    if metric == "ato_auc":
        return value - 0.5
    return None if unigram_cross_entropy is None else unigram_cross_entropy - value


def value_of(metric: str, gain: float | None, unigram_cross_entropy: float | None) -> float | None:
    """The value with a gain: the inverse of :func:`gain_of`."""
    if gain is None or metric == "ato_auc":
        return None if gain is None else 0.5 + gain
    return None if unigram_cross_entropy is None else unigram_cross_entropy - gain


def standing(
    curve: ReferenceCurve, metrics: Mapping[str, float], step: int, max_steps: int, unigram_cross_entropy: float | None
) -> Standing | None:
    """Compare an evaluation on held-out text with the reference.

    Args:
        curve: the reference.
        metrics: of the evaluation, unprefixed, with ``tokens``.
        step: optimiser step of it.
        max_steps: of the run.
        unigram_cross_entropy: of the run's held-out text, nats a token.

    Returns:
        ``None`` where there is nothing to compare, or not yet.
    """
    tokens, value = metrics.get("tokens"), metrics.get(curve.metric)
    if not tokens or value is None or step < 1:
        return None
    gain = gain_of(curve.metric, value, unigram_cross_entropy)
    expected = curve.expected(tokens, tokens / step * max_steps)
    return None if gain is None or expected is None else Standing(curve.metric, gain, *expected, curve.runs)


def matching_curves(settings: Mapping[str, Any]) -> list[ReferenceCurve]:
    """The reference of a pre-training run with these settings; empty where no such run was measured.

    One whose batch grows, or whose rows are cut, is another number of tokens in at each step than those were.
    """
    if settings.get("sequence_length") is not None or isinstance(settings.get("per_device_train_batch_size"), str):
        return []
    own = {name: settings.get(name) for name in MATCHED}
    return [curve for entry, curve in _references() if entry == own]


@functools.cache
def _references() -> list[tuple[dict[str, Any], ReferenceCurve]]:
    found = []
    for entry in json.loads(FILE.read_text(encoding="utf-8"))["curves"]:
        points = {name: tuple(entry[name]) for name in ("tokens", "lowest", "highest")}
        found.append((entry["settings"], ReferenceCurve(entry["metric"], entry["runs"], **points)))
    return found
