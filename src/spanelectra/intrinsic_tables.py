"""Tables of an intrinsic report, for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from spanelectra.console import say
from spanelectra.health import HealthLimits
from spanelectra.intrinsic_metrics import BREAKDOWNS, OUTSIDE

_HEADS = {
    "mlm": "MLM",
    "sbgo": "SBGO",
    "restoration": "restored",
    "ato": "ATO",
    "sbpo": "SBPO",
    "correction": "correction",
}
# What a table shows of each head.
_GUESSING_TOTALS = ("tokens", "loss", "perplexity", "unigram_loss", "unigram_perplexity", "accuracy")
_JUDGING_TOTALS = ("tokens", "replaced", "loss", "accuracy", "majority_accuracy", "precision", "recall", "auc")
_GUESSING_COLUMNS = {
    "mlm": ("tokens", "unigram_loss", "loss", "accuracy"),
    "sbgo": ("tokens", "unigram_loss", "loss", "accuracy"),
    "restoration": ("tokens", "rate"),
}
_JUDGING_COLUMNS = {
    "ato": ("tokens", "accuracy", "majority_accuracy", "auc", "auc_against_all_originals"),
    "sbpo": ("tokens", "accuracy", "majority_accuracy", "auc"),
}
_CORRECTING_COLUMNS: dict[str, tuple[str, ...]] = {"correction": ("tokens", "unigram_loss", "loss", "accuracy")}
_HEADINGS = {
    "tokens": "tokens",
    "replaced": "replaced",
    "loss": "loss",
    "perplexity": "perplexity",
    "unigram_loss": "unigram\nloss",
    "unigram_perplexity": "unigram\nperplexity",
    "accuracy": "right %",
    "majority_accuracy": "base\n%",
    "precision": "prec.\n%",
    "recall": "recall\n%",
    "rate": "%",
    "auc": "AUC",
    "auc_against_all_originals": "AUC\n(all)",
}

# A line of a table needs so many tokens: numbers of fewer say nothing. ``metrics.json`` has all of them.
FEWEST_TOKENS = 30


def _count(number: float) -> str:
    if number < 1e6:
        return f"{number:,.0f}"
    return f"{number / 1e6:.1f}M" if number < 1e9 else f"{number:.1e}"


def _three_digits(number: float) -> str:
    return f"{number:.3f}"


def _percent(number: float) -> str:
    return f"{100 * number:.1f}"


_FORMATS: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(("tokens", "replaced", "perplexity", "unigram_perplexity"), _count),
    **dict.fromkeys(("loss", "unigram_loss", "auc", "auc_against_all_originals"), _three_digits),
    **dict.fromkeys(("accuracy", "majority_accuracy", "precision", "recall", "rate"), _percent),
}


def print_intrinsic_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`~spanelectra.intrinsic_report.intrinsic_report` gave; what is not defined is a dash."""
    say(console, f"{report['run']} on {report['data']}")
    say(
        console,
        f"{report['rows']:,} of {report['rows_available']:,} rows of {report['max_seq_length']} tokens "
        f"({report['kind']}), seed {report['seed']}",
    )
    if report["masking"]:
        masking = report["masking"]
        words = masking["max_span_words"]
        what = "whole words" if words == 1 else f"spans of up to {words} words"
        what = what if masking["masking"] == "span" else "single tokens"
        say(console, f"masked: {masking['mask_ratio']:.1%} of the tokens, {what}")
    if report["unigram_cross_entropy"] is not None:
        say(console, f"guessing any token by frequency costs {report['unigram_cross_entropy']:.3f} nats")
    for sentence in _verdicts(report):
        say(console, sentence)
    console.print()
    _print_totals(report, console)
    for breakdown, meaning in BREAKDOWNS.items():
        for part, heads in (
            ("Generator", _GUESSING_COLUMNS),
            ("Discriminator", _JUDGING_COLUMNS),
            ("Correction", _CORRECTING_COLUMNS),
        ):
            _print_breakdown(report, breakdown, f"{part}, by {meaning}", heads, console)
    for name, reason in report["missing"].items():
        say(console, f"no {_HEADS[name]}: {reason}")
    for notice in report["notices"]:
        say(console, f"note: {notice}")


def _verdicts(report: dict[str, Any]) -> list[str]:
    """Whether each head is better than guessing, in a sentence; by as much as the alarms of a run ask for."""
    found, limits = [], HealthLimits()
    for name in ("mlm", "sbgo", "correction"):
        total = report[name]["total"] if report[name] else {}
        loss, unigram = total.get("loss"), total.get("unigram_loss")
        if loss is not None and unigram is not None:
            verdict = "better" if loss < unigram - limits.unigram_margin else "no better"
            found.append(
                f"{_HEADS[name]}: {verdict} than guessing by frequency, with {loss:.2f} nats a token against "
                f"{unigram:.2f} (less is better)"
            )
    # without samples from a generator random tokens stand there, which are easy to tell
    for name in ("ato", "sbpo") if report["restoration"] else ():
        total = report[name]["total"] if report[name] else {}
        if total.get("auc") is not None:
            verdict = "better" if total["auc"] >= 0.5 + limits.auc_margin else "no better"
            found.append(
                f"{_HEADS[name]}: {verdict} than guessing, with an AUC of {total['auc']:.3f} (0.5 is guessing, 1 is "
                "perfect)"
            )
    return found


def _print_totals(report: dict[str, Any], console: Console) -> None:
    guessing = {key: _HEADINGS[key] for key in _GUESSING_TOTALS}
    guesses = {_HEADS[name]: report[name]["total"] for name in ("mlm", "sbgo") if report[name]}
    if guesses:
        _print_table(console, "Generator, on masked tokens", guessing, guesses)
    if report["restoration"]:
        total = report["restoration"]["total"]
        rate = _FORMATS["rate"](total["rate"]) if total["tokens"] else "-"
        say(console, f"restored: {total['restored']:,} of {total['tokens']:,} masked tokens, {rate} %\n")
    verdicts = {}
    for name in ("ato", "sbpo"):
        for part, words in (("total", ""), ("masked", " masked")) if report[name] else ():
            verdicts[f"{_HEADS[name]}{words}"] = report[name][part]
    if verdicts:
        columns = {key: _HEADINGS[key] for key in _JUDGING_TOTALS}
        _print_table(console, "Discriminator, replaced or original", columns, verdicts)
        say(console, "base %: right if the commoner verdict is always given")
        say(console, "AUC (all): the line's replaced tokens against all originals, not only its own\n")
    if report["correction"]:
        corrected = {_HEADS["correction"]: report["correction"]["total"]}
        _print_table(console, "Discriminator, what replaced tokens were", guessing, corrected)


def _print_breakdown(
    report: dict[str, Any], breakdown: str, title: str, heads: dict[str, tuple[str, ...]], console: Console
) -> None:
    """One table: a bucket's line has the numbers of all heads of the part."""
    lines: dict[str, dict[str, Any]] = {}
    columns: dict[str, str] = {}
    for name, keys in heads.items():
        for bucket in report[name]["by"].get(breakdown, ()) if report[name] else ():
            line = lines.setdefault(bucket["bucket"], {})
            for key in keys:
                # all that guess have the same tokens, and so the same baseline
                is_common = key == "unigram_loss" or (key == "tokens" and heads is not _JUDGING_COLUMNS)
                column = key if is_common else f"{name} {key}"
                columns[column] = _HEADINGS[key] if is_common else f"{_HEADS[name]}\n{_HEADINGS[key]}"
                line[column] = bucket[key]
    # one head may have a bucket that another has not
    order = sorted(lines, key=lambda bucket: math.inf if bucket == OUTSIDE else int(bucket.rstrip("+")))
    few = [bucket for bucket in order if not _without_small_samples(lines[bucket])]
    shown = {bucket: lines[bucket] for bucket in order if bucket not in few}
    if shown:
        _print_table(console, title, columns, shown)
    if few:
        say(console, f"{title}: {', '.join(few)} not shown, of fewer than {FEWEST_TOKENS} tokens\n")


def _without_small_samples(line: dict[str, Any]) -> bool:
    """Take out of a line what a head says of too few tokens; whether anything is left."""
    for column in [column for column in line if column.endswith("tokens") and line[column] < FEWEST_TOKENS]:
        # a common count is that of every head that guesses
        head = column.removesuffix("tokens")
        for name in [name for name in line if name.startswith(head) and name != column]:
            line[name] = None
    return any(number is not None for column, number in line.items() if not column.endswith("tokens"))


def _print_table(console: Console, title: str, columns: dict[str, str], lines: dict[str, dict[str, Any]]) -> None:
    """``columns``: name -> heading; ``lines``: name -> (column -> number or ``None``)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.title_style = "bold"
    table.add_column("")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for name, line in lines.items():
        cells = ((_FORMATS[column.split()[-1]], line.get(column)) for column in columns)
        table.add_row(name, *("-" if number is None else form(number) for form, number in cells))
    console.print(table)
