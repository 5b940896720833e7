"""Which rows an intrinsic evaluation reads, masked as the run masks its held-out rows.

Rows that ``prepare`` or ``corrupt`` wrote are opened; any other text is packed by the run's own tokenizer first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from spanelectra.checkpointing import CONFIG_NAME, METRICS_NAME, START_NAME
from spanelectra.corrupted_rows import CorruptedRows, is_corrupted_data
from spanelectra.data.packing import prepare
from spanelectra.data.row_dataset import METADATA_NAME, RowDataset, unigram_cross_entropy
from spanelectra.data.tokenization import WordStartTable, tokenizer_fingerprint, word_start_table
from spanelectra.errors import UserError
from spanelectra.export import longest_input, run_settings
from spanelectra.masking_setup import build_collator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.run_data import Collate, read_data
from spanelectra.training_args import PretrainingArguments

# What `prepare` packs to where nothing else is said.
DEFAULT_LENGTH = 128


@dataclass(frozen=True)
class IntrinsicData:
    """Rows to evaluate on.

    Attributes:
        kind: what they are: ``held-out rows``, ``training rows``, ``text``, ``corrupted held-out rows`` or ``corrupted
            training rows``.
        rows: how many are read, numbered from 0.
        available: how many there are.
        length: tokens in a row.
        collate: row batch -> model inputs.
        masking: ``masking`` ("span" or "token"), ``mask_ratio`` and ``max_span_words``; ``None`` for corrupted rows.
        max_span_length: longest span in tokens.
        word_starts: the tokenizer's table.
        token_counts: (vocabulary,) int64 of the text that the unigram baseline knows; ``None`` for corrupted rows.
        unigram_cross_entropy: nats a token of guessing the rows' tokens by these; ``None`` for corrupted rows.
        notices: sentences on what a reader of the numbers should know.
    """

    kind: str
    rows: int
    available: int
    length: int
    collate: Collate
    masking: dict[str, Any] | None
    max_span_length: int
    word_starts: WordStartTable
    token_counts: NDArray[np.int64] | None
    unigram_cross_entropy: float | None
    notices: list[str]


def open_intrinsic_data(
    run: str,
    data: str,
    model: SpanElectraForPreTraining,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rows: int,
    seed: int,
    text_column: str,
    max_seq_length: int | None,
    encoding: str = "utf-8",
) -> IntrinsicData:
    """Open ``data`` for a run; see :func:`spanelectra.intrinsic_report.intrinsic_report` for the arguments.

    Raises:
        UserError: for data that cannot be read, of another tokenizer, with rows that the model cannot take, or that
            holds the samples already where the run has no discriminator to judge them.
    """
    notices: list[str] = []
    settings = settings_of_run(run, model, notices)
    fingerprint = tokenizer_fingerprint(tokenizer)
    if is_corrupted_data(data):
        _check_rows(data, CorruptedRows(data, "validation"), fingerprint, model, max_seq_length)
        return _open_corrupted_rows(data, settings, model, tokenizer, rows, notices)
    if (Path(data).expanduser() / METADATA_NAME).is_file():
        held_out, train = RowDataset(data, "validation"), RowDataset(data, "train")
        _check_rows(data, held_out, fingerprint, model, max_seq_length)
        if not len(held_out):
            notices.append(f"{data} holds out no rows: these are rows of its training text")
        chosen, kind = (held_out, "held-out rows") if len(held_out) else (train, "training rows")
        return _mask_rows(kind, chosen, settings, model, rows, seed, notices)
    length = max_seq_length or _row_length(run, settings, model, notices)
    if length > longest_input(model):
        raise UserError(f"max_seq_length is {length}: {run} takes {longest_input(model)} tokens at most.")
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(f"{scratch}/tokenizer")
        prepare(
            data,
            f"{scratch}/tokenizer",
            f"{scratch}/rows",
            max_seq_length=length,
            validation_fraction=0.0,
            text_column=text_column,
            encoding=encoding,
            quiet=True,
        )
        return _mask_rows("text", RowDataset(f"{scratch}/rows"), settings, model, rows, seed, notices)


def settings_of_run(run: str, model: SpanElectraForPreTraining, notices: list[str]) -> PretrainingArguments:
    """The resolved settings of a run; for an exported model, which has none beside it, what is known and defaults.

    Args:
        run: directory of a run, a model in it, or an export.
        model: its model.
        notices: gets a sentence where the run's masking is not known.
    """
    found = run_settings(run)
    if found is not None:
        return found
    known: dict[str, Any] = {"objectives": model.config.objectives, "max_span_length": model.config.max_span_length}
    metrics = _read_json(Path(run).expanduser() / METRICS_NAME)
    known |= {name: metrics[name] for name in ("method", "stage") if name in metrics}
    settings = PretrainingArguments(**known).resolved()
    notices.append(
        f"{run} has no {CONFIG_NAME}, which would tell its masking: assumed are the defaults of method "
        f"{settings.method}, mask_ratio {settings.mask_ratio} and max_span_words {settings.max_span_words}"
    )
    return settings


def _row_length(run: str, settings: PretrainingArguments, model: SpanElectraForPreTraining, notices: list[str]) -> int:
    """Tokens in a row of the run: as it noted at its start, as the data that it read has them, or by default."""
    directory = Path(run).expanduser().resolve()
    for place in (directory, directory.parent):
        noted = _read_json(place / START_NAME).get("data", {})
        if "tokens_per_row" in noted:
            return int(noted["tokens_per_row"])
    if settings.data:
        with contextlib.suppress(UserError):
            is_corrupted = is_corrupted_data(settings.data)
            data = CorruptedRows(settings.data, "train") if is_corrupted else RowDataset(settings.data)
            return data.max_seq_length
    length = min(DEFAULT_LENGTH, longest_input(model))
    notices.append(f"the length of the run's rows is not known: rows of {length} tokens are taken")
    return length


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON file's content; empty where there is none, or none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _check_rows(
    data: str,
    rows: RowDataset | CorruptedRows,
    fingerprint: str,
    model: SpanElectraForPreTraining,
    max_seq_length: int | None,
) -> None:
    if rows.metadata["tokenizer_fingerprint"] != fingerprint:
        raise UserError(
            f"The rows in '{data}' were prepared with another tokenizer than the run's; give the text itself, which "
            "is then prepared with the run's."
        )
    if max_seq_length not in (None, rows.max_seq_length):
        raise UserError(f"max_seq_length is {max_seq_length}, but '{data}' has rows of {rows.max_seq_length} tokens.")
    if rows.max_seq_length > longest_input(model):
        raise UserError(
            f"'{data}' has rows of {rows.max_seq_length} tokens, the run takes {longest_input(model)} at most; give "
            "the text itself, which is then packed to the run's length."
        )


def _mask_rows(
    kind: str,
    dataset: RowDataset,
    settings: PretrainingArguments,
    model: SpanElectraForPreTraining,
    rows: int,
    seed: int,
    notices: list[str],
) -> IntrinsicData:
    """The first held-out rows, as the run's own evaluation takes them, or rows from all over a text; in memory."""
    count = min(rows, len(dataset))
    numbers = (
        np.arange(count) if kind == "held-out rows" else np.linspace(0, len(dataset) - 1, count).round().astype(int)
    )
    input_ids = dataset.input_ids[numbers]
    collate = build_collator(dataset, settings, held_out=True)
    collate = dataclasses.replace(collate, input_ids=input_ids, seed=seed)
    if model.generator is None:
        notices.append(
            "this run has no generator: random tokens stand in the masked spans, easier to tell than samples; give "
            "rows of `spanelectra corrupt` for the task it was trained on"
        )
        collate = dataclasses.replace(collate, mask_token_ratio=0.0, random_token_ratio=1.0)
    special_ids = collate.word_starts.special_ids
    return IntrinsicData(
        kind=kind,
        rows=count,
        available=len(dataset),
        length=dataset.max_seq_length,
        collate=collate,
        masking={
            "masking": collate.policy.masking,
            "mask_ratio": collate.mask_ratio(1.0),
            "max_span_words": round(collate.max_span_words(1.0)),
        },
        max_span_length=collate.policy.max_span_length,
        word_starts=collate.word_starts,
        token_counts=dataset.token_counts,
        unigram_cross_entropy=unigram_cross_entropy(dataset.token_counts, input_ids, special_ids),
        notices=notices,
    )


def _open_corrupted_rows(
    data: str,
    settings: PretrainingArguments,
    model: SpanElectraForPreTraining,
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    notices: list[str],
) -> IntrinsicData:
    """Rows that hold their samples already, as the discriminator stage reads them."""
    if model.discriminator is None:
        raise UserError(f"'{data}' holds the samples already, and this run has no discriminator to judge them.")
    opened = read_data(dataclasses.replace(settings, data=data, stage="discriminator", eval_rows=rows))
    notices.append(f"{data} holds the samples already: they, and the rate of restored tokens, are not of this run")
    if opened.collate_held_out is None:
        notices.append(f"{data} holds out no rows: these are rows of its training text")
    held_out = opened.collate_held_out is not None
    return IntrinsicData(
        kind="corrupted held-out rows" if held_out else "corrupted training rows",
        rows=opened.held_out_rows if held_out else min(opened.rows, rows),
        available=len(CorruptedRows(data, "validation")) if held_out else opened.rows,
        length=opened.length,
        collate=opened.collate_held_out or opened.collate,
        masking=None,
        max_span_length=settings.max_span_length,
        word_starts=word_start_table(tokenizer),
        token_counts=None,
        unigram_cross_entropy=None,
        notices=notices,
    )
