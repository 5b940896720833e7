"""Question answering from files to scores: logits that point at the right answers, and a tiny model that learns."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torchmetrics.functional.text.squad import squad as reference_scores
from transformers import BertConfig, BertForQuestionAnswering

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.inference import predict_logits
from spanelectra.finetuning.question_answering import QuestionAnswering
from spanelectra.finetuning.question_windows import answer_positions
from spanelectra.finetuning.squad_files import Answer, Question
from squad_examples import RIVER, TOWER, squad, squad_tokenizers, write_squad  # noqa: F401 - fixture

KINDS = pytest.mark.parametrize("kind", ["BPE", "BERT"])


def make_task(**settings):
    files = {name: name for name in ("model", "train", "dev", "out_dir")}
    return QuestionAnswering(FineTuningArguments(**{"task": "qa", "max_length": 64, **files, **settings}).resolved())


@pytest.fixture
def tokenizer(kind, squad_tokenizers):  # noqa: F811
    return squad_tokenizers[kind]


def read(task, tmp_path, **options):
    return task.read(write_squad(tmp_path / "squad.json", squad(**options)))


def learned_answers(examples, features):
    """For each example the first of its answers that a window holds as a whole."""
    windows = [[feature for feature in features if feature["example"] == number] for number in range(len(examples))]
    return [
        next((answer for answer in example.answers or () if any(answer_positions(f, answer) for f in own)), None)
        for example, own in zip(examples, windows, strict=True)
    ]


def pointing_logits(examples, features, *, noise=1.0, strength=20.0):
    """Logits that say where the answer is, or 'no answer' where a window has none, under noise."""
    random = np.random.default_rng(0)
    logits = []
    answers = learned_answers(examples, features)
    for feature in features:
        values = noise * random.normal(size=(len(feature["input_ids"]), 2))
        answer = answers[feature["example"]]
        start, end = (answer and answer_positions(feature, answer)) or (0, 0)
        values[start, 0] += strength
        values[end, 1] += strength
        logits.append(values.astype(np.float32))
    return logits


@KINDS
@pytest.mark.parametrize("max_length", [64, 128, 512])
@pytest.mark.parametrize("unanswerable", [True, False])
def test_right_logits_make_right_answers(tokenizer, tmp_path, max_length, unanswerable):
    task = make_task(max_answer_length=100)
    examples = read(task, tmp_path, unanswerable=unanswerable)
    task.fit(examples)
    features = task.features(examples, tokenizer, max_length, training=False)
    assert (len(features) > len(examples)) == (max_length < 512)
    logits = pointing_logits(examples, features)
    task.choose(examples, features, logits)
    predictions = task.predict(examples, features, logits)
    assert set(task.score(examples, predictions).values()) == {100.0}
    answers = learned_answers(examples, features)
    for example, answer, prediction in zip(examples, answers, predictions, strict=True):
        assert prediction["id"] == example.id and prediction["answers"] == example.answer_texts
        assert prediction["predicted"] == (answer.text if answer else "")
        # fewer than 20 where tokens share a character
        different = {(candidate["start"], candidate["text"]) for candidate in prediction["n_best"]}
        assert 15 < len(different) == len(prediction["n_best"]) <= 20
        scores = [candidate["score"] for candidate in prediction["n_best"]]
        assert scores == sorted(scores, reverse=True)
        for candidate in prediction["n_best"]:
            assert candidate["text"] == example.context[candidate["start"] :][: len(candidate["text"])].strip()
        above = task.null_threshold is not None and prediction["no_answer_score"] > task.null_threshold
        assert above == example.is_unanswerable
    assert task.remarks == [] and (task.null_threshold is None) == (not unanswerable)
    json.dumps(predictions, allow_nan=False)


@KINDS
@pytest.mark.parametrize("max_length", [64, 512])
def test_training_labels_are_an_answer_or_cls(tokenizer, tmp_path, max_length):
    task = make_task()
    examples = read(task, tmp_path)
    features = task.features(examples, tokenizer, max_length, training=True)
    learned = set()
    answers = learned_answers(examples, features)
    for feature in features:
        example, answer = examples[feature["example"]], answers[feature["example"]]
        start = feature["context_start"]
        first, last = feature["start_positions"], feature["end_positions"]
        if (first, last) == (0, 0):
            assert not example.answers or answer_positions(feature, answer) is None
            continue
        text = example.context[feature["offsets"][first - start, 0] : feature["offsets"][last - start, 1]]
        assert text == answer.text
        learned.add(example.id)
    assert learned == {example.id for example in examples if example.answers}
    untaught = task.features(examples, tokenizer, max_length, training=False)
    assert len(untaught) == len(features) and not any("start_positions" in feature for feature in untaught)


@KINDS
def test_what_cannot_be_learned_is_left_out_and_counted(tokenizer):
    context = "one two three " * 40
    examples = [
        Question("short", "Which?", context, (Answer("nowhere", None), Answer("three", 8))),
        Question("lost", "Which?", context, (Answer("nowhere", None),)),
        Question("long", "Which?", context, (Answer(context.strip(), 0),)),
        Question("none", "Which?", context, ()),
        Question("wordy " * 40, "Which, and why? " * 20, context, ()),
    ]
    task = make_task(max_answer_length=1)
    features = task.features(examples, tokenizer, 64, training=True)
    assert {feature["example"] for feature in features} == {0, 3, 4}
    cut, large, long = task.remarks
    assert cut.startswith("1 of 5 questions are longer than half of max_length 64 and were cut")
    assert large.startswith("1 of 5 training questions are left out") and large.endswith("id long.")
    assert long.startswith("1 of 5 training questions have an answer of more than 1 tokens")
    task.features(examples, tokenizer, 64, training=True)
    assert len(task.remarks) == 3
    with pytest.raises(UserError, match="no question of training can be learned"):
        task.features(examples[1:3], tokenizer, 64, training=True)
    first, last = next(span for feature in features if (span := answer_positions(feature, examples[0].answers[1])))
    for length, remarks in ((last - first + 1, 0), (last - first, 1)):
        task = make_task(max_answer_length=length)
        task.features(examples[:1], tokenizer, 64, training=True)
        assert len(task.remarks) == remarks


@KINDS
def test_the_threshold_is_the_best_for_the_metric_and_is_kept(tokenizer, tmp_path):
    settings = {"metric": "exact_match", "n_best": 3}
    task = make_task(**settings)
    examples = read(task, tmp_path)
    task.fit(examples)
    assert task.state() == {"null_threshold": 0.0}
    features = task.features(examples, tokenizer, 64, training=False)
    logits = pointing_logits(examples, features, noise=6.0, strength=9.0)
    task.choose(examples, features, logits)
    predictions = task.predict(examples, features, logits)
    best = task.score(examples, predictions)["exact_match"]
    assert 20 < best < 100
    other = make_task(**settings)
    other.load_state(json.loads(json.dumps(task.state())))
    assert other.predict(examples, features, logits) == predictions
    for threshold in [None, *(prediction["no_answer_score"] for prediction in predictions)]:
        other.load_state({"null_threshold": threshold})
        assert other.score(examples, other.predict(examples, features, logits))["exact_match"] <= best
    answerable = [example for example in examples if example.answers]
    task.choose(answerable, [], [])
    assert task.state() == {"null_threshold": None}


@KINDS
@pytest.mark.parametrize(("metric", "answers"), [("f1", True), ("exact_match", False)])
def test_the_threshold_may_differ_by_metric(tokenizer, metric, answers):
    # two answers that are right in part, and one where there is none, which the model is surest to have found
    context = "one two three four"
    examples = [Question("none", "Which?", context, ())]
    examples += [Question(name, "Which?", context, (Answer("one two three", 0),)) for name in ("a", "b")]
    task = make_task(metric=metric)
    features = task.features(examples, tokenizer, 64, training=False)
    logits = [np.zeros((len(feature["input_ids"]), 2), np.float32) for feature in features]
    for feature, values, score in zip(features, logits, (9.0, 8.0, 7.0), strict=True):
        first, last = answer_positions(feature, Answer("two three", 4))
        values[first, 0] = values[last, 1] = score
    task.choose(examples, features, logits)
    predictions = task.predict(examples, features, logits)
    assert [prediction["predicted"] for prediction in predictions] == ["two three" if answers else ""] * 3


TEXTS = ["the hills", "1,250", "", "six metres", "mills", "a", "café OWNERS!", "", "61", "", "Ida Lund's brothers"]


def test_scores_are_torchmetrics_and_their_parts_add_up(tmp_path):
    task = make_task()
    examples = read(task, tmp_path)
    predictions = [{"id": example.id, "predicted": text} for example, text in zip(examples, TEXTS, strict=True)]
    scores = task.score(examples, predictions)
    answerable = [number for number, example in enumerate(examples) if example.answers]
    reference = reference_scores(
        [{"id": examples[number].id, "prediction_text": TEXTS[number]} for number in answerable],
        [
            {"id": examples[number].id, "answers": {"text": examples[number].answer_texts, "answer_start": []}}
            for number in answerable
        ],
    )
    for name in ("exact_match", "f1"):
        assert scores[f"has_answer_{name}"] == pytest.approx(reference[name].item(), abs=1e-4)
        assert scores[f"no_answer_{name}"] == 50.0
        total = 9 * scores[f"has_answer_{name}"] + 2 * scores[f"no_answer_{name}"]
        assert scores[name] == pytest.approx(total / 11)
    assert 0 < scores["exact_match"] < scores["f1"] < 100
    only = [examples[number] for number in answerable]
    assert task.score(only, [predictions[number] for number in answerable]).keys() == {"exact_match", "f1"}


def test_questions_whose_answer_nobody_knows_are_predicted_but_not_scored(tmp_path, squad_tokenizers):  # noqa: F811
    task = make_task()
    unknown = [
        Question("1", "Who?", RIVER, None),
        Question("2", "Who?", RIVER, (Answer("a pilot", RIVER.index("a pilot")),)),
    ]
    features = task.features(unknown, squad_tokenizers["BPE"], 64, training=False)
    predictions = task.predict(unknown, features, pointing_logits(unknown, features))
    assert "answers" not in predictions[0] and predictions[0]["predicted"]
    assert task.score(unknown, predictions) == {"exact_match": 100.0, "f1": 100.0}
    with pytest.raises(UserError, match="nothing to score"):
        task.score(unknown[:1], predictions[:1])


def test_the_baseline_is_no_answer_or_the_first_sentence(tmp_path):
    task = make_task()
    both, answerable = read(task, tmp_path), read(task, tmp_path, unanswerable=False)
    baseline = task.baseline([question for question in both if question.is_unanswerable], both)
    assert baseline.name == "always 'no answer'"
    assert baseline.scores["f1"] == pytest.approx(100 * 2 / 11) and baseline.scores["no_answer_f1"] == 100
    # one question without an answer does not make it the best guess
    one = next(question for question in both if question.is_unanswerable)
    assert task.baseline([one, *9 * answerable], both).name == "the context's first sentence"
    # nor do questions that both get wrong
    assert make_task(metric="exact_match").baseline(answerable, answerable).name == "the context's first sentence"
    baseline = task.baseline(answerable, answerable)
    assert baseline.name == "the context's first sentence" and baseline.scores["exact_match"] == 0
    first = reference_scores(
        [{"id": "1", "prediction_text": "The river rises in the hills north of Alder."}],
        [{"id": "1", "answers": {"text": answerable[0].answer_texts, "answer_start": []}}],
    )
    single = task.baseline(answerable, answerable[:1]).scores
    assert single["f1"] == pytest.approx(first["f1"].item(), abs=1e-4) and single["f1"] > 50


def test_collapse():
    task = make_task()
    texts = {"no": ["", "", ""], "one": ["mills", "mills", "mills"], "two": ["mills", "mills", ""]}
    right = [["a"], [], ["b", "c"]]
    verdicts = {
        name: task.collapse(
            [{"predicted": text, "answers": answers} for text, answers in zip(texts[name], right, strict=True)]
        )
        for name in texts
    }
    assert verdicts == {"no": "always 'no answer'", "one": "always 'mills'", "two": None}
    # what all files say is no collapse, and one example proves nothing
    assert task.collapse([{"predicted": "", "answers": []}] * 3) is None
    assert task.collapse([{"predicted": "mills", "answers": ["a"]}]) is None
    assert task.collapse([{"predicted": "mills"}] * 2) == "always 'mills'"


def test_remarks_on_files_that_do_not_fit_together(tmp_path):
    task = make_task()
    train = read(task, tmp_path, unanswerable=False)
    task.fit(train)
    assert task.null_threshold is None
    task.check(read(task, tmp_path), "dev.json")
    (abstaining,) = task.remarks
    assert re.match(r"dev\.json: 2 of 11 questions have no answer, but all of training have", abstaining)
    # as evaluation opens a model
    for unanswerable, remarks in ((True, 0), (False, 1)):
        trained, opened = make_task(), make_task()
        trained.fit(read(trained, tmp_path, unanswerable=unanswerable))
        opened.load_state(trained.state())
        opened.check(read(opened, tmp_path), "dev.json")
        assert len(opened.remarks) == remarks


def test_a_context_that_training_has_is_known_whatever_is_asked():
    train = [Question("1", "Who?", "Ida did it.", ()), Question("2", "Why?", " ", ())]
    dev = [Question("1", "When?", "Ida did it.", ()), Question("2", "Who?", "Jack did it.", ()), train[1]]
    assert make_task().shared_with_training(train, dev) == 1


def test_whitespace_is_no_answer(squad_tokenizers):  # noqa: F811
    task = make_task()
    example = Question("1", "Who?", "a\n\n\n\nb", (Answer("b", 5),))
    (feature,) = task.features([example], squad_tokenizers["BPE"], 64, training=False)
    texts = [example.context[first:end] for first, end in feature["offsets"].tolist()]
    assert texts[0] == "a" and texts[-1] == "b" and set(texts[1:-1]) == {""}
    logits = np.zeros((len(feature["input_ids"]), 2), dtype=np.float32)
    logits[feature["context_start"] + 1] = 9.0  # a newline
    logits[feature["context_start"] + len(texts) - 1] = 5.0
    (prediction,) = task.predict([example], [feature], [logits])
    assert [candidate["text"] for candidate in prediction["n_best"]] == ["b", "a\n\n\n\nb", "a"]


@KINDS
@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_context_without_text_has_no_answer(tokenizer, threshold):
    task = make_task()
    task.load_state({"null_threshold": threshold})
    examples = [Question("1", "Where?", "", ()), Question("2", "Where?", RIVER, ())]
    features = task.features(examples, tokenizer, 64, training=False)
    predictions = task.predict(
        examples, features, [np.ones((len(feature["input_ids"]), 2), np.float32) for feature in features]
    )
    assert predictions[0]["predicted"] == "" and predictions[0]["n_best"] == []
    assert predictions[0]["no_answer_score"] == 0.0 and predictions[1]["predicted"]


@pytest.mark.parametrize("kind", ["BPE"])
def test_a_tiny_model_learns_the_answers(tokenizer, tmp_path):
    task = make_task(max_answer_length=100)
    examples = [example for example in read(task, tmp_path) if example.context == TOWER]
    task.fit(examples)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    for name, value in task.config_changes().items():
        setattr(config, name, value)
    model = BertForQuestionAnswering(config)
    assert model.qa_outputs.out_features == 2 and model.config.id2label == {0: "start", 1: "end"}
    names = {"input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions"}
    taught = [
        {name: feature[name] for name in names & feature.keys()}
        for feature in task.features(examples, tokenizer, 128, training=True)
    ]
    batch = task.collator(tokenizer)(taught)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    features = task.features(examples, tokenizer, 128, training=False)
    logits = predict_logits(model, tokenizer, features, 4)
    task.choose(examples, features, logits)
    scores = task.score(examples, task.predict(examples, features, logits))
    assert scores["f1"] > 90, (loss.item(), scores)
