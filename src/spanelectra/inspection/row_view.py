"""What is shown of a row: its tokens as they stand, as the model reads them, and the spans that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Hidden = Literal["[MASK]", "random", "kept", "sampled", "restored"]


@dataclass(frozen=True)
class TokenView:
    """One token of a row.

    Attributes:
        text: of the original token, with a space before it where its text has one.
        starts_word: whether a word starts here; never for special tokens.
        is_special: [CLS], [SEP] and the like.
        reads: the token in its place that the model reads.
        hidden: what was done to a masked token, ``None`` for the others. In rows of ``spanelectra corrupt`` a masked
            token was ``sampled`` or, where the sample is the original, ``restored``.
        span: name of the span that it is part of: ``m1``, ``m2``, … are masked, ``d1``, ``d2``, … decoys; ``m`` for a
            token that was masked by itself, ``None`` outside.
        left_of, right_of: names of the spans that this is the left, or right, boundary of.
    """

    text: str
    starts_word: bool
    is_special: bool
    reads: str
    hidden: Hidden | None
    span: str | None
    left_of: tuple[str, ...]
    right_of: tuple[str, ...]

    @property
    def is_masked(self) -> bool:
        """Whether the generator is to predict it."""
        return self.hidden is not None


@dataclass(frozen=True)
class RowView:
    """One row.

    Attributes:
        number: in its split, from 0.
        documents: its tokens, document by document: each ends with its [SEP], the first begins with [CLS]. The last
            one may go on in the next row.
    """

    number: int
    documents: tuple[tuple[TokenView, ...], ...]

    @property
    def tokens(self) -> tuple[TokenView, ...]:
        """All its tokens."""
        return tuple(token for document in self.documents for token in document)
