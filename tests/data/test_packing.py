"""Documents become rows of exactly the length asked for, and no token of them is lost but the reported remainder."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanelectra.data.packing import RowDataset, prepare, unigram_cross_entropy
from spanelectra.data.row_packing import RowPacker
from spanelectra.data.tokenization import load_tokenizer, vocab, word_start_table
from spanelectra.data.word_starts import WordStartTable
from spanelectra.errors import UserError

CLS, SEP = 2, 3
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "sleeps", "until", "noon"]


def make_text(documents, seed=0, words=40):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, words, documents)
    return "\n\n".join(" ".join(generator.choice(WORDS, length)) for length in lengths)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(make_text(300))
    return str(path)


@pytest.fixture(scope="module")
def tokenizers(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    vocab(corpus, str(folder / "BPE"), vocab_size=300, max_seq_length=64, quiet=True)
    vocab(corpus, str(folder / "BERT"), "BERT", vocab_size=60, max_seq_length=64, quiet=True)
    return folder


@pytest.fixture
def make_rows(corpus, tokenizers, tmp_path):
    """Run ``prepare`` on the small corpus; returns its summary."""

    def make(name="rows", data=corpus, tokenizer="BPE", **arguments):
        arguments = {"max_seq_length": 32, "quiet": True} | arguments
        return prepare(data, str(tokenizers / tokenizer), str(tmp_path / name), **arguments)

    return make


def pack_slowly(documents, max_seq_length):
    """Token by token: the rows, and the text tokens that are left."""
    rows, piece = [], []
    for document in documents:
        for token in document:
            piece.append(token)
            if len(piece) == max_seq_length - 2:
                rows.append([CLS, *piece, SEP])
                piece = []
        if document and piece and len(piece) + 1 < max_seq_length - 2:
            piece.append(SEP)
    return rows, [token for token in piece if token != SEP]


@settings(deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(5, 30), max_size=20), max_size=12),
    max_seq_length=st.integers(8, 12),
    data=st.data(),
)
def test_rows_equal_a_slow_reference_and_lose_nothing(tmp_path_factory, documents, max_seq_length, data):
    path = tmp_path_factory.mktemp("rows") / "train.bin"
    table = WordStartTable(np.arange(31) < 5, *(np.ones(31, np.uint8) for _ in range(3)))
    packer = RowPacker(path, max_seq_length, np.dtype("<u2"), CLS, SEP, table)
    texts = []  # documents in pieces, pieces in batches, cut anywhere
    for document in documents:
        cut = data.draw(st.integers(0, len(document)))
        texts += [(document[:cut], False), (document[cut:], True)]
    while texts:
        size = data.draw(st.integers(1, len(texts)))
        batch, texts = texts[:size], texts[size:]
        ids = np.array([token for tokens, _ in batch for token in tokens], "<u2")
        packer.append(ids, [len(tokens) for tokens, _ in batch], [end for _, end in batch])
    packer.close()
    rows = np.fromfile(path, "<u2").reshape(-1, max_seq_length)
    expected, remainder = pack_slowly(documents, max_seq_length)
    assert rows.tolist() == expected

    text = [token for document in documents for token in document]
    assert rows[rows >= 5].tolist() + remainder == text
    assert (rows[:, 0] == CLS).all() and (rows[:, -1] == SEP).all()
    assert not ((rows[:, 1:] == SEP) & np.isin(rows[:, :-1], (CLS, SEP))).any()  # no doubled specials
    summary = packer.summary(unk_token_id=1)
    assert (summary["documents"], summary["tokens"], summary["rows"]) == (len(documents), len(text), len(rows))
    assert summary["remainder_tokens"] == len(remainder)
    assert packer.token_counts.tolist() == np.bincount(np.array(text, int), minlength=31).tolist()


@pytest.mark.parametrize("tokenizer", ["BPE", "BERT"])
@pytest.mark.parametrize("document_separator", ["file", "blank_line", "line"])
def test_the_rows_of_a_corpus(make_rows, corpus, tokenizers, tmp_path, tokenizer, document_separator):
    summary = make_rows(tokenizer=tokenizer, document_separator=document_separator, validation_fraction=0.0)
    opened = load_tokenizer(tokenizers / tokenizer)
    text = Path(corpus).read_text()
    documents = [text] if document_separator == "file" else text.split("\n\n")
    expected, remainder = pack_slowly(opened(documents, add_special_tokens=False).input_ids, 32)
    rows = RowDataset(tmp_path / "rows")
    assert rows.input_ids.tolist() == expected
    assert rows.max_seq_length == 32 and len(rows) == len(expected) and rows.input_ids.dtype == np.uint16
    train = summary["splits"]["train"]
    assert train["documents"] == len(documents) and train["remainder_tokens"] == len(remainder)
    assert train["tokens"] == rows.token_counts.sum() and train["unknown_token_rate"] == 0
    if document_separator != "file":
        assert train["tokens_per_word"] == pytest.approx(train["tokens"] / len(text.split()))
    assert len(RowDataset(tmp_path / "rows", "validation")) == 0
    assert rows.metadata["vocab_size"] == len(rows.token_counts) == len(opened)


def test_a_long_line_gets_the_tokens_of_the_whole(make_rows, tokenizers, tmp_path):
    line = " ".join(np.random.default_rng(0).choice(WORDS, 250_000))  # more than 1 MiB
    assert len(line) > 1 << 20
    (tmp_path / "long.txt").write_text(f"{line}\nend\n")
    summary = make_rows(data=str(tmp_path / "long.txt"), document_separator="line", validation_fraction=0.0)
    assert summary["splits"]["train"]["documents"] == 2
    documents = load_tokenizer(tokenizers / "BPE")([line, "end"], add_special_tokens=False).input_ids
    expected, _ = pack_slowly(documents, 32)
    assert np.array_equal(RowDataset(tmp_path / "rows").input_ids, np.array(expected))


def test_special_tokens_in_the_text_are_text(make_rows, tmp_path):
    (tmp_path / "a.txt").write_text("[CLS] a [SEP] b [MASK] c [PAD]\n\n" * 50)
    make_rows(data=str(tmp_path / "a.txt"), validation_fraction=0.0)
    rows = RowDataset(tmp_path / "rows").input_ids
    assert not np.isin(rows, (0, 1, 4)).any()
    assert (rows[:, 1:] != CLS).all()


def test_one_word_documents_and_unknown_characters(make_rows, tmp_path):
    (tmp_path / "words.txt").write_text("fox\n字\n" * 40)
    summary = make_rows(
        data=str(tmp_path / "words.txt"), tokenizer="BERT", document_separator="line", validation_fraction=0.0
    )
    train = summary["splits"]["train"]
    assert train["documents"] == 80
    assert train["unknown_token_rate"] == pytest.approx(40 / train["tokens"])
    assert train["tokens_per_word"] == pytest.approx(train["tokens"] / 80)


def test_the_same_input_gives_the_same_files(make_rows, tmp_path):
    make_rows("first", seed=5, validation_fraction=0.2)
    make_rows("second", seed=5, validation_fraction=0.2)
    make_rows("other", seed=6, validation_fraction=0.2)
    names = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file())
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert (tmp_path / "first" / "train.bin").read_bytes() != (tmp_path / "other" / "train.bin").read_bytes()


def test_held_out_documents(make_rows, tokenizers, tmp_path):
    (tmp_path / "numbered.txt").write_text("\n\n".join(f"{number} fox and dog" for number in range(1000)))
    summary = make_rows(data=str(tmp_path / "numbered.txt"), validation_fraction=0.1)
    train, validation = summary["splits"]["train"], summary["splits"]["validation"]
    assert train["documents"] + validation["documents"] == 1000 and 60 < validation["documents"] < 140
    tokenizer = load_tokenizer(tokenizers / "BPE")
    numbers = {}
    for split in ("train", "validation"):
        rows = RowDataset(tmp_path / "rows", split).input_ids
        text = tokenizer.decode(rows.ravel()).replace("[SEP][CLS]", "")
        numbers[split] = {part.split()[0] for part in text.split("[SEP]")[1:-2]}
    assert not numbers["train"] & numbers["validation"]
    assert not summary["warnings"]


def test_a_small_corpus_still_gives_a_validation_row(make_rows, tmp_path):
    (tmp_path / "few.txt").write_text(make_text(6, seed=1, words=400))
    summary = make_rows(data=str(tmp_path / "few.txt"), validation_fraction=0.01)
    assert summary["splits"]["train"]["rows"] and summary["splits"]["validation"]["rows"]
    assert 0.01 < summary["validation_fraction"] <= 0.5
    assert "validation_fraction is raised from 0.01" in summary["warnings"][0]


def test_one_document_cannot_be_held_out(make_rows, tmp_path, capsys):
    for seed in range(4):
        summary = make_rows(f"rows{seed}", document_separator="file", validation_fraction=0.5, seed=seed)
        assert summary["splits"]["train"]["rows"] and not summary["splits"]["validation"]["rows"]
        assert summary["validation_fraction"] == 0
        # said on disk, too, for whoever asked for quiet
        written = json.loads((tmp_path / f"rows{seed}" / "dataset.json").read_text())
        assert written["warnings"] == summary["warnings"] and "the data are one document" in written["warnings"][0]
        assert capsys.readouterr() == ("", "")


def test_too_little_text_to_hold_out(make_rows, tmp_path):
    (tmp_path / "tiny.txt").write_text("fox dog\n\n" * 3)
    summary = make_rows(data=str(tmp_path / "tiny.txt"), max_seq_length=8)
    assert summary["splits"]["train"]["rows"] and "too little text" in summary["warnings"][0]


def test_validation_data(make_rows, corpus, tmp_path):
    (tmp_path / "validation.txt").write_text(make_text(30, seed=9))
    summary = make_rows(validation_data=str(tmp_path / "validation.txt"))
    assert summary["splits"]["train"]["documents"] == 300 and summary["splits"]["validation"]["documents"] == 30
    assert len(RowDataset(tmp_path / "rows", "validation")) == summary["splits"]["validation"]["rows"] > 0
    (tmp_path / "tiny.txt").write_text("fox")
    summary = make_rows("tiny", validation_data=str(tmp_path / "tiny.txt"))
    assert "do not fill a row" in summary["warnings"][0]
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="empty"):
        make_rows("empty", validation_data=str(tmp_path / "empty.txt"))


def test_the_printed_summary(make_rows, capsys):
    make_rows(quiet=False)
    printed = capsys.readouterr()
    assert not printed.out
    for words in (
        "blank_line: blank lines separate documents",
        "tokens per word",
        "MB/s",
        "unknown",
        "peak memory",
        "of the documents, by a hash of seed and number (--validation_fraction)",
    ):
        assert words in printed.err


def test_the_summary_says_what_is_a_document_in_the_files_at_hand(make_rows, corpus, tmp_path, capsys):
    records = tmp_path / "records.csv"
    records.write_text("text\n" + "the fox and the dog\n" * 30)
    make_rows(data=str(records), quiet=False)
    assert "validation (each record is one document)" in capsys.readouterr().err
    make_rows("both", data=[str(records), str(corpus)], quiet=False)
    assert "(blank_line: blank lines separate documents; of other files each record is one)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_seq_length": 7}, "max_seq_length is 7: it must be at least 8"),
        ({"max_seq_length": 65}, "65 is longer than the tokenizer's model_max_length, 64"),
        ({"validation_fraction": 0.6}, r"validation_fraction is 0\.6"),
        ({"validation_fraction": -0.1}, "validation_fraction is -0"),
        ({"document_separator": "lines"}, "Did you mean 'line'"),
        ({"data": "nowhere.txt"}, "does not exist"),
        ({"tokenizer": "../nowhere/at/all"}, "neither a directory nor a tokenizer"),
    ],
)
def test_mistakes(make_rows, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        make_rows(**arguments)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_too_little_text(make_rows, tmp_path):
    (tmp_path / "one.txt").write_text("fox")
    with pytest.raises(UserError, match=r"Too little text: \d+ tokens"):
        make_rows(data=str(tmp_path / "one.txt"))


def test_a_tokenizer_without_a_mask(make_rows, tokenizers, tmp_path):
    tokenizer = load_tokenizer(tokenizers / "BPE")
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "maskless")
    with pytest.raises(UserError, match=r"no \[MASK\]"):
        make_rows(tokenizer=str(tmp_path / "maskless"))


def test_rows_are_never_overwritten_silently(make_rows, tmp_path):
    make_rows()
    before = (tmp_path / "rows" / "train.bin").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        make_rows(max_seq_length=16)
    with pytest.raises(UserError):  # fails late: the old rows stay
        make_rows(data=[str(tmp_path / "rows" / "train.bin")], overwrite=True)
    assert (tmp_path / "rows" / "train.bin").read_bytes() == before
    make_rows(max_seq_length=16, overwrite=True)
    assert RowDataset(tmp_path / "rows").max_seq_length == 16


def test_a_killed_run_leaves_nothing_that_opens(make_rows, corpus, tokenizers, tmp_path):
    program = (
        "import os, sys; from spanelectra.data import packing\n"
        "packing.np.save = lambda *arguments, **keywords: os._exit(9)\n"
        "packing.prepare(*sys.argv[1:4], max_seq_length=32)"
    )
    arguments = [corpus, str(tokenizers / "BPE"), str(tmp_path / "rows")]
    assert subprocess.run([sys.executable, "-c", program, *arguments]).returncode == 9
    assert [path.name for path in tmp_path.iterdir()] != ["rows"]
    with pytest.raises(UserError, match="does not exist"):
        RowDataset(tmp_path / "rows")
    make_rows()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_damaged_directories(make_rows, tmp_path):
    make_rows()
    rows = tmp_path / "rows"
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        RowDataset(rows, "validatoin")
    with pytest.raises(UserError, match=r"has no dataset\.json"):
        RowDataset(tmp_path)
    content = (rows / "train.bin").read_bytes()
    (rows / "train.bin").write_bytes(content[:-2])
    with pytest.raises(UserError, match=r"incomplete: train\.bin has \d+ bytes instead of"):
        RowDataset(rows)
    (rows / "train.bin").unlink()
    with pytest.raises(UserError, match=r"incomplete: train\.bin is missing"):
        RowDataset(rows)
    (rows / "train.bin").write_bytes(content)
    (rows / "token_counts.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"token_counts\.npy does not open"):
        RowDataset(rows)
    metadata = json.loads((rows / "dataset.json").read_text())
    (rows / "dataset.json").write_text(json.dumps(metadata | {"format_version": 99}))
    with pytest.raises(UserError, match="format version 99"):
        RowDataset(rows)
    (rows / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        RowDataset(rows)


def test_rows_of_another_tokenizer(make_rows, tokenizers, tmp_path):
    make_rows()
    rows = RowDataset(tmp_path / "rows")
    rows.check_tokenizer(load_tokenizer(tokenizers / "BPE"))
    rows.check_tokenizer(rows.tokenizer())
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        rows.check_tokenizer(load_tokenizer(tokenizers / "BERT"))
    stored = tmp_path / "rows" / "tokenizer" / "tokenizer.json"
    stored.write_bytes((tokenizers / "BERT" / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="prepared with another tokenizer"):
        RowDataset(tmp_path / "rows")
    stored.unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json' does not open"):
        RowDataset(tmp_path / "rows")


def test_unigram_cross_entropy_by_hand(make_rows, tmp_path):
    counts = np.array([9, 9, 3, 0, 1])
    special_ids = np.array([True, True, False, False, False])
    held_out = np.array([[0, 2, 3, 1], [0, 2, 2, 1]], np.uint16)
    expected = -(3 * math.log(4 / 7) + math.log(1 / 7)) / 4
    assert unigram_cross_entropy(counts, held_out, special_ids) == pytest.approx(expected)
    assert math.isnan(unigram_cross_entropy(counts, held_out[:, :1], special_ids))
    make_rows(validation_fraction=0.2)
    train, validation = RowDataset(tmp_path / "rows"), RowDataset(tmp_path / "rows", "validation")
    special_ids = word_start_table(train.tokenizer()).special_ids
    cost = unigram_cross_entropy(train.token_counts, validation.input_ids, special_ids)
    assert math.log(10) < cost < math.log(40)  # about as many words as there are
