"""SpanElectraConfig: what it accepts, refuses and reads back."""

from __future__ import annotations

import pytest
from transformers import ElectraConfig, ModernBertConfig

from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import DEFAULT_OBJECTIVES, SpanElectraConfig
from spanelectra.errors import UserError


def test_a_valid_configuration_passes():
    joint_config("electra").check()
    assert joint_config("electra").objectives == list(DEFAULT_OBJECTIVES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ["mlm", "atoo"]}, r"objectives: 'atoo' .* Did you mean 'ato'"),
        ({"objectives": []}, "objectives: name at least one"),
        ({"sharing": "embedding"}, r"sharing: 'embedding' .* Did you mean 'embeddings'"),
        ({"sampling_source": "mlmm"}, r"sampling_source: 'mlmm' .* Did you mean 'mlm'"),
        ({"sampling_temperature": 0.0}, "sampling_temperature must be above 0, got 0"),
        ({"sampling_temperature": -1.0}, "sampling_temperature must be above 0, got -1"),
        ({"objectives": ["sbgo", "ato"]}, r"sampling_source 'mlm' needs the objective\(s\) mlm"),
        ({"objectives": ["mlm", "ato"], "sampling_source": "sbgo"}, r"needs the objective\(s\) sbgo"),
        ({"objectives": ["sbgo", "ato"], "sampling_source": "mixed"}, r"needs the objective\(s\) mlm"),
        ({"objectives": ["ato"], "freeze_generator": True}, "a frozen generator shares nothing"),
        ({"generator_config": None}, "objectives mlm, sbgo need a generator"),
        ({"discriminator_config": None}, "objectives ato, sbpo need a discriminator"),
    ],
)
def test_a_contradiction_is_named(settings, message):
    fields = {
        "generator_config": encoder_config("electra"),
        "discriminator_config": encoder_config("electra"),
    } | settings
    with pytest.raises(UserError, match=message):
        SpanElectraConfig(**fields).check()


def test_different_vocabularies_are_refused_with_both_sizes():
    other = encoder_config("electra")
    other.vocab_size = 101
    with pytest.raises(UserError, match="101 against 100"):
        SpanElectraConfig(generator_config=other, discriminator_config=encoder_config("electra")).check()


@pytest.mark.parametrize("change", [{"hidden_size": 16}, {"layers": 1}, {"embedding_size": 16}])
def test_sharing_the_encoder_needs_equal_shapes(change):
    smaller = encoder_config("electra", **change)
    config = SpanElectraConfig(
        generator_config=smaller, discriminator_config=encoder_config("electra"), sharing="encoder"
    )
    with pytest.raises(UserError, match=r"generator_size and generator_depth to 1\.0"):
        config.check()


def test_a_part_that_is_not_there_stays_absent():
    generator_only = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm"])
    assert generator_only.discriminator_config is None
    discriminator_only = SpanElectraConfig(discriminator_config=encoder_config("modernbert"), objectives=["ato"])
    assert discriminator_only.generator_config is None
    generator_only.check()
    discriminator_only.check()


def test_dictionaries_become_stock_configurations():
    config = SpanElectraConfig(
        generator_config=encoder_config("electra").to_dict(),
        discriminator_config=encoder_config("modernbert").to_dict(),
    )
    assert isinstance(config.generator_config, ElectraConfig)
    assert isinstance(config.discriminator_config, ModernBertConfig)
    assert config.generator_config.hidden_size == 32
    with pytest.raises(UserError, match="generator_config names no model_type"):
        SpanElectraConfig(generator_config={"hidden_size": 32})


@pytest.mark.parametrize("family", ["electra", "modernbert"])
@pytest.mark.parametrize("part", ["both", "generator", "discriminator"])
def test_saved_and_read_back_it_says_the_same(family, part, tmp_path):
    config = joint_config(
        family,
        sharing="gradient_disentangled",
        sampling_temperature=0.7,
        sampling_source="mixed",
        max_span_length=9,
        objectives={"both": None, "generator": ["sbgo"], "discriminator": ["sbpo"]}[part],
    )
    if part != "both":
        setattr(config, {"generator": "discriminator_config", "discriminator": "generator_config"}[part], None)
    config.save_pretrained(tmp_path)
    read = SpanElectraConfig.from_pretrained(tmp_path)
    read.check()
    assert read.to_dict() == config.to_dict()


def test_objectives_keep_their_fixed_order():
    config = joint_config("electra", objectives=["sbpo", "ato", "sbgo", "mlm"])
    assert config.generator_objectives == ("mlm", "sbgo")
    assert config.discriminator_objectives == ("ato", "sbpo")


@pytest.mark.parametrize(
    ("objectives", "uses"),
    [(["mlm"], False), (["mlm", "ato"], False), (["mlm", "sbgo"], True), (["mlm", "sbpo"], True)],
)
def test_boundaries_are_used_by_the_boundary_objectives_alone(objectives, uses):
    assert joint_config("electra", objectives=objectives).uses_span_boundaries is uses
