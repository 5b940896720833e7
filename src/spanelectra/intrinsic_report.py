"""Intrinsic evaluation: how well the heads of a pre-trained run do what they were trained for, on any text.

:func:`intrinsic_report` computes, :func:`print_intrinsic_report` prints; between them is a plain dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from spanelectra.configuration_spanelectra import SAMPLED_HEADS
from spanelectra.console import make_console, say
from spanelectra.data.training_rows import RowsInOrder
from spanelectra.errors import UserError
from spanelectra.export import open_run
from spanelectra.intrinsic_data import open_intrinsic_data
from spanelectra.intrinsic_metrics import BREAKDOWNS, OUTSIDE, IntrinsicMetrics
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, SpanElectraOutput

_HEADS = {"mlm": "MLM", "sbgo": "SBGO", "restoration": "restored", "ato": "ATO", "sbpo": "SBPO"}
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


def intrinsic_report(
    run: str,
    data: str,
    *,
    rows: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    text_column: str = "text",
    max_seq_length: int | None = None,
    encoding: str = "utf-8",
    quiet: bool = False,
) -> dict[str, Any]:
    """Evaluate a run's generator and discriminator on text: as a whole, and by a token's place in its span.

    Rows are masked as in the run's own held-out evaluation: with the settings of the run's end, every masked token a
    [MASK]. With seed 0 and the held-out rows of the run's data the accuracies and AUCs are those of its
    ``metrics.json``. Losses here are means over tokens, there over batches of rows; the two differ, in the fourth
    digit, where batches have different numbers of masked tokens.

    Args:
        run: directory of a `spanelectra pretrain` run, one of its checkpoints, or an export.
        data: directory that `spanelectra prepare` or `spanelectra corrupt` wrote, of which the held-out rows are read,
            the first ones first; or text, in files, a folder, a glob or a dataset as `prepare` takes it, of which rows
            from all over are read (blank lines separate documents in plain text).
        rows: number of rows, at most.
        batch_size: rows at once; changes nothing but memory and time.
        seed: of masks and samples; corrupted rows have both already.
        text_column: the field of records that holds the text.
        max_seq_length: tokens in a row of text; by default as many as the run's rows have.
        encoding: of text files.
        quiet: no progress bar.

    Returns:
        A dictionary that JSON takes: ``run``, ``model`` (the directory it was in), ``data``, ``kind`` (what the rows
        are), ``rows`` (read), ``rows_available``, ``max_seq_length``, ``seed`` and ``masking`` (``None`` for corrupted
        rows); ``unigram_cross_entropy``, what guessing all tokens of the rows by frequency costs, in nats a token: the
        frequencies of the training text for prepared rows, which is what ``metrics.json`` has, and of the text itself
        for text, which is harder to beat (``None`` for corrupted rows); ``mlm``, ``sbgo``, ``restoration``, ``ato`` and
        ``sbpo``, see :meth:`IntrinsicMetrics.compute`; ``missing``, those of the five that are ``None`` -> why; and
        ``notices``, sentences.

    Raises:
        UserError: for a run without a model or a diverged one, data that cannot be read or does not fit it, or a number
            out of range.
    """
    for name, number, least in (("rows", rows, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if number < least:
            raise UserError(f"{name} must be at least {least}, got {number}.")
    console = make_console(quiet)
    model, tokenizer, source = open_run(run)
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise UserError(f"{source} holds weights that are not numbers: the run diverged. Give an earlier checkpoint.")
    opened = open_intrinsic_data(
        run,
        data,
        model,
        tokenizer,
        rows=rows,
        seed=seed,
        text_column=text_column,
        max_seq_length=max_seq_length,
        encoding=encoding,
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    metrics = IntrinsicMetrics(opened.word_starts, opened.max_span_length, opened.token_counts)
    in_order, device = RowsInOrder(opened.rows), next(model.parameters()).device
    starts = range(0, opened.rows, batch_size)
    for first in track(starts, description="evaluating", console=console, disable=not console.is_terminal):
        batch = opened.collate(in_order.__getitems__(range(first, min(first + batch_size, opened.rows))))
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        metrics.update(_run(model, batch), batch)
    results = metrics.compute()
    has_samples = opened.masking is None
    if model.generator is None and not has_samples:
        # how often a random token is the right one says nothing of the run
        results["restoration"] = None
    return {
        "run": str(run),
        "model": str(source),
        "data": str(data),
        "kind": opened.kind,
        "rows": opened.rows,
        "rows_available": opened.available,
        "max_seq_length": opened.length,
        "seed": seed,
        "masking": opened.masking,
        "unigram_cross_entropy": opened.unigram_cross_entropy,
        **results,
        "missing": {name: _why_missing(name, model, has_samples) for name in results if results[name] is None},
        "notices": [*opened.notices, *_of_correction(model)],
    }


@torch.no_grad()
def _run(model: SpanElectraForPreTraining, batch: dict[str, Tensor]) -> SpanElectraOutput:
    """The model's own forward pass; what it does not draw for lack of a discriminator is drawn here."""
    if model.generator is None and "corrupted_ids" not in batch:
        return model(**batch, corrupted_ids=batch["input_ids"])
    output = model(**batch)
    heads = {"mlm": output.mlm_logits, "sbgo": output.sbgo_logits}
    sampled = [heads[name] for name in SAMPLED_HEADS[model.config.sampling_source]]
    if output.corrupted_ids is None and all(logits is not None for logits in sampled):
        positions, labels = batch["masked_positions"], batch["labels"]
        model.replace(output, batch["original_ids"], positions, labels, batch["replacement_noise"])
    return output


def _why_missing(name: str, model: SpanElectraForPreTraining, has_samples: bool) -> str:
    if name in ("ato", "sbpo"):
        return "this run has no discriminator" if model.discriminator is None else "not among the run's objectives"
    if has_samples:
        return "the rows hold samples already, so that no generator runs"
    if model.generator is None:
        return "this run has no generator"
    if name == "restoration":
        return f"samples would be drawn from {model.config.sampling_source}, which this run did not train"
    if model.config.freeze_generator:
        return "a frozen generator keeps only the heads that it samples from"
    return "not among the run's objectives"


def _of_correction(model: SpanElectraForPreTraining) -> list[str]:
    is_there = model.discriminator is not None and model.discriminator.corrector is not None
    return ["correction is not shown here; its loss and accuracy are in the run's metrics.json"] if is_there else []


def print_intrinsic_report(report: dict[str, Any], console: Console) -> None:
    """Print what :func:`intrinsic_report` gave, as tables that fit 80 columns; what is not defined is a dash."""
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
    console.print()
    _print_totals(report, console)
    for breakdown, meaning in BREAKDOWNS.items():
        for part, heads in (("Generator", _GUESSING_COLUMNS), ("Discriminator", _JUDGING_COLUMNS)):
            _print_breakdown(report, breakdown, f"{part}, by {meaning}", heads, console)
    for name, reason in report["missing"].items():
        say(console, f"no {_HEADS[name]}: {reason}")
    for notice in report["notices"]:
        say(console, f"note: {notice}")


def _print_totals(report: dict[str, Any], console: Console) -> None:
    guesses = {_HEADS[name]: report[name]["total"] for name in ("mlm", "sbgo") if report[name]}
    if guesses:
        _print_table(console, "Generator, on masked tokens", {key: _HEADINGS[key] for key in _GUESSING_TOTALS}, guesses)
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
                is_common = key == "unigram_loss" or (key == "tokens" and heads is _GUESSING_COLUMNS)
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
