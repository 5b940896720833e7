"""Token ids <-> their text as people read it inside a sentence."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from spanelectra.data.word_starts import byte_of_character
from spanelectra.errors import UserError

_BYTES = byte_of_character()
# what a decoder puts in the place of bytes that are no character
_UNREADABLE = "\ufffd"
# of a vocabulary that falls back on bytes
_BYTE_NAME = re.compile(r"<0x[0-9A-F]{2}>")


class TokenTexts:
    """Token ids -> their text as it stands inside a sentence, with a space before it where a new word begins."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # decoded after some other token, a token shows whether a space comes before it, in every kind of tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"][:1]
        self._text_before = self._decode(self._before)

    def __call__(self, *token_ids: int) -> str:
        if len(token_ids) == 1 and (spelled := self._spelled(token_ids[0])) is not None:
            return spelled
        return self._read(token_ids)

    def is_part(self, token_id: int) -> bool:
        """Whether a token holds a part of a character, whose bytes its text then spells: ``\\xc5`` or ``<0xC5>``."""
        return self._spelled(token_id) is not None

    def _read(self, token_ids: Sequence[int]) -> str:
        return self._decode([*self._before, *token_ids]).removeprefix(self._text_before)

    def _spelled(self, token_id: int) -> str | None:
        """A token that holds a part of a character, with that part's bytes written out."""
        if _UNREADABLE not in self._read([token_id]):
            return None
        name = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if _BYTE_NAME.fullmatch(name):
            return name
        if any(character not in _BYTES for character in name):
            return None  # the sign itself, as a token
        content = bytes(_BYTES[character] for character in name)
        spelled = content.decode(errors="backslashreplace")
        return None if spelled == content.decode(errors="replace") else spelled

    def token_id(self, typed: str, in_place_of: str) -> int:
        """The token that a person means who types a word over another token.

        Args:
            typed: what was typed; spaces around it do not count.
            in_place_of: text of the token that stands there, which tells whether a new word is to begin.

        Raises:
            UserError: where no single token of the vocabulary reads so.
        """
        word = typed.strip()
        spaced, joined = f" {word}", word
        for text in (spaced, joined) if in_place_of.startswith(" ") else (joined, spaced):
            if word and text in self._ids:
                return self._ids[text]
        if not word:
            raise UserError("type a token to put there.")
        pieces = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        cut = " · ".join(visible(self(piece)) for piece in pieces)
        raise UserError(f"'{printable(word)}' is no single token of this vocabulary (it is {cut}); type one token.")

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """Text -> id, for every token that is text and whole characters; the lowest id where several read alike."""
        ids: dict[str, int] = {}
        special = set(self._tokenizer.all_special_ids)
        for token_id in sorted(self._tokenizer.get_vocab().values()):
            if token_id not in special and not self.is_part(token_id):
                ids.setdefault(self._read([token_id]), token_id)
        return ids

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def printable(text: str) -> str:
    """Text with everything that does not print, such as line breaks, escape codes and changes of direction, written
    out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def visible(token: str) -> str:
    """A token without the space before it; where nothing is left to see, a sign for each space."""
    body = token.removeprefix(" ")
    return printable(body) if body.strip(" ") else "␣" * max(1, len(body))
