"""SQuAD's files: both layouts give the same questions, and every kind of fault is named with its place or counted."""

from __future__ import annotations

import copy
import gzip
import json
import re

import datasets
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spanelectra.errors import UserError
from spanelectra.finetuning.squad_files import Answer, read_squad
from squad_examples import QUESTIONS, flat_records, squad, write_squad


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("unanswerable", [True, False])
def test_every_question_is_read_in_order(tmp_path, unanswerable, indent):
    path = write_squad(tmp_path / "squad.json", squad(unanswerable=unanswerable), indent=indent)
    questions, remarks = read_squad(path)
    expected = [
        (question, context, tuple(Answer(text, context.index(text)) for text in texts))
        for context, asked in QUESTIONS.items()
        for question, texts in asked
        if texts or unanswerable
    ]
    assert [(question.question, question.context, question.answers) for question in questions] == expected
    assert [question.is_unanswerable for question in questions] == [not answers for _, _, answers in expected]
    assert questions[0].id == "0-0" and questions[0].answer_texts == ["in the hills north of Alder", "the hills"]
    assert remarks == []


def test_lines_as_datasets_writes_them_are_the_same_questions(tmp_path):
    nested = read_squad(write_squad(tmp_path / "squad.json", squad()))
    # `to_json` writes lines, whatever the file is called
    datasets.Dataset.from_list(flat_records(squad())).to_json(tmp_path / "flat.json")
    assert read_squad(str(tmp_path / "flat.json")) == nested


@pytest.mark.parametrize(("extension", "compress"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_compressed_files(tmp_path, extension, compress, layout):
    text = json.dumps(squad())
    if layout == "flat":
        text = "\n".join(map(json.dumps, flat_records(squad())))
    file = tmp_path / f"squad.json{extension}"
    file.write_bytes(compress(text.encode()))
    assert read_squad(str(file)) == read_squad(write_squad(tmp_path / "squad.json", squad()))


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_another_encoding(tmp_path, layout):
    content = squad()
    content["data"][0]["paragraphs"][0]["qas"][0]["question"] = "Caf\u00e9?"
    dumped = [content] if layout == "nested" else flat_records(content)
    text = "\n".join(json.dumps(part, ensure_ascii=False) for part in dumped)
    (tmp_path / "squad.json").write_bytes(text.encode("utf-16"))
    questions, _ = read_squad(str(tmp_path / "squad.json"), encoding="utf-16")
    assert questions[0].question == "Caf\u00e9?"
    assert questions[1:] == read_squad(write_squad(tmp_path / "plain.json", squad()))[0][1:]


def change(content, path, value):
    """Put ``value`` where the JSON path says, or take the field away for ``None``."""
    *parents, last = [int(key) if key.isdigit() else key for key in re.findall(r"\w+", path)]
    for key in parents:
        content = content[key]
    if value is None:
        del content[last]
    else:
        content[last] = value


PARAGRAPH = "data[0].paragraphs[1]"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("data[0].paragraphs", None, " is missing."),
        (f"{PARAGRAPH}.context", None, " is missing."),
        (f"{PARAGRAPH}.qas", None, " is missing."),
        (f"{PARAGRAPH}.qas[2].id", None, " is missing."),
        (f"{PARAGRAPH}.qas[2].question", None, " is missing."),
        (f"{PARAGRAPH}.qas[2].answers", None, " is missing."),
        (f"{PARAGRAPH}.qas[4].answers[1].text", None, " is missing."),
        (f"{PARAGRAPH}.qas[4].answers[1].answer_start", None, " is missing."),
        ("data", {"paragraphs": []}, ' must be a list, not {"paragraphs": []}.'),
        ("data[0]", "article", ' must be an object, not "article".'),
        (f"{PARAGRAPH}.qas[0]", ["id"], ' must be an object, not ["id"].'),
        (f"{PARAGRAPH}.context", 7, " must be text, not 7."),
        (f"{PARAGRAPH}.qas[0].id", ["5"], ' must be text, not ["5"].'),
        (f"{PARAGRAPH}.qas[0].answers", "1893", ' must be a list, not "1893".'),
        (f"{PARAGRAPH}.qas[0].answers[0].answer_start", "5", ' must be a whole number, not "5".'),
        (f"{PARAGRAPH}.qas[0].answers[0].answer_start", True, " must be a whole number, not true."),
        (f"{PARAGRAPH}.qas[0].is_impossible", "no", " must be true or false."),
        (f"{PARAGRAPH}.qas[0].question", "\ud83d", " holds half a character"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(tmp_path, path, value, problem):
    content = squad()
    change(content, path, value)
    file = write_squad(tmp_path / "squad.json", content)
    with pytest.raises(UserError, match=re.escape(f"{file}: {path}{problem}")):
        read_squad(file)


def test_a_misspelt_field_gets_a_suggestion(tmp_path):
    content = squad()
    content["data"][0]["paragraphs"][0]["contxt"] = content["data"][0]["paragraphs"][0].pop("context")
    with pytest.raises(UserError, match=r"context is missing\. Did you mean 'contxt'\?"):
        read_squad(write_squad(tmp_path / "squad.json", content))


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"text": ["1893"]}, "answers.answer_start is missing."),
        ({"text": ["1893"], "answer_start": []}, "answers has 1 entries in text but 0 in answer_start."),
        ({"text": ["1893", None], "answer_start": [35, 35]}, "answers.text[1] must be text, not null."),
    ],
)
def test_a_wrong_field_of_a_line_is_named_with_file_and_line(tmp_path, answers, problem):
    records = flat_records(squad())
    records[2]["answers"] = answers
    file = tmp_path / "flat.jsonl"
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{file}:3: {problem}")):
        read_squad(str(file))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", " is empty."),
        ('{\n"data": [\n{"paragraphs": ]}', ":3: not JSON"),
        ('{"data": []}\n\n{"data": []}', ":3: not JSON (more text after the end of the object)."),
        ('{"id": "1", "context": "a", "question": "b", "answers": []}\n{"id": "2",', ":2: not JSON"),
        ('{"data": []}', " holds no questions."),
        ('{"data": [{"paragraphs": [{"context": "a", "qas": []}]}]}', " holds no questions."),
        ('{"date": []}', " is neither SQuAD's JSON"),
        ("[]", " is neither SQuAD's JSON"),
    ],
)
def test_files_that_are_something_else(tmp_path, text, problem):
    file = tmp_path / "squad.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{file}{problem}")):
        read_squad(str(file))


def test_a_missing_file_gets_a_suggestion(tmp_path):
    write_squad(tmp_path / "train.json", squad())
    with pytest.raises(UserError, match=r"Did you mean 'train\.json'"):
        read_squad(str(tmp_path / "trian.json"))


def test_ids_are_unique(tmp_path):
    content = squad()
    change(content, f"{PARAGRAPH}.qas[3].id", "0-1")
    problem = re.escape(f"{PARAGRAPH}.qas[3]: the id '0-1' is also that of ")
    with pytest.raises(UserError, match=rf"{problem}.*data\[0\]\.paragraphs\[0\]\.qas\[1\]"):
        read_squad(write_squad(tmp_path / "squad.json", content))


def one_question(answers, context="one two three two", **fields):
    record = {"id": 5, "question": "Which?", "answers": answers, **fields}
    return {"data": [{"paragraphs": [{"context": context, "qas": [record]}]}]}


def read_one(tmp_path, *arguments, **fields):
    (question,), remarks = read_squad(write_squad(tmp_path / "one.json", one_question(*arguments, **fields)))
    assert question.id == "5"
    return question, remarks


def answer(text, start):
    return {"text": text, "answer_start": start}


@pytest.mark.parametrize("start", [-4, 0, 3, 5, 13, 99])
def test_an_answer_that_occurs_once_is_found_wherever_it_is_said_to_be(tmp_path, start):
    question, (remark,) = read_one(tmp_path, [answer("one", 0), answer("three", start)])
    assert question.answers == (Answer("one", 0), Answer("three", 8))
    assert remark.startswith("1 of 2 answers are not at their answer_start but once elsewhere")
    assert remark.endswith(f"answers[1].text 'three', answer_start {start}.")


@pytest.mark.parametrize("text", ["two", "four"])
def test_an_answer_that_is_not_found_counts_in_scores_only(tmp_path, text):
    question, remarks = read_one(tmp_path, [answer(text, 5)])
    assert question.answers == (Answer(text, None),) and not question.is_unanswerable
    assert [remark[:16] for remark in remarks] == ["1 of 1 answers a", "1 of 1 questions"]
    assert "left out of training" in remarks[1]


def test_whitespace_around_an_answer_is_no_part_of_it(tmp_path):
    question, remarks = read_one(tmp_path, [answer(" two ", 3), answer("two", 4)])
    assert question.answers == (Answer("two", 4),) and remarks == []


def test_an_answer_without_text_is_none(tmp_path):
    question, (no_text, silent) = read_one(tmp_path, [answer("", -1)])
    assert question.is_unanswerable and "1 of 1 answers hold no text" in no_text
    assert silent.startswith("1 of 1 questions have no answer and no is_impossible, and are taken for questions that")


@pytest.mark.parametrize(("answers", "impossible"), [([], False), ([answer("one", 0)], True)])
def test_what_is_impossible_by_one_field_only_counts_as_unanswerable(tmp_path, answers, impossible):
    question, (remark,) = read_one(tmp_path, answers, is_impossible=impossible)
    assert question.is_unanswerable and remark.startswith("1 of 1 questions have an is_impossible at odds")


def test_answers_may_be_missing_where_they_need_not_be_known(tmp_path):
    content = squad()
    records = content["data"][0]["paragraphs"][0]["qas"]
    for record in records[:2]:
        del record["answers"], record["is_impossible"]
    del records[4]["answers"]  # is_impossible says enough
    path = write_squad(tmp_path / "squad.json", content)
    questions, _ = read_squad(path, labelled=False)
    assert [question.answers is None for question in questions[:5]] == [True, True, False, False, False]
    assert questions[4].is_unanswerable
    with pytest.raises(UserError, match=r"qas\[0\]\.answers is missing"):
        read_squad(path)
    del records[:2]
    questions, _ = read_squad(write_squad(tmp_path / "squad.json", content))
    assert questions[2].is_unanswerable and len(questions) == 9


@settings(deadline=None)
@given(data=st.data(), context=st.text(alphabet="ab é🐟\n", min_size=1, max_size=30), shift=st.integers(-3, 3))
def test_what_is_found_is_the_answer(tmp_path_factory, data, context, shift):
    first = data.draw(st.integers(0, len(context) - 1))
    text = context[first : data.draw(st.integers(first + 1, len(context)))]
    assume(text.strip())
    content = one_question([answer(text, first + shift)], context)
    before = copy.deepcopy(content)
    (question,), remarks = read_squad(write_squad(tmp_path_factory.getbasetemp() / "one.json", content))
    assert content == before
    (found,) = question.answers
    occurrences = [start for start in range(len(context)) if context.startswith(text.strip(), start)]
    if found.start is None:
        assert len(occurrences) > 1
    else:
        assert found.text == text.strip() == context[found.start :][: len(found.text)]
        assert bool(remarks) == (first + shift + len(text) - len(text.lstrip()) not in occurrences)
        assert shift or found.start - (len(text) - len(text.lstrip())) == first
