"""Held-out text by a token's place in its span, as pictures; and the hardest tokens, as tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spanelectra.inspection.token_texts import printable
from spanelectra.report.curve_charts import Chart
from spanelectra.report.run_record import RunRecord
from spanelectra.report.run_tables import Table
from spanelectra.report.token_difficulty import TokenDifficulty, TokenScore
from spanelectra.report.tolerance import number
from spanelectra.report.words import short

# Breakdown of the intrinsic report -> heading, name of the horizontal axis, and what to look for in the generator's
# losses and in the discriminator's verdicts.
_BREAKDOWNS = {
    "span_tokens": (
        "by the length of the span",
        "tokens in the span",
        "Long spans leave less to guess from. SBGO, which sees only the two tokens beside the span, should fall behind "
        "MLM as spans grow.",
        "Fakes in long spans betray one another; a single replaced token may simply fit.",
    ),
    "position": (
        "by the position in the span",
        "token of the span, from the left",
        "The first token has its left neighbour to lean on; later ones follow masked tokens.",
        "Later tokens of a span are drawn with less to go by, and so should be easier to detect.",
    ),
    "boundary_distance": (
        "by the distance from the span's nearer end",
        "tokens to the nearer boundary",
        "The middle of a span is the hardest place: both neighbours are masked too.",
        "The farther from the text, the more a fake should stand out.",
    ),
}
_GUESSES = {"mlm": "MLM", "sbgo": "SBGO"}
_VERDICTS = {"ato": "ATO", "sbpo": "SBPO"}


@dataclass
class HeldOutPass:
    """What one run's model makes of its held-out rows.

    Attributes:
        record: the run.
        breakdowns: of :func:`~spanelectra.intrinsic_report.intrinsic_report`; empty where it was left out.
        difficulty: the hardest tokens, where the rows were read.
        left_out: why not, where they were not.
    """

    record: RunRecord
    breakdowns: dict[str, Any] = field(default_factory=dict)
    difficulty: TokenDifficulty | None = None
    left_out: str | None = None


def breakdown_charts(passes: list[HeldOutPass]) -> list[Chart]:
    """For each breakdown the generator's losses and the discriminator's verdicts; without what no run has."""
    charts = []
    for breakdown, (title, axis, about_guesses, about_verdicts) in _BREAKDOWNS.items():
        for heads, key, what, unit, sentence in (
            (_GUESSES, "loss", "Generator", "nats per masked token", about_guesses),
            (_VERDICTS, "auc_against_all_originals", "Discriminator", "AUC", about_verdicts),
        ):
            chart = _breakdown_chart(passes, breakdown, heads, key, f"{what}, {title}", axis, unit, sentence)
            charts += [chart] if chart else []
    return charts


def _breakdown_chart(
    passes: list[HeldOutPass],
    breakdown: str,
    heads: dict[str, str],
    key: str,
    title: str,
    axis: str,
    unit: str,
    sentence: str,
) -> Chart | None:
    curves, rows = [], []
    for place, held_out in enumerate(passes):
        baselines: list[dict[str, Any]] = []
        for head, label in heads.items():
            buckets = _inside(held_out, head, breakdown)
            if not buckets:
                continue
            curves.append(_curve(place, label, buckets, key))
            rows += [
                [held_out.record.name, label, bucket["bucket"], short(bucket["tokens"]), short(bucket[key])]
                for bucket in buckets
            ]
            baselines = baselines or (buckets if "unigram_loss" in buckets[0] else [])
        if any(number(bucket["unigram_loss"]) is not None for bucket in baselines):
            curves.append({**_curve(place, "guessing by frequency", baselines, "unigram_loss"), "baseline": True})
    if not curves:
        return None
    specification = {
        "unit": unit,
        "axis": axis,
        "curves": curves,
        "lines_of_reference": [{"value": 0.5, "label": "guessing"}] if heads is _VERDICTS else [],
    }
    heading = ["run", "head", axis, "tokens", unit]
    return Chart(f"{breakdown}_{key}", title, sentence, specification, heading, rows)


def _inside(held_out: HeldOutPass, head: str, breakdown: str) -> list[dict[str, Any]]:
    """The buckets of tokens in spans that hold enough of them for a mean to say something."""
    results = held_out.breakdowns.get(head)
    buckets = results["by"].get(breakdown, []) if results else []
    return [bucket for bucket in buckets if bucket["bucket"] != "outside" and bucket["tokens"] >= 10]


def _curve(run: int, label: str, buckets: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return {
        "run": run,
        "metric": label,
        "label": label,
        "kind": "held-out",
        "places": [bucket["bucket"] for bucket in buckets],
        "values": [number(bucket[key]) for bucket in buckets],
        "remarks": [f"{bucket['tokens']:,} tokens" for bucket in buckets],
    }


@dataclass
class TokenTable:
    """The hardest tokens of one run in one respect, with what the list means."""

    title: str
    sentence: str
    table: Table


def token_tables(difficulty: TokenDifficulty) -> list[TokenTable]:
    """The lists that are not empty."""
    lists = [
        (
            f"Hardest to generate, by {_GUESSES[head]}",
            "Masked tokens to which the generator gives the smallest probability. Rare names and pieces of words are "
            "usual here; common words are not.",
            "best guess wrong",
            scores,
        )
        for head, scores in difficulty.generate.items()
    ]
    lists.append(
        (
            "Fakes that pass for original",
            "Tokens that the generator put in and the discriminator (ATO) misses. Words that fit nearly everywhere are "
            "usual here.",
            "missed",
            difficulty.missed,
        )
    )
    lists.append(
        (
            "Original tokens under suspicion",
            "Tokens of the text that the discriminator (ATO) is likeliest to call replaced.",
            "called replaced",
            difficulty.suspected,
        )
    )
    return [
        TokenTable(title, sentence, Table(["token", "times", "loss, nats", wrong], [_row(score) for score in scores]))
        for title, sentence, wrong, scores in lists
        if scores
    ]


def _row(score: TokenScore) -> list[str]:
    """A token in quotes, so that the space before a new word is seen."""
    return [f"“{printable(score.token)}”", f"{score.count:,}", f"{score.loss:.2f}", f"{score.share:.0%}"]
