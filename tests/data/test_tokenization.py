"""Tokenizers are trained byte-exact, open anywhere, and tell where words start."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spanelectra.console import log_level
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint, vocab, word_start_table
from spanelectra.errors import UserError

TEXT = """The quick brown fox jumps over the lazy dog; the dog doesn't mind, it's asleep.
In 1999 the fox was quicker: 12,345 jumps (or 12.345?), said the naïve farmer's café neighbour.
The foxes and the dogs are friends now -- they've jumped together 100 times, haven't they?
"""
UNUSUAL = [
    "👩‍👩‍👧 emoji 🎉🎉",
    "漢字かな交じり文、ไทย ភាសា",
    "e\u0301 combining a\u0308\u0323 marks हिन्दी",
    "\ttabs\t\tand  spaces   \n\n newlines \r\n ",
    " leading and trailing ",
    "nul \0 and control \x1c \u200b \ufeff",
    "literal [MASK] and [SEP] in the text",
    "",
]
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT * 3 + "漢字かな ไทย Crème Brûlée\n" * 2, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def directories(text_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for tokenizer_type in ("BPE", "BERT"):
        for lowercase in (False, True):
            name = f"{tokenizer_type}{'-lower' if lowercase else ''}"
            vocab(text_file, str(folder / name), tokenizer_type, vocab_size=400, lowercase=lowercase, model_name="fox")
    return folder


@pytest.fixture(scope="module")
def bpe(directories):
    return load_tokenizer(directories / "BPE")


@pytest.fixture(scope="module")
def wordpiece(directories):
    return load_tokenizer(directories / "BERT")


@pytest.mark.parametrize("name", ["BPE", "BERT", "BPE-lower", "BERT-lower"])
def test_the_directory_opens_as_a_fast_tokenizer(directories, name):
    tokenizer = AutoTokenizer.from_pretrained(directories / name)
    assert tokenizer.is_fast and tokenizer.model_max_length == 512
    assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == [0, 1, 2, 3, 4]
    roles = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token)
    assert list(roles) == SPECIAL_TOKENS
    trained = Tokenizer.from_file(str(directories / name / "tokenizer.json"))
    for text in [TEXT, *UNUSUAL]:
        assert tokenizer(text).input_ids == trained.encode(text).ids
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(trained)
    configuration = json.loads((directories / name / "tokenizer_config.json").read_text())
    assert (configuration["name"], configuration["tokenizer_class"]) == ("fox", "PreTrainedTokenizerFast")


@pytest.mark.parametrize("name", ["BPE", "BERT"])
def test_pairs_and_masks(directories, name, tmp_path):
    tokenizer = load_tokenizer(directories / name)
    tokenizer.save_pretrained(tmp_path)  # as an export does
    for opened in (tokenizer, load_tokenizer(tmp_path)):
        encoding = opened("the dog", "the fox", return_token_type_ids=True)
        first, second = (opened(text, add_special_tokens=False).input_ids for text in ("the dog", "the fox"))
        assert encoding.input_ids == [2, *first, 3, *second, 3]
        assert encoding.token_type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        before, after = opened("the", add_special_tokens=False).input_ids, opened(" dog", add_special_tokens=False)
        assert opened("the [MASK] dog").input_ids == [2, *before, 4, *after.input_ids, 3]


def test_classic_files(directories, bpe, wordpiece):
    vocabulary = json.loads((directories / "BPE" / "vocab.json").read_text(encoding="utf-8"))
    assert vocabulary == bpe.get_vocab()
    assert (directories / "BPE" / "merges.txt").is_file()
    lines = (directories / "BERT" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert lines[:-1] == wordpiece.convert_ids_to_tokens(range(len(wordpiece)))


@pytest.mark.parametrize("text", UNUSUAL)
def test_unusual_text(directories, bpe, wordpiece, text):
    for tokenizer in (bpe, load_tokenizer(directories / "BPE-lower")):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        normalizer = tokenizer.backend_tokenizer.normalizer
        assert tokenizer.decode(ids) == (normalizer.normalize_str(text) if normalizer else text)
    for tokenizer in (wordpiece, load_tokenizer(directories / "BERT-lower")):
        normalized = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
        encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        for token, (start, end) in zip(encoding.tokens(), encoding["offset_mapping"], strict=True):
            piece = tokenizer.backend_tokenizer.normalizer.normalize_str(text[start:end]).strip()
            assert token in ("[UNK]", piece, f"##{piece}")
        if "[UNK]" not in encoding.tokens():
            assert re.sub(r"\s", "", tokenizer.decode(encoding.input_ids)) == re.sub(r"\s", "", normalized)


@settings(deadline=None)
@given(st.text())
def test_bpe_is_exact_to_the_byte(bpe, text):
    ids = bpe(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert bpe.decode(ids).encode() == text.encode()


@pytest.mark.parametrize("tokenizer_type", ["BPE", "BERT"])
def test_the_same_data_give_the_same_files(text_file, directories, tmp_path, tokenizer_type):
    vocab(text_file, str(tmp_path / "again"), tokenizer_type, vocab_size=400, model_name="fox")
    first, again = directories / tokenizer_type, tmp_path / "again"
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_wordpiece_keeps_the_most_frequent_characters(tmp_path, monkeypatch):
    monkeypatch.setattr("spanelectra.data.tokenizer_training.ALPHABET_LIMIT", 3)
    (tmp_path / "a.txt").write_text("abc abc ab ab zz")
    vocab(str(tmp_path / "a.txt"), str(tmp_path / "tokenizer"), "BERT", vocab_size=11, quiet=True)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    assert tokenizer.convert_ids_to_tokens(range(11)) == [*SPECIAL_TOKENS, "a", "b", "c", "##a", "##b", "##c"]
    assert tokenizer.tokenize("abc z") == ["a", "##b", "##c", "[UNK]"]


def test_summary_and_warning(text_file, tmp_path, capsys):
    summary = vocab(text_file, str(tmp_path / "tokenizer"), vocab_size=5000, document_separator="line")
    assert summary["documents"] == 11 and summary["vocab_size"] < 5000
    printed = capsys.readouterr()
    assert "each line is one document" in printed.err and not printed.out
    assert "not 5,000" in printed.err and "lower --min_frequency" in summary["warnings"][0]
    (tmp_path / "records.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    vocab(str(tmp_path / "records.jsonl"), str(tmp_path / "of-records"), vocab_size=300)
    assert "2 (each record is one document)" in capsys.readouterr().err


@pytest.mark.parametrize(("level", "quiet"), [(None, True), ("error", False), ("error", True)])
def test_quiet_and_errors_alone_leave_warnings_to_the_summary(level, quiet, text_file, tmp_path, capsys):
    with log_level(level):
        summary = vocab(text_file, str(tmp_path / "tokenizer"), vocab_size=5000, quiet=quiet)
    assert capsys.readouterr() == ("", "") and "not 5,000" in summary["warnings"][0]


def test_a_level_of_warnings_leaves_them(text_file, tmp_path, capsys):
    with log_level("warning"):
        (warning,) = vocab(text_file, str(tmp_path / "tokenizer"), vocab_size=5000)["warnings"]
    assert capsys.readouterr() == ("", f"warning: {warning}\n")


def test_mistakes_in_training(text_file, directories, tmp_path):
    out_dir = str(tmp_path / "tokenizer")
    with pytest.raises(UserError, match=r"vocab_size 260 is smaller than the alphabet: 256 bytes.*--vocab_size 261"):
        vocab(text_file, out_dir, "BPE", vocab_size=260)
    with pytest.raises(UserError, match=r"vocab_size 30 is smaller than the alphabet: \d+ characters"):
        vocab(text_file, out_dir, "BERT", vocab_size=30)
    with pytest.raises(UserError, match=r"tokenizer_type: 'BERTO' is not one of BPE, BERT\. Did you mean 'BERT'"):
        vocab(text_file, out_dir, "BERTO")
    with pytest.raises(UserError, match="min_frequency is 0"):
        vocab(text_file, out_dir, min_frequency=0)
    with pytest.raises(UserError, match="max_seq_length is 2"):
        vocab(text_file, out_dir, max_seq_length=2)
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="empty"):
        vocab(str(tmp_path / "empty.txt"), out_dir, "BERT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt"]


def test_the_minimal_vocabulary_is_enough(text_file, tmp_path):
    with pytest.raises(UserError) as error:
        vocab(text_file, str(tmp_path / "tokenizer"), "BERT", vocab_size=5)
    minimum = int(re.search(r"--vocab_size (\d+)", str(error.value)).group(1))
    assert vocab(text_file, str(tmp_path / "tokenizer"), "BERT", vocab_size=minimum)["vocab_size"] == minimum
    assert vocab(text_file, str(tmp_path / "bytes"), "BPE", vocab_size=261)["vocab_size"] == 261


def test_a_directory_is_never_overwritten_silently(text_file, tmp_path):
    out_dir = tmp_path / "tokenizer"
    vocab(text_file, str(out_dir), vocab_size=300, quiet=True)
    before = (out_dir / "vocab.json").read_bytes()
    with pytest.raises(UserError, match=r"not empty.*--overwrite"):
        vocab(text_file, str(out_dir), vocab_size=310, quiet=True)
    assert (out_dir / "vocab.json").read_bytes() == before
    vocab(text_file, str(out_dir), "BERT", vocab_size=310, quiet=True, overwrite=True)
    assert not (out_dir / "vocab.json").exists() and (out_dir / "vocab.txt").exists()
    (out_dir / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other files \('thesis.tex'\)"):
        vocab(text_file, str(out_dir), vocab_size=310, quiet=True, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        vocab(text_file, str(out_dir / "thesis.tex"), vocab_size=310, quiet=True)


def test_tokenizers_that_do_not_load(directories, tmp_path, monkeypatch):
    import huggingface_hub

    def unreachable(*arguments, **keywords):
        raise ConnectionError("no route to the Hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.chdir(directories)
    with pytest.raises(UserError, match=r"Hub could not be reached \(no route to the Hub\)\. Did you mean 'BERT'"):
        load_tokenizer("BERTT")
    with pytest.raises(UserError, match=r"holds no tokenizer: there is none of tokenizer\.json, .* Give a directory"):
        load_tokenizer(tmp_path)
    # of which transformers makes a tokenizer of special tokens alone
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds no tokenizer: there is none of"):
        load_tokenizer(tmp_path)
    shutil.copytree(directories / "BPE", tmp_path / "tokenizer")
    with pytest.raises(UserError, match=f"holds no tokenizer: .* Did you mean '{tmp_path / 'tokenizer'}'"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"opens: there is no tokenizer\.json, and the other files make none") as error:
        load_tokenizer(tmp_path)
    assert "sentencepiece" not in str(error.value)
    shutil.copytree(directories / "BPE", tmp_path / "maskless")
    configuration_path = tmp_path / "maskless" / "tokenizer_config.json"
    configuration = json.loads(configuration_path.read_text())
    del configuration["mask_token"]
    configuration_path.write_text(json.dumps(configuration))
    with pytest.raises(UserError, match=r"has no \[MASK\] token"):
        load_tokenizer(tmp_path / "maskless")


def test_fingerprints_tell_tokenizers_apart(directories, bpe):
    names = ["BPE", "BERT", "BPE-lower", "BERT-lower"]
    assert len({tokenizer_fingerprint(load_tokenizer(directories / name)) for name in names}) == 4
    fingerprint = tokenizer_fingerprint(bpe)
    opened = load_tokenizer(directories / "BPE")
    opened("text", truncation=True, max_length=8, padding="max_length")  # leaves its settings in the backend
    assert tokenizer_fingerprint(opened) == fingerprint


def piece_starts(tokenizer, text):
    """The obvious way: the tokens that begin where the pre-tokeniser's pieces begin."""
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    words = encoding.word_ids
    return encoding.ids, [index == 0 or words[index] != words[index - 1] for index in range(len(words))]


def starts(tokenizer, ids):
    return word_start_table(tokenizer).word_starts(np.array([ids], np.uint16))[0].tolist()


LATIN = 'abcdeghijklmnoprstuvwxyzABC0129.,;:!?()-"/ \t\néèüñ°£'  # no apostrophe: no contractions


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=LATIN, min_size=1))
def test_byte_level_words_are_the_pieces_of_the_pre_tokeniser(bpe, text):
    ids, expected = piece_starts(bpe, text)
    assert starts(bpe, ids) == expected


def test_words_of_real_text(bpe, wordpiece):
    for tokenizer in (bpe, wordpiece):
        ids, expected = piece_starts(tokenizer, TEXT.replace("haven't", "have not"))
        assert starts(tokenizer, ids) == expected


def words_of(tokenizer, text):
    ids = tokenizer(text).input_ids
    groups = []
    for token_id, begins in zip(ids, starts(tokenizer, ids), strict=True):
        if begins or token_id in tokenizer.all_special_ids:
            groups.append([])
        groups[-1].append(token_id)
    return [tokenizer.decode(group) for group in groups]


def test_special_tokens_start_nothing_and_what_follows_them_does(bpe):
    first, second = bpe.convert_tokens_to_ids(["Ġfox", "es"])
    table = word_start_table(bpe)
    rows = np.array([[first, second, 3, second, 4, second, 2, 0]])
    assert table.word_starts(rows).tolist() == [[True, False, False, True, False, True, False, False]]
    assert np.flatnonzero(table.special_ids).tolist() == [0, 1, 2, 3, 4]
    assert len(table.special_ids) == len(bpe)


def test_words_of_other_scripts(tmp_path):
    words = ["हिन्दी", "में", "e\u0301te\u0301", "Việt", "한국어"]
    (tmp_path / "a.txt").write_text(f"{' '.join(words)}\n" * 9, encoding="utf-8")
    vocab(str(tmp_path / "a.txt"), str(tmp_path / "tokenizer"), vocab_size=310, quiet=True)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    for word in words:  # in several tokens, some of which end inside a character
        assert words_of(tokenizer, f"{word} {word}")[1:-1] == [word, f" {word}"]
    for text in ("漢字かな", "ไทย"):  # without spaces, each character is a word at least
        assert len(words_of(tokenizer, text)[1:-1]) >= len(text)


def test_wordpiece_words_without_spaces(tmp_path):
    (tmp_path / "a.txt").write_text("ภาษาไทย คาタカナ word words\n" * 9, encoding="utf-8")
    vocab(str(tmp_path / "a.txt"), str(tmp_path / "tokenizer"), "BERT", vocab_size=100, quiet=True)
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    ids = tokenizer("ภาษาไทย words", add_special_tokens=False).input_ids
    tokens = tokenizer.convert_ids_to_tokens(ids)
    latin = [index for index, token in enumerate(tokens) if token.isascii()]
    assert starts(tokenizer, ids) == [index not in latin[1:] for index in range(len(ids))]


def test_contractions_in_one_token_are_words():
    vocabulary = {token: index for index, token in enumerate(["it", "'s", "is", "s", "'"])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert starts(tokenizer, [0, 1, 2, 3]) == [True, True, True, False]


def test_metaspace_and_unknown_kinds():
    vocabulary = [("▁the", 0.0), ("▁", 0.0), ("fox", 0.0), ("es", 0.0), ("字", 0.0)]
    metaspace = Tokenizer(models.Unigram(vocabulary))
    metaspace.pre_tokenizer, metaspace.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    ids = [0, 2, 3, 1, 2, 4]
    assert starts(PreTrainedTokenizerFast(tokenizer_object=metaspace), ids) == [True, False, False, True, False, True]
    words = Tokenizer(models.WordLevel({"the": 0, "fox": 1}))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    assert starts(PreTrainedTokenizerFast(tokenizer_object=words), [0, 1, 1]) == [True, True, True]
