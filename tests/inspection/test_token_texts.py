"""Token ids and their text, both ways, in every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

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
        if token_id in tokenizer.all_special_ids or texts.is_part(token_id) or not text.strip():
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


def test_a_part_of_a_character_is_spelled(rows: Path, other_rows: Path) -> None:
    tokenizer = load_tokenizer(rows / "tokenizer")
    texts = TokenTexts(tokenizer)
    ids = tokenizer("a \u0141\u6771", add_special_tokens=False)["input_ids"]
    parts = [texts(token_id) for token_id in ids if texts.is_part(token_id)]
    assert "".join(parts).strip() == "\\xc5\\x81\\xe6\\x9d\\xb1" and texts(*ids) == "a \u0141\u6771"
    assert not any(texts.is_part(token_id) for token_id in ids[:1] + tokenizer.all_special_ids)
    # a whole character that looks like none
    assert texts(*tokenizer("\ufffd", add_special_tokens=False)["input_ids"]) == "\ufffd"
    wordpieces = load_tokenizer(other_rows / "tokenizer")
    assert not any(TokenTexts(wordpieces).is_part(token_id) for token_id in wordpieces.get_vocab().values())


def test_a_token_of_the_sign_itself_is_no_part() -> None:
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "\ufffd": 2, "##\ufffd": 3}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"))
    assert [texts(token_id) for token_id in (2, 3)] == [" \ufffd", "\ufffd"]
    assert not any(texts.is_part(token_id) for token_id in range(4))


def test_tokens_of_single_bytes_have_their_names() -> None:
    backend = Tokenizer(models.BPE({"a": 0, "<0xC5>": 1, "<unk>": 2}, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    texts = TokenTexts(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert texts(1) == "<0xC5>" and texts.is_part(1) and not texts.is_part(0)


def test_everything_shown_can_be_seen() -> None:
    assert printable("a\n\x1b[0m\u202e東\u00e9") == "a\\n\\x1b[0m\\u202e東é"
    assert [visible(text) for text in (" the", "the", " ", "", "  ", "\n")] == ["the", "the", "␣", "␣", "␣", "\\n"]
