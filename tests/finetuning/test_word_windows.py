"""Windows against the tokenizer's own, and words' first tokens against a search over characters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagged_sentences import KINDS, SENTENCES, make_tokenizer, split_tags

from spanelectra.errors import UserError
from spanelectra.finetuning.word_windows import NO_WORD, word_windows

WORDS = st.text("aOslo1'.,#é漢😀\u0301\u200b\x07\u00a0", min_size=1, max_size=7) | st.sampled_from(
    ["Oslo", "walked", "'s", "[MASK]", "[SEP]", "</s>", "New York", "supercalifragilistic", "\x07", "\u3000", "▁", "#"]
)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizers")
    return {kind: make_tokenizer(kind, directory) for kind in KINDS}


def slow_first_tokens(words, tokenizer):
    """Word -> position, among the tokens of the running text, of the first one that stands for a character of it.

    A token that stands for characters of several words, as [MASK] does with the blanks before it, is the first one's.
    """
    encoding = tokenizer(" ".join(words), add_special_tokens=False)
    positions, start, taken = {}, 0, {None}
    for index, word in enumerate(words):
        tokens = {encoding.char_to_token(character) for character in range(start, start + len(word))} - taken
        if tokens:
            positions[index] = min(tokens)
        taken |= tokens
        start += len(word) + 1
    return positions


def slow_windows(words, tokenizer, max_length, overlap):
    """The windows that the tokenizer itself makes, and in each the words that have most around them there."""
    encoded = tokenizer(
        " ".join(words),
        truncation=True,
        max_length=max_length,
        stride=overlap,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
    )
    special = encoded.pop("special_tokens_mask")
    encoded.pop("overflow_to_sample_mapping")
    windows, start = [], 0
    for number, mask in enumerate(special):
        inside = [position for position, is_special in enumerate(mask) if not is_special]
        tokens = {start + place: position for place, position in enumerate(inside)}  # token of the text -> position
        windows.append((tokens, {name: values[number] for name, values in encoded.items()}, [NO_WORD] * len(mask)))
        start += len(inside) - overlap
    for word, token in slow_first_tokens(words, tokenizer).items():
        context = [min(token - min(tokens), max(tokens) - token) if tokens else -1 for tokens, _, _ in windows]
        tokens, _, read = windows[context.index(max(context))]
        read[tokens[token]] = word
    return [(inputs, read) for _, inputs, read in windows if set(read) != {NO_WORD}]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(words=st.lists(WORDS, min_size=1, max_size=12), max_length=st.integers(4, 24), share=st.floats(0, 0.99))
def test_windows_equal_the_tokenizers_own(tokenizers, kind, words, max_length, share):
    tokenizer = tokenizers[kind]
    overlap = int(share * (max_length - tokenizer.num_special_tokens_to_add()))
    windows = list(word_windows([words], tokenizer, max_length, overlap))
    assert [(window.inputs, window.words) for window in windows] == slow_windows(words, tokenizer, max_length, overlap)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_running_text(tokenizers, kind):
    sentences = [words for words, _ in split_tags(SENTENCES)]
    windows = list(word_windows(sentences, tokenizers[kind], 200, 10))
    assert [window.sentence for window in windows] == [0, 1, 2, 3]
    assert [window.inputs for window in windows] == [
        dict(tokenizers[kind](" ".join(words), verbose=False)) for words in sentences
    ]
    for words, window in zip(sentences, windows, strict=True):
        assert [word for word in window.words if word != NO_WORD] == list(range(len(words)))
        assert window.words[0] == (0 if kind == "metaspace" else NO_WORD) and window.words[-1] == NO_WORD


def test_a_word_longer_than_windows_is_read_at_its_first_token(tokenizers):
    sentences = [["Oslo", "x" * 50, "Ida"], ["x" * 50]]
    windows = list(word_windows(sentences, tokenizers["BPE"], 8, 2))
    read = [(window.sentence, word) for window in windows for word in window.words if word != NO_WORD]
    assert read == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert all(len(window.words) == len(window.inputs["input_ids"]) <= 8 for window in windows)


def test_words_that_are_nothing_are_read_nowhere(tokenizers):
    windows = list(word_windows([["\x07"], ["Ida", "\u200b", "Lund"]], tokenizers["BERT"], 8, 2))
    assert [(window.sentence, [word for word in window.words if word != NO_WORD]) for window in windows] == [
        (1, [0, 2])
    ]


def test_impossible_windows_are_refused(tokenizers):
    with pytest.raises(UserError, match="max_length 2 leaves no room for a token beside 2 special ones"):
        list(word_windows([["Ida"]], tokenizers["BPE"], 2, 0))
    with pytest.raises(UserError, match=r"doc_stride 6 is too large: windows of 8 tokens, 2 of them special, .* by 5"):
        list(word_windows([["Ida"]], tokenizers["BPE"], 8, 6))
    assert list(word_windows([["Ida"]], tokenizers["BPE"], 8, 5))
