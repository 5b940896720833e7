"""Health alarms: a run that looks fine and learns nothing is said to be so, in plain words, while it runs.

Normal-looking losses over a useless encoder are the commonest silent failure of this kind of training. Alarms compare
with what needs no model at all, guessing by frequency and saying 'original' every time, and with runs that went well.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from spanelectra.argument_groups import OBJECTIVES
from spanelectra.reference_curves import ReferenceCurve, standing


def broken_losses(metrics: dict[str, float]) -> list[str]:
    """Names of the losses that are no numbers, the one that is summed up from the others last."""
    losses = [name for name in metrics if name == "loss" or name.endswith("_loss")]
    return sorted((name for name in losses if not math.isfinite(metrics[name])), key=lambda name: name == "loss")


@dataclass(frozen=True)
class HealthLimits:
    """When alarms may sound and how much better than the baseline is good enough.

    Attributes:
        warm_up_steps, warm_up_progress: no comparison before this many steps and this share of the part of the run in
            which the losses in question are on; learning starts slowly (docs/plateau.json: clearly below the unigram
            plateau at step 400 of 2,048 tokens for a small ModernBERT, not within 600 for a small ELECTRA).
        unigram_margin: nats by which the MLM loss must be below the unigram cross-entropy.
        auc_margin: how far the AUC of replaced-token detection must be above 0.5.
        spike_entries: lines of the log that a loss is compared with.
        spike_ratio, spike_deviations: a spike is this many times their median, and as many standard deviations (by
            the median absolute deviation) above it; the runs of docs/results.md stay far below both.
    """

    warm_up_steps: int = 400
    warm_up_progress: float = 0.5
    unigram_margin: float = 0.05
    auc_margin: float = 0.03
    spike_entries: int = 20
    spike_ratio: float = 1.3
    spike_deviations: float = 6.0


class HealthMonitor:
    """Watches logged metrics; every kind of alarm sounds once, but each spike of a loss has its own.

    Args:
        unigram_cross_entropy: nats a token of guessing by frequency on the held-out text; ``None`` if unknown.
        max_steps: length of the run.
        discriminator_start: step at which the discriminator's losses switch on.
        limits: see :class:`HealthLimits`.
        references: runs that went well, with such settings.
    """

    def __init__(
        self,
        unigram_cross_entropy: float | None,
        max_steps: int,
        discriminator_start: int = 0,
        limits: HealthLimits | None = None,
        references: Sequence[ReferenceCurve] = (),
    ) -> None:
        self.unigram_cross_entropy = unigram_cross_entropy
        self.max_steps = max_steps
        self.discriminator_start = discriminator_start
        self.limits = limits or HealthLimits()
        self.references = references
        self.alarms: list[str] = []
        self._sounded: set[str] = set()
        self._largest_losses: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=self.limits.spike_entries)
        )
        self._spiking: set[str] = set()
        self._lagging: set[str] = set()

    def check(self, step: int, metrics: dict[str, float], held_out: bool = True) -> list[str]:
        """Look at one line of the log; returns new alarms.

        Args:
            step: optimiser step.
            metrics: names as in ``PretrainingMetrics``, unprefixed.
            held_out: whether they are of held-out rows. In training some masked tokens are shown, which any copyist
                gets right, so only held-out losses are compared with guessing by frequency.
        """
        found = self._check_numbers(step, metrics) if held_out else self._check_spikes(step, metrics)
        if held_out:
            found += self._check_references(step, metrics)
        if held_out and self._is_warm(step, 0):
            found += self._check_generator(step, metrics)
        if self._is_warm(step, self.discriminator_start):
            found += self._check_discriminator(step, metrics)
            found += self._check_correction(step, metrics) if held_out else []
        new = []
        for kind, message in found:
            if kind not in self._sounded:
                new.append(message)
            self._sounded.add(kind)
        self.alarms += new
        return new

    def _check_numbers(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        return [
            (
                "non-finite",
                f"{name} is {metrics[name]} at step {step}: training has diverged. Lower the learning rate, "
                "lengthen the warm-up, or turn bf16 off.",
            )
            for name in broken_losses(metrics)
        ]

    def _check_spikes(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        """Steps that were left out, and losses whose largest value since the last line is far above the usual."""
        found, limits = [], self.limits
        if metrics.get("nonfinite_steps"):
            found.append(
                (
                    "left-out",
                    f"{metrics['nonfinite_steps']:.0f} of {step} steps had a loss or a gradient that is not a number, "
                    "and were left out. Lower the learning rate or lengthen the warm-up if there are more to come.",
                )
            )
        for name in (f"{objective}_loss" for objective in OBJECTIVES):
            largest, before = metrics.get(f"{name}_max", math.nan), self._largest_losses[name]
            if not math.isfinite(largest):
                continue
            usual = median(before) if len(before) >= limits.spike_entries // 4 else math.inf
            deviation = 1.4826 * median(abs(value - usual) for value in before) if math.isfinite(usual) else 0.0
            is_spike = largest > max(limits.spike_ratio * usual, usual + limits.spike_deviations * deviation)
            if is_spike and name not in self._spiking:
                found.append(
                    (
                        f"spike of {name} at {step}",
                        f"{name} rose to {largest:.3f} before step {step}, from {usual:.3f} at most as a rule. "
                        "If it does not come down, lower the learning rate, or clip at a smaller --max_grad_norm.",
                    )
                )
            self._spiking = self._spiking | {name} if is_spike else self._spiking - {name}
            before.append(largest)
        return found

    def _check_references(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        """Far behind runs that went well, twice in a row: once, it may be about to leave the unigram plateau."""
        found = []
        for curve in self.references:
            place = standing(curve, metrics, step, self.max_steps, self.unigram_cross_entropy)
            if place is None:
                continue
            if place.lags and curve.metric in self._lagging:
                found.append(
                    (
                        f"lags {curve.metric}",
                        f"at step {step} this run is far behind reference runs with such settings: {place.sentence()} "
                        "Too high a learning rate is the commonest reason; text that is very different is another.",
                    )
                )
            self._lagging = self._lagging | {curve.metric} if place.lags else self._lagging - {curve.metric}
        return found

    def _is_warm(self, step: int, start: int) -> bool:
        done, share = step - start, (step - start) / max(1, self.max_steps - start)
        return done >= self.limits.warm_up_steps and share >= self.limits.warm_up_progress

    def _against_frequency(self, loss: float | None, unigram: float | None, head: str) -> str | None:
        """What a head's loss is beside guessing the same tokens by frequency, where it is no better; else ``None``."""
        if loss is None or unigram is None or not math.isfinite(loss) or loss < unigram - self.limits.unigram_margin:
            return None
        return f"{head} loss {loss:.2f}, unigram cross-entropy {unigram:.2f}"

    def _check_generator(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        beside = self._against_frequency(metrics.get("mlm_loss"), self.unigram_cross_entropy, "MLM")
        if beside is None:
            return []
        return [
            (
                "unigram",
                f"the generator is no better than guessing by frequency at step {step}: {beside}. What it feeds the "
                "discriminator is frequency noise. Train longer, raise the learning rate, or start with shorter spans "
                "(--max_span_words '0:1 0.5:10').",
            )
        ]

    def _check_correction(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        # replaced tokens are rarer than others
        unigram = metrics.get("correction_unigram_loss")
        beside = self._against_frequency(metrics.get("correction_loss"), unigram, "correction")
        if beside is None:
            return []
        return [
            (
                "correction",
                f"the discriminator names originals no better than guessing by frequency at step {step}: {beside}. "
                "Start it from a trained generator (--stage discriminator --generator GEN), train longer, or raise "
                "--correction_weight.",
            )
        ]

    def _check_discriminator(self, step: int, metrics: dict[str, float]) -> list[tuple[str, str]]:
        found = []
        for prefix, name in (("ato", "all-token"), ("sbpo", "span-boundary")):
            accuracy, auc = metrics.get(f"{prefix}_accuracy"), metrics.get(f"{prefix}_auc")
            if accuracy is None or auc is None:
                continue
            majority = metrics[f"{prefix}_majority_accuracy"]
            if accuracy <= majority and auc < 0.5 + self.limits.auc_margin:
                found.append(
                    (
                        prefix,
                        f"the discriminator's {name} head is no better than always giving the commoner verdict at step "
                        f"{step}: accuracy {accuracy:.3f} against {majority:.3f}, AUC {auc:.2f}. Give the generator a "
                        f"head start (--generator_head_start 0.3), train longer, or raise --{prefix}_weight.",
                    )
                )
        return found
