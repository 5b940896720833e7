"""DataCollatorForSpanElectra: row numbers -> the masked batch that the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanelectra.data.counter_random import Stream, uniform
from spanelectra.data.row_cutting import RowCutting
from spanelectra.data.span_masking import SpanMaskingPolicy, SpanMasks, apply_mask_tokens, mask_rows
from spanelectra.data.tokenization import WordStartTable
from spanelectra.data.training_rows import RowBatch
from spanelectra.losses import IGNORE_INDEX
from spanelectra.schedules import Schedule


@dataclass
class DataCollatorForSpanElectra:
    """Reads rows, masks spans of them and lays out what every head scores.

    A row's mask, its replacement by [MASK] and the generator's sampling noise are functions of (seed, epoch, row), and
    of its part where rows are cut: workers, processes and batch size change nothing.

    Args:
        input_ids: (rows, length) of any unsigned integer type, usually memory-mapped.
        word_starts: the tokenizer's table of word starts and special tokens.
        policy: how to mask.
        mask_token_id: id of [MASK].
        seed: of all draws.
        mask_ratio: schedule of the ratio over the run; never above ``policy.mask_ratio``.
        max_span_words: schedule of the longest span in words; never above ``policy.max_span_words``.
        mask_token_ratio, random_token_ratio: probabilities that a masked token (a masked span) becomes [MASK] or a
            random token; the rest is kept (BERT's 0.8 and 0.1).
        cutting: how rows become shorter ones over the run; ``None`` for whole rows.
    """

    input_ids: NDArray[np.unsignedinteger[Any]]
    word_starts: WordStartTable
    policy: SpanMaskingPolicy
    mask_token_id: int
    seed: int
    mask_ratio: Schedule
    max_span_words: Schedule
    mask_token_ratio: float = 1.0
    random_token_ratio: float = 0.0
    cutting: RowCutting | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A loader's process maps the file itself; pickled, a memory map would be a copy of all of it."""
        state, rows = dict(self.__dict__), self.input_ids
        if isinstance(rows, np.memmap):
            state["input_ids"] = (rows.filename, rows.dtype.str, rows.offset, rows.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if isinstance(state["input_ids"], tuple):
            filename, dtype, offset, shape = state["input_ids"]
            state["input_ids"] = np.memmap(filename, dtype, "r", offset, shape)
        self.__dict__.update(state)

    def read(self, batch: RowBatch) -> tuple[NDArray[np.int64], RowBatch]:
        """The ids of rows, (batch, length) int64, or of the parts that they are cut into, and what these are."""
        original_ids = np.asarray(self.input_ids[batch.rows], dtype=np.int64)
        return (original_ids, batch) if self.cutting is None else self.cutting(original_ids, batch)

    def mask(self, original_ids: NDArray[np.int64], batch: RowBatch) -> SpanMasks:
        """What is masked of rows, or parts of them, that :meth:`read` gave."""
        return mask_rows(
            self.word_starts.word_starts(original_ids),
            self.word_starts.special_ids[original_ids],
            batch.rows,
            batch.epochs,
            self.seed,
            self.policy,
            mask_ratio=self.mask_ratio(batch.progress),
            max_span_words=round(self.max_span_words(batch.progress)),
        )

    def __call__(self, batch: RowBatch) -> dict[str, Tensor]:
        """Build one micro-batch.

        Returns:
            ``input_ids`` and ``original_ids`` (batch, length) int64; for masked tokens ``masked_positions``,
            ``labels`` (``IGNORE_INDEX`` where padded), ``left_boundaries``, ``right_boundaries``, ``span_positions``
            (batch, count) int64 and ``replacement_noise`` (batch, count) float32 in [0, 1); for tokens of decoy spans
            ``decoy_positions``, ``decoy_left_boundaries``, ``decoy_right_boundaries``, ``decoy_span_positions``
            (batch, count) int64 and ``decoy_scored`` (batch, count) bool. Where rows are cut, ``batch`` is of parts.
        """
        original_ids, batch = self.read(batch)
        masks = self.mask(original_ids, batch)
        special_ids = self.word_starts.special_ids
        masked_ids = apply_mask_tokens(
            original_ids,
            masks,
            mask_token_id=self.mask_token_id,
            special_ids=special_ids,
            seed=self.seed,
            epochs=batch.epochs,
            row_numbers=batch.rows,
            mask_token_ratio=self.mask_token_ratio,
            random_token_ratio=self.random_token_ratio,
            per_span=self.policy.masking == "span",
        )
        labels = np.where(
            masks.masked_valid, np.take_along_axis(original_ids, masks.masked_positions, axis=1), IGNORE_INDEX
        )
        count = masks.masked_positions.shape[1]
        noise = uniform(self.seed, batch.epochs, batch.rows, Stream.REPLACEMENT_NOISE, count, dtype=np.float32)
        return {
            "input_ids": torch.from_numpy(masked_ids),
            "original_ids": torch.from_numpy(original_ids),
            "masked_positions": torch.from_numpy(masks.masked_positions),
            "labels": torch.from_numpy(labels),
            "left_boundaries": torch.from_numpy(masks.left_boundaries),
            "right_boundaries": torch.from_numpy(masks.right_boundaries),
            "span_positions": torch.from_numpy(masks.span_positions),
            "replacement_noise": torch.from_numpy(noise),
            "decoy_positions": torch.from_numpy(masks.decoy_positions),
            "decoy_left_boundaries": torch.from_numpy(masks.decoy_left_boundaries),
            "decoy_right_boundaries": torch.from_numpy(masks.decoy_right_boundaries),
            "decoy_span_positions": torch.from_numpy(masks.decoy_span_positions),
            "decoy_scored": torch.from_numpy(masks.decoy_valid),
        }
