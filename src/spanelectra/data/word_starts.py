"""Which tokens start a word, told from token ids alone: per-vocabulary tables and one vectorised look at each row.

A word is what the tokenizer's pre-tokeniser treats as one. WordPiece marks the tokens that continue a word, Metaspace
tokenizers those that start one. Byte-level BPE marks neither; there a word starts where GPT-2's pattern

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

starts a new match, which shows in the characters at which two tokens meet. It is followed exactly but for these:
a combining mark belongs to the word it marks; a contraction is recognised when it is one token ("'s"); a character that
is cut into bytes is classified by those of its first token, and starts a word where that is one byte of three or four.
In scripts written without spaces every token is a word, whatever the tokenizer, if it begins with a whole character.
With any other tokenizer every token is a word.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How a token begins, or ends. As an ending, CONTINUES means "as the token before", and STARTS differs from all others.
CONTINUES, STARTS, WHITESPACE, SPACE, LETTER, NUMBER, OTHER, ENDS = range(8)

CONTRACTIONS = frozenset({b"'s", b"'t", b"'re", b"'ve", b"'m", b"'ll", b"'d"})
WITHOUT_SPACES = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u109f"  # Tibetan, Myanmar
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf"  # Tai Le, New Tai Lue, Tai Tham
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"  # kana, Bopomofo
    "\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
    "\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar extended
    "]"
)


@dataclass(frozen=True)
class WordStartTable:
    """Tables over the vocabulary, V = highest id + 1, that say where words start; see :func:`word_start_table`.

    Attributes:
        special_ids: (V,) bool, the tokens that are no text: [CLS], [SEP], [PAD], [MASK], [UNK] and their like.
        beginnings: (V,) uint8, how each token begins.
        endings: (V,) uint8, how each token ends.
        blank_lengths: (V,) uint8, for a token of whitespace alone 1 or 2 ("two or more characters"), else 0.
    """

    special_ids: NDArray[np.bool_]
    beginnings: NDArray[np.uint8]
    endings: NDArray[np.uint8]
    blank_lengths: NDArray[np.uint8]

    def word_starts(self, input_ids: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return (rows, length) bool for (rows, length) integer ids: True where a token starts a word.

        Special tokens start none; the first token of a row and one that follows a special token always do.
        """
        special = self.special_ids[input_ids]
        begins = self.beginnings[input_ids]
        blank_length = self.blank_lengths[input_ids]

        # The ending of the nearest token before that has one: bytes inside a character pass on what came before.
        ends = self.endings[input_ids]
        positions = np.where(ends != CONTINUES, np.arange(input_ids.shape[1], dtype=np.int32), 0)
        ends = np.take_along_axis(ends, np.maximum.accumulate(positions, axis=1), axis=1)
        ends_before = np.full_like(ends, ENDS)
        ends_before[:, 1:] = ends[:, :-1]

        text_begins = begins >= LETTER
        text_follows = np.zeros_like(special)
        text_follows[:, :-1] = (begins[:, 1:] != WHITESPACE) & ~special[:, 1:]
        in_blank_run = (blank_length > 0) & ((ends_before == WHITESPACE) | (ends_before == SPACE))

        starts = begins == STARTS
        starts |= text_begins & (begins != ends_before) & (ends_before != SPACE)  # a space belongs to what follows it
        # A run of whitespace is one word, but for its last character if text follows.
        starts |= (begins == WHITESPACE) & (~in_blank_run | ((blank_length == 1) & text_follows))
        starts[:, 0] = True
        starts[:, 1:] |= special[:, :-1]
        return starts & ~special


def word_start_table(tokenizer: Any) -> WordStartTable:
    """Build the tables of a fast Hugging Face tokenizer (``PreTrainedTokenizerFast``)."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pipeline = json.dumps([state["normalizer"], state["pre_tokenizer"], state["decoder"]], ensure_ascii=False)
    prefix = state["model"].get("continuing_subword_prefix")
    added = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
    vocabulary = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    size = max(vocabulary) + 1

    special_ids = np.zeros(size, bool)
    special_ids[[token["id"] for token in state["added_tokens"] if token["special"]] + tokenizer.all_special_ids] = True
    beginnings = np.full(size, STARTS, np.uint8)
    endings = np.full(size, CONTINUES, np.uint8)
    blank_lengths = np.zeros(size, np.uint8)
    if '"ByteLevel"' in pipeline:
        byte_of = byte_of_character()
        for token_id, token in vocabulary.items():
            is_bytes = token_id not in added and all(character in byte_of for character in token)
            content = bytes(byte_of[character] for character in token) if is_bytes else token.encode()
            beginnings[token_id] = _character_class(content)
            endings[token_id] = _ending(content)
            text = content.decode(errors="replace")
            blank_lengths[token_id] = min(len(text), 2) if all(map(_is_whitespace, text)) else 0
    elif prefix or "▁" in pipeline:
        for token_id, token in vocabulary.items():
            body = token.removeprefix(prefix or "")
            marked = body == token if prefix else token.startswith("▁")
            beginnings[token_id] = STARTS if marked or WITHOUT_SPACES.match(body) else CONTINUES
    endings[special_ids] = ENDS
    return WordStartTable(special_ids, beginnings, endings, blank_lengths)


def byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the rest is counted up from 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _is_whitespace(character: str) -> bool:
    """Whether Unicode calls it white space; Python's ``isspace`` adds four separators of information."""
    return character.isspace() and not "\x1c" <= character <= "\x1f"


def _character_class(content: bytes) -> int:
    """Classify the first character of UTF-8 bytes that may be cut anywhere."""
    lead = content[0]
    if 0x80 <= lead < 0xC0:
        return CONTINUES
    length = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    known = content[:length]
    if len(known) == 1 < length - 1:
        return STARTS  # one of thousands of characters of many scripts
    # A cut character is classified as the last one that it can be.
    character = known.ljust(length, b"\xbf").decode(errors="replace")[0]
    if WITHOUT_SPACES.match(character):
        return STARTS
    if _is_whitespace(character):
        return WHITESPACE
    return {"L": LETTER, "M": LETTER, "N": NUMBER}.get(unicodedata.category(character)[0], OTHER)


def _ending(content: bytes) -> int:
    if content in CONTRACTIONS:
        return ENDS
    if content.endswith(b" "):
        return SPACE
    start = len(content) - 1
    while start > 0 and 0x80 <= content[start] < 0xC0:
        start -= 1
    return _character_class(content[start:])
