"""What ``prepare`` has written, opened memory-mapped: rows of one split, their tokenizer, and unigram statistics."""

from __future__ import annotations

import json
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT_VERSION = 1
METADATA_NAME = "dataset.json"
TOKEN_COUNTS_NAME = "token_counts.npy"
TOKENIZER_DIRECTORY = "tokenizer"
Split: TypeAlias = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)
ROWS_PER_COUNT = 8192


def rows_path(directory: Path, split: str) -> Path:
    """Return the file of a split: its rows one after the other, little-endian, without a header."""
    return directory / f"{split}.bin"


class RowDataset:
    """One split of a directory that ``spanelectra prepare`` wrote.

    Attributes:
        input_ids: (rows, max_seq_length) memory-mapped uint16 or uint32; (0, max_seq_length) for an empty split.
        max_seq_length: tokens a row, [CLS] and [SEP] included.
        metadata: the content of ``dataset.json``: ``vocab_size``, ``tokenizer_fingerprint``, ``document_separator``,
            and under ``splits`` each split's ``documents``, ``tokens``, ``rows``, ``remainder_tokens``,
            ``unknown_token_rate`` and ``tokens_per_word``.
        token_counts: (vocab_size,) int64, how often each token occurs in the text of the training split.

    Raises:
        UserError: not such a directory, an incomplete one, or one whose tokenizer was exchanged.
    """

    def __init__(self, directory: str | Path, split: Split = "train") -> None:
        self.directory = Path(directory).expanduser()
        if split not in SPLITS:
            raise UserError(f"There is no split '{split}', only {' and '.join(SPLITS)}.{did_you_mean(split, SPLITS)}")
        self.metadata = _read_metadata(self.directory)
        self.max_seq_length: int = self.metadata["max_seq_length"]
        self.token_counts: NDArray[np.int64] = self._read_token_counts()
        self.input_ids = self._map_rows(split)
        self._check_stored_tokenizer()

    def __len__(self) -> int:
        return len(self.input_ids)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Load the tokenizer that the rows were made with."""
        return load_tokenizer(self.directory / TOKENIZER_DIRECTORY)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Raise ``UserError`` unless the rows were prepared with this tokenizer."""
        if tokenizer_fingerprint(tokenizer) != self.metadata["tokenizer_fingerprint"]:
            raise UserError(
                f"The rows in '{self.directory}' were prepared with another tokenizer; "
                f"use theirs ('{self.directory / TOKENIZER_DIRECTORY}'), or prepare the text again."
            )

    def _check_stored_tokenizer(self) -> None:
        from tokenizers import Tokenizer

        path = self.directory / TOKENIZER_DIRECTORY / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise UserError(f"'{path}' does not open ({error}); run `spanelectra prepare` again.") from None
        if tokenizer_fingerprint(tokenizer) != self.metadata["tokenizer_fingerprint"]:
            raise UserError(
                f"The rows in '{self.directory}' were prepared with another tokenizer than the one stored beside them; "
                "run `spanelectra prepare` again."
            )

    def _read_token_counts(self) -> NDArray[np.int64]:
        try:
            return load_array(self.directory / TOKEN_COUNTS_NAME)
        except (OSError, ValueError) as error:
            raise _incomplete(self.directory, f"{TOKEN_COUNTS_NAME} does not open: {error}") from None

    def _map_rows(self, split: Split) -> NDArray[np.unsignedinteger[Any]]:
        path = rows_path(self.directory, split)
        dtype = np.dtype(self.metadata["dtype"])
        shape = (int(self.metadata["splits"][split]["rows"]), self.max_seq_length)
        expected = shape[0] * shape[1] * dtype.itemsize
        size = path.stat().st_size if path.is_file() else -1
        if size != expected:
            found = "is missing" if size < 0 else f"has {size} bytes instead of {expected}"
            raise _incomplete(self.directory, f"{path.name} {found}")
        if not shape[0]:
            return np.empty(shape, dtype)  # an empty file cannot be mapped
        return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def unigram_cross_entropy(
    train_counts: NDArray[np.int64], held_out_ids: NDArray[np.integer[Any]], special_ids: NDArray[np.bool_]
) -> float:
    """Return, in nats a token, what it costs to guess held-out text by the frequency of tokens in training text.

    Frequencies are add-one smoothed over the tokens that are not special; special tokens are not scored.

    Args:
        train_counts: (V,) counts of the training text, as ``RowDataset.token_counts``.
        held_out_ids: (rows, length) ids, each below V.
        special_ids: (V,) bool, as ``WordStartTable.special_ids``.

    Returns:
        The cross-entropy; nan where the held-out rows hold special tokens alone.
    """
    held_out_counts = np.zeros(len(special_ids), np.int64)
    for start in range(0, len(held_out_ids), ROWS_PER_COUNT):  # memory stays flat: bincount copies to int64
        block = held_out_ids[start : start + ROWS_PER_COUNT]
        held_out_counts += np.bincount(block.ravel(), minlength=len(special_ids))
    smoothed = train_counts[~special_ids] + 1.0
    scored = held_out_counts[~special_ids]
    if not scored.sum():
        return float("nan")
    return float(np.log(smoothed.sum()) - scored @ np.log(smoothed) / scored.sum())


def unigram_costs(train_counts: NDArray[np.int64], special_ids: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(V,) nats of guessing each token by its frequency, smoothed as in :func:`unigram_cross_entropy`."""
    smoothed = train_counts + 1.0
    return (np.log(smoothed[~special_ids].sum()) - np.log(smoothed)).astype(np.float32)


def load_array(file: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """``np.load`` without pickles; what is wrong with a damaged file comes as one kind of error.

    Raises:
        ValueError: the file is no array.
        OSError: it cannot be read.
    """
    try:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except (EOFError, tokenize.TokenError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError) as error:
        # numpy reads a header of its oldest format as Python does
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _read_metadata(directory: Path) -> dict[str, Any]:
    path = directory / METADATA_NAME
    if not path.is_file():
        missing = "is a file" if directory.is_file() else "does not exist"
        if directory.is_dir():
            missing = f"has no {METADATA_NAME}"
        raise UserError(f"'{directory}' {missing}; give a directory that `spanelectra prepare` wrote.")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["format_version"]
        is_whole = version != FORMAT_VERSION or _has_all_fields(metadata)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise _incomplete(directory, f"{METADATA_NAME} is damaged")
    if version != FORMAT_VERSION:
        raise UserError(
            f"'{directory}' has format version {str(version)[:20]}, but {FORMAT_VERSION} is read here; prepare the "
            "text again."
        )
    return metadata


def _has_all_fields(metadata: dict[str, Any]) -> bool:
    """Whether what rows are opened by is there; a field that is missing raises ``KeyError`` or ``TypeError``."""
    counts = [metadata["splits"][split]["rows"] for split in SPLITS]
    is_right = metadata["dtype"] in ("<u2", "<u4") and isinstance(metadata["tokenizer_fingerprint"], str)
    return is_right and metadata["max_seq_length"] > 0 and all(type(count) is int and count >= 0 for count in counts)


def _incomplete(directory: Path, reason: str) -> UserError:
    return UserError(f"'{directory}' is incomplete: {reason}; run `spanelectra prepare` again.")
