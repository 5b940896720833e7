"""Documents -> rows of exactly ``max_seq_length`` tokens, stored memory-mapped together with their tokenizer.

A split's documents follow one another with a [SEP] between them; this stream is cut every ``max_seq_length - 2``
tokens, and each piece becomes the row [CLS] piece [SEP]. Where a separator would come first or last in its piece it is
left out, since the row's own [CLS] or [SEP] stands there already. No token of text is lost but the remainder: the last
piece of the split, if it is not full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spanelectra.atomic_files import write_directory, write_json
from spanelectra.data.corpus import (
    CorpusStatistics,
    Document,
    DocumentSeparator,
    documents_in_words,
    iterate_documents,
)
from spanelectra.data.counter_random import random_bits, to_uniform
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.reporting import corpus_lines, print_summary, reading_progress
from spanelectra.data.row_dataset import (
    FORMAT_VERSION,
    METADATA_NAME,
    SPLITS,
    TOKEN_COUNTS_NAME,
    TOKENIZER_DIRECTORY,
    RowDataset,
    rows_path,
    unigram_cross_entropy,
)
from spanelectra.data.row_packing import RowPacker, pack_documents
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint, word_start_table
from spanelectra.errors import UserError
from spanelectra.memory import peak_memory_mib

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["RowDataset", "prepare", "unigram_cross_entropy"]

OWN_FILES = (
    METADATA_NAME,
    TOKEN_COUNTS_NAME,
    TOKENIZER_DIRECTORY,
    *(rows_path(Path(), split).name for split in SPLITS),
)
MINIMUM_LENGTH = 8
PIECE_CHARACTERS = 1 << 16  # long documents are tokenized in pieces, in parallel
LARGEST_FRACTION = 0.5


def prepare(
    data: str | list[str],
    tokenizer: str,
    out_dir: str,
    max_seq_length: int = 128,
    document_separator: DocumentSeparator = "blank_line",
    validation_fraction: float = 0.02,
    validation_data: str | list[str] | None = None,
    text_column: str = "text",
    encoding: str = "utf-8",
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Turn text into rows for pre-training, a directory that :class:`RowDataset` opens.

    Nothing is padded and nothing dropped but the reported remainder, less than a row a split. The text is streamed:
    memory does not grow with it. The same input gives the same files, byte for byte.

    Args:
        data: files, folders, globs or the name of a dataset; several are read in the order given.
        tokenizer: directory of a tokenizer with [CLS], [SEP], [PAD] and [MASK], or its name on the Hub.
        out_dir: directory to write; it appears complete or not at all.
        max_seq_length: tokens a row, [CLS] and [SEP] included; at least 8.
        document_separator: what separates documents in plain text: "file" (a file is one), "blank_line" or "line". A
            record of a JSON Lines, CSV, TSV or Parquet file is one document in any case.
        validation_fraction: part of the documents held out for validation, by a hash of (seed, number of the
            document). It is raised, up to a half and with a warning, where it would hold out less than a row.
        validation_data: text for validation; then all of ``data`` is for training.
        text_column: the field of records that holds the text.
        encoding: of text files.
        seed: of the choice of held-out documents.
        overwrite: replace rows that ``out_dir`` holds.
        quiet: print nothing; warnings are in ``dataset.json``, too.

    Returns:
        The content of ``dataset.json`` (see :class:`RowDataset`), and what is not the same in every run: ``seconds``,
        ``megabytes_per_second``, ``peak_memory_mib``, and ``warnings``.

    Raises:
        UserError: data or a tokenizer that cannot be read, a row length that cannot be, too little text for a row, an
            ``out_dir`` in use.
    """
    if not 0 <= validation_fraction <= LARGEST_FRACTION:
        raise UserError(f"validation_fraction is {validation_fraction}: it must be between 0 and {LARGEST_FRACTION}.")
    if max_seq_length < MINIMUM_LENGTH:
        raise UserError(f"max_seq_length is {max_seq_length}: it must be at least {MINIMUM_LENGTH}.")
    directory = check_output_directory(out_dir, OWN_FILES, overwrite=overwrite)
    loaded = load_tokenizer(tokenizer)
    if max_seq_length > loaded.model_max_length:
        raise UserError(
            f"max_seq_length {max_seq_length} is longer than the tokenizer's model_max_length, "
            f"{loaded.model_max_length}; give less, or train the tokenizer with a greater --max_seq_length."
        )

    started = time.perf_counter()

    def read(data: str | list[str], statistics: CorpusStatistics) -> Iterator[Document]:
        return iterate_documents(
            data,
            document_separator=document_separator,
            text_column=text_column,
            encoding=encoding,
            statistics=statistics,
            piece_characters=PIECE_CHARACTERS,
        )

    warnings: list[str] = []
    with write_directory(directory, replace=overwrite) as target:
        packing = _Packing(target, loaded, max_seq_length, quiet)
        if validation_data is None:
            statistics, packers, held_out = _pack_holding_out(packing, partial(read, data), validation_fraction, seed)
        else:
            statistics, held_out = CorpusStatistics(), 0.0
            validation = packing.pack(read(validation_data, statistics), statistics, ["validation"], _all_to_the_first)
            train = packing.pack(read(data, statistics), statistics, ["train"], _all_to_the_first)
            packers = train | validation
        _check_rows(packers, statistics, validation_data, validation_fraction, held_out, warnings)
        metadata = {
            "format_version": FORMAT_VERSION,
            "max_seq_length": max_seq_length,
            "dtype": packing.dtype.str,
            "vocab_size": packing.vocab_size,
            "tokenizer_fingerprint": tokenizer_fingerprint(loaded),
            "document_separator": document_separator,
            "sources": data,
            "validation_sources": validation_data,
            "validation_fraction": held_out,
            "seed": seed,
            "files": statistics.files,
            "skipped_files": len(statistics.skipped),
            "megabytes": statistics.bytes_read / 1e6,
            "splits": {split: packers[split].summary(loaded.unk_token_id) for split in SPLITS},
            "warnings": warnings,
        }
        write_json(target / METADATA_NAME, metadata)
        np.save(target / TOKEN_COUNTS_NAME, packers["train"].token_counts, allow_pickle=False)
        loaded.save_pretrained(target / TOKENIZER_DIRECTORY)

    seconds = time.perf_counter() - started
    measured = {
        "seconds": seconds,
        "megabytes_per_second": statistics.bytes_read / 1e6 / seconds,
        "peak_memory_mib": peak_memory_mib(),
    }
    lines = _summary_lines(metadata, statistics) | corpus_lines(statistics, seconds)
    lines["peak memory"] = f"{measured['peak_memory_mib']:.0f} MiB"
    print_summary(f"rows of {max_seq_length} tokens: {out_dir}", lines, warnings, quiet=quiet)
    return metadata | measured


class _Packing:
    """What every pass over the text shares: where rows go, their type, and the tokenizer."""

    def __init__(self, directory: Path, tokenizer: PreTrainedTokenizerFast, max_seq_length: int, quiet: bool) -> None:
        from tokenizers import Tokenizer

        self.word_starts = word_start_table(tokenizer)
        self.vocab_size = len(self.word_starts.special_ids)
        self.dtype = np.dtype("<u2" if self.vocab_size < 1 << 16 else "<u4")
        self._directory = directory
        self._max_seq_length = max_seq_length
        self._special_ids = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._quiet = quiet
        # A copy, whose settings are ours: rows are cut here, and "[SEP]" in the text is text.
        self._backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True

    def pack(
        self,
        documents: Iterator[Document],
        statistics: CorpusStatistics,
        splits: Sequence[str],
        choose_split: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    ) -> dict[str, RowPacker]:
        """Write the files of ``splits``; ``choose_split`` tells for numbers of documents whether to take the second."""
        with ExitStack() as stack:
            packers = {}
            for split in splits:
                packer = RowPacker(
                    rows_path(self._directory, split),
                    self._max_seq_length,
                    self.dtype,
                    *self._special_ids,
                    self.word_starts,
                )
                packers[split] = stack.enter_context(closing(packer))
            show = stack.enter_context(reading_progress("preparing", statistics, quiet=self._quiet))
            pack_documents(documents, self._backend, list(packers.values()), choose_split, show)
        return packers


def _pack_holding_out(
    packing: _Packing, read: Callable[[CorpusStatistics], Iterator[Document]], fraction: float, seed: int
) -> tuple[CorpusStatistics, dict[str, RowPacker], float]:
    """Pack both splits, again with a greater fraction while one has no row; returns the fraction held out, too."""
    while True:
        statistics = CorpusStatistics()
        packers = packing.pack(
            read(statistics), statistics, SPLITS, partial(_is_held_out, fraction=fraction, seed=seed)
        )
        if not fraction or all(packer.rows for packer in packers.values()):
            return statistics, packers, fraction
        numbers = np.arange(statistics.documents)
        while True:  # raise it until it makes a difference; in the end hold out nothing
            fraction = min(2 * fraction, LARGEST_FRACTION) if fraction < LARGEST_FRACTION else 0.0
            held_out = int(_is_held_out(numbers, fraction, seed).sum())
            if held_out not in (packers["validation"].documents, len(numbers)):
                break
            if not fraction:
                return statistics, packers, fraction


def _is_held_out(numbers: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """(documents,) int64 running numbers -> (documents,) bool, a function of seed and number only."""
    return to_uniform(random_bits(random_bits(seed % 2**64, 0), numbers)) < fraction


def _all_to_the_first(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.zeros(len(numbers), np.bool_)


def _check_rows(
    packers: dict[str, RowPacker],
    statistics: CorpusStatistics,
    validation_data: str | list[str] | None,
    wanted_fraction: float,
    fraction: float,
    warnings: list[str],
) -> None:
    """Raise where there is no row to train on; add a warning where validation is not what was asked for."""
    train, validation = packers["train"], packers["validation"]
    if not train.rows:
        raise UserError(
            f"Too little text: {train.tokens} tokens of training text do not fill a row. "
            "Give more text or a smaller --max_seq_length."
        )
    if validation_data is not None:
        if not validation.rows:
            warnings.append(f"the validation data do not fill a row: {validation.tokens} tokens.")
    elif wanted_fraction and not fraction:
        reason = "the data are one document" if statistics.documents == 1 else "there is too little text"
        warnings.append(
            f"nothing is held out for validation, because {reason}. "
            "Give --validation_data, more text, or another --document_separator."
        )
    elif fraction != wanted_fraction:
        warnings.append(f"validation_fraction is raised from {wanted_fraction} to {fraction}, to hold out a row.")


def _summary_lines(metadata: dict[str, Any], statistics: CorpusStatistics) -> dict[str, str]:
    train, validation = (metadata["splits"][split] for split in SPLITS)

    def both(name: str, form: str) -> str:
        return f"{train[name]:{form}} train, {validation[name]:{form}} validation"

    separator = metadata["document_separator"]
    # records have no separator
    by = f"{separator}: " if statistics.plain_files else ""
    fraction = metadata["validation_fraction"]
    return {
        "documents": f"{both('documents', ',')} ({by}{documents_in_words(statistics, separator)})",
        **(
            {"held out": f"about {fraction:.3g} of the documents, by a hash of seed and number (--validation_fraction)"}
            if fraction
            else {}
        ),
        "tokens": both("tokens", ","),
        "rows": both("rows", ","),
        "remainder": f"{both('remainder_tokens', ',')} tokens",
        "unknown tokens": both("unknown_token_rate", ".3%"),
        "tokens per word": both("tokens_per_word", ".3f"),
    }
