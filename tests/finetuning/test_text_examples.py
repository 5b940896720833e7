"""Examples from tables: which column is what, what labels say, and a clear word for records that lack something."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.text_examples import Example, read_examples

Write = Callable[..., str]


def read(path: str, **settings: Any) -> tuple[list[Example], list[str]]:
    needed = {"task": "classification", "model": "m", "train": "t", "dev": "d", "out_dir": "o"}
    found = read_examples(path, FineTuningArguments(**{**needed, **settings}).resolved(), labelled=True)
    return found.examples, found.remarks


@pytest.mark.parametrize(
    ("header", "record", "settings", "expected"),
    [
        ("", "fine\tgood", {}, ("fine", None, "good")),
        ("sentence\tlabel", "fine\tgood", {}, ("fine", None, "good")),
        ("id\tLabel\tText", "7\tgood\tfine", {}, ("fine", None, "good")),
        ("verdict\tsentence", "good\tfine", {"header": "yes"}, ("fine", None, "good")),
        ("", "src\tgood\t\tfine", {"text_column": "-1", "label_column": "1"}, ("fine", None, "good")),
        ("label\tpremise\thypothesis", "good\tfine\tbad", {"text_pair_column": "hypothesis"}, ("fine", "bad", "good")),
        ("question\tsentence\tlabel", "q\ts\tgood", {"text_pair_column": "question"}, ("s", "q", "good")),
    ],
)
def test_columns_are_chosen_by_setting_by_name_and_by_place(
    header: str, record: str, settings: dict[str, Any], expected: tuple[str, str | None, str], write: Write
) -> None:
    (example,), _ = read(write(*[header][: bool(header)], record), **settings)
    assert (example.text, example.text_pair, example.label) == expected
    assert example.line == 1 + bool(header)


def test_guessed_columns_and_a_second_text_that_is_not_read_are_said(write: Write) -> None:
    examples, (text, label) = read(write("gj04\t1\t\tOur friends\tx", "gj04\t0\t\tOne more\ty"))
    assert examples[0].text == "gj04"
    assert "'0' is taken for the text ('gj04')" in text and "'4' is taken for the label ('x')" in label
    _, (second,) = read(write("sentence1\tsentence2\tlabel", "a\tb\t1"))
    assert "--text_pair_column sentence2" in second


@pytest.mark.parametrize(
    ("header", "settings", "columns"),
    [
        ("", {}, "by number, '0' is the text, '1' is the label"),
        ("Label\tText", {}, "'Text' is the text, 'Label' is the label"),
        (
            "label\tpremise\thypothesis",
            {"text_pair_column": "hypothesis"},
            "'premise' is the text, 'hypothesis' is the second text, 'label' is the label",
        ),
    ],
)
def test_what_each_column_was_taken_for_is_said(
    header: str, settings: dict[str, Any], columns: str, write: Write
) -> None:
    path = write(*[header][: bool(header)], "\t".join("xyz"[: header.count("\t") + 1 if header else 2]))
    arguments = FineTuningArguments(task="classification", **settings).resolved()
    assert read_examples(path, arguments, labelled=True).columns == columns


def test_a_file_that_names_its_columns_is_read_by_those_of_the_training_file(write: Write) -> None:
    settings = FineTuningArguments(task="classification", model="m", train="t", dev="d", out_dir="o").resolved()
    assert read_examples(write("a fine film\tgood", "a bad one\tpoor"), settings, labelled=True).names == {}
    trained = write("body,source,kind", "fine,web,good", "bad,web,poor", name="train.csv")
    columns = read_examples(trained, settings, labelled=True).names
    assert columns == {"text_column": "body", "label_column": "kind"}

    def again(*lines: str, labelled: bool = True, **chosen: str) -> list[tuple[str, str | float | None]]:
        arguments = replace(settings, **chosen)
        path = write(*lines, name="new.csv")
        found = read_examples(path, arguments, labelled=labelled, trained_on=columns)
        return [(example.text, example.label) for example in found.examples]

    assert again("Kind,source,Body,note", "good,web,fine,-") == [("fine", "good")]
    assert again("a fine film,good", "a bad one,poor") == [("a fine film", "good"), ("a bad one", "poor")]
    assert again("body,note", "fine,-", labelled=False) == [("fine", None)]
    assert again("file,text,sort", "a,fine,good", text_column="text", label_column="sort") == [("fine", "good")]
    message = "new.csv: no column 'body' and no column 'kind', as the training file had; choose with --text_column and "
    with pytest.raises(UserError, match=f"{message}--label_column: file, sort, text."):
        again("file,sort,text", "a,good,fine")
    with pytest.raises(UserError, match=r"no column 'body', as the .*; choose with --text_column: file, sort, text\."):
        again("file,sort,text", "a,good,fine", labelled=False)
    with pytest.raises(UserError, match=r"no column 'kind', as the .*; choose with --label_column: file, sort, text\."):
        again("file,sort,text", "a,good,fine", text_column="text")


def test_a_label_column_cannot_be_the_text(write: Write) -> None:
    with pytest.raises(UserError, match="must be different columns"):
        read(write("fine\tgood"), text_column="0", label_column="0")
    with pytest.raises(UserError, match="no column is left for the label"):
        read(write("sentence", "fine"))


def test_presets_read_the_files_as_they_are_published(write: Write) -> None:
    (first, second), _ = read(
        write(
            "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
            '1\t70\t71\tHe said "no.\tHe said no.',
            "0\t72\t73\tOne.\tTwo.",
            name="mrpc.txt",
        ),
        preset="mrpc",
    )
    assert (first.text, first.text_pair, first.label, first.line) == ('He said "no.', "He said no.", "1", 2)
    assert (second.text, second.text_pair, second.label, second.line) == ("One.", "Two.", "0", 3)
    (cola,), _ = read(write("gj04\t1\t\tOur friends won't buy this."), preset="cola")
    assert (cola.text, cola.label) == ("Our friends won't buy this.", "1")


def test_json_labels_become_names(write: Write) -> None:
    values = [1, 1.0, "1", True, 0.5]
    lines = [json.dumps({"text": "a", "label": value}) for value in values]
    examples, _ = read(write(*lines, name="train.jsonl"))
    assert [example.label for example in examples] == ["1", "1", "1", "true", "0.5"]


@pytest.mark.parametrize(
    ("line", "regression", "message"),
    [
        ('{"text": "a", "label": null}', False, r"train\.jsonl:2: column 'label': the label is missing\."),
        ('{"text": "a", "label": " "}', False, "the label is missing"),
        ('{"text": "a", "label": NaN}', False, r"the label is missing \(NaN\)"),
        ('{"text": "a"}', False, "the label is missing"),
        ('{"text": "a", "label": ["x"]}', False, "the label is list, neither text nor a number"),
        ('{"text": 3, "label": "x"}', False, r"train\.jsonl:2: column 'text' holds int, not text"),
        ('{"text": "a", "label": "x"}', True, r"train\.jsonl:2: column 'label': 'x' is not a number"),
        ('{"text": "a", "label": NaN}', True, "'nan' is not a number"),
        (json.dumps({"text": "a", "label": "no\nnumber " * 45}), True, "'(no number ){5}no number…' is not a"),
        ('{"text": "a", "label": ""}', True, "the label is missing"),
        ('{"text": "a", "label": Infinity}', True, "'inf' is not a number"),
    ],
)
def test_a_bad_record_is_named_with_its_line(line: str, regression: bool, message: str, write: Write) -> None:
    path = write('{"text": "a", "label": 1}', line, name="train.jsonl")
    with pytest.raises(UserError, match=message):
        read(path, regression=regression)


def test_a_text_a_line_is_enough_where_no_label_is_wanted(write: Write) -> None:
    path = write("a fine film", "bad, really", name="new.txt")
    settings = FineTuningArguments(task="classification", model="m", train="t", dev="d", out_dir="o").resolved()
    found = read_examples(path, settings, labelled=False)
    assert [(example.text, example.label, example.line) for example in found.examples] == [
        ("a fine film", None, 1),
        ("bad, really", None, 2),
    ]
    assert found.remarks == [] and found.columns == "by number, '0' is the text"
    with pytest.raises(UserError, match=r"new.txt: no column is left for the label.*tsv separates them by tabs"):
        read(path)


def test_an_id_is_neither_text_nor_label_unless_it_is_said(write: Write) -> None:
    path = write("id,opinion", "0,fine", "1,bad", name="new.csv")
    with pytest.raises(UserError, match="no column is left for the label"):
        read(path, header="yes")
    ((first, _), _) = read(path, header="yes", text_column="opinion", label_column="id")
    assert (first.text, first.label) == ("fine", "0")
    settings = FineTuningArguments(task="classification", model="m", train="t", dev="d", out_dir="o").resolved()
    assert [example.text for example in read_examples(path, settings, labelled=False).examples] == ["fine", "bad"]
