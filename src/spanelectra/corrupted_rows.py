"""Rows with fake spans in them, on disk: features for a discriminator that needs no generator beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spanelectra.data.row_dataset import SPLITS, load_array
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.losses import IGNORE_INDEX
from spanelectra.training_args import PretrainingArguments

FEATURES_NAME = "features.json"
FORMAT_VERSION = 1
_ID_FEATURES = ("corrupted_ids", "original_ids")
_POSITION_FEATURES = (
    "masked_positions",
    "left_boundaries",
    "right_boundaries",
    "span_positions",
    "decoy_positions",
    "decoy_left_boundaries",
    "decoy_right_boundaries",
    "decoy_span_positions",
)
_FLAG_FEATURES = ("masked_valid", "decoy_scored")
# What is written down of masks and samples under the names that a run's settings have.
SETTINGS = (
    "masking",
    "mask_ratio",
    "max_span_words",
    "span_length_probability",
    "sampling_source",
    "sampling_temperature",
)


def feature_files() -> list[str]:
    """Names of the arrays of a complete directory."""
    return [f"{split}.{name}.npy" for split in SPLITS for name in (*_ID_FEATURES, *_POSITION_FEATURES, *_FLAG_FEATURES)]


def is_corrupted_data(directory: str | Path) -> bool:
    """Whether a directory is what ``spanelectra corrupt`` wrote."""
    return (Path(directory) / FEATURES_NAME).is_file()


class CorruptedRowsWriter:
    """Writes batches of one split into memory-mapped ``.npy`` files.

    Args:
        directory: to write into.
        split: ``train`` or ``validation``.
        rows, length, count: numbers of rows, tokens a row and scored positions a row.
        vocab_size: number of token ids.
        written: rows that the files there hold already; 0 for new files.

    Raises:
        UserError: for a file with rows in it that is missing, damaged or of another shape.
        OSError: where the disk has no room for all rows.
    """

    def __init__(
        self, directory: Path, split: str, rows: int, length: int, count: int, vocab_size: int, written: int = 0
    ) -> None:
        id_type = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        layout: dict[str, tuple[int, Any]] = dict.fromkeys(_ID_FEATURES, (length, id_type))
        layout.update(dict.fromkeys(_POSITION_FEATURES, (count, np.uint16)))
        layout.update(dict.fromkeys(_FLAG_FEATURES, (count, np.bool_)))
        self._arrays, self._written = {}, written
        for name, (width, dtype) in layout.items():
            file, shape = directory / f"{split}.{name}.npy", (rows, width)
            if written:
                _check_file(file, shape, np.dtype(dtype))
            mode: Literal["r+", "w+"] = "r+" if written else "w+"
            self._arrays[name] = np.lib.format.open_memmap(file, mode=mode, dtype=dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # a map of a file without its blocks would end the process where the disk is full
                with open(file, "r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)

    def write(self, batch: dict[str, Tensor], corrupted_ids: Tensor) -> None:
        """Append a collated batch and the ids its generator made of it."""
        features = {name: batch[name] for name in self._arrays if name in batch}
        features["corrupted_ids"] = corrupted_ids
        features["masked_valid"] = batch["labels"] != IGNORE_INDEX
        end = self._written + corrupted_ids.shape[0]
        for name, array in self._arrays.items():
            array[self._written : end] = features[name].cpu().numpy()
        self._written = end

    def flush(self) -> None:
        """Bring everything to its file."""
        for array in self._arrays.values():
            array.flush()


def _check_file(file: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """A map for writing would make a file that is too short longer, and ask nothing of its shape."""
    try:
        found = load_array(file, mmap_mode="r")
        reason = None if (found.shape, found.dtype) == (shape, dtype) else f"{found.dtype} of shape {found.shape}"
    except (OSError, ValueError) as error:
        reason = str(error)
    if reason is not None:
        raise UserError(f"{file} is missing or damaged ({reason}); delete {file.parent} to begin anew.")


class CorruptedRows:
    """One split of a directory that ``spanelectra corrupt`` wrote, memory-mapped.

    Args:
        directory: what ``spanelectra corrupt`` wrote.
        split: ``train`` or ``validation``.
        decoys: whether SBPO is to score the decoys too.

    Attributes:
        metadata: content of ``features.json``.

    Raises:
        UserError: where the directory is none, or a file of it is missing or cut short.
    """

    def __init__(self, directory: str | Path, split: str, decoys: bool = True) -> None:
        self.directory, self.split = Path(directory), split
        if not is_corrupted_data(self.directory):
            raise UserError(f"{directory} holds no corrupted rows; make some with `spanelectra corrupt`.")
        file = self.directory / FEATURES_NAME
        try:
            self.metadata = json.loads(file.read_text(encoding="utf-8"))
            version = self.metadata["format_version"]
            if version == FORMAT_VERSION and type(self.metadata["max_span_length"]) is not int:
                raise TypeError("max_span_length is no number")
            check_settings(self.metadata)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{file} is damaged ({reason}); run `spanelectra corrupt` again.") from error
        if version != FORMAT_VERSION:
            raise UserError(f"{directory} is of another format version; run `spanelectra corrupt` again.")
        self.decoys = decoys
        self._arrays: dict[str, NDArray[Any]] = {}
        for name in (*_ID_FEATURES, *_POSITION_FEATURES, *_FLAG_FEATURES):
            file = self.directory / f"{split}.{name}.npy"
            try:
                self._arrays[name] = load_array(file, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise UserError(f"{file} is missing or damaged ({error}); run `spanelectra corrupt` again.") from error
            if len(self._arrays[name]) != len(self):
                raise UserError(f"{file} has another number of rows; run `spanelectra corrupt` again.")

    def __len__(self) -> int:
        return len(self._arrays["corrupted_ids"])

    def __reduce__(self) -> tuple[type[CorruptedRows], tuple[Path, str, bool]]:
        """A loader's process opens the files itself; pickled, a memory map would be a copy of all of it."""
        return CorruptedRows, (self.directory, self.split, self.decoys)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of masks and samples; rows of older versions say less."""
        return {name: self.metadata[name] for name in SETTINGS if name in self.metadata}

    @property
    def has_spans(self) -> bool:
        """Whether spans were masked, which have boundaries, and not single tokens."""
        return len(self) == 0 or bool(self._arrays["right_boundaries"][:64].any())

    @property
    def max_seq_length(self) -> int:
        """Tokens in a row."""
        return int(self._arrays["corrupted_ids"].shape[1])

    @property
    def scored_positions(self) -> int:
        """Places for masked tokens in a row."""
        return int(self._arrays["masked_positions"].shape[1])

    def collate(self, batch: RowBatch) -> dict[str, Tensor]:
        """The model's inputs for these rows; the same in every epoch, as they were stored."""
        features = {
            name: torch.from_numpy(array[batch.rows].astype(np.int64))
            for name, array in self._arrays.items()
            if name not in _FLAG_FEATURES and (self.decoys or not name.startswith("decoy_"))
        }
        if self.decoys:
            features["decoy_scored"] = torch.from_numpy(self._arrays["decoy_scored"][batch.rows])
        original = features["original_ids"].gather(1, features["masked_positions"])
        valid = torch.from_numpy(self._arrays["masked_valid"][batch.rows])
        features["labels"] = original.masked_fill(~valid, IGNORE_INDEX)
        return features


def check_settings(metadata: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` for :data:`SETTINGS` that a run, which takes them over, could not have been told."""
    settings = {name: metadata[name] for name in SETTINGS if name in metadata}
    PretrainingArguments(data="-", out_dir="-", **settings).check()


def describe_fakes(settings: Mapping[str, Any]) -> str:
    """How rows were masked and filled, in a line, by their :data:`SETTINGS`; rows of older versions say less."""
    words = settings.get("max_span_words")
    spans = "whole words" if words == 1 else f"spans of up to {words} words" if words else "spans"
    parts = [{"token": "single tokens", "span": spans}.get(settings.get("masking", ""), "tokens")]
    if "mask_ratio" in settings:
        parts.insert(0, f"{settings['mask_ratio']:.1%} of the tokens")
    if "sampling_source" in settings:
        parts.append(f"sampled from {settings['sampling_source']} logits")
    if "sampling_temperature" in settings:
        parts[-1] += f" at temperature {settings['sampling_temperature']:g}"
    return f"fakes: {', '.join(parts)}"


def row_batches(rows: int, size: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
    """Consecutive row numbers from ``first`` on, ``size`` at a time."""
    for start in range(first, rows, size):
        yield np.arange(start, min(start + size, rows), dtype=np.int64)
