"""Running text is cut as column files are, loses nothing, and its entities are those that are scored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from spanelectra.finetuning.running_text import Entity, cut_into_words, find_entities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ida lives in Oslo.", "Ida lives in Oslo ."),
        ("(The U.S. economy's 3,000.5 points)", "( The U.S. economy 's 3,000.5 points )"),
        ("O’Neil’s “well-known” AT&T, no?", "O’Neil ’s “ well-known ” AT&T , no ?"),
        ("J. Smith wrote plan B.", "J. Smith wrote plan B ."),
        ("don't... stop -- ever", "don't ... stop -- ever"),
        ("Łódź und Müller", "Łódź und Müller"),
        ("cafe\u0301s हिन्दी में", "cafe\u0301s हिन्दी में"),
        ("東京に住む、OK", "東 京 に 住 む 、 OK"),
        ("\u00a0a\u3000b\n", "a b"),
        ("", ""),
    ],
)
def test_words_are_those_of_column_files(text: str, expected: str) -> None:
    assert cut_into_words(text)[0] == expected.split()


@given(st.text())
def test_nothing_but_white_space_is_left_out(text: str) -> None:
    words, starts = cut_into_words(text)
    rest = list(text)
    for word, start in zip(words, starts, strict=True):
        assert word and text[start : start + len(word)] == word
        rest[start : start + len(word)] = [" "] * len(word)
    assert starts == sorted(starts) and not "".join(rest).strip()


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"])))
def test_entities_are_those_that_are_scored(tags: list[str]) -> None:
    found = find_entities(tags)
    assert [(entity.type, entity.first_word, entity.last_word) for entity in found] == get_entities(tags)
    written = ["O"] * len(tags)
    for entity in found:
        written[entity.first_word : entity.last_word + 1] = [
            f"{'B' if place == entity.first_word else 'I'}-{entity.type}"
            for place in range(entity.first_word, entity.last_word + 1)
        ]
    if found:
        assert f1_score([tags], [written]) == 1.0
    else:
        assert tags == ["O"] * len(tags)


def test_an_i_alone_begins_an_entity() -> None:
    assert find_entities(["I-PER", "I-LOC", "O"]) == [Entity("PER", 0, 0), Entity("LOC", 1, 1)]
