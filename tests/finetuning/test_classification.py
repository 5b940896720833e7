"""Classification and regression: labels, scores against confusion matrices by hand, and a clear word for bad data."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from labelled_texts import WORDS, examples, scored, task, tokenizer
from transformers import BertConfig, BertForSequenceClassification

from spanelectra.errors import UserError
from spanelectra.finetuning.text_examples import Example

Write = Callable[..., str]


def test_labels_are_sorted_numbers_as_numbers(write: Write) -> None:
    for names, ordered in ((["10", "9", "-1"], ["-1", "9", "10"]), (["b", "10", "9"], ["10", "9", "b"])):
        classification = task()
        train = classification.read(write(*(f"text {n}\t{name}" for n, name in enumerate(names * 2))))
        classification.fit(train)
        assert classification.labels == ordered
        changes = classification.config_changes()
        assert changes["id2label"] == dict(enumerate(ordered)) and changes["num_labels"] == 3
        assert changes["label2id"] == {name: n for n, name in enumerate(ordered)}
        again = task()
        again.load_state(json.loads(json.dumps(classification.state())))
        assert again.config_changes() == changes


def test_training_needs_two_classes_and_not_one_for_each_text() -> None:
    with pytest.raises(UserError, match="every label is 'yes'"):
        task().fit(examples(["yes"] * 9))
    with pytest.raises(UserError, match=r"every label is 2\.5"):
        task(regression=True).fit(examples([2.5] * 9))
    with pytest.raises(UserError, match=r"30 different labels in 40 records.*--label_column.*--regression"):
        task().fit(examples([str(n % 30) for n in range(40)]))


def test_rare_unbalanced_and_fractional_labels_are_remarked_on() -> None:
    classification = task()
    classification.fit(examples(["0"] * 44 + ["1.5"] * 4))
    fraction, few, unbalanced = classification.remarks
    assert "'1.5'" in fraction and "--regression" in fraction
    assert "1 of 2 classes have fewer than 5 examples: '1.5' (4)" in few
    assert "'0' is 11 times as common as '1.5' (44 to 4)" in unbalanced
    balanced = task()
    balanced.fit(examples(["0"] * 50 + ["1"] * 5))
    assert balanced.remarks == []


def test_labels_that_differ_in_case_alone_are_remarked_on() -> None:
    classification = task()
    classification.fit(examples(["good"] * 6 + ["GOOD"] * 5 + ["bad"] * 5))
    (remark,) = classification.remarks
    assert remark.endswith("'GOOD' (5) and 'good' (6) differ in case alone, and are classes of their own.")


def test_check_refuses_a_label_that_training_never_saw() -> None:
    classification = task()
    classification.fit(examples(["good", "bad"] * 5))
    with pytest.raises(UserError, match=r"dev\.tsv:3: the label 'god' .* \(bad, good\)\. Did you mean 'good'\?"):
        classification.check(examples(["good", "bad", "god"], "b"), "dev.tsv")


def test_a_label_that_is_a_page_long_is_quoted_on_one_line() -> None:
    classification = task()
    classification.fit(examples(["good", "bad"]))
    with pytest.raises(UserError, match=r"the label '(a line ){8}a l…' is not among those of the training file"):
        classification.check(examples(["a line\n" * 45]), "dev.tsv")


def test_the_columns_of_training_are_remembered_for_other_files(write: Write) -> None:
    trained, other = task(), task()
    trained.fit(trained.read(write("text,label", "fine,good", "bad,poor", name="train.csv")))
    # while it is trained other files are read as they are
    assert trained.read(write("sentence,label", "fine,good", name="dev.csv"))[0].text == "fine"
    other.load_state(json.loads(json.dumps(trained.state())))
    assert other.read(write("note,label,text", "-,good,fine", name="more.csv"))[0].text == "fine"
    with pytest.raises(UserError, match="no column 'text' and no column 'label', as the training file had; choose"):
        other.read(write("file,kind,body", "a.txt,fine,good", name="docs.csv"))
    assert other.state() == trained.state()


def test_check_names_classes_without_examples() -> None:
    classification = task()
    classification.fit(examples([str(n % 8) for n in range(80)]))
    classification.check(examples([str(n) for n in range(8)]), "dev.tsv")
    assert classification.remarks == []
    classification.check(examples(["0", "7", "7"]), "dev.tsv")
    assert classification.remarks == [
        "dev.tsv: 6 of 8 classes have no example among its 3: '1', '2', '3', '4', '5', …."
    ]


def test_what_training_has_seen_is_the_whole_input() -> None:
    train = [*examples(["x", "y"] * 5, "a", "b"), Example(" ", " ", "x", "", 0)]
    assert task().shared_with_training(train, examples(["x", "y"] * 5, "a", "other")) == 0
    # an empty text is no leak
    assert task().shared_with_training(train, [*train[3:6], *examples(["x"] * 4, "new", "b"), train[-1]]) == 3


def test_empty_texts_are_counted_once(write: Write) -> None:
    classification = task()
    path = write("sentence\tlabel", "\tx", "  \ty", "a\tx")
    for _ in range(2):
        assert len(classification.read(path)) == 3
    assert ["2 of 3 records" in remark for remark in classification.remarks] == [True]


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        (["sentence", "a fine film", "a bad one"], [None, None]),
        (["a fine film", "a bad one"], [None, None]),
        (["index\tsentence", "0\ta fine film", "1\ta bad one"], [None, None]),
        (["sentence\tlabel", "a fine film\tgood", "a bad one\t-1"], ["good", None]),
        (["a fine film\tgood", "a bad one\tbad"], ["good", "bad"]),
        (["a fine film\t17", "a bad one\t18"], [None, None]),
    ],
)
def test_a_file_to_predict_on_may_lack_labels(lines: list[str], labels: list[str | None], write: Write) -> None:
    classification = task()
    classification.load_state({"labels": ["bad", "good"]})
    read = classification.read(write(*lines), labelled=False)
    assert [example.text for example in read] == ["a fine film", "a bad one"]
    assert [example.label for example in read] == labels
    strange = sum(line.split("\t")[-1] in ("-1", "17", "18") for line in lines)
    assert [f"{strange} of 2 labels" in remark for remark in classification.remarks] == [True][: bool(strange)]


def test_the_label_column_of_training_may_be_absent_when_predicting(write: Write) -> None:
    path = write("Quality\t#1 String\t#2 String", "1\ta\tb", name="a.tsv")
    bare = write("#1 String\t#2 String", "a\tb", name="b.tsv")
    classification = task(preset="mrpc")
    classification.load_state({"labels": ["0", "1"]})
    assert classification.read(path, labelled=False)[0].label == "1"
    (example,) = classification.read(bare, labelled=False)
    assert (example.text, example.text_pair, example.label) == ("a", "b", None)
    with pytest.raises(UserError, match="no column 'Quality'"):
        classification.read(bare)


def test_features_are_those_of_the_tokenizer_and_pairs_are_separated() -> None:
    classification = task(max_length=12)
    classification.load_state({"labels": ["x", "y"]})
    pairs = [Example("a b", "c", "y", "f", 1), Example("d", "", "x", "f", 2)]
    first, second = classification.features(pairs, tokenizer(), 12, training=True)
    assert first == {
        "input_ids": [2, 4, 5, 3, 6, 3],
        "token_type_ids": [0, 0, 0, 0, 1, 1],
        "attention_mask": [1] * 6,
        "labels": 1,
        "example": 0,
    }
    assert second["input_ids"] == [2, 7, 3, 3] and second["labels"] == 0 and second["example"] == 1
    assert all("labels" not in feature for feature in classification.features(pairs, tokenizer(), 12, training=False))
    with pytest.raises(UserError, match="nothing between the two texts"):
        classification.features(pairs, tokenizer(separates=False), 12, training=True)


def test_long_texts_are_cut_and_counted_across_batches(caplog: pytest.LogCaptureFixture) -> None:
    classification = task(max_length=8)
    texts = ["a " * (1 + n % 9) for n in range(2100)]
    whole = [Example(text, None, None, "dev.tsv", n) for n, text in enumerate(texts)]
    features = classification.features(whole, tokenizer(), 8, training=False)
    for n, feature in enumerate(features):
        length = min(6, 1 + n % 9)
        assert feature["input_ids"] == [2, *[4] * length, 3] and feature["example"] == n
        assert len(feature["attention_mask"]) == len(feature["token_type_ids"]) == length + 2
    cut = sum(1 + n % 9 > 6 for n in range(2100))
    (remark,) = classification.remarks
    assert f"{cut:,} of 2,100 texts of dev.tsv are longer than 8 tokens" in remark and "longest has 11" in remark
    assert not caplog.records


@pytest.mark.parametrize("regression", [False, True])
def test_the_stock_model_trains_on_a_batch_of_features(regression: bool) -> None:
    classification = task(regression=regression)
    read = examples([1.5, -2.0, 3.0] if regression else ["x", "y", "z"])
    classification.fit(read)
    features = classification.features(read, tokenizer(), 16, training=True)
    batch = classification.collator(tokenizer())([{**feature} for feature in features])
    del batch["example"]
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    config.update(classification.config_changes())
    torch.manual_seed(0)
    output = BertForSequenceClassification(config).eval()(**batch)
    if regression:
        labels = torch.tensor([1.5, -2.0, 3.0])
        standardised = (labels - labels.mean()) / labels.std(correction=0)
        expected = torch.nn.functional.mse_loss(output.logits[:, 0], standardised)
    else:
        expected = torch.nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(output.loss, expected)


def test_predictions_say_label_and_probabilities() -> None:
    classification = task()
    classification.load_state({"labels": ["bad", "good"]})
    read = [Example("a", "b", "good", "f", 1), Example("c", "d", None, "f", 2)]
    features = classification.features(read, tokenizer(), 16, training=False)
    logits = [np.float32([0, math.log(3)]), np.float32([1000, 0])]
    assert classification.predict(read, features, logits) == [
        {
            "text": "a",
            "text_pair": "b",
            "predicted": "good",
            "probabilities": {"bad": 0.25, "good": 0.75},
            "label": "good",
        },
        {"text": "c", "text_pair": "d", "predicted": "bad", "probabilities": {"bad": 1.0, "good": 0.0}},
    ]
    numbers = task(regression=True)
    predicted = numbers.predict([Example("a", None, 2.0, "f", 1)], [{"example": 0}], [np.float32([2.5])])
    assert predicted == [{"text": "a", "predicted": 2.5, "label": 2.0}]
    for value in (2.5e-12, 1234567.0):
        (prediction,) = numbers.predict([Example("a", None, None, "f", 1)], [{"example": 0}], [np.float32([value])])
        assert prediction["predicted"] == pytest.approx(value, rel=1e-6)


def test_scores_of_two_classes_are_those_of_the_confusion_matrix() -> None:
    true_positive, false_positive, false_negative, true_negative = 6, 3, 2, 9
    labels = ["1"] * 6 + ["0"] * 3 + ["1"] * 2 + ["0"] * 9
    predicted = ["1"] * 9 + ["0"] * 11
    f1 = 2 * true_positive / (2 * true_positive + false_positive + false_negative)
    f1_of_0 = 2 * true_negative / (2 * true_negative + false_positive + false_negative)
    matthews = (true_positive * true_negative - false_positive * false_negative) / math.sqrt(9 * 8 * 12 * 11)
    assert scored(labels, predicted) == pytest.approx(
        {"accuracy": 75, "f1": 100 * f1, "macro_f1": 50 * (f1 + f1_of_0), "matthews": 100 * matthews}
    )


@pytest.mark.parametrize("labels", [["bad", "good"], ["bad", "fair", "good"]])
def test_it_is_said_of_which_of_two_classes_f1_is(labels: list[str]) -> None:
    classification = task()
    classification.load_state({"labels": labels})
    of_good = ["f1 is that of 'good', the second of the two classes; macro_f1 is the mean of both"]
    assert classification.notes() == (of_good if len(labels) == 2 else [])


def test_of_more_classes_f1_is_the_mean_over_them() -> None:
    # class 0: 1 right, predicted 2 times, there 2 times; class 1: 1, 1, 2; class 2: 1, 2, 1
    scores = scored(["0", "0", "1", "1", "2"], ["0", "2", "1", "0", "2"])
    mean = (2 * 1 / 4 + 2 * 1 / 3 + 2 * 1 / 3) / 3
    assert scores["f1"] == scores["macro_f1"] == pytest.approx(100 * mean)
    # Gorodkin's generalisation: (n·right - Σ there·predicted) / √((n² - Σ predicted²)(n² - Σ there²))
    assert scores["matthews"] == pytest.approx(100 * (5 * 3 - 8) / math.sqrt((25 - 9) * (25 - 9)))


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [(["0", "1", "1"], ["0"] * 3), (["0"] * 3, ["1"] * 3), (["0"] * 3, ["0"] * 3), (["0", "1", "2"], ["2"] * 3)],
)
def test_constant_predictions_score_0_not_nan(labels: list[str], predicted: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = scored(labels, predicted)
    assert scores["matthews"] == 0 and all(math.isfinite(score) for score in scores.values())


def test_examples_without_label_are_not_scored() -> None:
    classification = task()
    classification.load_state({"labels": ["0", "1"]})
    predictions = [{"predicted": "1"}, {"predicted": "1"}]
    assert classification.score(examples(["1", None]), predictions)["accuracy"] == 100
    with pytest.raises(UserError, match="no example has a label"):
        classification.score(examples([None, None]), predictions)


def test_the_baseline_is_the_commonest_label_of_training() -> None:
    classification = task()
    train = examples(["neg"] * 4 + ["pos"] * 6)
    classification.fit(train)
    baseline = classification.baseline(train, examples(["neg", "neg", "neg", "pos"]))
    assert baseline.name == "always 'pos'"
    assert baseline.scores == pytest.approx({"accuracy": 25, "f1": 100 * 2 / 5, "macro_f1": 100 * 1 / 5, "matthews": 0})
    assert classification.metric in baseline.scores


def test_collapse_is_the_same_answer_for_different_labels() -> None:
    def verdict(predicted: list[Any], labels: list[Any], regression: bool = False) -> str | None:
        pairs = zip(predicted, labels, strict=True)
        return task(regression=regression).collapse(
            [{"predicted": answer} | ({} if label is None else {"label": label}) for answer, label in pairs]
        )

    assert verdict(["x"] * 3, ["x", "y", "x"]) == verdict(["x"] * 3, [None] * 3) == "always 'x'"
    assert verdict(["x", "x", "y"], ["x", "y", "x"]) is None
    assert verdict(["x"] * 3, ["x"] * 3) is None
    assert verdict(["x"], [None]) is None
    assert verdict([2.0, 2.001, 2.002], [0.0, 5.0, 1.0], regression=True) == "always about 2.001"
    assert verdict([2.0, 2.5, 3.0], [0.0, 5.0, 1.0], regression=True) is None
    assert verdict([2.0, 2.001], [None, None], regression=True) is None
