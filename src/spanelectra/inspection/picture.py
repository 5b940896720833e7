"""What is shown of one sentence: plain data between what computes it and what draws it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Candidate:
    """A token that may stand somewhere, with its probability by one head.

    Attributes:
        token_id: its id.
        text: as it stands inside a sentence, with a space before it where a new word begins.
        probability: from 0 to 1.
    """

    token_id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Fill:
    """What the generator would put in place of one masked token.

    Attributes:
        position: in the row.
        mlm, sbgo: the likeliest tokens by either head, likeliest first; empty without the head.
        original, current: head -> the token of the text, and the one that stands there now, with their probabilities.
    """

    position: int
    mlm: tuple[Candidate, ...]
    sbgo: tuple[Candidate, ...]
    original: dict[str, Candidate]
    current: dict[str, Candidate]


@dataclass(frozen=True)
class Correction:
    """What the discriminator would put back in place of one token that it reads.

    Attributes:
        position: in the row.
        likeliest: tokens, likeliest first.
        original, current: the token of the text, and the one that stands there, with their probabilities.
    """

    position: int
    likeliest: tuple[Candidate, ...]
    original: Candidate
    current: Candidate


@dataclass(frozen=True)
class TokenBelief:
    """One token of the row [CLS] … [SEP], and the discriminator's belief that it was replaced.

    Attributes:
        position: in the row.
        word: its number, ``None`` for a special token.
        original_id, original: the token of the text; ``original`` reads as :class:`Candidate`'s ``text``.
        token_id, text: the token that the discriminator reads.
        masked: whether it is part of a masked span.
        chosen: whether a person put it there.
        replaced: whether it is another token than the original.
        ato: probability of 'replaced' by the all-token head; ``None`` without it.
        sbpo: the same from the span's boundaries alone; ``None`` without the head, and for special tokens.
        boundaries: the two positions that SBPO reads; ``None`` where it does not judge.
    """

    position: int
    word: int | None
    original_id: int
    original: str
    token_id: int
    text: str
    masked: bool
    chosen: bool
    replaced: bool
    ato: float | None
    sbpo: float | None
    boundaries: tuple[int, int] | None


class Word(NamedTuple):
    """A word: its first and last position in the row, and its text."""

    first: int
    last: int
    text: str


@dataclass(frozen=True)
class Picture:
    """All that is shown of one sentence.

    Attributes:
        tokens: of the row, from [CLS] to [SEP].
        fills: for each masked token, from left to right; empty without a generator.
        corrections: for each token that was replaced, by a sample or by hand, from left to right; empty without the
            head, which has learned nothing of others.
        pieces: the text in pieces, each with whether it is a masked span.
        words: from left to right.
        masked_words: numbers of the words that are masked.
        chosen: position -> id of the tokens that a person put there.
        seed: of the sampled tokens.
        notices: sentences on what is missing, was cut, or is unlike training.
    """

    tokens: tuple[TokenBelief, ...]
    fills: tuple[Fill, ...]
    pieces: tuple[tuple[str, bool], ...]
    words: tuple[Word, ...]
    masked_words: tuple[int, ...]
    corrections: tuple[Correction, ...] = ()
    chosen: dict[int, int] = field(default_factory=dict)
    seed: int = 0
    notices: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """Those of ``ato`` and ``sbpo`` that judge."""
        return tuple(head for head in ("ato", "sbpo") if any(getattr(token, head) is not None for token in self.tokens))
