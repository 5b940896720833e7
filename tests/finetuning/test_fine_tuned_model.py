"""A fine-tuned model answers running text as it answers the same words in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.fine_tuning import finetune
from tiny_tasks import NAMES, PLACES, QUESTION, quick, save_encoder, write_task


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind that has learned its task."""
    directory = tmp_path_factory.mktemp("runs")
    save_encoder("modernbert", directory / "encoder", detector=True)
    for kind in ("classification", "token", "qa"):
        finetune(quick(directory / "encoder", write_task(directory / kind, kind), directory / kind / "run"))
    return directory


@pytest.mark.parametrize("kind", ["classification", "token"])
def test_texts_get_the_answers_of_the_file(kind: str, runs: Path) -> None:
    lines = (runs / kind / "run" / "seed-0" / "predictions-dev.jsonl").read_text(encoding="utf-8").splitlines()
    expected = [json.loads(line) for line in lines]
    texts = [" ".join(entry["words"]) if kind == "token" else entry["text"] for entry in expected]
    predictions = FineTunedModel.from_pretrained(runs / kind / "run").predict(texts)
    assert [found["text"] for found in predictions] == texts
    for found, entry in zip(predictions, expected, strict=True):
        assert found["predicted"] == entry["predicted"]
        # batches of other lengths round otherwise
        assert found["probabilities"] == pytest.approx(entry["probabilities"], abs=2e-4)


def test_entities_stand_where_they_are_in_the_text(runs: Path) -> None:
    model = FineTunedModel.from_pretrained(runs / "token" / "run" / "model", device="cpu")
    text = f"  the mill\t{NAMES[0]} by\n{PLACES[0]} a  river "
    tagged, empty = model.predict([text, " "])
    found = [(entity["type"], entity["text"]) for entity in tagged["entities"]]
    assert found == [("PER", NAMES[0]), ("LOC", PLACES[0])]
    for entity in tagged["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"] and 0.5 < entity["probability"] <= 1
        assert entity["probability"] == tagged["probabilities"][tagged["words"].index(entity["text"])]
    assert empty == {"text": " ", "entities": [], "words": [], "predicted": [], "probabilities": []}
    assert model.predict([]) == []


def test_questions_are_answered_from_their_contexts(runs: Path) -> None:
    model = FineTunedModel.from_pretrained(runs / "qa" / "run")
    first, second = model.predict([QUESTION, QUESTION], ["the mill turned two all day", "old trees past five boats"])
    assert (first["predicted"], second["predicted"]) == ("two", "five")
    assert (first["id"], second["id"]) == ("1", "2") and first["n_best"][0]["start"] == 16


def test_an_entity_beyond_the_first_window(runs: Path) -> None:
    model = FineTunedModel.from_pretrained(runs / "token" / "run")
    text = "the mill stood by a river " * 20 + f"{NAMES[1]} by {PLACES[1]} a river"
    (answer,) = model.predict([text])
    last = answer["entities"][-2:]
    assert [entity["text"] for entity in last] == [NAMES[1], PLACES[1]]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in last)


def test_pairs_numbers_and_plain_tags(runs: Path, tmp_path: Path) -> None:
    lines = [f"{first}\t{second}\t{number}" for number in range(4) for first in "ab" for second in ("mill", "river")]
    (tmp_path / "pairs.tsv").write_text("one\ttwo\tlabel\n" + "\n".join(lines) + "\n")
    files = {"train": str(tmp_path / "pairs.tsv"), "dev": str(tmp_path / "pairs.tsv")}
    settings = {"text_column": "one", "text_pair_column": "two", "regression": True, "epochs": 1}
    finetune(quick(runs / "encoder", files, tmp_path / "pairs", **settings))
    model = FineTunedModel.from_pretrained(tmp_path / "pairs")
    (answer,) = model.predict(["a"], ["river"])
    assert (answer["text"], answer["text_pair"]) == ("a", "river") and isinstance(answer["predicted"], float)
    with pytest.raises(UserError, match=r"needs the second text of every pair as well"):
        model.predict(["a"])
    with pytest.raises(UserError, match="context 1 is None, not text"):
        model.predict(["a"], [None])  # type: ignore[list-item]
    (tmp_path / "words.conll").write_text("the DET\nmill NOUN\n\na DET\nriver NOUN\n\n" * 8)
    files = {"train": str(tmp_path / "words.conll"), "dev": str(tmp_path / "words.conll")}
    finetune(quick(runs / "encoder", files, tmp_path / "words"))
    (answer,) = FineTunedModel.from_pretrained(tmp_path / "words").predict(["the river"])
    assert answer.keys() == {"text", "words", "predicted", "probabilities"}
    assert answer["predicted"] == ["DET", "NOUN"]


def test_it_warns_of_what_was_cut_once_a_call(runs: Path) -> None:
    model = FineTunedModel.from_pretrained(runs / "classification" / "run")
    for count in (50, 60):
        with pytest.warns(UserWarning, match="1 of 2 texts of the text that was given are longer than 32 tokens"):
            model.predict(["fine " * count, "bad"])
        assert not model.task.remarks


def test_what_does_not_fit_the_task(runs: Path) -> None:
    model = FineTunedModel.from_pretrained(runs / "qa" / "run")
    with pytest.raises(UserError, match=r"\(qa\) needs the text that holds the answer as well: give it as context"):
        model.predict([QUESTION])
    with pytest.raises(UserError, match="1 texts and 2 contexts"):
        model.predict([QUESTION], ["one", "two"])
    for texts, contexts in (("a text", None), ([QUESTION], "one")):
        with pytest.raises(UserError, match=r"a text alone is \['…'\]"):
            model.predict(texts, contexts)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"\(token\) needs no context"):
        FineTunedModel.from_pretrained(runs / "token" / "run").predict(["ida"], ["oslo"])
    for wrong, message in (
        (None, "text 2 is None, not text"),
        (1.5, "1.5, not text"),
        ("\udcff", "text 2 holds half a"),
    ):
        with pytest.raises(UserError, match=message):
            FineTunedModel.from_pretrained(runs / "token" / "run").predict(["ida", wrong])  # type: ignore[list-item]
    for place, message in (
        (runs / "encoder", "holds no model of .* If it is an encoder, fine-tune it first"),
        (runs / "token" / "run" / "seed-0", "is a part of the fine-tuning run"),
        (runs / "tokem", "does not exist.*Did you mean 'token'"),
    ):
        with pytest.raises(UserError, match=message):
            FineTunedModel.from_pretrained(place)
