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
    for found, entry in zip(FineTunedModel.from_pretrained(runs / kind / "run").predict(texts), expected, strict=True):
        assert found["predicted"] == entry["predicted"] and found["text"] in texts
        # batches of other lengths round otherwise
        assert str(found["probabilities"])[:5] == str(entry["probabilities"])[:5]


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
    with pytest.raises(UserError, match="holds no model"):
        FineTunedModel.from_pretrained(runs)
