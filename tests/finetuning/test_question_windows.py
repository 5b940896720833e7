"""Windows: together they hold the whole context, each is a pair as models know it, and answers are found in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizerFast

from spanelectra.errors import UserError
from spanelectra.finetuning.question_windows import answer_positions, make_windows
from spanelectra.finetuning.squad_files import Answer, Question
from squad_examples import QUESTIONS, RIVER, TOWER, squad_tokenizers  # noqa: F401 - fixture

KINDS = pytest.mark.parametrize("kind", ["BPE", "BERT"])
EXAMPLES = [
    Question(str(number), question, context, tuple(Answer(text, context.index(text)) for text in texts))
    for number, (context, question, texts) in enumerate(
        (context, question, texts) for context, asked in QUESTIONS.items() for question, texts in asked
    )
]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture
def tokenizer(kind, squad_tokenizers):  # noqa: F811
    return squad_tokenizers[kind]


@KINDS
@pytest.mark.parametrize(("max_length", "doc_stride"), [(48, 0), (48, 10), (64, 21), (512, 128)])
def test_windows_are_pairs_that_hold_the_whole_context(tokenizer, max_length, doc_stride):
    windows = make_windows(EXAMPLES, tokenizer, max_length, doc_stride)
    numbers = [feature["example"] for feature in windows.features]
    assert numbers == sorted(numbers) and set(numbers) == set(range(len(EXAMPLES)))
    for number, example in enumerate(EXAMPLES):
        own = [feature for feature in windows.features if feature["example"] == number]
        question, context = ids_of(tokenizer, example.question), ids_of(tokenizer, example.context)
        narrow = number in windows.narrowed
        assert number not in windows.cut
        read: list[int] = []
        for feature in own:
            ids, start, size = feature["input_ids"], feature["context_start"], len(feature["offsets"])
            overlap = 0 if not read else 3 * (max_length - 3 - len(question)) // 4 if narrow else doc_stride
            cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
            assert ids == [cls, *question, sep, *ids[start : start + size], sep] and start == len(question) + 2
            assert len(ids) <= max_length and (len(ids) == max_length or feature is own[-1])
            assert len(feature["attention_mask"]) == len(ids) and set(feature["attention_mask"]) == {1}
            if "token_type_ids" in feature:
                assert feature["token_type_ids"] == [0] * start + [1] * (size + 1)
            assert ids[start : start + overlap] == read[len(read) - overlap :]
            read += ids[start + overlap : start + size]
        assert read == context
    assert (len(windows.features) > len(EXAMPLES)) == (max_length < 512)


def test_a_tokenizer_of_hugging_face_with_type_ids(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "the", "rises", "where", "?"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"))
    example = Question("1", "Where?", "The river rises. The river", (Answer("The river", 17),))
    windows = make_windows([example], tokenizer, 8, 1)
    assert [feature["input_ids"] for feature in windows.features] == [
        [2, 8, 9, 3, 6, 5, 7, 3],
        [2, 8, 9, 3, 7, 1, 6, 3],
        [2, 8, 9, 3, 6, 5, 3],
    ]
    assert [feature["token_type_ids"][3:5] for feature in windows.features] == [[0, 1]] * 3
    places = [answer_positions(feature, example.answers[0]) for feature in windows.features]
    assert places == [None, None, (4, 5)]


@KINDS
@pytest.mark.parametrize("max_length", [40, 64, 512])
def test_answers_are_where_the_text_says(tokenizer, max_length):
    features = make_windows(EXAMPLES, tokenizer, max_length, max_length // 3).features
    found = set()
    for feature in features:
        example = EXAMPLES[feature["example"]]
        for answer in example.answers:
            span = answer_positions(feature, answer)
            characters = range(answer.start, answer.start + len(answer.text))
            tokens = [
                feature["context_start"] + token
                for token, (first, end) in enumerate(feature["offsets"].tolist())
                if set(range(first, end)) & set(characters)
            ]
            read = {character for first, end in feature["offsets"].tolist() for character in range(first, end)}
            spaces = {place for place in characters if example.context[place].isspace()}
            assert (span is not None) == (set(characters) <= read | spaces)
            if span is not None:
                assert span == (tokens[0], tokens[-1])
                found.add((example.id, answer.text))
    if max_length == 512:
        assert len(found) == sum(len(example.answers) for example in EXAMPLES)


@KINDS
def test_an_answer_that_is_nowhere_is_in_no_window(tokenizer):
    features = make_windows(EXAMPLES, tokenizer, 64, 21).features
    assert all(answer_positions(feature, Answer("Grey", None)) is None for feature in features)


@KINDS
def test_long_questions_are_cut_and_counted(tokenizer):
    long = dataclasses.replace(EXAMPLES[1], question="Where, and how, " * 30)
    # the cut falls inside of a word
    word = dataclasses.replace(EXAMPLES[1], question=f"{'floodsmeadowsrunbridge' * 4} " * 5)
    windows = make_windows([EXAMPLES[0], long, word], tokenizer, 64, 25)
    assert windows.cut == [1, 2] and windows.narrowed == [1, 2]
    assert max(len(feature["input_ids"]) for feature in windows.features) <= 64
    for number, example in ((1, long), (2, word)):
        own = [feature for feature in windows.features if feature["example"] == number]
        question = tokenizer.decode(own[0]["input_ids"][1 : own[0]["context_start"] - 1]).replace(" ", "")
        assert 24 < own[0]["context_start"] - 2 <= 32
        assert example.question.replace(" ", "").startswith(question.replace(tokenizer.unk_token, "Where"))
        spans = [span for feature in own for span in feature["offsets"].tolist()]
        read = {character for first, end in spans for character in range(first, end)}
        assert {place for place, character in enumerate(RIVER) if not character.isspace()} <= read


@KINDS
@pytest.mark.parametrize("context", ["", " \n "])
def test_a_context_without_text_makes_a_window(tokenizer, context):
    (feature,) = make_windows([Question("1", "Where?", context, ())], tokenizer, 32, 8).features
    assert feature["offsets"].shape[1] == 2 and feature["offsets"].dtype == np.int32
    assert feature["input_ids"][-1] == tokenizer.sep_token_id


@KINDS
def test_the_tokenizer_is_left_as_it_was(tokenizer):
    make_windows(EXAMPLES, tokenizer, 64, 21)
    assert tokenizer.backend_tokenizer.truncation is None


@KINDS
def test_a_window_needs_room_for_context(tokenizer):
    with pytest.raises(UserError, match="max_length 6 leaves no room"):
        make_windows(EXAMPLES, tokenizer, 6, 0)


def test_a_tokenizer_that_joins_texts_without_special_tokens_is_refused(squad_tokenizers, tmp_path):  # noqa: F811
    squad_tokenizers["BERT"].save_pretrained(tmp_path)
    tokenizer = type(squad_tokenizers["BERT"]).from_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    with pytest.raises(UserError, match=r"puts question a and context b together as 'a b'"):
        make_windows([Question("1", "Where?", TOWER, ())], tokenizer, 64, 8)
