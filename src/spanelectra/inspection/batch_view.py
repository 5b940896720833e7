"""Rows of a prepared directory as the model sees them: documents, words, masks, boundaries, decoys, and what is hidden.

What is shown is what the collator of training gives, decoded; nothing is masked here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spanelectra.checkpointing import CONFIG_NAME
from spanelectra.corrupted_rows import CorruptedRows, is_corrupted_data
from spanelectra.data.row_dataset import TOKENIZER_DIRECTORY, RowDataset, Split
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.export import run_settings
from spanelectra.finetuning.task_directory import holds_task_model
from spanelectra.inspection.row_view import Hidden, RowView, TokenView
from spanelectra.inspection.terminal_picture import Column, column_lines
from spanelectra.inspection.token_texts import TokenTexts, visible
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.run_data import Collate
from spanelectra.schedules import Schedule
from spanelectra.training_args import PretrainingArguments


def view_rows(
    prepared: str | Path,
    rows: int = 3,
    first_row: int = 0,
    *,
    split: Split = "train",
    run: str | Path | None = None,
    mask_ratio: float | None = None,
    seed: int | None = None,
) -> list[RowView]:
    """Rows of what ``spanelectra prepare`` or ``spanelectra corrupt`` wrote, masked as in the first epoch of training.

    Args:
        prepared: the directory.
        rows: how many.
        first_row: number of the first, from 0.
        split: ``train`` or ``validation``.
        run: directory of a run or of an export, whose settings of masking (those of its end, where they change) and
            seed are taken; otherwise the defaults. Rows of ``spanelectra corrupt`` were masked when they were written.
        mask_ratio, seed: in place of the run's or the default.

    Raises:
        UserError: for a directory without rows, a row that it has not, or settings out of range.
    """
    batch_of, tokenizer, count = _open(prepared, split, run, mask_ratio, seed)
    if rows < 1:
        raise UserError(f"--rows {rows}: at least one row can be shown.")
    if not 0 <= first_row < count:
        raise UserError(f"--first_row {first_row}: the {split} split of {prepared} has {count:,} rows, from 0.")
    numbers = np.arange(first_row, min(first_row + rows, count), dtype=np.int64)
    batch = batch_of(RowBatch(numbers, np.zeros_like(numbers), 1.0))
    table, texts = word_start_table(tokenizer), TokenTexts(tokenizer)
    ids = batch["original_ids"].numpy()
    starts, special = table.word_starts(ids), table.special_ids[ids]
    views = []
    for place, number in enumerate(numbers.tolist()):
        row = {name: tensor[place] for name, tensor in batch.items()}
        is_corrupted = "corrupted_ids" in row
        read_ids = row["corrupted_ids" if is_corrupted else "input_ids"].tolist()
        spans = _name_spans(row)
        tokens = []
        for position, (original_id, read_id) in enumerate(zip(ids[place].tolist(), read_ids, strict=True)):
            span = spans.names.get(position)
            is_masked = span is not None and span.startswith("m")
            view = TokenView(
                text=texts(original_id),
                starts_word=bool(starts[place, position]),
                is_special=bool(special[place, position]),
                reads=texts(read_id),
                hidden=_what_hides(original_id, read_id, tokenizer.mask_token_id, is_corrupted) if is_masked else None,
                span=span,
                left_of=tuple(spans.left_of.get(position, ())),
                right_of=tuple(spans.right_of.get(position, ())),
            )
            tokens.append(view)
        ends = (np.flatnonzero(ids[place] == tokenizer.sep_token_id) + 1).tolist()
        edges = itertools.pairwise(sorted({0, *ends, len(tokens)}))
        views.append(RowView(number, tuple(tuple(tokens[first:end]) for first, end in edges)))
    return views


def describe_masking(prepared: str | Path, run: str | Path | None = None, mask_ratio: float | None = None) -> str:
    """How the rows that :func:`view_rows` gives with the same arguments are masked, and by whose settings."""
    if is_corrupted_data(prepared):
        return "Masked and filled when `spanelectra corrupt` wrote them."
    settings = _settings_of(run)
    words, ratio = (Schedule.parse(getattr(settings, name), name)(1.0) for name in ("max_span_words", "mask_ratio"))
    what = "single tokens" if settings.masking == "token" else f"spans of up to {round(words)} words"
    whose = "by default (--model RUN shows a run's own masking)" if run is None else f"as in {run}, at its end"
    if mask_ratio is not None:
        return f"Masked: {mask_ratio:.1%} of the tokens, as you say; {what}, {whose}."
    return f"Masked: {ratio:.1%} of the tokens, {what}, {whose}."


def print_rows(views: Sequence[RowView], console: Console) -> None:
    """Print what :func:`view_rows` gave; colour says nothing that is not written as well."""
    for view in views:
        for sentence in _describe(view):
            console.print(Text(sentence, style="bold"))
        for document in view.documents:
            for line in column_lines(["", "reads", "spans"], list(map(_column, document)), console.width):
                console.print(line, no_wrap=True, overflow="ignore", crop=False)
    is_corrupted = any(token.hidden in ("sampled", "restored") for view in views for token in view.tokens)
    replacement = "=: the sample is the original" if is_corrupted else "?x: x drawn at random; =: kept"
    legend = [
        "|x: a word starts. Each document begins a new line.",
        f"reads: what stands in place of a masked token ({replacement}).",
        "spans: m1 is masked, d1 a decoy that SBPO judges too; m1> and <m1 are the boundaries to the left and right.",
    ]
    console.print(Text("\n".join(legend), style="dim"))


class _Spans(NamedTuple):
    """Position -> name of the span there, and the names of the spans that it bounds."""

    names: dict[int, str]
    left_of: dict[int, list[str]]
    right_of: dict[int, list[str]]


def _name_spans(row: dict[str, Tensor]) -> _Spans:
    """Number the spans of a collated row from left to right."""
    spans = _Spans({}, defaultdict(list), defaultdict(list))
    for kind, prefix, positions, valid in (
        ("m", "", row["masked_positions"], row["labels"] != IGNORE_INDEX),
        ("d", "decoy_", row["decoy_positions"], row["decoy_scored"]),
    ):
        columns = [row[f"{prefix}{name}"] for name in ("left_boundaries", "right_boundaries", "span_positions")]
        number = 0
        for position, left, right, place in zip(
            *(column[valid].tolist() for column in (positions, *columns)), strict=True
        ):
            if right == 0:  # masked by itself, without a span
                spans.names[position] = kind
                continue
            if place == 0:
                number += 1
                spans.left_of[left].append(f"{kind}{number}")
                spans.right_of[right].append(f"{kind}{number}")
            spans.names[position] = f"{kind}{number}"
    return spans


def _what_hides(original_id: int, read_id: int, mask_token_id: int, is_corrupted: bool) -> Hidden:
    if is_corrupted:
        return "restored" if read_id == original_id else "sampled"
    return "[MASK]" if read_id == mask_token_id else "kept" if read_id == original_id else "random"


def _describe(view: RowView) -> list[str]:
    tokens = view.tokens
    ordinary = sum(not token.is_special for token in tokens)
    words = sum(token.starts_word for token in tokens)
    documents = f"{len(view.documents)} document{'s' if len(view.documents) > 1 else ''}"
    hidden = Counter(token.hidden for token in tokens if token.hidden is not None)
    spans = {token.span for token in tokens if token.span is not None}
    masks, decoys = (sorted(name for name in spans if name.startswith(kind)) for kind in "md")
    decoy_tokens = sum(token.span in decoys for token in tokens)
    share = hidden.total() / max(1, ordinary)
    kinds = ", ".join(f"{count} {kind}" for kind, count in hidden.most_common())
    return [
        f"Row {view.number}: {len(tokens)} tokens, of {words} words, in {documents}",
        f"{hidden.total()} of {ordinary} ordinary tokens ({share:.1%}) masked, in {len(masks)} spans: {kinds}; "
        f"{decoy_tokens} tokens in {len(decoys)} decoys",
    ]


_PREFIXES = {"[MASK]": "", "random": "?", "sampled": ""}


def _column(token: TokenView) -> Column:
    style = "bold yellow" if token.is_masked else "cyan" if token.span else "dim" if token.is_special else ""
    reads = ""
    if token.hidden is not None:
        reads = "=" if token.hidden in ("kept", "restored") else f"{_PREFIXES[token.hidden]}{visible(token.reads)}"
    spans = [*(f"<{name}" for name in token.right_of), *([token.span] if token.span else [])]
    spans += [f"{name}>" for name in token.left_of]
    text = f"{'|' if token.starts_word else ''}{visible(token.text)}"
    return Column([(text, style), (reads, style), (" ".join(spans), style)], continues=not token.starts_word)


def _open(
    prepared: str | Path, split: Split, run: str | Path | None, mask_ratio: float | None, seed: int | None
) -> tuple[Collate, PreTrainedTokenizerBase, int]:
    """A function from row numbers to the batch, the tokenizer, and the number of rows."""
    if is_corrupted_data(prepared):
        if run is not None or mask_ratio is not None or seed is not None:
            raise UserError(
                f"{prepared} holds corrupted rows, masked when they were written: leave out --model, --mask_ratio and "
                "--seed."
            )
        corrupted = CorruptedRows(prepared, split)
        return corrupted.collate, load_tokenizer(Path(prepared) / TOKENIZER_DIRECTORY), len(corrupted)
    data = RowDataset(prepared, split)
    settings = _settings_of(run)
    if mask_ratio is not None:
        settings = dataclasses.replace(settings, mask_ratio=mask_ratio)
    if seed is not None:
        settings = dataclasses.replace(settings, seed=seed)
    return build_collator(data, settings), data.tokenizer(), len(data)


def _settings_of(run: str | Path | None) -> PretrainingArguments:
    if run is None:
        return PretrainingArguments().resolved()
    # the settings of a fine-tuning have the same name
    settings = None if holds_task_model(run) else run_settings(run)
    if settings is None:
        raise UserError(
            f"--model {run}: for --prepared this must be a run, or an export with its checkpoint, that has its "
            f"{CONFIG_NAME}; or leave it out."
        )
    return settings
