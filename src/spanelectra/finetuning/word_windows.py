"""Sentences of words -> windows of tokens that a model can take, and which token speaks for which word.

The tokens are those of the running text, the words joined by single spaces: what a model was pre-trained on and what a
pipeline will show it. (``is_split_into_words`` would give byte-level BPE other tokens, unless a space is put before the
first word, too.) A word is spoken for by its first token (BERT, section 5.3). A sentence longer than a window has
several, which overlap; a word is then read in the window that shows most around it, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from spanelectra.errors import UserError

NO_WORD = -1
_SENTENCES_AT_ONCE = 1000


@dataclass(frozen=True)
class Window:
    """Some or all tokens of a sentence, with special tokens around them.

    Attributes:
        sentence: its index.
        inputs: ``input_ids`` and whatever else the tokenizer gives the model, lists of one length.
        words: of the same length: the index of the word that is read at a token, elsewhere ``NO_WORD``.
    """

    sentence: int
    inputs: dict[str, list[int]]
    words: list[int]


def word_windows(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int, overlap: int
) -> Iterator[Window]:
    """Tokenise sentences; windows in which no word is read are left out.

    A word that is nothing to the tokenizer, such as a control character to BERT's, is read in no window; every other
    one in exactly one.

    Args:
        sentences: the words of each.
        tokenizer: a fast one.
        max_length: the longest window in tokens, special tokens included.
        overlap: tokens that a window shares with the one before.

    Raises:
        UserError: where windows of that length and overlap are impossible.
    """
    special = tokenizer.num_special_tokens_to_add()
    capacity = max_length - special
    if capacity < 1:
        raise UserError(f"max_length {max_length} leaves no room for a token beside {special} special ones.")
    if overlap >= capacity:
        raise UserError(
            f"doc_stride {overlap} is too large: windows of {max_length} tokens, {special} of them special, can "
            f"overlap by {capacity - 1} at most. Give a smaller --doc_stride."
        )
    frame: _Frame | None = None
    for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
        texts = [" ".join(words) for words in sentences[start : start + _SENTENCES_AT_ONCE]]
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for number, text in enumerate(texts):
            ids, index = encoded["input_ids"][number], start + number
            if not ids:
                continue
            frame = frame or _find_frame(tokenizer, text)
            words, positions = _first_tokens(sentences[index], np.array(encoded["offset_mapping"][number]))
            for first, last, chosen in _read_in(positions, len(ids), capacity, overlap):
                read_at = np.full(last - first, NO_WORD)
                read_at[positions[chosen] - first] = words[chosen]
                yield frame.window(index, ids[first:last], read_at.tolist())


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around a text.

    Attributes:
        before, after: input's name -> its values for the special tokens before and after.
        content: name -> the value of all the text's tokens; not of ``input_ids``.
    """

    before: dict[str, list[int]]
    content: dict[str, int]
    after: dict[str, list[int]]

    def window(self, sentence: int, ids: list[int], words: list[int]) -> Window:
        middle = {name: [value] * len(ids) for name, value in self.content.items()} | {"input_ids": ids}
        inputs = {name: before + middle[name] + self.after[name] for name, before in self.before.items()}
        around = [[NO_WORD] * len(side["input_ids"]) for side in (self.before, self.after)]
        return Window(sentence, inputs, around[0] + words + around[1])


def _find_frame(tokenizer: PreTrainedTokenizerBase, text: str) -> _Frame:
    """Look at a text that has tokens."""
    encoded = tokenizer(text, verbose=False)
    inside = [position for position, sequence in enumerate(encoded.sequence_ids(0)) if sequence is not None]
    first, last = inside[0], inside[-1]
    inputs: dict[str, list[int]] = dict(encoded)
    return _Frame(
        {name: values[:first] for name, values in inputs.items()},
        {name: values[first] for name, values in inputs.items() if name != "input_ids"},
        {name: values[last + 1 :] for name, values in inputs.items()},
    )


def _first_tokens(
    words: Sequence[str], offsets: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    """Indices of the words that have tokens, and the position of the first token of each.

    Args:
        offsets: (tokens, 2), the characters of the joined words that each token stands for, end exclusive. They may
            take in the space before a word; a token of that space alone is no word's.
    """
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = ends - [len(word) for word in words]
    # A token is of the first word that ends after the token's start, if the token reaches that word.
    word = np.searchsorted(ends, offsets[:, 0], side="right")
    has_word = (word < len(words)) & (starts[np.minimum(word, len(words) - 1)] < offsets[:, 1])
    indices, first = np.unique(word[has_word], return_index=True)
    return indices, np.flatnonzero(has_word)[first]


def _read_in(
    positions: NDArray[np.integer[Any]], length: int, capacity: int, overlap: int
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Yield each window's first token, its end, and which of ``positions`` are read in it.

    That is where the smaller of the numbers of tokens before and after is largest, as in BERT's code for SQuAD.
    """
    # the last of these may lie within the one before; then nothing is read in it
    firsts = np.arange(0, length, capacity - overlap)
    ends = np.minimum(firsts + capacity, length)
    context = np.minimum(positions - firsts[:, None], ends[:, None] - 1 - positions)
    window = context.argmax(axis=0)
    for index in np.unique(window):
        yield int(firsts[index]), int(ends[index]), window == index
