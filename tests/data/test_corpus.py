"""Documents from every kind of source, and a clear word for every kind of bad one."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from spanelectra.data.corpus import CorpusStatistics, find_files, iterate_documents
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.records import read_dataset
from spanelectra.data.text_files import cut_at_whitespace, read_lines, read_stream_lines
from spanelectra.errors import UserError

THREE_PARAGRAPHS = "One\ntwo.\n\n \nThree.\n\n\nFour\n"
COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def texts(data, document_separator="blank_line", **arguments):
    """The whole documents, their pieces joined."""
    documents, parts = [], []
    for document in iterate_documents(data, document_separator=document_separator, **arguments):
        parts.append(document.text)
        if not document.continues:
            documents.append("".join(parts))
            parts = []
    assert not parts
    return documents


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("document_separator", "expected"),
    [
        ("file", ["One\ntwo.\n\n \nThree.\n\n\nFour"]),
        ("blank_line", ["One\ntwo.", "Three.", "Four"]),
        ("line", ["One", "two.", "Three.", "Four"]),
    ],
)
def test_separators(tmp_path, document_separator, expected):
    assert texts(write(tmp_path / "a.txt", THREE_PARAGRAPHS), document_separator) == expected


@given(
    text=st.text(alphabet="ab \t\n", max_size=60),
    limit=st.integers(2, 12),
    separator=st.sampled_from(["file", "blank_line", "line"]),
)
def test_pieces_join_to_the_documents_of_a_slow_reference(tmp_path_factory, text, limit, separator):
    lines = [line if line.strip() else "" for line in text.split("\n")]
    paragraphs = {"file": [text.split("\n")], "line": [[line] for line in lines], "blank_line": [[]]}[separator]
    if separator == "blank_line":
        for line in lines:
            paragraphs[-1].append(line) if line else paragraphs.append([])
    expected = []
    for paragraph in paragraphs:
        while paragraph and not paragraph[0].strip():
            paragraph.pop(0)
        if document := "\n".join(paragraph).rstrip():
            expected.append(document)
    path = write(tmp_path_factory.mktemp("corpus") / "a.txt", text)
    assume(all(len(run) < limit for run in re.findall(r"\s+", text)))  # longer blanks are not trimmed
    if not expected:
        with pytest.raises(UserError, match="empty"):
            texts(path, separator)
        return
    assert texts(path, separator) == expected
    pieces = list(iterate_documents(path, document_separator=separator, piece_characters=limit))
    assert all(len(piece.text) <= limit for piece in pieces)
    assert texts(path, separator, piece_characters=limit) == expected


def test_a_long_line_comes_in_pieces_cut_before_whitespace(tmp_path):
    line = "some words and a few more " * 60_000  # 1.5 MB
    path = write(tmp_path / "long.txt", line + "\nnext\n")
    pieces = list(iterate_documents(path, document_separator="line", piece_characters=1 << 16))
    assert max(len(piece.text) for piece in pieces) <= 1 << 16
    assert all(piece.text.startswith(" ") for piece in pieces[1:-2])
    assert [piece.continues for piece in pieces[-2:]] == [False, False]
    assert texts(path, "line") == [line.rstrip(), "next"]


def test_text_without_whitespace_is_cut_anyway():
    assert cut_at_whitespace("abcdefgh", 3) == ["abc", "def", "gh"]
    assert cut_at_whitespace("ab  cdefg", 5) == ["ab", "  cde", "fg"]
    assert cut_at_whitespace("abc de", 3) == ["abc", " de"]


@pytest.mark.parametrize("extension", COMPRESS)
def test_compressed_text(tmp_path, extension):
    compress = COMPRESS[extension]
    content = ("word " * 300_000).encode()
    path = write(tmp_path / f"a.txt{extension}", compress(content) + compress(b"\n\nend"))  # two members, two frames
    statistics = CorpusStatistics()
    assert [len(text) for text in texts(path, statistics=statistics)] == [len(content) - 1, 3]
    assert statistics.bytes_read == len(content) + 5
    for damaged in (compress(content)[:-5], b"not compressed at all"):
        with pytest.raises(UserError, match=rf"a\.txt{extension}.*damaged"):
            texts(write(path, damaged))


def test_newlines_and_byte_order_marks(tmp_path):
    assert texts(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree")) == ["one\ntwo", "three"]
    assert texts(write(tmp_path / "b.txt", "naïve\n".encode("utf-16")), encoding="utf-16") == ["naïve"]


def record_files(folder, records):
    folder.mkdir(exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["label", "text"])
    writer.writerows([record["label"], record["text"]] for record in records)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), folder / "a.parquet")
    return {
        "jsonl": write(folder / "a.jsonl", "\n\n".join(json.dumps(record) for record in records)),
        "jsonl.gz": write(folder / "a.jsonl.gz", gzip.compress("\n".join(map(json.dumps, records)).encode())),
        "csv": write(folder / "a.csv", table.getvalue()),
        "parquet": folder / "a.parquet",
    }


def test_records_are_documents_whatever_the_separator(tmp_path):
    records = [
        {"label": 1, "text": 'A "quoted"\n\ntext,'},
        {"label": 2, "text": "x" * 200_000},
        {"label": 3, "text": ""},
    ]
    expected = [record["text"] for record in records[:2]]
    for path in record_files(tmp_path, records).values():
        statistics = CorpusStatistics()
        assert texts(path, "line", statistics=statistics) == expected, path
        assert (statistics.documents, statistics.files) == (2, 1)
    tsv = write(tmp_path / "a.tsv", 'text\tlabel\n"An unbalanced quote\t1\nnext\t0\n')
    assert texts(tsv) == ['"An unbalanced quote', "next"]
    # as spreadsheets write it where the comma is of numbers; bytes that tell so are not counted twice
    statistics = CorpusStatistics()
    content = 'price;text\n4,5;"Good; cheap, too"\n4;bad\n'
    assert texts(write(tmp_path / "b.csv", content), statistics=statistics) == ["Good; cheap, too", "bad"]
    assert statistics.bytes_read == len(content)


def test_a_missing_column_is_named_with_its_neighbours(tmp_path):
    for path in record_files(tmp_path, [{"label": 1, "text": "hello"}]).values():
        with pytest.raises(UserError, match=r"no column 'txt'.*label, text.*Did you mean 'text'"):
            texts(path, text_column="txt")
        if path.suffix != ".csv":  # everything is text there
            with pytest.raises(UserError, match="'label' holds int, not text"):
                texts(path, text_column="label")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "fine"}\n{"text": oops}\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '["a list"]\n', r"a\.jsonl:1: one JSON object"),
        ("a.csv", 'text,label\n"fine",1\n"open,1\n', r"a\.csv:\d: malformed"),
        ("a.csv", "text,label\nfine,1\nfine,1,more\n", r"a\.csv:3: 3 fields where the first line has 2: a comma"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
        ("a.txt", b"one\ntwo\nmany\0more", r"a\.txt.*NUL bytes \(line 3, .*offset 12\).* by tr -d '\\000' < FILE"),
        ("a.csv", b"text\nna\xefve\none\0", r"a\.csv.*NUL bytes \(line 3, .*offset 14\)\. Take binary .* tr -d"),
        ("a.txt", "a fine film\n".encode("utf-16-le"), r"NUL bytes \(line 1, .*offset 1\)\. Give --encoding utf-16"),
        ("a.txt", "ein Löwe\n".encode("utf-16"), r"NUL bytes .*\. Give --encoding utf-16 if that is what it is, or"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NUL bytes"),
        ("a.txt", b"one\ntwo\nna\xefve\n", r"a\.txt' is not utf-8: line 3, byte offset 10 .*--encoding latin-1"),
        ("a.txt", b"cut \xe2\x82", r"is not utf-8: line 1, byte offset 4"),
        ("a.txt", b"", r"a\.txt' is empty"),
        ("a.txt", b"\n \n", r"a\.txt' is empty"),
        ("a.jsonl", "", r"a\.jsonl' is empty"),
        ("a.csv", "", r"a\.csv' is empty"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        texts(write(tmp_path / name, content))


def test_a_wrong_byte_is_found_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("spanelectra.data.text_files.CHUNK_BYTES", 4)
    path = write(tmp_path / "a.txt", "é\né\né\n".encode() + b"abc\xe9def")
    with pytest.raises(UserError, match="line 4, byte offset 12 "):
        list(read_lines(path))


def test_unknown_names_are_refused(tmp_path):
    path = write(tmp_path / "a.txt", "text")
    with pytest.raises(UserError, match="Unknown encoding 'utf-9'"):
        texts(path, encoding="utf-9")
    with pytest.raises(UserError, match="Did you mean 'line'"):
        texts(path, "lines")
    with pytest.raises(UserError, match="No data given"):
        texts([])


def test_a_folder_gives_its_text_files_in_order(tmp_path):
    write(tmp_path / "b.txt", "second")
    write(tmp_path / "a" / "z.md.gz", gzip.compress(b"first"))
    write(tmp_path / "c.jsonl", '{"text": "third"}')
    write(tmp_path / "d.txt", "")
    write(tmp_path / "picture.png", b"\0")
    write(tmp_path / ".hidden.txt", "no")
    write(tmp_path / ".git" / "e.txt", "no")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    statistics = CorpusStatistics()
    assert texts(tmp_path, statistics=statistics) == ["first", "second", "third"]
    assert statistics.skipped == {str(tmp_path / "picture.png"): "unknown extension", str(tmp_path / "d.txt"): "empty"}
    assert statistics.total_bytes is None
    assert texts(str(tmp_path / "*.txt")) == ["second"]
    assert texts([str(tmp_path / "c.jsonl"), tmp_path / "b.txt", str(tmp_path / "b.*")]) == ["third", "second"]


def test_a_named_file_of_unknown_extension_is_text(tmp_path):
    path = write(tmp_path / "NOTES.rst", "text")
    statistics = CorpusStatistics()
    assert texts(path, statistics=statistics) == ["text"]
    assert statistics.total_bytes == statistics.bytes_read == 4


def test_nothing_found(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "pictures" / "a.png", b"\0")
    write(tmp_path / "corpus.txt", "")
    with pytest.raises(UserError, match="holds no text files"):
        texts(tmp_path / "empty")
    with pytest.raises(UserError, match=r"holds no text files \(1 with other extensions, such as 'a.png'\)"):
        texts(tmp_path / "pictures")
    with pytest.raises(UserError, match=r"does not exist.*Did you mean 'corpus.txt'"):
        texts(tmp_path / "corpsu.txt")
    with pytest.raises(UserError, match="matches no file"):
        find_files(str(tmp_path / "*.csv"))
    write(tmp_path / "other.txt", "\n")
    with pytest.raises(UserError, match="all 2 files are empty"):
        texts(str(tmp_path / "*.txt"))


def test_saved_datasets(tmp_path):
    import datasets

    dataset = datasets.Dataset.from_dict({"text": ["one", None, "two\n\nparts"], "label": [0, 1, 2]})
    dataset.save_to_disk(tmp_path / "single")
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "splits")
    datasets.DatasetDict({"test": dataset}).save_to_disk(tmp_path / "test_only")
    for name in ("single", "splits"):
        assert texts(tmp_path / name, "line") == ["one", "two\n\nparts"]
    with pytest.raises(UserError, match="no split 'train', only test"):
        texts(tmp_path / "test_only")
    with pytest.raises(UserError, match="no column 'body'"):
        texts(tmp_path / "single", text_column="body")
    (tmp_path / "single" / "state.json").write_text("{")
    with pytest.raises(UserError, match="does not open as a `datasets` directory"):
        texts(tmp_path / "single")


def test_a_name_that_is_neither_a_file_nor_a_dataset(tmp_path, monkeypatch):
    import huggingface_hub

    def unreachable(*arguments, **keywords):
        raise ConnectionError("no route to the Hub\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    message = r"'corpsu' is no file or folder here, and the .* not be reached \(no route to the Hub\)\..*'corpus'"
    with pytest.raises(UserError, match=message):
        texts("corpsu")


def test_a_dataset_that_breaks_off_on_the_way_is_named(monkeypatch):
    def records():
        yield {"text": "one"}
        raise ConnectionError("the line is dead")

    monkeypatch.setattr("spanelectra.data.records._open_dataset", lambda name: records())
    texts = read_dataset("far/away", "text", lambda count: None)
    assert next(texts) == "one"
    with pytest.raises(UserError, match=r"dataset 'far/away': reading stopped on the way: .*the line is dead"):
        next(texts)


def test_a_mount_point_is_refused_before_anything_is_written():
    with pytest.raises(UserError, match="is a mount point, which cannot be replaced as a whole"):
        check_output_directory("/", set(), overwrite=True)
    with pytest.raises(UserError, match="holds other files"):
        check_output_directory("/", set(), overwrite=True, replaced=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_stream_has_the_lines_of_a_file(encoding, tmp_path):
    content = "caf\u00e9\r\n\r\nthe mill\rand its wheel".encode(encoding)
    (tmp_path / "text.txt").write_bytes(content)
    expected = list(read_lines(tmp_path / "text.txt", encoding=encoding))
    assert list(read_stream_lines(io.BytesIO(content), "standard input", encoding=encoding)) == expected
    assert len(expected) == 4


def test_a_stream_is_read_as_it_comes_in():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as source:
        lines = read_stream_lines(stream, "standard input")
        for line in (b"one\n", b"two\n"):
            source.write(line)
            assert next(lines) == line.decode()
        source.write(b"\0\n")
        with pytest.raises(UserError, match="standard input is not text: it holds NUL"):
            next(lines)
