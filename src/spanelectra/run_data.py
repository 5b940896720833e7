"""What a run reads: prepared rows or corrupted ones, opened and checked against its settings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spanelectra.corrupted_rows import CorruptedRows, is_corrupted_data
from spanelectra.data.row_cutting import RowCutting
from spanelectra.data.row_dataset import TOKENIZER_DIRECTORY, RowDataset, unigram_costs, unigram_cross_entropy
from spanelectra.data.step_sizes import StepSizes
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.environment import process_count
from spanelectra.errors import UserError
from spanelectra.masking_setup import build_collator, build_cutting, masking_policy
from spanelectra.training_args import PretrainingArguments

Collate = Callable[[RowBatch], dict[str, Tensor]]


@dataclass
class RunData:
    """What a run reads.

    Attributes:
        tokenizer: of the rows.
        length: tokens in a row.
        rows: number of training rows.
        collate: row batch -> model inputs.
        held_out_rows: number of held-out rows.
        collate_held_out: the same for them; ``None`` without any.
        unigram_cross_entropy: nats a token of guessing by frequency on held-out text; ``None`` if unknown.
        unigram_costs: (vocabulary,) the same of each token; ``None`` if unknown.
        corrupted: whether the rows hold fake spans already.
        written: settings of masks and samples as such rows were written with; empty for others, and where it is not
            known.
        input_ids: (rows, length) token ids of the training rows, memory-mapped; ``None`` for corrupted ones.
        token_counts: (vocabulary,) how often each token occurs in them; ``None`` likewise.
        cutting: how training rows become shorter ones; ``None`` for whole rows.
        scored: tokens of a training row, or of a part of one -> its places for masked tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    length: int
    rows: int
    collate: Collate
    held_out_rows: int
    collate_held_out: Collate | None
    unigram_cross_entropy: float | None
    unigram_costs: NDArray[np.float32] | None
    scored: Callable[[int], int]
    corrupted: bool = False
    written: dict[str, Any] = field(default_factory=dict)
    input_ids: NDArray[np.integer[Any]] | None = None
    token_counts: NDArray[np.int64] | None = None
    cutting: RowCutting | None = None


def read_data(settings: PretrainingArguments) -> RunData:
    """Open prepared rows, or corrupted ones, and check that they suit the settings."""
    if is_corrupted_data(settings.data):
        return _read_corrupted_data(settings)
    rows, held_out = RowDataset(settings.data, "train"), RowDataset(settings.data, "validation")
    if settings.stage == "discriminator" and not settings.generator:
        raise UserError("--stage discriminator needs --generator GEN to draw samples from, or --data of `corrupt`.")
    tokenizer = rows.tokenizer()
    cutting = build_cutting(tokenizer, rows.max_seq_length, settings)
    unigram, special_ids = None, word_start_table(tokenizer).special_ids
    if len(held_out):
        unigram = unigram_cross_entropy(rows.token_counts, held_out.input_ids[: settings.eval_rows], special_ids)
    return RunData(
        tokenizer=tokenizer,
        length=rows.max_seq_length,
        rows=len(rows),
        collate=dataclasses.replace(build_collator(rows, settings), cutting=cutting),
        cutting=cutting,
        held_out_rows=min(len(held_out), settings.eval_rows),
        collate_held_out=build_collator(held_out, settings, held_out=True) if len(held_out) else None,
        unigram_cross_entropy=unigram,
        unigram_costs=unigram_costs(rows.token_counts, special_ids),
        scored=masking_policy(settings).capacity,
        input_ids=rows.input_ids,
        token_counts=rows.token_counts,
    )


def _read_corrupted_data(settings: PretrainingArguments) -> RunData:
    if settings.stage != "discriminator":
        raise UserError(f"{settings.data} holds corrupted rows, which only --stage discriminator takes.")
    train, held_out = (CorruptedRows(settings.data, split, settings.decoys) for split in ("train", "validation"))
    if not train.has_spans and "sbpo" in (settings.objectives or ()):
        raise UserError(
            f"{settings.data}: single tokens were masked there, and sbpo predicts from span boundaries. Write it anew "
            "with `spanelectra corrupt --masking span --max_span_words 1`, or train --objectives ato."
        )
    if train.metadata["max_span_length"] > settings.max_span_length:
        raise UserError(
            f"{settings.data} has spans of up to {train.metadata['max_span_length']} tokens: set --max_span_length so."
        )
    tokenizer = load_tokenizer(str(Path(settings.data) / TOKENIZER_DIRECTORY))
    return RunData(
        tokenizer=tokenizer,
        length=train.max_seq_length,
        rows=len(train),
        collate=train.collate,
        held_out_rows=min(len(held_out), settings.eval_rows),
        collate_held_out=held_out.collate if len(held_out) else None,
        unigram_cross_entropy=None,
        unigram_costs=None,
        scored=lambda length: train.scored_positions,
        corrupted=True,
        written=train.settings,
    )


def with_step_budget(settings: PretrainingArguments, length: int) -> PretrainingArguments:
    """Turn a budget in tokens into steps."""
    if settings.max_tokens is None:
        return settings
    micro_batches = settings.gradient_accumulation_steps * process_count()
    rows = math.ceil(settings.max_tokens / length)
    sizes = StepSizes.for_rows(settings.batch_size_schedule(), micro_batches, rows)
    return dataclasses.replace(settings, max_steps=sizes.max_steps, max_tokens=None)
