"""Schemes are recognised, and conversion leaves entities as seqeval, an independent reader, sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from spanelectra.finetuning.tag_schemes import misplaced_tags, recognise_scheme, stray_tags, to_iob2

# a sentence: entities and words outside, as (type or None, length)
LAYOUTS = st.lists(st.tuples(st.sampled_from([None, "PER", "a-b"]), st.integers(1, 4)), min_size=1, max_size=8)
SINGLE = {"BIOES": "S", "BILOU": "U", "BMES": "S"}
INSIDE = {"BIOES": "I", "BILOU": "I", "BMES": "M"}
END = {"BIOES": "E", "BILOU": "L", "BMES": "E"}
SCHEMES = ("IOB1", "IOB2", "BIOES", "BILOU", "BMES")


def encode(layout, scheme):
    """The tags of a layout and its entities, (type, first word, last word)."""
    tags, entities = [], []
    before = None
    for entity, length in layout:
        if entity is None:
            tags += ["O"] * length
        else:
            entities.append((entity, len(tags), len(tags) + length - 1))
            if scheme == "IOB1":
                letters = ("B" if before == entity else "I") + "I" * (length - 1)
            elif scheme == "IOB2":
                letters = "B" + "I" * (length - 1)
            elif length == 1:
                letters = SINGLE[scheme]
            else:
                letters = "B" + INSIDE[scheme] * (length - 2) + END[scheme]
            tags += [f"{letter}-{entity}" for letter in letters]
        before = entity
    return tags, entities


@pytest.mark.parametrize("scheme", SCHEMES)
@given(layout=LAYOUTS)
def test_valid_tags_keep_their_entities(scheme, layout):
    tags, entities = encode(layout, scheme)
    assert misplaced_tags(tags, scheme) == []
    converted = to_iob2(tags)
    assert get_entities(converted) == entities
    assert converted == encode(layout, "IOB2")[0]


@given(tags=st.lists(st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "XY")])))
def test_any_tags_become_valid_with_the_entities_that_conlleval_sees(tags):
    converted = to_iob2(tags)
    assert get_entities(converted) == get_entities(tags)
    assert misplaced_tags(converted, "IOB2") == []
    # seqeval's strict reading, which passes over what is not valid, sees the same
    strict = [entity.to_tuple()[1:] for entity in Entities([converted], IOB2).entities[0]]
    assert [(kind, first, end - 1) for kind, first, end in strict] == get_entities(tags)
    assert to_iob2(converted) == converted


@given(tags=st.lists(st.sampled_from(["O", "B-X", "I-X", "E-X", "S-X", "I-Y", "E-Y"])))
def test_bioes_is_broken_where_strict_reading_loses_words(tags):
    covered = sum(e.end - e.start for e in Entities([tags], IOBES).entities[0]) + tags.count("O")
    assert (covered == len(tags)) == (not misplaced_tags(tags, "BIOES"))


@pytest.mark.parametrize(
    ("tags", "scheme", "positions"),
    [
        ("O I-X I-X B-X", "IOB2", [1]),
        ("B-X I-Y I-Y", "IOB2", [1]),
        ("I-X B-X O B-X", "IOB1", [3]),
        ("B-X O S-X I-X", "BIOES", [1, 3]),
        ("B-X B-X L-X B-X", "BILOU", [1, 3]),
        ("NOUN I O", "plain", []),
    ],
)
def test_misplaced_tags(tags, scheme, positions):
    assert misplaced_tags(tags.split(), scheme) == positions


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        (["I-X O I-X B-X"], "IOB1"),
        (["B-X I-X O B-X"], "IOB2"),
        (["B-X O", "B-Y"], "IOB2"),
        (["I-X B-X O", "I-Y O B-Y", "I-Y"], "IOB1"),  # one mistake does not make it another scheme
        (["B-X I-X", "B-X O B-X I-X", "O I-Y"], "IOB2"),
        (["B-X O I-X"], "IOB2"),  # as much the one as the other
        (["B I O", "B"], "IOB2"),
        (["S-X O"], "BIOES"),
        (["B-X I-X E-X S-X O"], "BIOES"),
        (["B-X L-X O", "U-Y"], "BILOU"),
        (["B M E S B E"], "BMES"),
        (["B-X M-X E-X O"], "BMES"),
        (["O O"], "plain"),
        (["DET NOUN VERB"], "plain"),
        (["N O V S E U"], "plain"),  # pronouns are O in tags of tweets
        (["S-NOM U-ACC"], "plain"),
        (["S O U"], "plain"),
        (["B-X O PER"], "plain"),
    ],
)
def test_schemes_are_recognised(sentences, scheme):
    assert recognise_scheme([sentence.split() for sentence in sentences]) == scheme


def test_tags_without_a_prefix_among_others_are_named():
    assert stray_tags({"O", "B-PER", "I-PER", "PER", "x"}) == {"PER", "x"}
    assert stray_tags({"O", "B-PER", "S-PER"}) == set()
    assert stray_tags({"O", "B-PER", "B", "I"}) == {"B", "I"} and stray_tags({"O", "B", "I"}) == set()
    assert stray_tags({"NOUN", "I-x", "O-y"}) == set()
    assert stray_tags({"O", "N", "S", "E"}) == set()
