"""Stock configurations and models: shapes, verdict labels, scaling, and what cannot be built."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertForMaskedLM,
    BertForTokenClassification,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ModernBertForMaskedLM,
    ModernBertForTokenClassification,
)

from factories import FAMILIES, TOKEN_IDS, encoder_config
from spanelectra.encoder_families import (
    build_detector,
    build_masked_language_model,
    embedding_size,
    encoder_family,
    encoder_of,
    make_encoder_config,
    scale_encoder_config,
    set_encoder_of,
)
from spanelectra.errors import UserError

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "embedding_size": None,
    "max_position_embeddings": 40,
    "dropout": 0.25,
    "token_ids": TOKEN_IDS,
}


@pytest.mark.parametrize(
    ("family", "language_model", "detector"),
    [
        ("electra", ElectraForMaskedLM, ElectraForPreTraining),
        ("modernbert", ModernBertForMaskedLM, ModernBertForTokenClassification),
        ("bert", BertForMaskedLM, BertForTokenClassification),
    ],
)
def test_models_are_the_stock_classes(family, language_model, detector):
    assert type(build_masked_language_model(encoder_config(family))) is language_model
    assert type(build_detector(encoder_config(family))) is detector


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_token_classifier_names_its_verdicts(family):
    config = build_detector(encoder_config(family)).config
    assert config.id2label == {0: "original", 1: "replaced"}
    assert config.label2id == {"original": 0, "replaced": 1}


@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_a_configuration_has_the_shape_it_was_asked_for(family):
    config = make_encoder_config(family, **SHAPE)
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        assert getattr(config, name) == SHAPE[name]
    assert config.max_position_embeddings == 40
    assert embedding_size(config) == 32
    assert config.pad_token_id == 0


@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_dropout_reaches_every_dropout_layer(family):
    for model in (build_masked_language_model, build_detector):
        rates = [m.p for m in model(make_encoder_config(family, **SHAPE)).modules() if isinstance(m, torch.nn.Dropout)]
        assert rates and set(rates) == {0.25}


def test_modernbert_attends_to_the_whole_row_in_every_layer():
    assert make_encoder_config("modernbert", **SHAPE).layer_types == ["full_attention"] * 3


def test_a_factorised_embedding_is_electras_alone():
    assert embedding_size(make_encoder_config("electra", **(SHAPE | {"embedding_size": 16}))) == 16
    with pytest.raises(UserError, match="embedding_size 16"):
        make_encoder_config("modernbert", **(SHAPE | {"embedding_size": 16}))


@pytest.mark.parametrize(
    "name", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size"]
)
@pytest.mark.parametrize("size", [0, -4])
def test_an_impossible_size_is_named(name, size):
    with pytest.raises(UserError, match=f"{name} must be at least 1, got {size}"):
        make_encoder_config("electra", **(SHAPE | {name: size}))


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(UserError, match=r"hidden_size 32 .* num_attention_heads 5"):
        make_encoder_config("electra", **(SHAPE | {"num_attention_heads": 5}))


def test_an_unknown_family_is_named_with_the_nearest_known_one():
    with pytest.raises(UserError, match=r"'modernbrt' .* Did you mean 'modernbert'"):
        encoder_family("modernbrt")


def test_bert_can_only_be_continued():
    with pytest.raises(UserError, match="--init_from"):
        make_encoder_config("bert", **SHAPE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_half_size_generator_has_half_the_width_and_heads_of_the_same_width(family):
    config = encoder_config(family, layers=4)
    scaled = scale_encoder_config(config, 0.5, 0.5)
    assert (scaled.hidden_size, scaled.intermediate_size, scaled.num_attention_heads) == (16, 32, 2)
    assert scaled.hidden_size // scaled.num_attention_heads == config.hidden_size // config.num_attention_heads
    assert scaled.num_hidden_layers == 2
    assert scaled.vocab_size == config.vocab_size
    assert (config.hidden_size, config.num_hidden_layers) == (32, 4)  # untouched
    output = build_masked_language_model(scaled)(input_ids=torch.tensor([[1, 7, 2]]))
    assert output.logits.shape == (1, 3, 100)


def test_electra_keeps_its_embedding_size_when_scaled():
    assert embedding_size(scale_encoder_config(encoder_config("electra", embedding_size=24), 0.5, 1.0)) == 24


@pytest.mark.parametrize(("depth", "layers"), [(1.0, 4), (0.5, 2), (0.25, 1), (0.01, 1)])
def test_depth_leaves_at_least_one_layer(depth, layers):
    scaled = scale_encoder_config(encoder_config("modernbert", layers=4), 1.0, depth)
    assert scaled.num_hidden_layers == layers == len(scaled.layer_types)


@pytest.mark.parametrize(("size", "depth"), [(0, 1), (1.5, 1), (1, 0), (1, 1.1), (-0.5, 1)])
def test_a_fraction_outside_zero_and_one_is_an_error(size, depth):
    with pytest.raises(UserError, match="must be in"):
        scale_encoder_config(encoder_config("electra"), size, depth)


@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_a_third_may_be_written_with_three_digits(family):
    shape = {**SHAPE, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 1536}
    scaled = scale_encoder_config(make_encoder_config(family, **shape), 0.333, 1.0)
    assert (scaled.hidden_size, scaled.num_attention_heads, scaled.intermediate_size) == (256, 4, 512)


def test_a_fraction_that_leaves_no_whole_head_is_named():
    with pytest.raises(UserError, match=r"generator_size 0.375 of num_attention_heads 4 is 1.5"):
        scale_encoder_config(encoder_config("electra"), 0.375, 1.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_of_a_model_can_be_taken_out_and_replaced(family):
    one, other = build_masked_language_model(encoder_config(family)), build_detector(encoder_config(family))
    set_encoder_of(other, encoder_of(one))
    assert encoder_of(other) is one.base_model


def test_rotary_positions_need_an_even_width_per_head():
    odd = SHAPE | {"hidden_size": 6, "num_attention_heads": 2}
    with pytest.raises(UserError, match="an even width per head: hidden_size 6 over num_attention_heads 2 is 3"):
        make_encoder_config("modernbert", **odd)
    assert make_encoder_config("electra", **odd).hidden_size == 6
