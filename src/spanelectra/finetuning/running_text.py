"""Running text -> words as column files have them, and words with tags -> entities at their place in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from spanelectra.data.word_starts import WITHOUT_SPACES

# Letters with their marks, and digits, of scripts that put spaces between words.
_LETTER = rf"[\p{{L}}\p{{M}}\p{{N}}_&&[^{WITHOUT_SPACES.pattern[1:-1]}]]"
_APOSTROPHE_S = rf"['’]s(?!{_LETTER})"
_WORD = "|".join(
    [
        r"(?:\p{L}\.){2,}",  # U.S., e.g.
        r"\p{Lu}\.(?=\s*\S)",  # J. Smith
        rf"{_LETTER}+(?:(?!{_APOSTROPHE_S})[-.,'’&/@:]{_LETTER}+)*",  # well-known, 3,000.5, O'Neil
        _APOSTROPHE_S,
        r"([^\s\p{L}\p{M}\p{N}])\1+",  # --, ...
        r"\S",
    ]
)
_splitter = Split(Regex(_WORD), behavior="removed", invert=True)


@dataclass(frozen=True)
class Entity:
    """A run of words that are one thing.

    Attributes:
        type: what follows B- and I- in their tags.
        first_word, last_word: indices, both inclusive.
    """

    type: str
    first_word: int
    last_word: int


def cut_into_words(text: str) -> tuple[list[str], list[int]]:
    """Words and punctuation marks, and where in the text each begins, in characters.

    A word keeps the hyphen, apostrophe, point, comma, colon, slash, ampersand or @ inside it (3,000.5, O'Neil), and
    initials their points (U.S., J. Smith); a mark that is repeated is one (...); the English 's is a word of its own,
    as in the files of CoNLL-2003. Scripts that put no spaces between words are cut into characters. Nothing but white
    space is left out.
    """
    pieces = _splitter.pre_tokenize_str(text)
    return [piece for piece, _ in pieces], [start for _, (start, _) in pieces]


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence's tags in IOB2, read as ``conlleval`` reads them: an I- alone begins one, too."""
    return [Entity(*entity) for entity in get_entities(list(tags))]
