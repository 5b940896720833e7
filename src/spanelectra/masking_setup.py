"""Settings -> how a run's rows are cut, and the collator that masks them."""

from __future__ import annotations

import dataclasses

import numpy as np
from transformers import PreTrainedTokenizerBase

from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.packing import RowDataset
from spanelectra.data.row_cutting import RowCutting
from spanelectra.data.span_masking import SpanMaskingPolicy, token_budget
from spanelectra.data.tokenization import word_start_table
from spanelectra.errors import UserError
from spanelectra.schedules import Schedule
from spanelectra.training_args import PretrainingArguments


def masking_policy(settings: PretrainingArguments) -> SpanMaskingPolicy:
    """The widest masking that a run's schedules ever ask for.

    Raises:
        UserError: for a ratio that leaves no boundary, or boundary objectives with token masking.
    """
    if settings.masking == "token" and {"sbgo", "sbpo"} & set(settings.objectives or ()):
        raise UserError("sbgo and sbpo predict from span boundaries: they need --masking span, not token.")
    return SpanMaskingPolicy(
        mask_ratio=Schedule.parse(settings.mask_ratio, "mask_ratio").maximum,
        span_length_probability=settings.span_length_probability,
        max_span_words=round(Schedule.parse(settings.max_span_words, "max_span_words").maximum),
        max_span_length=settings.max_span_length,
        masking=settings.masking or "span",
        decoys=settings.decoys and "sbpo" in (settings.objectives or ()),
    )


def build_cutting(
    tokenizer: PreTrainedTokenizerBase, row_length: int, settings: PretrainingArguments
) -> RowCutting | None:
    """How training rows become shorter ones; ``None`` where they are always whole. Held-out rows always are.

    Raises:
        UserError: for a length that the rows cannot be cut to, or at which nothing would be masked.
    """
    if settings.sequence_length is None:
        return None
    schedule = Schedule.parse(settings.sequence_length, "sequence_length")
    cutting = RowCutting(schedule, row_length, tokenizer.cls_token_id, tokenizer.sep_token_id)
    mask_ratio = Schedule.parse(settings.mask_ratio, "mask_ratio")
    # a sample of the run, and each moment at which one of them may jump, with the one before it
    jumps = np.array([moment for moment, _ in (*schedule.points, *mask_ratio.points)])
    moments = np.sort(np.concatenate([np.linspace(0, 1, 1001), jumps, np.maximum(jumps - 1e-9, 0)]))
    for moment, length, ratio in zip(moments, cutting.lengths(moments), mask_ratio.values(moments), strict=True):
        if token_budget(ratio, length - 2) < 1:
            raise UserError(
                f"sequence_length: at {moment:.0%} of the run rows are cut to {length} tokens, of which a mask_ratio "
                f"of {ratio:g} masks none: take longer parts or a higher ratio."
            )
    return cutting


def build_collator(
    rows: RowDataset, settings: PretrainingArguments, *, held_out: bool = False
) -> DataCollatorForSpanElectra:
    """The collator of a run's training rows, or of its held-out rows.

    Held-out rows are always masked in one and the same way, whatever the run's seed, so that runs can be compared;
    every masked token becomes [MASK] there.
    """
    tokenizer = rows.tokenizer()
    assert settings.mask_token_ratio is not None and settings.random_token_ratio is not None
    # keeping and randomising teach a generator; a frozen one would only copy what it is shown
    hides_all = held_out or settings.stage == "discriminator"
    collator = DataCollatorForSpanElectra(
        input_ids=rows.input_ids,
        word_starts=word_start_table(tokenizer),
        policy=masking_policy(settings),
        mask_token_id=tokenizer.mask_token_id,
        seed=settings.seed,
        mask_ratio=Schedule.parse(settings.mask_ratio, "mask_ratio"),
        max_span_words=Schedule.parse(settings.max_span_words, "max_span_words"),
        mask_token_ratio=1.0 if hides_all else settings.mask_token_ratio,
        random_token_ratio=0.0 if hides_all else settings.random_token_ratio,
    )
    return dataclasses.replace(collator, seed=0) if held_out else collator
