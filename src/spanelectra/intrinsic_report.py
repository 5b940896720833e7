"""Intrinsic evaluation: how well the heads of a pre-trained run do what they were trained for, on any text."""

from __future__ import annotations

from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from spanelectra.configuration_spanelectra import SAMPLED_HEADS
from spanelectra.console import make_console
from spanelectra.data.training_rows import RowsInOrder
from spanelectra.errors import UserError
from spanelectra.export import open_run
from spanelectra.intrinsic_data import open_intrinsic_data
from spanelectra.intrinsic_metrics import IntrinsicMetrics
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining, SpanElectraOutput


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
        for text, which is harder to beat (``None`` for corrupted rows); ``mlm``, ``sbgo``, ``restoration``, ``ato``,
        ``sbpo`` and ``correction``, see :meth:`IntrinsicMetrics.compute`; ``missing``, those of the first five that are
        ``None`` -> why (correction is of no method); and ``notices``, sentences.

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
        "missing": {
            name: _why_missing(name, model, has_samples)
            for name in results
            if results[name] is None and name != "correction"
        },
        "notices": opened.notices,
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
