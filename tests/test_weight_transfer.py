"""Warm starts and checkpoints: what is filled from where, against copies made by hand."""

from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    GPT2Config,
    PreTrainedConfig,
)
from transformers.utils import logging as transformers_logging

from factories import MAX_SPAN_LENGTH, encoder_config, joint_model, perturb
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.console import log_level
from spanelectra.encoder_families import encoder_of, scale_encoder_config
from spanelectra.errors import UserError
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_generator import SpanElectraGenerator
from spanelectra.weight_transfer import (
    initialise_discriminator,
    initialise_generator,
    read_encoder_config,
    warm_start,
)

HEAD = {"max_span_length": MAX_SPAN_LENGTH, "span_position_size": 8}
IDS = torch.tensor([[1, 9, 30, 99, 7, 2]])


def make_generator(config: PreTrainedConfig, seed: int = 1) -> SpanElectraGenerator:
    torch.manual_seed(seed)
    generator = SpanElectraGenerator(config, span_boundary=False, **HEAD)
    perturb(generator, seed)
    return generator.eval()


def make_discriminator(config: PreTrainedConfig, seed: int = 2) -> SpanElectraDiscriminator:
    torch.manual_seed(seed)
    discriminator = SpanElectraDiscriminator(config, span_boundary=True, **HEAD)
    perturb(discriminator, seed)
    return discriminator.eval()


def encoder_state(part) -> dict[str, torch.Tensor]:
    model = part.language_model if isinstance(part, SpanElectraGenerator) else part.detector
    return {name: tensor.clone() for name, tensor in encoder_of(model).state_dict().items()}


# --- from a generator -------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
def test_full_copies_every_tensor_of_the_encoder_so_that_hidden_states_are_equal(family):
    generator, discriminator = make_generator(encoder_config(family)), make_discriminator(encoder_config(family))
    heads = {n: p.clone() for n, p in discriminator.named_parameters() if n.startswith("span_boundary")}
    report = warm_start(discriminator, generator, "full")
    source, target = encoder_state(generator), encoder_state(discriminator)
    assert set(report.filled) == set(target) == set(source)
    assert report.fresh == [] and report.unused == []
    assert all(torch.equal(target[name], source[name]) for name in target)
    expected = encoder_of(generator.language_model)(IDS).last_hidden_state
    assert torch.equal(discriminator.encode(IDS), expected)
    assert heads and all(torch.equal(dict(discriminator.named_parameters())[n], p) for n, p in heads.items())


@torch.no_grad()
@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_generator_with_projected_embeddings_is_grown_from_their_product(family):
    generator = joint_model(family, sharing="embeddings").generator  # half as wide as the shared table
    discriminator = make_discriminator(encoder_config(family))
    warm_start(discriminator, generator, "grow")
    table = discriminator.detector.get_input_embeddings().weight
    expected = generator.language_model.get_input_embeddings()(torch.arange(100))
    torch.testing.assert_close(table[:, :16], expected)


@pytest.mark.parametrize(
    ("family", "size", "depth", "name"),
    [
        ("electra", 0.5, 1.0, "embeddings_project.weight"),
        ("modernbert", 0.5, 1.0, "embeddings.tok_embeddings.weight"),
        ("modernbert", 1.0, 0.5, "layers.1.attn_norm.weight"),
        ("bert", 1.0, 0.5, "encoder.layer.1.attention.self.query.weight"),
    ],
)
def test_full_refuses_a_generator_of_another_shape_and_names_the_parameter(family, size, depth, name):
    config = encoder_config(family, embedding_size=24 if family == "electra" else None)
    generator, discriminator = make_generator(scale_encoder_config(config, size, depth)), make_discriminator(config)
    with pytest.raises(UserError) as error:
        warm_start(discriminator, generator, "full")
    assert f"cannot fill {name}" in str(error.value)
    assert "--warm_start (embeddings, grow)" in str(error.value)


@torch.no_grad()
def test_embeddings_copies_the_embedding_module_of_a_smaller_generator_and_leaves_the_rest():
    config = encoder_config("electra", embedding_size=24)
    generator, discriminator = make_generator(scale_encoder_config(config, 0.5, 0.5)), make_discriminator(config)
    fresh = encoder_state(discriminator)
    report = warm_start(discriminator, generator, "embeddings")
    source, target = encoder_state(generator), encoder_state(discriminator)
    assert report.filled == [name for name in target if name.startswith("embeddings.")]
    assert len(report.filled) == 5  # three tables, gain and bias of their norm
    for name, tensor in target.items():
        assert torch.equal(tensor, source[name] if name in report.filled else fresh[name]), name
    assert set(report.fresh) == set(target) - set(report.filled)
    assert set(report.unused) == set(source) - set(report.filled)


def test_embeddings_of_another_width_are_an_error_that_names_them():
    config = encoder_config("modernbert")
    with pytest.raises(UserError, match=r"embeddings\.tok_embeddings\.weight \(100, 32\).*\(100, 16\).*\(full, grow\)"):
        warm_start(make_discriminator(config), make_generator(scale_encoder_config(config, 0.5, 1.0)), "embeddings")


def slow_grow(name: str, source: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """Entry by entry: queries, keys and values (the MLP's input and gate) each grow for themselves."""
    blocks = 3 if "Wqkv" in name else 2 if "Wi" in name else 1
    grown = fresh.clone()
    small, large = source.shape[0] // blocks, fresh.shape[0] // blocks
    for block in range(blocks):
        for row in range(small):
            if source.dim() == 1:
                grown[block * large + row] = source[block * small + row]
            else:
                for column in range(source.shape[1]):
                    grown[block * large + row, column] = source[block * small + row, column]
    return grown


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("size", [1.0, 0.5])
@pytest.mark.parametrize(("source_layers", "layers"), [(2, 2), (2, 4), (1, 3), (3, 4), (2, 3)])
def test_grow_puts_each_block_into_the_corner_of_its_counterpart_and_repeats_layers(
    family, size, source_layers, layers
):
    config = encoder_config(family, layers=layers, embedding_size=24 if family == "electra" else None)
    small = scale_encoder_config(config, size, 1.0)
    small.num_hidden_layers = source_layers
    if family == "modernbert":
        small.layer_types = small.layer_types[:source_layers]
    generator, discriminator = make_generator(small), make_discriminator(config)
    fresh = encoder_state(discriminator)
    report = warm_start(discriminator, generator, "grow")
    source, target = encoder_state(generator), encoder_state(discriminator)
    kept_fresh = []
    for name, tensor in target.items():
        source_name = name
        for layer in range(layers):
            for word in ("layer", "layers"):
                if f"{word}.{layer}." in name:
                    source_name = name.replace(f"{word}.{layer}.", f"{word}.{layer * source_layers // layers}.")
        if source_name in source:
            assert torch.equal(tensor, slow_grow(name, source[source_name], fresh[name])), name
        else:
            kept_fresh.append(name)
            assert torch.equal(tensor, fresh[name]), name
    assert report.fresh == kept_fresh
    assert set(report.filled) == set(target) - set(kept_fresh)
    # only ModernBERT's later copies of its first layer lack something: the norm that a first layer does not have
    assert all(name.endswith("attn_norm.weight") for name in kept_fresh)
    assert bool(kept_fresh) == (
        family == "modernbert" and any(i * source_layers // layers == 0 for i in range(1, layers))
    )


def test_grow_refuses_a_generator_that_is_larger():
    config = encoder_config("bert")
    small = scale_encoder_config(config, 0.5, 1.0)
    with pytest.raises(
        UserError, match=r"warm_start 'grow' cannot fill embeddings\.word_embeddings\.weight \(100, 16\)"
    ):
        warm_start(make_discriminator(small), make_generator(config), "grow")


def test_an_unknown_policy_is_named():
    config = encoder_config("electra")
    with pytest.raises(UserError, match=r"warm_start: 'ful' is not one of full, embeddings, grow"):
        warm_start(make_discriminator(config), make_generator(config), "ful")


# --- from a Hugging Face checkpoint -----------------------------------------------------------------------------------


def save_stock(auto_class, family: str, directory, layers: int = 2):
    """Write a stock checkpoint with weights of its own; returns the model."""
    torch.manual_seed(3)
    model = auto_class.from_config(encoder_config(family, layers=layers))
    perturb(model, 3)
    model.save_pretrained(directory)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForMaskedLM])
def test_a_discriminator_takes_the_encoder_of_a_checkpoint(family, auto_class, tmp_path):
    stock = save_stock(auto_class, family, tmp_path)
    discriminator = make_discriminator(encoder_config(family))
    report = initialise_discriminator(discriminator, tmp_path)
    encoder = stock.base_model
    assert torch.equal(discriminator.encode(IDS), encoder(IDS).last_hidden_state)
    assert set(report.filled) == set(encoder_state(discriminator))
    assert all(name.startswith("pooler.") for name in report.unused)


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
def test_a_generator_takes_a_masked_language_model_whole(family, tmp_path):
    stock = save_stock(AutoModelForMaskedLM, family, tmp_path)
    generator = make_generator(encoder_config(family))
    report = initialise_generator(generator, tmp_path)
    assert torch.equal(generator.language_model(input_ids=IDS).logits, stock(input_ids=IDS).logits)
    assert set(report.filled) == set(generator.language_model.state_dict())
    assert report.fresh == [] and report.unused == []


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
def test_a_checkpoint_without_a_prediction_head_leaves_it_fresh_and_says_so(family, tmp_path):
    stock = save_stock(AutoModel, family, tmp_path)
    generator = make_generator(encoder_config(family))
    report = initialise_generator(generator, tmp_path)
    language_model = generator.language_model
    expected = stock(IDS).last_hidden_state
    assert torch.equal(encoder_of(language_model)(IDS).last_hidden_state, expected)
    assert language_model.get_output_embeddings().weight is language_model.get_input_embeddings().weight
    assert report.fresh and not any(name.startswith(f"{language_model.base_model_prefix}.") for name in report.fresh)
    assert not set(report.fresh) & set(report.filled)
    assert set(report.fresh) | set(report.filled) == set(language_model.state_dict())
    assert "fresh: " in str(report)


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
def test_a_shallower_generator_takes_the_lower_layers(family, tmp_path):
    stock = save_stock(AutoModelForMaskedLM, family, tmp_path, layers=4)
    generator = make_generator(scale_encoder_config(encoder_config(family, layers=4), 1.0, 0.5))
    report = initialise_generator(generator, tmp_path)
    state, source = generator.language_model.state_dict(), stock.state_dict()
    assert all(torch.equal(state[name], source[name]) for name in state)
    assert report.unused and all(".2." in name or ".3." in name for name in report.unused)
    # the last norm of a pre-norm encoder stands after other layers now; every post-norm layer is the original's
    if family != "modernbert":
        hidden = stock.base_model(IDS, output_hidden_states=True).hidden_states[2]
        assert torch.equal(encoder_of(generator.language_model)(IDS).last_hidden_state, hidden)


def test_a_checkpoint_that_lacks_a_parameter_of_the_encoder_is_an_error_that_names_it(tmp_path):
    save_stock(AutoModel, "electra", tmp_path)
    name = "encoder.layer.1.output.dense.weight"
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in weights if key.endswith(name))
    save_file(
        {key: value for key, value in weights.items() if key != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(UserError, match=name):
        initialise_discriminator(make_discriminator(encoder_config("electra")), tmp_path)
    with pytest.raises(UserError, match=name):
        initialise_generator(make_generator(encoder_config("electra")), tmp_path)


def test_a_checkpoint_of_another_shape_is_an_error_that_names_the_parameter(tmp_path):
    save_stock(AutoModel, "electra", tmp_path)
    with pytest.raises(UserError, match=r"cannot fill .*word_embeddings\.weight \(100, 48\)"):
        initialise_discriminator(make_discriminator(encoder_config("electra", embedding_size=48)), tmp_path)
    with pytest.raises(UserError, match=r"cannot fill encoder\.layer\.2\."):
        initialise_discriminator(make_discriminator(encoder_config("electra", layers=3)), tmp_path)


@pytest.mark.parametrize(("level", "expected"), [(None, logging.ERROR), ("debug", logging.DEBUG)])
def test_transformers_says_what_was_chosen(level, expected, tmp_path, monkeypatch):
    save_stock(AutoModel, "electra", tmp_path)
    seen, read = [], AutoModel.from_pretrained
    monkeypatch.setattr(
        AutoModel,
        "from_pretrained",
        lambda *given, **more: (seen.append(transformers_logging.get_verbosity()), read(*given, **more))[1],
    )
    before = transformers_logging.get_verbosity()
    with log_level(level):
        initialise_discriminator(make_discriminator(encoder_config("electra")), tmp_path)
    assert seen == [expected] and transformers_logging.get_verbosity() == before


def test_damaged_or_absent_weights_are_a_users_error(tmp_path):
    save_stock(AutoModel, "electra", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read"):
        initialise_discriminator(make_discriminator(encoder_config("electra")), tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        initialise_generator(make_generator(encoder_config("electra")), tmp_path)


def test_the_configuration_of_an_encoder_is_read_or_the_reason_given(tmp_path):
    save_stock(AutoModel, "modernbert", tmp_path / "good")
    assert read_encoder_config(tmp_path / "good").hidden_size == 32
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--init_from .*empty: no Hugging Face model there"):
        read_encoder_config(tmp_path / "empty")
    with pytest.raises(UserError, match=f"Did you mean '{tmp_path / 'export' / 'discriminator'}'"):
        save_stock(AutoModel, "modernbert", tmp_path / "export" / "discriminator")
        read_encoder_config(tmp_path / "export")
    with pytest.raises(UserError, match="run is a run: `spanelectra export` writes its encoders"):
        SpanElectraConfig(generator_config=encoder_config("electra")).save_pretrained(tmp_path / "run" / "model")
        read_encoder_config(tmp_path / "run")
    # one that was interrupted has checkpoints alone
    (tmp_path / "run" / "model").rename(tmp_path / "run" / "checkpoint-10")
    with pytest.raises(UserError, match="run is a run: `spanelectra export` writes its encoders"):
        read_encoder_config(tmp_path / "run")
    with pytest.raises(UserError, match="there is no directory '/gone/for/good'"):
        read_encoder_config("/gone/for/good")
    GPT2Config(n_layer=1).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(UserError, match="'gpt2' is not supported"):
        read_encoder_config(tmp_path / "gpt2")
