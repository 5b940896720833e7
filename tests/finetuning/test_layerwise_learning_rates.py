"""Layer-wise rates: every parameter once, deeper is slower, and the formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DistilBertConfig,
    PreTrainedModel,
)

from factories import FAMILIES, encoder_config
from spanelectra.encoder_families import encoder_of
from spanelectra.finetuning.layerwise_learning_rates import depth_of, layerwise_groups

HEADS = (AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering)
LAYERS = 3


def make_model(family: str, head: Any) -> PreTrainedModel:
    return head.from_config(encoder_config(family, layers=LAYERS, embedding_size=16 if family == "electra" else None))


def rates(model: PreTrainedModel, decay: float) -> dict[str, float]:
    """Parameter's name -> its learning rate."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = layerwise_groups(model, learning_rate=1.0, decay=decay, weight_decay=0.1)
    listed = [(names[id(parameter)], group["lr"]) for group in groups for parameter in group["params"]]
    assert len(listed) == len(dict(listed))
    return dict(listed)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_the_rate_of_its_depth(family: str, head: Any) -> None:
    model = make_model(family, head)
    found = rates(model, 0.5)
    assert set(found) == {name for name, _ in model.named_parameters()}
    layer, prefix = "layers" if family == "modernbert" else "encoder.layer", model.base_model_prefix
    for name, rate in found.items():
        if name.startswith(f"{prefix}.embeddings"):
            expected = 0.5 ** (LAYERS + 1)
        elif name.startswith(f"{prefix}.{layer}."):
            number = int(name.removeprefix(f"{prefix}.{layer}.").split(".")[0])
            # the last of n layers is one step below the head, the first n steps
            expected = 0.5 ** (LAYERS - number)
        else:
            expected = 1.0
        assert rate == expected, name


@pytest.mark.parametrize("family", FAMILIES)
def test_without_decay_there_is_one_rate(family: str) -> None:
    assert set(rates(make_model(family, HEADS[0]), 1.0).values()) == {1.0}


def test_a_parameter_that_does_not_train_is_in_no_group() -> None:
    model = make_model("bert", HEADS[0])
    encoder_of(model).embeddings.requires_grad_(False)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(rates(model, 0.9)) == trained < {name for name, _ in model.named_parameters()}


def test_vectors_do_not_decay() -> None:
    model = make_model("electra", HEADS[1])
    for group in layerwise_groups(model, learning_rate=1e-3, decay=0.9, weight_decay=0.1):
        assert group["weight_decay"] == (0.1 if group["params"][0].dim() >= 2 else 0.0)
        assert len({parameter.dim() >= 2 for parameter in group["params"]}) == 1
        torch.optim.AdamW([group])


def test_other_families_names() -> None:
    config = DistilBertConfig(vocab_size=20, dim=8, n_layers=2, n_heads=2, hidden_dim=8, max_position_embeddings=8)
    found = rates(AutoModelForSequenceClassification.from_config(config), 0.5)
    assert found["distilbert.transformer.layer.0.ffn.lin1.weight"] == 0.25
    assert found["distilbert.transformer.layer.1.ffn.lin1.weight"] == 0.5
    assert found["distilbert.embeddings.word_embeddings.weight"] == 0.125
    assert found["classifier.weight"] == 1.0
    assert depth_of("h.4.attention.weight", 6) == depth_of("blocks.4.attention.weight", 6) == 5
