"""Running text -> words as column files have them, and words with tags -> entities at their place in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqeval.metrics.sequence_labeling import get_entities
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from spanelectra.data.word_starts import WITHOUT_SPACES

# What shows nothing and parts nothing, and is left out; joiners and soft hyphens belong to their word.
_NOTHING = "\u200b\u2060\ufeff"
# Letters with their marks, and digits, of scripts that put spaces between words.
_LETTER = rf"[\p{{L}}\p{{M}}\p{{N}}_\u00ad\u200c\u200d&&[^{WITHOUT_SPACES.pattern[1:-1]}]]"
_ENGLISH = rf"(?i:n['’]t|['’](?:s|m|d|re|ve|ll))(?!{_LETTER})"
_IN_WORD = rf"(?!{_ENGLISH}){_LETTER}"
_WORD = "|".join(
    [
        _ENGLISH,
        rf"(?:\p{{L}}\.){{2,}}(?:\p{{L}}(?!{_LETTER}))?(?:-{_LETTER}+)*",  # U.S., U.S.A, U.S.-led
        r"(?!I)\p{Lu}\.(?=\s*\S)",  # J. Smith
        r"\p{Lu}{1,3}\$",  # US$
        rf"(?<![\p{{L}}\p{{M}}\p{{N}}])[-+.]\p{{N}}{_LETTER}*(?:[-.,/:]{_LETTER}+)*",  # +44, .500
        rf"(?:{_IN_WORD})+(?:(?!{_ENGLISH})[-.,'’&/@:](?:{_IN_WORD})+)*",  # well-known, 3,000.5, O'Neil
        r"([^\s\p{L}\p{M}\p{N}])\1+",  # --, ...
        rf"(?=[^\s{_NOTHING}])\X",  # a character with its marks
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

    Almost as in the files of CoNLL-2003: a word keeps the hyphen, apostrophe, point, comma, colon, slash, ampersand or
    @ inside it (3,000.5, O'Neil), initials their points (U.S., J. Smith), a number its sign; English 's, n't, 'm, 'd,
    're, 've and 'll are words; a mark that is repeated is one (...). Points of other abbreviations (vs.) and of
    numerals (1.) are words, for they may end a sentence. Scripts that put no spaces between words are cut into
    characters. Nothing is left out but white space and what has no width and belongs to no word.
    """
    pieces = _splitter.pre_tokenize_str(text)
    return [piece for piece, _ in pieces], [start for _, (start, _) in pieces]


def find_entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence's tags in IOB2, read as ``conlleval`` reads them: an I- alone begins one, too."""
    return [Entity(*entity) for entity in get_entities(list(tags))]
