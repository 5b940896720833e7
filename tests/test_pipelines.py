"""What we write opens with transformers' `pipeline` and means there what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, pipeline

from factories import FAMILIES, encoder_config, perturb
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.export import save_tokenizer

TEXT = "The names in the module are listed."
LABELS = ["red", "green", "blue"]


@pytest.fixture(scope="session", params=["BPE", "WordPiece"])
def tokenizer(request: pytest.FixtureRequest, rows: Path, other_rows: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer((rows if request.param == "BPE" else other_rows) / "tokenizer")


def save_model(directory: Path, family: str, head: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A stock model with random weights and its tokenizer, as `export` and `finetune` write them."""
    config = encoder_config(family)
    config.vocab_size = len(tokenizer)
    if head in ("SequenceClassification", "TokenClassification"):
        config.id2label, config.label2id = dict(enumerate(LABELS)), {label: n for n, label in enumerate(LABELS)}
    if family == "modernbert":
        config.classifier_pooling = "mean"
    torch.manual_seed(0)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    perturb(model)
    model.save_pretrained(directory)
    save_tokenizer(tokenizer, directory, config.max_position_embeddings)
    return model.eval()


@torch.no_grad()
def probabilities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *texts: str) -> torch.Tensor:
    """(labels,) or (length, labels) of one text or pair, as the model computes them itself."""
    inputs = tokenizer(*texts, return_tensors="pt")
    return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0].softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_classification_of_sentences_and_pairs(
    family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = save_model(tmp_path, family, "SequenceClassification", tokenizer)
    classify = pipeline("text-classification", str(tmp_path))
    pair: dict[str, Any] = {"text": TEXT, "text_pair": "An error."}
    for given, texts in ((TEXT, (TEXT,)), (pair, (TEXT, "An error."))):
        expected = probabilities(model, tokenizer, *texts)
        found = classify(given, top_k=None)
        assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(
            dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-6
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_token_classification(family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = save_model(tmp_path, family, "TokenClassification", tokenizer)
    found = pipeline("token-classification", str(tmp_path), ignore_labels=[])(TEXT)
    expected = probabilities(model, tokenizer, TEXT)
    offsets = tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"]
    assert [entry["index"] for entry in found] == list(range(1, len(expected) - 1))
    for entry in found:
        score, label = expected[entry["index"]].max(0)
        assert (entry["entity"], entry["score"]) == (LABELS[label], pytest.approx(score.item(), abs=1e-6))
        assert (entry["start"], entry["end"]) == offsets[entry["index"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_filling_a_mask(family: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = save_model(tmp_path, family, "MaskedLM", tokenizer)
    text = f"The names in the {tokenizer.mask_token} are listed."
    best = pipeline("fill-mask", str(tmp_path))(text)[0]
    place = tokenizer(text)["input_ids"].index(tokenizer.mask_token_id)
    score, token = probabilities(model, tokenizer, text)[place].max(0)
    assert (best["token"], best["score"]) == (token.item(), pytest.approx(score.item(), abs=1e-6))
