"""Tables from files: headers found or not, quotes, compression, line numbers, and clear words for bad files."""

import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spanelectra.errors import UserError
from spanelectra.finetuning.tables import Table, read_table

NAMES = ("sentence", "text", "label")


def table(folder: Path, content: str | bytes, name: str = "file.tsv", **settings: str) -> Table:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(str(path), names=NAMES, **settings)  # type: ignore[arg-type]


def fields(read: Table) -> list[list[object]]:
    return [row.fields for row in read.rows]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("sentence\tlabel\na fine film\t1\na bad film\t0\n", True),
        ("a fine film\t1\na bad film\t0\n", False),
        ("gj04\t1\t\tOur friends won't.\ngj04\t0\t*\tOne more.\n", False),
        ("ad03\tno\t*\tOur friends won't.\ngj04\tyes\t\tOne more.\n", False),
        ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t70\t71\tAmrozi accused.\tReferring to him.\n", True),
        ("index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n", True),
        ("\tText\tLabel\n0\tfine\tgood\n1\tbad\tpoor\n", True),  # as pandas writes its index
        ("great\tgood\nawful\tbad\nfine\tgood\n", False),  # "good" is there again
        ("I like it a lot\tgood\nnot I\tbad\n", False),
        ("body\tverdict\nI like it\tgood\nnot I\tbad\n", True),
        ("Title words here\tstars\nI like it\t5\nnot I\t1.5\n", True),
        ("text\nfine\nbad\n", True),
        ("fine\nbad\n", False),
    ],
)
def test_a_first_line_that_says_what_names_say_is_a_header(content: str, named: bool, tmp_path: Path) -> None:
    read = table(tmp_path, content)
    assert read.named is named
    lines = content.removeprefix("\ufeff").splitlines()
    assert fields(read) == [line.split("\t") for line in lines[named:]]
    assert read.columns == (lines[0].split("\t") if named else [str(n) for n in range(len(lines[0].split("\t")))])
    assert read.rows[0].line == 1 + named


def test_a_guessed_header_is_said_and_a_known_one_is_not(tmp_path: Path) -> None:
    (remark,) = table(tmp_path, "body\tverdict\nI like it\tgood\nnot I\tbad\n").remarks
    assert "body, verdict" in remark and "--header no" in remark
    assert table(tmp_path, "text\tlabel\nI like it\tgood\n").remarks == []


def test_header_yes_and_no_are_obeyed(tmp_path: Path) -> None:
    assert table(tmp_path, "a fine film\t1\nbad\t0\n", header="yes").columns == ["a fine film", "1"]
    assert fields(table(tmp_path, "text\tlabel\nbad\t0\n", header="no"))[0] == ["text", "label"]


def test_tsv_and_txt_know_no_quotes_and_csv_does(tmp_path: Path) -> None:
    content = 'text\tlabel\n"Stray, he said\t1\nhe said "no"\t0\n'
    for name in ("a.tsv", "a.txt"):
        assert fields(table(tmp_path, content, name)) == [['"Stray, he said', "1"], ['he said "no"', "0"]]
    read = table(tmp_path, 'text,label\n"two\nlines, ""quoted""",1\nplain,0\n', "a.csv")
    assert fields(read) == [['two\nlines, "quoted"', "1"], ["plain", "0"]]
    assert [row.line for row in read.rows] == [3, 4]


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_what_the_csv_module_writes_is_read_back(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(not any("\r" in cell for row in rows for cell in row))  # newlines are made "\n"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    assume(not text.getvalue().startswith("\ufeff"))
    assert fields(table(tmp_path_factory.mktemp("csv"), text.getvalue(), "a.csv", header="no")) == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.jsonl.gz"])
def test_objects_have_columns_in_the_order_in_which_they_turn_up(name: str, tmp_path: Path) -> None:
    records = [{"text": "one", "label": 1}, {"text": "two", "label": None, "note": "x"}]
    path = tmp_path / name
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    if name.endswith("parquet"):
        whole = [{"text": None, "label": None, "note": None, **record} for record in records]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(whole), path)
    else:
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    read = read_table(str(path))
    assert read.columns == ["text", "label", "note"] and read.named
    assert fields(read) == [["one", 1, None], ["two", None, "x"]]
    assert [row.line for row in read.rows] == [1, 2]


@pytest.mark.parametrize("name", ["file.tsv", "file.csv", "file.txt", "file.jsonl"])
def test_text_may_be_in_another_encoding(tmp_path: Path, name: str) -> None:
    lines = ["text", "caf\u00e9"] if name != "file.txt" else ["text\tlabel", "caf\u00e9\tgood"]
    content = '{"text": "caf\u00e9"}\n' if name == "file.jsonl" else "\n".join(lines) + "\n"
    read = table(tmp_path, content.encode("latin-1"), name, encoding="latin-1", header="yes")
    assert read.rows[0].fields[0] == "caf\u00e9"
    with pytest.raises(UserError, match=r"is not utf-8.*--encoding latin-1"):
        table(tmp_path, content.encode("latin-1"), name)


def test_a_column_is_found_by_name_then_without_case_then_by_number(tmp_path: Path) -> None:
    read = table(tmp_path, "Text\ttext\tLabel\t1\nbad\tworse\tno\tx\n", header="yes")
    assert [read.index(name, "text_column") for name in ("Text", "text", "label", "1", "0", "-1", "-4")] == [
        0, 1, 2, 3, 0, 3, 0,
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'lable'.*--label_column.*Did you mean 'Label'"):
        read.index("lable", "label_column")
    with pytest.raises(UserError, match="several columns are called 'TEXT'"):
        read.index("TEXT", "text_column")
    for number in ("4", "-5"):
        with pytest.raises(UserError, match=f"no column {number} "):
            read.index(number, "text_column")
    assert read.has("label") and not read.has("lable")


def test_a_name_does_not_fit_a_file_without_header(tmp_path: Path) -> None:
    read = table(tmp_path, "a fine film\t1\nbad\t0\n")
    assert read.index("1", "label_column") == 1
    with pytest.raises(UserError, match=r"--label_column is 'label'.*number from 0 to 1"):
        read.index("label", "label_column")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.tsv",
            "text\tlabel\nfine\t1\nbad\t0\tmore\n",
            r"a\.tsv:3: 3 fields where the first line has 2: a tab in a text\?",
        ),
        (
            "a.csv",
            "text,label\nfine, really,1\n",
            r"a\.csv:2: 3 fields where the first line has 2: a comma in a text",
        ),
        ("a.csv", 'text,label\n"fine"ly,1\n', r"a\.csv:2: malformed"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"text": "x"}\n\n[1]\n', r"a\.jsonl:3: one JSON object a line"),
        (
            "a.tsv",
            "text\tlabel\nfine\t1\nbad\n",
            r"a\.tsv:3: 1 field where the first line has 2: a missing tab, or",
        ),
        (
            "a.csv",
            'text,label\n"fine,1\nbad,0\ngood",1,2\n',
            r"a\.csv:2: 3 fields where .*: a quote .* that is closed only in line 4\?",
        ),
        ("a.csv", 'text,"label\nfine,1\nbad",0\nfine,1\n', r"a\.csv:4: 2 fields .* has 3: a quote .* in the first row"),
        ("a.csv", 'text,label\n"fine\nand good"\n', r"a\.csv:2: 1 field .* only in line 3, or a missing comma\?"),
        ("a.csv", 'text,label\nbad,0\n"fine,1\nbad,0\n', r"a\.csv:3: malformed .*The row ends at line 4: a quote"),
        ("a.csv", "id;review\n1;a film; a good one, yes\n2;bad\n", r"a\.csv:2: 3 fields .* a semicolon in a text"),
        ("a.csv", "id;review\n1;a film, good\n2\n3;bad\n", r"a\.csv:3: 1 field .* has 2: a missing semicolon"),
        ("a.csv", '"id";"review"\n"1";"fine"\n2; bad; long\n', r"a\.csv:3: 3 fields .* a semicolon in a text"),
        ("a.csv", 'id;review\n1;"good" film, nice\n2;x\n', r"a\.csv:2: malformed \(';' expected"),
        ("a.csv", "Good; but slow\nfine, really\n", "a comma in a text without quotes"),
        ("a.tsv", "", "no records"),
        ("a.tsv", "text\tlabel\n", "no records"),
        ("a.parquet", "PAR?", "cannot be read as Parquet"),
        ("a.docx", "text", r"none of \.csv, \.tsv"),
        ("a.tsv.gz", "text\tlabel\n", "truncated or damaged"),
    ],
)
def test_a_bad_file_is_named_with_its_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        table(tmp_path, content, name)


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("review;stars\na good film;5\nbad;1\n", ["a good film", "5"]),
        ("review;stars\na film, a good one;4,5\nbad;1,0\n", ["a film, a good one", "4,5"]),
        ('review;stars\n"good; and ""short""";5\nbad;1\n', ['good; and "short"', "5"]),
        ("review, in short;stars\na film, a good one;5\nbad;1\n", ["a film, a good one", "5"]),
        ("review;number;stars\ngood;1;4,5\nbad;2;1,0\n", ["good", "1", "4,5"]),
    ],
)
def test_a_csv_of_semicolons_is_one(content: str, first: list[str], tmp_path: Path) -> None:
    """As spreadsheets write it where the comma is of numbers; with its line of names and without."""
    read = table(tmp_path, content, "a.csv", header="yes")
    assert read.rows[0].fields == first and read.rows[1].fields[0] == "bad"
    assert read.remarks == [f"{tmp_path / 'a.csv'}: its fields are taken to be separated by ';'."]
    bare = table(tmp_path, content.split("\n", 1)[1], "a.csv", header="no")
    assert fields(bare) == fields(read) and bare.remarks == read.remarks


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("review,stars\ngood; short,5\nbad,1\n", ["good; short", "5"]),
        ("review;x,stars\ngood; short,5\nbad; long,1\n", ["good; short", "5"]),
        ("review,stars\ngood; short,5\nbad; long,1\n", ["good; short", "5"]),
        ('review,stars\n"good; short",5\n"bad; long",1\n', ["good; short", "5"]),
        ("stars,2\n4;5,1\n", ["4;5", "1"]),
        ("text\nGood; but slow\nfine; really\n", ["Good; but slow"]),
    ],
)
def test_a_csv_of_commas_may_hold_semicolons(content: str, first: list[str], tmp_path: Path) -> None:
    read = table(tmp_path, content, "a.csv", header="yes")
    assert read.rows[0].fields == first and not read.remarks


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nreview;stars\ngood, short;5\n",
        '"sep=;"\r\nreview;stars\r\ngood, short;5\r\n',
        "sep=;;\nreview;stars\ngood, short;5\n",
        "sep=; \nreview;stars\ngood, short;5\n",
        "\ufeffSEP=;\nreview;stars\ngood, short;5\n",
        'sep=,\nreview,stars\n"good, short",5\n',
        'sep=,\n"review;x","stars;y"\n"good, short",5\n',
    ],
)
def test_a_first_line_may_say_what_separates(content: str, tmp_path: Path) -> None:
    read = table(tmp_path, content, "a.csv", header="yes")
    assert [(row.line, row.fields) for row in read.rows] == [(3, ["good, short", "5"])]


def test_a_first_line_of_a_tsv_may_say_so_too(tmp_path: Path) -> None:
    assert fields(table(tmp_path, "sep=\t\ngood, short\t5\n", "a.tsv", header="no")) == [["good, short", "5"]]


def test_a_text_that_speaks_of_separators_is_none(tmp_path: Path) -> None:
    assert fields(table(tmp_path, "sep=; is a line\nfine\n", "a.csv", header="no")) == [["sep=; is a line"], ["fine"]]


def test_texts_of_which_few_have_a_semicolon_stay_one_column(tmp_path: Path) -> None:
    assert fields(table(tmp_path, "Good; but slow\nfine\n", "a.csv", header="no")) == [["Good; but slow"], ["fine"]]


def test_a_missing_file_is_likened_to_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\t1\n")
    with pytest.raises(UserError, match=r"There is no file .* Did you mean 'train\.tsv'"):
        read_table(str(tmp_path / "trian.tsv"))
