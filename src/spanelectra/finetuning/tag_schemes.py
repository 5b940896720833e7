"""Schemes of entity tags, recognised and turned into one: IOB2.

=====  ==========================================  =====================================
IOB1   I- inside; B- only between two that touch   Ramshaw and Marcus (1995); CoNLL-2003
IOB2   B- begins every entity, I- goes on          Tjong Kim Sang and Veenstra (1999)
BIOES  as IOB2, E- ends one and S- is one alone    BILOU and BMES are the same in other letters
plain  no prefixes: every tag is a class           part-of-speech tags
=====  ==========================================  =====================================

What a scheme does not allow is read as ``conlleval`` reads it: a tag that goes on with an entity where there is none of
its type begins one. So no entity is lost, and in valid sequences none changes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

Scheme: TypeAlias = Literal["IOB1", "IOB2", "BIOES", "BILOU", "BMES", "plain"]

OUTSIDE = "O"
_PREFIXED = re.compile(r"[BIMELSU](-.+)?", re.DOTALL)
_GOES_ON = frozenset("IMEL")
_ENDS = frozenset("ELSU")
_LETTERS: dict[Scheme, frozenset[str]] = {
    "BIOES": frozenset("BIES"),
    "BILOU": frozenset("BILU"),
    "BMES": frozenset("BMES"),
}


def recognise_scheme(sentences: Sequence[Sequence[str]]) -> Scheme:
    """Tell which scheme tags are in.

    Of IOB1 and IOB2, which have the same letters, it is the one that is broken less often; IOB2 where neither is.

    Args:
        sentences: the tags of each.
    """
    tags = {tag for sentence in sentences for tag in sentence}
    prefixed = _prefixed(tags)
    letters = {tag[0] for tag in prefixed}
    # Letters alone, or types without an O, may as well be names of classes that happen to look like this.
    has_outside = OUTSIDE in tags and all(len(tag) > 1 for tag in prefixed)
    if not prefixed or tags - prefixed - {OUTSIDE} or not (has_outside or letters & {"B", "I"}):
        return "plain"
    if letters <= {"B", "I"}:
        broken = {scheme: sum(len(misplaced_tags(tags, scheme)) for tags in sentences) for scheme in ("IOB2", "IOB1")}
        return "IOB2" if broken["IOB2"] <= broken["IOB1"] else "IOB1"
    return next((scheme for scheme, allowed in _LETTERS.items() if letters <= allowed), "BIOES")


def stray_tags(tags: Collection[str]) -> set[str]:
    """Tags that lack a prefix or a type in a file of entities, such as PER or B beside B-PER."""
    if OUTSIDE in tags and any(tag.startswith(("B-", "I-")) for tag in tags):
        return {tag for tag in set(tags) - {OUTSIDE} if len(tag) == 1 or not _PREFIXED.fullmatch(tag)}
    return set()


def misplaced_tags(tags: Sequence[str], scheme: Scheme) -> list[int]:
    """Positions of the tags of one sentence that ``scheme`` does not allow there; none in plain tags.

    In BIOES and its like an entity that is not ended counts at the tag after it, at the sentence's end at its last one.
    """
    if scheme == "plain":
        return []
    positions: list[int] = []
    entity: str | None = None  # the type of the entity that the tag before is of, if it may go on
    for position, tag in enumerate([*tags, OUTSIDE]):
        goes_on = tag[0] in _GOES_ON and tag[2:] == entity
        if scheme == "IOB1":
            wrong = tag[0] == "B" and tag[2:] != entity
        elif scheme == "IOB2":
            wrong = tag[0] == "I" and not goes_on
        else:
            wrong = not goes_on and (tag[0] in _GOES_ON or entity is not None)
        if wrong:
            positions.append(min(position, len(tags) - 1))
        entity = None if tag == OUTSIDE or tag[0] in _ENDS else tag[2:]
    return sorted(set(positions))


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Turn the entity tags of one sentence, in any scheme but plain, into IOB2, whose entities are the same."""
    converted = []
    entity: str | None = None
    for tag in tags:
        if tag == OUTSIDE:
            entity = None
            converted.append(tag)
            continue
        goes_on = tag[0] in _GOES_ON and tag[2:] == entity
        converted.append(("I" if goes_on else "B") + tag[1:])
        entity = None if tag[0] in _ENDS else tag[2:]
    return converted


def _prefixed(tags: Collection[str]) -> set[str]:
    return {tag for tag in tags if _PREFIXED.fullmatch(tag)}
