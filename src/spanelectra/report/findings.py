"""Is the run healthy? Sentences for people who see such a run for the first time."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from typing import Literal, TypeAlias

from spanelectra.callbacks import unprefixed
from spanelectra.health import HealthLimits, HealthMonitor
from spanelectra.reference_curves import matching_curves, standing
from spanelectra.report.run_record import RunRecord, discriminator_start
from spanelectra.report.tolerance import listed, mapping, number
from spanelectra.report.words import duration, short

State: TypeAlias = Literal["good", "attention", "problem", "note"]

# A step this much slower than the median has waited for something.
_SLOW = 0.5
# Nats by which the last held-out MLM loss may lie above the best one before it is said to have risen.
_RISE = 0.02


@dataclass(frozen=True)
class Finding:
    """One sentence on a run, and whether it is good news."""

    state: State
    sentence: str


def read_findings(record: RunRecord) -> list[Finding]:
    """What a newcomer should know of a pre-training run: how far it got, what is wrong with it, and the rest."""
    found = [
        *_progress(record),
        *_alarms(record),
        *_not_finite(record),
        *_generator(record),
        *_discriminator(record),
        *_beside_references(record),
        *_speed(record),
        *(Finding("attention", sentence) for sentence in record.problems),
    ]
    order: dict[State, int] = {"problem": 0, "attention": 1}
    return [found[0], *sorted(found[1:], key=lambda finding: order.get(finding.state, 2))]


def overall(findings: list[Finding]) -> tuple[State, str]:
    """The worst of them, as a heading."""
    states = {finding.state for finding in findings}
    if "problem" in states:
        return "problem", "There is a problem"
    if "attention" in states:
        return "attention", "Worth a look"
    return "good", "Healthy"


def last_held_out(record: RunRecord) -> dict[str, float]:
    """The held-out metrics of the end, or of the last evaluation so far."""
    held_out = mapping(record.metrics.get("held_out"))
    if not held_out:
        lines = record.lines(held_out=True)
        held_out = unprefixed(lines[-1]) if lines else {}
    return {name: value for name, value in held_out.items() if number(value) is not None}


def _progress(record: RunRecord) -> list[Finding]:
    planned = number(record.settings.get("max_steps"))
    if record.metrics:
        steps, tokens = record.metrics.get("steps", record.step), record.metrics.get("tokens")
        seconds = number(record.metrics.get("wall_seconds"))
        parts = [f"{short(steps)} steps"]
        parts += [f"{short(tokens)} tokens"] if tokens else []
        parts += [duration(seconds)] if seconds else []
        found = [Finding("good", f"Finished: {', '.join(parts)}.")]
    else:
        of = f" of {short(int(planned))}" if planned else ""
        found = [
            Finding(
                "attention",
                f"Not finished: step {record.step:,}{of}. If it was interrupted, go on with: spanelectra pretrain "
                f"--resume {record.directory}",
            )
        ]
    if not record.lines(held_out=True):
        found.append(
            Finding(
                "attention",
                "Nothing was evaluated on held-out text (yet), so nothing says what was learned rather than copied.",
            )
        )
    return found


def _alarms(record: RunRecord) -> list[Finding]:
    """Those that sounded, or, where a run never came to write them down, those that its history sounds again."""
    alarms = [str(alarm) for alarm in listed(record.metrics.get("alarms", record.start.get("alarms")))]
    max_steps = number(record.settings.get("max_steps"))
    if not record.metrics:
        alarms += record.rollbacks
    if not record.metrics and max_steps:
        monitor = HealthMonitor(None, int(max_steps), discriminator_start(record))
        for line in record.history:
            numbers = {name: value for name, value in unprefixed(line).items() if number(value) is not None}
            # a line that somebody has edited may lack what goes with a number
            with contextlib.suppress(KeyError):
                alarms += monitor.check(line["step"], numbers, held_out="eval_loss" in line)
    # whether it came to anything is for the findings below to say
    return [Finding("attention", f"Alarm: {alarm}") for alarm in alarms]


def _bad_news(record: RunRecord, start: int = 0) -> State:
    """Being no better than guessing is a problem, but not yet where learning has only begun."""
    return "problem" if record.step - start >= HealthLimits().warm_up_steps else "attention"


def _hardly(loss: float, unigram: float) -> str:
    """Of a loss that is not clearly below guessing."""
    return "It has learned hardly more than that." if loss < unigram else "It is no better than that."


def _not_finite(record: RunRecord) -> list[Finding]:
    """The history writes a loss that is no number as its name."""
    steps = [
        line["step"]
        for line in record.history
        if any(name.endswith("loss") and value is not None and number(value) is None for name, value in line.items())
    ]
    if not steps:
        return []
    return [
        Finding(
            "problem",
            f"A loss was no number any more at step {steps[0]:,}: training diverged. Lower the learning rate or "
            "lengthen the warm-up. Such points are left out of the curves.",
        )
    ]


def _generator(record: RunRecord) -> list[Finding]:
    if record.settings.get("stage") == "discriminator":
        return _frozen_generator(record)
    held_out, unigram = last_held_out(record), number(record.metrics.get("unigram_cross_entropy"))
    loss, found = held_out.get("mlm_loss"), []
    if loss is not None and unigram is not None:
        better = loss < unigram - HealthLimits().unigram_margin
        found.append(
            Finding(
                "good" if better else _bad_news(record),
                f"The generator's held-out loss is {loss:.2f} nats a masked token; guessing by frequency costs "
                f"{unigram:.2f}. " + (f"It is {unigram - loss:.2f} nats better." if better else _hardly(loss, unigram)),
            )
        )
    losses = [(line["step"], number(line.get("eval_mlm_loss"))) for line in record.lines(held_out=True)]
    known = [(loss, step) for step, loss in losses if loss is not None]
    if known and known[-1][0] > min(known)[0] + _RISE:
        lowest, step = min(known)
        found.append(
            Finding(
                "attention",
                f"The generator's held-out loss rose from {lowest:.2f} at step {step:,} to {known[-1][0]:.2f}: with so "
                "little text, or so high a learning rate, shorter training may do better.",
            )
        )
    elif len(known) > 2 and record.metrics and known[-2][0] - known[-1][0] > _RISE:
        found.append(
            Finding("note", "The generator's held-out loss was still falling at the end: more steps may help.")
        )
    return found + _restored(held_out)


def _frozen_generator(record: RunRecord) -> list[Finding]:
    """Of a generator that an earlier run trained: what it is, and not how it learns."""
    generator = record.settings.get("generator")
    if generator is None:
        sentence = "The fakes were written beforehand, by spanelectra corrupt; no generator runs here."
        return [Finding("note", sentence)]
    sentence = f"The generator is that of {generator}; it does not learn here."
    return [Finding("note", sentence), *_restored(last_held_out(record))]


def _restored(held_out: dict[str, float]) -> list[Finding]:
    rate = held_out.get("replaced_rate")
    if rate is None:
        return []
    sentence = f"Sampling from the generator restores {1 - rate:.1%} of the masked tokens; the rest are fakes."
    return [Finding("note", sentence)]


def _discriminator(record: RunRecord) -> list[Finding]:
    held_out, found, start = last_held_out(record), [], discriminator_start(record)
    if not record.metrics and record.step < start:
        return [Finding("note", f"The discriminator joins at step {start:,}; its curves mean nothing before.")]
    loss, unigram = held_out.get("correction_loss"), held_out.get("correction_unigram_loss")
    if loss is not None and unigram is not None:
        better = loss < unigram - HealthLimits().unigram_margin
        found.append(
            Finding(
                "good" if better else _bad_news(record, start),
                f"The discriminator names the originals of replaced tokens at {loss:.2f} nats each, where guessing the "
                f"same by frequency costs {unigram:.2f}. "
                + (f"It is {unigram - loss:.2f} nats better." if better else _hardly(loss, unigram)),
            )
        )
    for head, reads in (("ato", "reading every token"), ("sbpo", "reading only span boundaries")):
        auc, accuracy = held_out.get(f"{head}_auc"), held_out.get(f"{head}_accuracy")
        majority, recall = held_out.get(f"{head}_majority_accuracy"), held_out.get(f"{head}_recall")
        if auc is None or accuracy is None or majority is None:
            continue
        tells = auc >= 0.5 + HealthLimits().auc_margin
        state: State = "good" if accuracy > majority else "note"
        found.append(
            Finding(
                state if tells else _bad_news(record, start),
                f"The discriminator, {reads}, ranks replaced above original tokens with an AUC of {auc:.3f} (0.5 is "
                f"guessing); {accuracy:.1%} of its verdicts are right, where always giving the commoner one would be "
                f"right {majority:.1%} of the time."
                + ("" if state == "good" or not tells else " So it ranks tokens, but its verdicts add nothing yet."),
            )
        )
        if tells and recall is not None and recall < 0.1:
            found.append(
                Finding(
                    "attention",
                    f"{reads.capitalize()}, it finds only {recall:.1%} of the replaced tokens: its ranking is better "
                    "than its verdicts. More training of the discriminator may change that: more steps"
                    + (", or a shorter --generator_head_start." if start else "."),
                )
            )
    return found


def _beside_references(record: RunRecord) -> list[Finding]:
    """The last evaluation beside runs that went well, where there are such with these settings."""
    lines, max_steps = record.lines(held_out=True), number(record.settings.get("max_steps"))
    if not lines or not max_steps:
        return []
    metrics = {name: value for name, value in unprefixed(lines[-1]).items() if number(value) is not None}
    unigram, found = number(record.metrics.get("unigram_cross_entropy")), []
    for curve in matching_curves(record.settings):
        place = standing(curve, metrics, lines[-1]["step"], int(max_steps), unigram)
        if place is not None:
            sentence = place.sentence()
            state: State = "attention" if place.lags else "good" if place.gain >= place.lowest else "note"
            found.append(Finding(state, sentence[0].upper() + sentence[1:]))
    return found


def _speed(record: RunRecord) -> list[Finding]:
    rates = [rate for line in record.history if (rate := number(line.get("tokens_per_second"))) is not None]
    if not rates:
        return []
    median = statistics.median(rates)
    slow = sum(rate < _SLOW * median for rate in rates) / len(rates)
    found = [Finding("note", f"Speed: {median:,.0f} tokens a second (median).")]
    if slow > 0.05:
        found.append(
            Finding(
                "note",
                f"In {slow:.0%} of the log the speed was below half of the median: the machine was shared, or waited.",
            )
        )
    return found
