"""The command ``spanelectra corrupt``: a trained generator writes its fake spans down as discriminator features."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from spanelectra import __version__
from spanelectra.atomic_files import file_digest, write_directory, write_json
from spanelectra.checkpointing import CONFIG_NAME, TOKENIZER_DIRECTORY, find_model
from spanelectra.console import make_console, say
from spanelectra.corrupted_rows import (
    FEATURES_NAME,
    FORMAT_VERSION,
    CorruptedRowsWriter,
    check_settings,
    describe_fakes,
    feature_files,
    row_batches,
)
from spanelectra.corruption_progress import PROGRESS_NAME, CorruptionProgress
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.row_dataset import SPLITS, RowDataset, Split, rows_path
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.interruption import stopped_by_signals
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.model_building import check_generator_fits, load_generator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.recipe_files import checked_value, load_recipe
from spanelectra.schedules import Schedule
from spanelectra.training_args import PretrainingArguments


def corrupt(
    generator: str,
    data: str,
    out_dir: str,
    mask_ratio: float | None = None,
    masking: Literal["span", "token"] | None = None,
    max_span_words: int | None = None,
    sampling_source: str | None = None,
    sampling_temperature: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Replace spans of prepared rows by samples from a trained generator, and save the result.

    One that was interrupted goes on where it was when the same command is given again, with the same result; a kill
    loses half a minute of it. Another batch size changes nothing but rounding.

    Args:
        generator: run (or saved model) of the generator stage.
        data: directory that `spanelectra prepare` wrote.
        out_dir: directory to write; `spanelectra pretrain --stage discriminator --data` takes it.
        mask_ratio: share of tokens to replace; by default as the generator was trained.
        masking: span or token; by default as the generator was trained. SBPO needs spans.
        max_span_words: longest span in words; by default as the generator was trained.
        sampling_source: mlm, sbgo or mixed logits; by default as the generator was trained.
        sampling_temperature: divides the logits.
        batch_size: rows at once.
        seed: of masks and samples.
        overwrite: replace an out_dir that exists, or unfinished work of other settings.
        quiet: print nothing.

    Returns:
        What was written: rows by split, tokens replaced, rate of samples that differ from the text.

    Raises:
        UserError: for a generator, data or out_dir that do not fit, or unfinished work of other settings.
        RunStopped: after SIGTERM or Ctrl-C; what was written is kept.
    """
    kinds = get_type_hints(PretrainingArguments)
    masking = checked_value(masking, kinds["masking"], "masking")
    sampling_source = checked_value(sampling_source, kinds["sampling_source"] | None, "sampling_source")
    _check_numbers(sampling_temperature, batch_size, seed)
    target = check_output_directory(
        out_dir, {FEATURES_NAME, PROGRESS_NAME, TOKENIZER_DIRECTORY, *feature_files()}, overwrite=overwrite
    )
    console = make_console(quiet)
    model = load_generator(generator, lambda sentence: say(console, sentence)).eval()
    settings = _masking_settings(generator, model, mask_ratio, masking, max_span_words, seed)
    source = sampling_source or model.config.sampling_source
    _check_source(source, settings, model)
    model.config.sampling_source, model.config.sampling_temperature = source, sampling_temperature
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    splits = {split: RowDataset(data, split) for split in SPLITS}
    train = splits["train"]
    check_generator_fits(generator, model, train.tokenizer(), train.max_seq_length)
    collators = {split: _collator(rows, settings, split) for split, rows in splits.items()}
    metadata: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "max_seq_length": train.max_seq_length,
        "tokenizer_fingerprint": train.metadata["tokenizer_fingerprint"],
        "generator": str(generator),
        "sampling_source": source,
        "sampling_temperature": sampling_temperature,
        "masking": settings.masking,
        "mask_ratio": settings.mask_ratio,
        "max_span_length": settings.max_span_length,
        "seed": seed,
    }
    if settings.masking == "span":
        metadata["max_span_words"] = settings.max_span_words
        metadata["span_length_probability"] = settings.span_length_probability
    check_settings(metadata)
    say(console, describe_fakes(metadata))
    if settings.masking == "token":
        say(console, "SBPO cannot train on single tokens; for spans: --masking span --max_span_words 1 (whole words)")
    work = _work(metadata, model, splits)
    with stopped_by_signals(), write_directory(target, replace=overwrite, goes_on=True) as partial:
        counts: dict[str, int] = {split: len(rows) for split, rows in splits.items()}
        progress = CorruptionProgress(partial, work, counts, console, anew=overwrite)
        try:
            # all of them first: a disk that is too small is so before the first row
            writers = {
                split: _writer(partial, rows, collators[split], progress, split) for split, rows in splits.items()
            }
            for split, writer in writers.items():
                _write_split(split, counts[split], writer, collators[split], model, batch_size, progress)
        except UserError:
            raise
        except BaseException:
            if progress.saved_rows:
                say(console, f"{progress.saved_rows:,} rows are kept in {partial}; the same command goes on from there")
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        metadata["splits"] = summary = progress.summary()
        write_json(partial / FEATURES_NAME, metadata)
        shutil.copytree(Path(data) / "tokenizer", partial / TOKENIZER_DIRECTORY, dirs_exist_ok=True)
    say(
        console,
        f"{target}: {summary['train']['rows']:,} training and {summary['validation']['rows']:,} validation rows; "
        f"{summary['train']['replaced_rate']:.1%} of the masked tokens were replaced by another one.",
    )
    return metadata


def _check_numbers(temperature: float, batch_size: int, seed: int) -> None:
    if not 0 < temperature < math.inf:
        raise UserError(f"sampling_temperature must be above 0, got {temperature}.")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}.")
    if seed < 0:
        raise UserError(f"seed must not be negative, got {seed}.")


def _masking_settings(
    generator: str,
    model: SpanElectraForPreTraining,
    mask_ratio: float | None,
    masking: Literal["span", "token"] | None,
    max_span_words: int | None,
    seed: int,
) -> PretrainingArguments:
    """The settings of the generator's run, with what was chosen in their place, as they are at its end."""
    settings = _generator_settings(generator)
    settings.seed = seed
    # a saved model without its run states no masking, but its boundary heads know the longest span
    settings.max_span_length = model.config.max_span_length
    if mask_ratio is not None:
        settings.mask_ratio = mask_ratio
    settings.masking = masking or settings.masking or "span"
    # which objectives trained the generator is no matter to who reads its samples
    settings.objectives = []
    if max_span_words is not None:
        if settings.masking == "token":
            raise UserError("max_span_words: single tokens are masked; add --masking span.")
        settings.max_span_words = max_span_words
    # what the discriminator reads is what the generator samples, however the generator saw its masks
    settings.mask_token_ratio, settings.random_token_ratio = 1.0, 0.0
    # a schedule is read at the end of the run that it was for
    settings.mask_ratio = Schedule.parse(settings.mask_ratio, "mask_ratio")(1.0)
    settings.max_span_words = round(Schedule.parse(settings.max_span_words, "max_span_words")(1.0))
    return settings


def _check_source(source: str, settings: PretrainingArguments, model: SpanElectraForPreTraining) -> None:
    if source != "mlm" and (model.generator is None or model.generator.span_boundary_head is None):
        raise UserError(f"sampling_source {source} needs a generator trained with SBGO. Sample from mlm.")
    if source != "mlm" and settings.masking == "token":
        raise UserError(f"sampling_source {source} predicts from span boundaries: it needs --masking span.")


def _work(
    metadata: dict[str, Any], model: SpanElectraForPreTraining, splits: dict[Split, RowDataset]
) -> dict[str, Any]:
    """All that decides what is written: an interrupted command goes on where another has the same."""
    return {name: value for name, value in metadata.items() if name != "generator"} | {
        "version": __version__,
        "device": next(model.parameters()).device.type,
        "weights of the generator": _weights_digest(model),
        **{f"{split} rows": file_digest(rows_path(rows.directory, split)) for split, rows in splits.items()},
    }


def _generator_settings(generator: str) -> PretrainingArguments:
    """Settings of the generator's run, for its masking; defaults for a model without a run around it."""
    # RUN/model and RUN/checkpoint-N are told by the run around them, the checkpoint of an export tells itself
    directory = find_model(generator).resolve()
    config = next((c for c in (directory / CONFIG_NAME, directory.parent / CONFIG_NAME) if c.is_file()), None)
    if config is None:
        return PretrainingArguments().resolved()
    return PretrainingArguments(**load_recipe(str(config)))


def _collator(rows: RowDataset, settings: PretrainingArguments, split: str) -> DataCollatorForSpanElectra:
    collate = build_collator(rows, settings, held_out=split == "validation")
    # the generator had no use for decoys, the discriminator has
    collate.policy = dataclasses.replace(collate.policy, decoys=settings.masking == "span")
    return collate


def _weights_digest(model: SpanElectraForPreTraining) -> str:
    """SHA-256 of the weights that were loaded, whatever has become of their file since."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _writer(
    directory: Path, rows: RowDataset, collate: DataCollatorForSpanElectra, progress: CorruptionProgress, split: str
) -> CorruptedRowsWriter:
    count, written = collate.policy.capacity(rows.max_seq_length), progress.splits[split]["rows"]
    vocab_size = rows.metadata["vocab_size"]
    return CorruptedRowsWriter(directory, split, len(rows), rows.max_seq_length, count, vocab_size, written)


def _write_split(
    split: str,
    rows: int,
    writer: CorruptedRowsWriter,
    collate: DataCollatorForSpanElectra,
    model: SpanElectraForPreTraining,
    batch_size: int,
    progress: CorruptionProgress,
) -> None:
    """Write what is left of one split."""
    written, console = progress.splits[split]["rows"], progress.console
    columns = (TextColumn(split), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    device = next(model.parameters()).device
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(split, total=rows, completed=written)
            for numbers in row_batches(rows, batch_size, written):
                batch = collate(RowBatch(numbers, np.zeros_like(numbers), 1.0))
                output = model.draw_replacements({name: tensor.to(device) for name, tensor in batch.items()})
                assert output.corrupted_ids is not None and output.replaced is not None
                writer.write(batch, output.corrupted_ids)
                masked = int((batch["labels"] != IGNORE_INDEX).sum())
                progress.add(split, len(numbers), masked, int(output.replaced.sum()))
                bar.update(task, advance=len(numbers))
                if progress.is_due():
                    writer.flush()
                    progress.save()
                    progress.tell()
    finally:
        writer.flush()
        progress.save()
