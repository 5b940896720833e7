"""A stream of documents -> token ids -> rows on disk, batch by batch, on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spanelectra.data.corpus import Document
from spanelectra.data.word_starts import WordStartTable

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BATCH_CHARACTERS = 1 << 21  # enough texts for every core, few enough to keep memory flat


def pack_documents(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    packers: Sequence[RowPacker],
    choose_packer: Callable[[NDArray[np.int64]], NDArray[Any]],
    after_batch: Callable[[], None],
) -> None:
    """Tokenize documents and append each to one of the packers.

    While the tokenizer works on a batch, in threads of its own, the next one is read and the last one written.

    Args:
        documents: the stream.
        tokenizer: a backend tokenizer, without truncation or padding.
        packers: where rows go.
        choose_packer: (documents,) int64 running numbers of documents -> (documents,) indices into ``packers``;
            booleans will do for two of them.
        after_batch: called after every batch, to show progress.
    """
    before: tuple[_Batch, Future[list[Encoding]]] | None = None
    with ThreadPoolExecutor(max_workers=1) as executor:
        for batch in chain(_gather_batches(documents), [None]):
            now = None
            if batch is not None:
                now = batch, executor.submit(tokenizer.encode_batch_fast, batch.texts, add_special_tokens=False)
            if before is not None:
                _append(before[0], before[1].result(), packers, choose_packer)
                after_batch()
            before = now


class RowPacker:
    """Appends documents to a split's file as rows [CLS] piece [SEP]; the law is in :mod:`spanelectra.data.packing`.

    Args:
        path: the file to write: rows one after the other, little-endian.
        max_seq_length: tokens a row.
        dtype: of the rows, little-endian uint16 or uint32.
        cls_token_id, sep_token_id: ids of [CLS] and [SEP].
        word_starts: tells words, which are counted, and the size of the vocabulary, V.

    Attributes:
        documents, tokens, words, rows: counts so far; tokens and words are those of the text.
        token_counts: (V,) int64, how often each id occurs in the text.
    """

    def __init__(
        self,
        path: Path,
        max_seq_length: int,
        dtype: np.dtype[Any],
        cls_token_id: int,
        sep_token_id: int,
        word_starts: WordStartTable,
    ) -> None:
        self.dtype = dtype
        self.documents = self.tokens = self.words = self.rows = 0
        self.token_counts = np.zeros(len(word_starts.special_ids), np.int64)
        self._file = path.open("wb")
        self._piece_length = max_seq_length - 2
        self._cls_token_id, self._sep_token_id = cls_token_id, sep_token_id
        self._word_starts = word_starts
        self._unfilled = np.empty(0, dtype)  # the piece that is not full yet
        self._document_has_tokens = False

    def append(self, input_ids: NDArray[np.unsignedinteger[Any]], lengths: list[int], ends: list[bool]) -> None:
        """Append texts.

        Args:
            input_ids: (tokens,) ids of the texts one after the other, without special tokens; of the rows' dtype.
            lengths: tokens of each text.
            ends: whether a document ends with the text; otherwise the next text continues it.
        """
        if not lengths:
            return
        stream = np.insert(input_ids, self._separator_positions(lengths, ends), self._sep_token_id)
        self.documents += sum(ends)
        self.tokens += len(input_ids)
        self.words += self._count_words(input_ids, lengths, ends)
        self.token_counts += np.bincount(input_ids, minlength=len(self.token_counts))

        stream = np.concatenate([self._unfilled, stream])
        count = len(stream) // self._piece_length
        used = count * self._piece_length
        rows = np.empty((count, self._piece_length + 2), stream.dtype)
        rows[:, 0] = self._cls_token_id
        rows[:, 1:-1] = stream[:used].reshape(count, self._piece_length)
        rows[:, -1] = self._sep_token_id
        self._file.write(rows.tobytes())
        self.rows += count
        self._unfilled = stream[used:].copy()

    def close(self) -> None:
        """Close the file; the piece that is not full stays out as the remainder."""
        self._file.close()

    def summary(self, unk_token_id: int | None) -> dict[str, Any]:
        """Return the split's counts and rates as they stand in ``dataset.json``."""
        unknown = 0 if unk_token_id is None else int(self.token_counts[unk_token_id])
        return {
            "documents": self.documents,
            "tokens": self.tokens,
            "rows": self.rows,
            "remainder_tokens": int((self._unfilled != self._sep_token_id).sum()),
            "unknown_token_rate": unknown / max(self.tokens, 1),
            # [UNK] starts no word that could be masked, but it stands for one.
            "tokens_per_word": self.tokens / max(self.words + unknown, 1),
        }

    def _count_words(self, input_ids: NDArray[np.unsignedinteger[Any]], lengths: list[int], ends: list[bool]) -> int:
        """Count the words of the texts, as if a separator stood after every document."""
        separated = np.insert(input_ids, np.cumsum(lengths)[ends], self._sep_token_id)
        return int(self._word_starts.word_starts(separated[None]).sum()) if len(separated) else 0

    def _separator_positions(self, lengths: list[int], ends: list[bool]) -> list[int]:
        """Return where a [SEP] goes: after each document, unless it would come first or last in a piece."""
        positions = []
        position = 0
        filled = len(self._unfilled)
        for length, end in zip(lengths, ends, strict=True):
            position += length
            filled = (filled + length) % self._piece_length
            self._document_has_tokens |= length > 0
            if end:
                if self._document_has_tokens and 0 < filled < self._piece_length - 1:
                    positions.append(position)
                    filled += 1
                self._document_has_tokens = False
        return positions


@dataclass
class _Batch:
    """Texts, the number of the document each belongs to, and whether the document ends with it."""

    texts: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)


def _gather_batches(documents: Iterable[Document]) -> Iterator[_Batch]:
    batch = _Batch()
    characters = number = 0
    for text, _, continues in documents:
        batch.texts.append(text)
        batch.numbers.append(number)
        batch.ends.append(not continues)
        number += not continues
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch = _Batch()
            characters = 0
    if batch.texts:
        yield batch


def _append(
    batch: _Batch,
    encodings: list[Encoding],
    packers: Sequence[RowPacker],
    choose_packer: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> None:
    choices = choose_packer(np.array(batch.numbers, np.int64))
    for index, packer in enumerate(packers):
        chosen = np.flatnonzero(choices == index).tolist()
        lengths = [len(encodings[place]) for place in chosen]
        ids = chain.from_iterable(encodings[place].ids for place in chosen)
        packer.append(np.fromiter(ids, packer.dtype, sum(lengths)), lengths, [batch.ends[place] for place in chosen])
