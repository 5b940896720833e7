"""Questions in SQuAD's layout, files of them, and two small tokenizers trained on their contexts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from spanelectra.data.tokenization import load_tokenizer, vocab

RIVER = (
    "The river rises in the hills north of Alder. It runs past two mills, 1,250 houses and the old bridge; in spring "
    "it floods the meadows.\n\nFishermen call it the Grey Lady 🐟, since its water is never clear. Boats of up to six "
    "metres may sail from the bridge to the sea, but only with a pilot."
)
TOWER = (
    "Café owners paid for the tower in 1893. It is 61 metres high — the highest in the county — and was built of oak "
    "by Ida Lund's brothers, who had never built anything before."
)
QUESTIONS: dict[str, list[tuple[str, list[str]]]] = {
    RIVER: [
        ("Where does the river rise?", ["in the hills north of Alder", "the hills"]),
        ("How many houses stand at the river?", ["1,250"]),
        ("What do fishermen call it?", ["the Grey Lady 🐟", "Grey Lady"]),
        ("How long may boats be?", ["up to six metres"]),
        ("Who owns the mills?", []),
        ("What is needed to sail?", ["a pilot"]),
    ],
    TOWER: [
        ("Who paid for the tower?", ["Café owners"]),
        ("When was it paid for?", ["1893"]),
        ("How high is the tower?", ["61 metres"]),
        ("Who designed the tower?", []),
        ("Who built the tower?", ["Ida Lund's brothers, who had never built anything before", "Ida Lund's brothers"]),
    ],
}


def squad(*, unanswerable: bool = True) -> dict[str, Any]:
    """SQuAD's layout, 2.0's with the questions that have no answer, else 1.1's."""
    paragraphs = []
    for context, questions in QUESTIONS.items():
        qas = []
        for number, (question, texts) in enumerate(questions):
            answers = [{"text": text, "answer_start": context.index(text)} for text in texts]
            record: dict[str, Any] = {"id": f"{len(paragraphs)}-{number}", "question": question, "answers": answers}
            if unanswerable:
                record["is_impossible"] = not answers
            if answers or unanswerable:
                qas.append(record)
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "2.0", "data": [{"title": "Alder", "paragraphs": paragraphs}]}


def flat_records(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The records that `datasets` makes of SQuAD's layout."""
    return [
        {
            "id": record["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": record["question"],
            "answers": {key: [answer[key] for answer in record["answers"]] for key in ("text", "answer_start")},
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for record in paragraph["qas"]
    ]


def write_squad(path: Path, content: Any, **options: Any) -> str:
    """Write JSON; returns the path."""
    path.write_text(json.dumps(content, **options), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def squad_tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    """Byte-level BPE and WordPiece as the command ``vocab`` trains them."""
    directory = tmp_path_factory.mktemp("squad")
    (directory / "text.txt").write_text("\n\n".join(QUESTIONS), encoding="utf-8")
    tokenizers = {}
    for kind, size in (("BPE", 330), ("BERT", 160)):
        vocab(str(directory / "text.txt"), str(directory / kind), kind, size, quiet=True)  # type: ignore[arg-type]
        tokenizers[kind] = load_tokenizer(directory / kind)
    return tokenizers
