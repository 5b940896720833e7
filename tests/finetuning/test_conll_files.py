"""CoNLL files are read as they stand, whatever separates their columns, and what is wrong is said with its line."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanelectra.errors import UserError
from spanelectra.finetuning.conll_files import read_conll

CONLL_2003 = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

-DOCSTART- -X- O O

# # I-NP O
1 CD I-NP O
"""
CONLLU = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tnada\t_\t_\t_\t_\t_\t_\t_\t_
3\tal mar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_

# newpar
# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def write(tmp_path, text, name="file.conll"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return str(path)


def contents(sentences):
    return [(sentence.words, sentence.tags) for sentence in sentences]


def test_conll_2003(tmp_path):
    path = write(tmp_path, CONLL_2003)
    sentences = read_conll(path)
    assert contents(sentences) == [(["EU", "rejects"], ["I-ORG", "O"]), (["#", "1"], ["O", "O"])]
    assert [(sentence.lines, sentence.path) for sentence in sentences] == [([3, 4], path), ([8, 9], path)]
    for label_column in ("1", "-3"):
        assert read_conll(path, text_column="0", label_column=label_column)[0].tags == ["NNP", "VBZ"]


def test_conllu_by_name_number_and_default(tmp_path):
    path = write(tmp_path, CONLLU, "file.conllu")
    expected = [(["Vamos", "nos", "al mar"], ["VERB", "PRON", "NOUN"]), (["#"], ["SYM"])]
    sentences = read_conll(path)
    assert contents(sentences) == expected
    assert [sentence.lines for sentence in sentences] == [[4, 5, 7], [11]]
    assert contents(read_conll(path, text_column="1", label_column="3")) == expected
    assert read_conll(path, text_column="LEMMA", label_column="DEPREL")[0].tags == ["root", "obj", "obl"]


def test_a_first_line_may_name_the_columns(tmp_path):
    path = write(tmp_path, "# global.columns = TAG FORM\nO\tthe\nB-LOC\tsea\n")
    assert contents(read_conll(path, label_column="TAG")) == [(["the", "sea"], ["O", "B-LOC"])]
    with pytest.raises(UserError, match=r"file.conll: no column 'TAGS'; .*--label_column: TAG, FORM.* mean 'TAG'"):
        read_conll(path, label_column="TAGS")
    path = write(tmp_path, "# global.columns = ID FORM TAG\nthe O\n")
    with pytest.raises(UserError, match=r":2: 2 columns where there should be 3: ID, FORM, TAG"):
        read_conll(path)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa b O\nc d B-X\n\ne f O\n",
        "a b O\r\nc d B-X\r\n\r\n\r\ne f O",
        "a\tb\tO\nc\td\tB-X\n \t \ne\tf\tO\n\n",
        "  a   b  O \nc\t d B-X\n\t\ne f O\n",
        "# a longer comment\na b O\nc d B-X\n\n# id = 7\ne f O\n",
        "-DOCSTART-\na b O\nc d B-X\n-DOCSTART- x O\ne f O\n",
    ],
)
def test_layouts_of_the_same_content(tmp_path, text):
    assert contents(read_conll(write(tmp_path, text))) == [(["a", "c"], ["O", "B-X"]), (["e"], ["O"])]


def test_compressed_files_are_read(tmp_path):
    (tmp_path / "file.conllu.gz").write_bytes(gzip.compress(CONLLU.encode()))
    assert read_conll(str(tmp_path / "file.conllu.gz"))[0].words == ["Vamos", "nos", "al mar"]


def test_another_encoding(tmp_path):
    (tmp_path / "file.conll").write_bytes("Zo\u00e9 B-PER\n".encode("latin-1"))
    assert read_conll(str(tmp_path / "file.conll"), encoding="latin-1")[0].words == ["Zo\u00e9"]
    with pytest.raises(UserError, match=r"is not utf-8.*--encoding latin-1"):
        read_conll(str(tmp_path / "file.conll"))


@pytest.mark.parametrize("separator", ["\t", " "])
@settings(max_examples=60)
@given(
    sentences=st.lists(
        st.lists(st.tuples(st.text("ab#=.-é\u00a0\u3000\x1c", min_size=1), st.sampled_from("OPQ")), min_size=1),
        min_size=1,
    )
)
def test_what_is_written_is_read(tmp_path_factory, separator, sentences):
    """Words of "#", "=" and odd blanks included; a first line of letters says what the columns are."""
    sentences = [[("first", "O")], *sentences]
    lines = ["\n".join(separator.join((word, "x", tag)) for word, tag in sentence) for sentence in sentences]
    path = write(tmp_path_factory.mktemp("conll"), "\n\n".join(lines))
    expected = [([word for word, _ in sentence], [tag for _, tag in sentence]) for sentence in sentences]
    assert contents(read_conll(path)) == expected


def test_labels_need_not_be_there_to_predict(tmp_path):
    path = write(tmp_path, "# a comment here\nthe\n#\n\nsea\n")
    assert contents(read_conll(path, labelled=False)) == [(["the", "#"], None), (["sea"], None)]
    assert contents(read_conll(path, label_column="3", labelled=False)) == [(["the", "#"], None), (["sea"], None)]
    with pytest.raises(UserError, match=r"one column only, .* CoNLL files are expected: a token and its tag a line, "):
        read_conll(path)
    assert read_conll(write(tmp_path, CONLL_2003), labelled=False)[0].tags == ["I-ORG", "O"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("a O\nb\n", {}, r"file.conll:2: 1 columns where line 1 has 2"),
        ("a O\n\n# x\nb O\n# y z\n", {}, r"file.conll:5: 3 columns where line 1 has 2"),
        ("a\tO\nb c\tO\nd O\n", {}, r"file.conll:3: 1 columns where line 1 has 2"),
        ("a\tO\nb\t\n", {}, r"file.conll:2: the label \(column 1\) is empty"),
        ("a\tO\n\tO\n", {}, r"file.conll:2: the word \(column 0\) is empty"),
        ("", {}, "holds no sentences"),
        ("\n \n-DOCSTART- O\n", {}, "holds no sentences"),
        ("# global.columns = FORM TAG\n", {}, "holds no sentences"),
        ("# a = b\n", {}, "holds no sentences"),
        ("a O\n", {"label_column": "2"}, r"file.conll:1: no column 2 \(--label_column\); there are 2, 0 to 1"),
        ("a O\n", {"text_column": "-3"}, r"file.conll:1: no column -3 \(--text_column\)"),
        ("a O\n", {"label_column": "ner"}, "--label_column is 'ner', but the file does not name its columns"),
        ("a O\n", {"label_column": "0"}, "text_column and label_column are the same column, 0"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, arguments, message):
    with pytest.raises(UserError, match=message):
        read_conll(write(tmp_path, text), **arguments)


def test_files_that_are_not_there_or_no_text(tmp_path):
    write(tmp_path, "a O\n", "train.conll")
    with pytest.raises(UserError, match=r"There is no file '.*trian.conll'. Did you mean 'train.conll'"):
        read_conll(str(tmp_path / "trian.conll"))
    (tmp_path / "latin.conll").write_bytes("caf\xe9 O\n".encode("latin-1"))
    with pytest.raises(UserError, match="not utf-8: line 1"):
        read_conll(str(tmp_path / "latin.conll"))
