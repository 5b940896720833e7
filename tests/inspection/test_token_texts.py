"""Token ids and their text, both ways, in every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.inspection.token_texts import TokenTexts, printable, visible


@pytest.mark.parametrize("kind", ["rows", "other_rows"])
def test_what_a_token_reads_is_typed_back(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind) / "tokenizer")
    texts = TokenTexts(tokenizer)
    typed = 0
    for token_id in tokenizer.get_vocab().values():
        text = texts(token_id)
        if token_id in tokenizer.all_special_ids or "\ufffd" in text or not text.strip():
            continue
        assert texts(texts.token_id(text, in_place_of=text)) == text
        typed += 1
    assert typed > 300


def test_a_new_word_begins_where_one_began(rows: Path) -> None:
    texts = TokenTexts(load_tokenizer(rows / "tokenizer"))
    assert texts(texts.token_id(" the ", in_place_of=" in")) == " the"
    assert texts(texts.token_id("t", in_place_of="s")) == "t"
    assert texts(texts.token_id("t", in_place_of=" s")) == " t"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "type a token"),
        ("  ", "type a token"),
        ("the the", "'the the' is no single token"),
        ("[MASK]", "no single token"),
        ("\x1b[31m", r"'\\x1b\[31m' is no single token"),
    ],
)
def test_what_is_no_token(typed: str, message: str, rows: Path) -> None:
    with pytest.raises(UserError, match=message):
        TokenTexts(load_tokenizer(rows / "tokenizer")).token_id(typed, in_place_of=" a")


def test_everything_shown_can_be_seen() -> None:
    assert printable("a\n\x1b[0m\u202e東\u00e9") == "a\\n\\x1b[0m\\u202e東é"
    assert [visible(text) for text in (" the", "the", " ", "", "  ", "\n")] == ["the", "the", "␣", "␣", "␣", "\\n"]
