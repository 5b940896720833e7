"""Entities and parts of speech: from a file to scores, with a stock model in between, and nothing lost on the way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.metrics import f1_score as word_f1_score
from tagged_sentences import KINDS, SENTENCES, logits_of, make_examples, make_tokenizer, split_tags, write_conll
from transformers import BertConfig, BertForTokenClassification, pipeline

from spanelectra.errors import UserError
from spanelectra.finetuning.conll_files import Sentence
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.inference import predict_logits
from spanelectra.finetuning.tag_schemes import to_iob2
from spanelectra.finetuning.token_classification import TokenClassification
from spanelectra.finetuning.word_windows import NO_WORD
from spanelectra.losses import IGNORE_INDEX

ENTITY_LABELS = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
PARTS = ["Ida/NOUN walked/VERB ./PUNCT", "Oslo/NOUN Mills/NOUN met/VERB", "met/VERB O/NOUN"]


def make_task(**arguments):
    """A task with resolved settings."""
    defaults = {"task": "token", "model": "m", "train": "t", "dev": "d", "out_dir": "o", "doc_stride": 2}
    return TokenClassification(FineTuningArguments(**{**defaults, **arguments}).resolved())


def fitted(sentences=SENTENCES, tmp_path=None, **arguments):
    """A task and the examples of a file that it has learned its labels from."""
    task = make_task(**arguments)
    examples = task.read(write_conll(tmp_path / "train.conll", sentences))
    task.fit(examples)
    return task, examples


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizers")
    return {kind: make_tokenizer(kind, directory) for kind in KINDS}


def test_entities_are_read_as_iob2_and_their_labels_learned(tmp_path):
    task, examples = fitted(tmp_path=tmp_path)
    for example, (words, tags) in zip(examples, split_tags(SENTENCES), strict=True):
        assert (example.words, example.tags) == (words, to_iob2(tags))
    assert examples[1].tags[4:7] == ["B-PER", "B-PER", "I-PER"]
    assert task.config_changes() == {
        "num_labels": 7,
        "id2label": dict(enumerate(ENTITY_LABELS)),
        "label2id": {label: number for number, label in enumerate(ENTITY_LABELS)},
    }
    assert (task.metric, task.scheme) == ("f1", "IOB2")
    assert task.remarks == [
        f"{tmp_path / 'train.conll'}: 3 of 3 labels have fewer than 5 entities: 'ORG' (2), 'PER' (3), 'LOC' (4)."
    ]
    again = make_task()
    again.load_state(json.loads(json.dumps(task.state())))
    assert (again.labels, again.scheme, again.metric) == (task.labels, "IOB2", "f1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [200, 8])
def test_logits_that_say_the_labels_score_100(tmp_path, tokenizers, kind, max_length):
    task, examples = fitted(tmp_path=tmp_path)
    features = task.features(examples, tokenizers[kind], max_length, training=False)
    assert (len(features) == len(examples)) == (max_length == 200)
    assert all("labels" not in feature for feature in features)
    predictions = task.predict(examples, features, logits_of(task.labels, examples, features))
    # one logit of 1 among six of 0
    share = round(math.e / (math.e + 6), 4)
    assert [prediction.pop("probabilities") for prediction in predictions] == [[share] * len(e.words) for e in examples]
    assert predictions == [{"words": e.words, "predicted": e.tags, "labels": e.tags} for e in examples]
    scores = task.score(examples, predictions)
    assert list(scores) == ["f1", "precision", "recall", "accuracy", "f1_LOC", "f1_ORG", "f1_PER"]
    assert set(scores.values()) == {100.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [200, 8])
def test_every_word_is_trained_on_once(tmp_path, tokenizers, kind, max_length):
    task, examples = fitted(tmp_path=tmp_path)
    trained = [[] for _ in examples]
    for feature in task.features(examples, tokenizers[kind], max_length, training=True):
        assert {len(values) for name, values in feature.items() if name != "example"} == {len(feature["input_ids"])}
        for word, label in zip(feature["words"], feature["labels"], strict=True):
            assert (word == NO_WORD) == (label == IGNORE_INDEX)
            if word != NO_WORD:
                trained[feature["example"]].append((word, task.labels[label]))
    assert [sorted(pairs) for pairs in trained] == [list(enumerate(example.tags)) for example in examples]


def test_a_stock_model_reads_batches_and_a_pipeline_says_the_same(tmp_path, tokenizers):
    task, examples = fitted(tmp_path=tmp_path)
    tokenizer = tokenizers["BPE"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=1.0,
        **task.config_changes(),
    )
    model = BertForTokenClassification(config).eval()
    training = task.features(examples, tokenizer, 30, training=True)
    batch = task.collator(tokenizer)(
        [{name: feature[name] for name in ("input_ids", "attention_mask", "labels")} for feature in training]
    )
    scored = batch["labels"] != IGNORE_INDEX
    assert scored.sum() == sum(len(example.words) for example in examples)
    assert not scored[batch["attention_mask"] == 0].any()
    output = model(**batch)
    expected = torch.nn.functional.cross_entropy(output.logits[scored], batch["labels"][scored])
    torch.testing.assert_close(output.loss, expected)

    features = task.features(examples, tokenizer, 200, training=False)
    predictions = task.predict(examples, features, predict_logits(model, tokenizer, features, 2))
    tagger = pipeline("token-classification", model=model, tokenizer=tokenizer, ignore_labels=[], device="cpu")
    for feature, example, prediction in zip(features, examples, predictions, strict=True):
        said = {token["index"]: token["entity"] for token in tagger(" ".join(example.words))}
        read = [position for position, word in enumerate(feature["words"]) if word != NO_WORD]
        assert prediction["predicted"] == [said[position] for position in read]
    assert len({tag for prediction in predictions for tag in prediction["predicted"]}) > 1


def test_words_that_are_nothing_get_the_common_label_and_are_counted(tmp_path, tokenizers):
    task, _ = fitted(tmp_path=tmp_path)
    examples = make_examples(["Ida/B-PER \x07/I-PER met/O", "\u200b/O", "Oslo/B-LOC"])
    for training in (True, False):
        features = task.features(examples, tokenizers["BERT"], 16, training=training)
    assert [feature["example"] for feature in features] == [0, 2]
    predictions = task.predict(examples, features, logits_of(task.labels, examples, features))
    assert [prediction["predicted"] for prediction in predictions] == [["B-PER", "O", "O"], ["O"], ["B-LOC"]]
    # O even where it is not the commonest
    assert fitted(["a/B-X b/I-X c/I-X d/O"], tmp_path)[0].state()["default_label"] == "O"
    assert [remark for remark in task.remarks if "to the tokenizer" in remark] == [
        "2 of 5 words of file.conll are nothing to the tokenizer (control characters, for instance); nothing is "
        "learned from them, and they get 'O'."
    ]


LABELLED = st.lists(
    st.lists(st.tuples(st.sampled_from(ENTITY_LABELS), st.sampled_from(ENTITY_LABELS)), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(sentences=LABELLED)
def test_scores_of_entities_equal_a_strict_reading_of_iob2(sentences):
    """Any predictions; read strictly once what is not valid is mended."""
    task = make_task()
    task.labels = ENTITY_LABELS
    gold = [to_iob2([tag for tag, _ in sentence]) for sentence in sentences]
    predicted = [[tag for _, tag in sentence] for sentence in sentences]
    examples = [Sentence(["x"] * len(tags), tags, [1] * len(tags), "file") for tags in gold]
    scores = task.score(examples, [{"predicted": tags} for tags in predicted])
    mended = [to_iob2(tags) for tags in predicted]
    words = [(one, other) for pair in zip(gold, predicted, strict=True) for one, other in zip(*pair, strict=True)]
    assert scores.pop("accuracy") == pytest.approx(100 * np.mean([one == other for one, other in words]))
    if any(tag != "O" for tags in gold + mended for tag in tags):
        strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
        for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            assert scores.pop(name) == pytest.approx(100 * function(gold, mended, **strict))
    types = {tag[2:] for tags in gold for tag in tags} - {""}
    for kind in types:
        only = [[[tag if tag[2:] == kind else "O" for tag in tags] for tags in side] for side in (gold, mended)]
        expected = f1_score(*only, mode="strict", scheme=IOB2, zero_division=0)
        assert scores.pop(f"f1_{kind}") == pytest.approx(100 * expected)
    assert set(scores.values()) <= {0.0} and len(scores) in (0, 3)


def test_baseline_and_collapse(tmp_path):
    task, examples = fitted(tmp_path=tmp_path)
    baseline = task.baseline(examples, examples)
    outside = np.mean([tag == "O" for example in examples for tag in example.tags])
    assert baseline.name == "always 'O'"
    assert baseline.scores["f1"] == 0.0 and baseline.scores["accuracy"] == pytest.approx(100 * outside)
    constant = [{"predicted": ["O"] * 3}, {"predicted": ["O"]}]
    assert task.collapse(constant) == "always 'O'"
    assert task.collapse([*constant, {"predicted": ["B-PER"]}]) is None
    assert task.collapse(constant[1:]) is None  # one word may be anything
    # nor does who is right collapse
    assert task.collapse([{"predicted": ["O", "O"], "labels": ["O", "O"]}]) is None
    assert task.collapse([{"predicted": ["O", "O"], "labels": ["O", "B-PER"]}]) == "always 'O'"


def test_plain_labels(tmp_path, tokenizers):
    task, examples = fitted(PARTS, tmp_path)
    assert task.labels == ["NOUN", "PUNCT", "VERB"]
    assert (task.metric, task.scheme, task.state()["default_label"]) == ("accuracy", "plain", "NOUN")
    assert "the labels have no prefixes" in task.remarks[0] and "chosen by accuracy" in task.remarks[0]
    assert "1 of 3 labels" not in task.remarks[1] and "'PUNCT' (1), 'VERB' (3), 'NOUN' (4)" in task.remarks[1]
    features = task.features(examples, tokenizers["BPE"], 32, training=False)
    predictions = task.predict(examples, features, logits_of(task.labels, examples, features))
    assert set(task.score(examples, predictions).values()) == {100.0}

    baseline = task.baseline(examples, examples)
    gold = [tag for example in examples for tag in example.tags]
    assert baseline.name == "always 'NOUN'"
    assert list(baseline.scores)[:2] == ["accuracy", "f1"]
    assert baseline.scores["accuracy"] == pytest.approx(50.0)
    assert baseline.scores["f1"] == pytest.approx(100 * word_f1_score(gold, ["NOUN"] * 8, average="macro"))
    assert baseline.scores["f1_NOUN"] == pytest.approx(100 * 2 / 3) and baseline.scores["f1_VERB"] == 0.0
    again = make_task()
    again.load_state(task.state())
    assert (again.metric, again.scheme) == ("accuracy", "plain")
    assert fitted(PARTS, tmp_path, metric="recall")[0].metric == "recall"


def test_a_label_that_training_never_saw_is_named_with_its_line(tmp_path):
    task, _ = fitted(tmp_path=tmp_path)
    path = write_conll(tmp_path / "dev.conll", ["Ida/I-PER met/O", "the/O Peer/I-WORK Gynt/I-WORK"])
    with pytest.raises(UserError, match=r"dev.conll:5: the label 'B-WORK' is not among .*\(O, B-LOC.*2 of 5 words"):
        task.check(task.read(path), path)


def test_check_names_types_without_words(tmp_path):
    task, examples = fitted(tmp_path=tmp_path)
    remarks = list(task.remarks)
    task.check(examples, "train.conll")
    assert task.remarks == remarks
    # I- alone would be no type of its own
    path = write_conll(tmp_path / "dev.conll", ["Ida/I-PER met/O"])
    task.check(task.read(path), "dev.conll")
    assert task.remarks == [*remarks, "dev.conll: 2 of 4 labels have no word among its 2: 'LOC', 'ORG'."]
    plain, _ = fitted(PARTS, tmp_path)
    path = write_conll(tmp_path / "dev.conll", ["Ida/NOUN walked/VERB"])
    plain.check(plain.read(path), "dev.conll")
    assert plain.remarks[-1] == "dev.conll: 1 of 3 labels have no word among its 2: 'PUNCT'."


def test_sentences_of_the_same_words_are_known(tmp_path):
    task, train = fitted(tmp_path=tmp_path)
    same = task.read(write_conll(tmp_path / "dev.conll", [SENTENCES[0], "Ida/I-PER met/O"]))
    assert task.shared_with_training(train, same) == 1


def test_a_type_of_single_words_in_training_may_have_longer_entities_elsewhere(tmp_path):
    task, _ = fitted(["Ida/B-PER met/O Oslo/B-LOC"], tmp_path)
    path = write_conll(tmp_path / "dev.conll", ["Ida/B-PER Lund/I-PER met/O"])
    task.check(task.read(path), path)
    assert task.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["a/O b/O", "c/O"], "every label is 'O'; there is nothing to tell apart"),
        ([f"a{n}/b{n} c/d" for n in range(40)], "41 different labels for 80 words; is that the label's column"),
        (["a/O b/B-PER", "c/O d/PER"], r"train.conll:5: 'PER' is no prefix with a type, as other labels are"),
        (["a/O b/B-PER", "c/O d/B"], r"train.conll:5: 'B' is no prefix with a type, as other labels are"),
    ],
)
def test_labels_that_cannot_be_learned(tmp_path, sentences, message):
    with pytest.raises(UserError, match=message):
        fitted(sentences, tmp_path)


def test_a_table_of_texts_is_none_of_words(tmp_path):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nthe mill is old\tgood\nit is a mill\tbad\n")
    task = make_task()
    with pytest.raises(
        UserError, match=r"most of its words hold spaces \('the mill is old'\).*say --task classification"
    ):
        task.fit(task.read(str(tmp_path / "train.tsv")))


def test_broken_tags_are_counted_and_read_as_conlleval_reads_them(tmp_path):
    sentences = ["a/B-X b/I-X c/O", "d/O e/I-X f/I-X", "g/B-X h/I-X", "i/B-X j/B-Y"]
    task, examples = fitted(sentences, tmp_path)
    assert examples[1].tags == ["O", "B-X", "I-X"]
    assert task.remarks[0] == (
        f"1 of 10 labels of {tmp_path / 'train.conll'} stand where IOB2 does not allow them (the first in line 6); "
        "they are read as conlleval reads them."
    )
    task.read(str(tmp_path / "train.conll"))
    assert len(task.remarks) == len(set(task.remarks))

    # what IOB1 has no need of is read as it stands, and not worth a word
    task, examples = fitted(["a/I-X O/O b/I-Y c/B-X"] * 5, tmp_path)
    assert examples[0].tags == ["B-X", "O", "B-Y", "B-X"] and not task.remarks


def test_files_to_predict_on(tmp_path, tokenizers):
    trained, _ = fitted(tmp_path=tmp_path)
    task = make_task()
    task.load_state(trained.state())
    labelled = task.read(write_conll(tmp_path / "new.conll", ["Ida/I-PER met/O"]), labelled=False)
    assert labelled[0].tags == ["B-PER", "O"] and not task.remarks

    chunks = task.read(write_conll(tmp_path / "new.conll", ["Ida/B-NP met/B-VP"]), labelled=False)
    assert chunks[0].tags is None
    assert task.remarks == [
        f"{tmp_path / 'new.conll'}:1: 'B-NP' in the labels' column is no label of the model's; the file is read as one "
        "without labels, and of every line only the word. Running text, a text a line, goes to standard input: "
        "spanelectra predict --model MODEL < FILE."
    ]
    mixed = task.read(write_conll(tmp_path / "new.conll", ["Ida/B-PER met/O", "Ida/PER"]), labelled=False)
    assert [sentence.tags for sentence in mixed] == [None, None]
    (tmp_path / "words.conll").write_text("Ida\nmet\n\nOslo\n", encoding="utf-8")
    words = task.read(str(tmp_path / "words.conll"), labelled=False)
    features = task.features(words, tokenizers["BPE"], 16, training=False)
    logits = [np.ones((len(feature["input_ids"]), 7), np.float32) for feature in features]
    predictions = task.predict(words, features, logits)
    assert predictions == [
        {"words": ["Ida", "met"], "predicted": ["O", "O"], "probabilities": [0.1429, 0.1429]},  # of seven labels
        {"words": ["Oslo"], "predicted": ["O"], "probabilities": [0.1429]},
    ]
    with pytest.raises(UserError, match="no sentence has labels"):
        task.score(words, predictions)
    # those without labels among others do not count
    assert task.score(labelled + words, [{"predicted": ["B-PER", "O"]}, *predictions])["f1"] == 100.0


def test_columns_are_those_of_the_settings(tmp_path):
    (tmp_path / "four.conll").write_text("EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n", encoding="utf-8")
    path = str(tmp_path / "four.conll")
    assert make_task(task=None, preset="conll2003").read(path)[0].tags == ["B-ORG", "O"]
    parts = make_task(label_column="1", text_column="2").read(path)[0]
    assert (parts.words, parts.tags) == (["I-NP", "I-VP"], ["NNP", "VBZ"])
