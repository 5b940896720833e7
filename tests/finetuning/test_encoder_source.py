"""Encoders open from wherever they are kept, with exactly the weights that lie there, or are refused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BartConfig, BartModel, BertModel, PreTrainedModel, RobertaConfig, RobertaModel
from transformers.utils import logging as transformers_logging

from small_runs import small_run
from spanelectra.console import log_level
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.export import open_run, save_tokenizer, stock_model
from spanelectra.finetuning import encoder_source
from spanelectra.finetuning.encoder_source import open_encoder
from spanelectra.pretraining import pretrain
from tiny_tasks import LONGEST, make_tokenizer, save_encoder


def assert_same_weights(found: PreTrainedModel, expected: PreTrainedModel) -> None:
    left, right = found.state_dict(), expected.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.mark.parametrize("place", ["", "model", "checkpoint-3", "exported", "exported/checkpoint"])
def test_the_discriminator_of_a_run_or_an_export(place: str, joint_run: Path, exported: Path) -> None:
    directory = exported.parent / place if place.startswith("exported") else joint_run / place
    source = open_encoder(str(directory))
    own, tokenizer, _ = open_run(joint_run / "checkpoint-3" if place == "checkpoint-3" else joint_run)
    assert own.discriminator is not None
    assert_same_weights(source.encoder, encoder_of(stock_model(own.discriminator)))
    assert source.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert source.tokenizer.model_max_length == source.encoder.config.max_position_embeddings
    assert source.tokenizer.padding_side == "right"
    # names the run, not where on this machine it lies
    assert "discriminator" in source.name and str(joint_run.parent) not in source.name


@pytest.mark.parametrize("part", ["discriminator", "generator"])
def test_each_part_of_an_export(part: str, exported: Path) -> None:
    source = open_encoder(str(exported / part))
    assert_same_weights(source.encoder, AutoModel.from_pretrained(exported / part))
    assert source.name == f"exported/{part}"


def test_the_generator_of_a_run_that_has_nothing_else(generator_run: Path) -> None:
    source = open_encoder(str(generator_run))
    own, _, _ = open_run(generator_run)
    assert own.generator is not None and source.name.startswith("generator of ")
    assert_same_weights(source.encoder, encoder_of(stock_model(own.generator)))


def test_a_run_that_has_a_checkpoint_only(joint_run: Path, tmp_path: Path) -> None:
    shutil.copytree(joint_run, tmp_path / "run", ignore=shutil.ignore_patterns("model", "metrics.json"))
    assert_same_weights(open_encoder(str(tmp_path / "run")).encoder, open_encoder(str(joint_run)).encoder)


@pytest.mark.parametrize("family", ["bert", "electra", "modernbert"])
def test_a_plain_directory(family: str, tiny: Path) -> None:
    source = open_encoder(str(tiny / family))
    stored = load_file(tiny / family / "model.safetensors")
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(tensor, stored[f"{source.encoder.base_model_prefix}.{name}"])
    assert all(tensor.dtype == torch.float32 for tensor in source.encoder.parameters())
    assert source.name == family and source.tokenizer.model_max_length == LONGEST


def test_no_pooler_is_made_up_where_the_checkpoint_has_none(tiny: Path) -> None:
    assert not any("pooler" in name for name in open_encoder(str(tiny / "bert")).encoder.state_dict())


def test_a_trained_pooler_is_kept(tiny: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertModel(open_encoder(str(tiny / "bert")).encoder.config)
    model.save_pretrained(tmp_path)
    save_tokenizer(make_tokenizer(), tmp_path, LONGEST)
    assert_same_weights(open_encoder(str(tmp_path)).encoder, model)


@pytest.mark.parametrize(("level", "expected"), [(None, logging.ERROR), ("debug", logging.DEBUG)])
def test_transformers_says_what_was_chosen(
    level: Any, expected: int, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, read = [], encoder_source._read_encoder
    monkeypatch.setattr(
        encoder_source,
        "_read_encoder",
        lambda *given: (seen.append(transformers_logging.get_verbosity()), read(*given))[1],
    )
    before = transformers_logging.get_verbosity()
    with log_level(level):
        open_encoder(str(tiny / "bert"))
    assert seen == [expected] and transformers_logging.get_verbosity() == before


def test_half_precision_weights_become_float32(tiny: Path, tmp_path: Path) -> None:
    model = save_encoder("bert", tmp_path).half()
    model.save_pretrained(tmp_path)
    encoder = open_encoder(str(tmp_path)).encoder
    assert all(tensor.dtype == torch.float32 for tensor in encoder.parameters())
    assert torch.equal(encoder.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight.float())


def damaged(tiny: Path, target: Path, family: str = "bert") -> dict[str, torch.Tensor]:
    """A copy of an encoder, whose weights are returned to be written back."""
    shutil.copytree(tiny / family, target)
    return load_file(target / "model.safetensors")


def test_missing_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    weights = damaged(tiny, tmp_path / "m")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors are missing .* encoder.layer.1.output.dense.weight is the first"):
        open_encoder(str(tmp_path / "m"))


def test_weights_of_another_shape_are_refused(tiny: Path, tmp_path: Path) -> None:
    weights = damaged(tiny, tmp_path / "m")
    weights["bert.embeddings.word_embeddings.weight"] = torch.zeros(90, 32)
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"embeddings\.word_embeddings\.weight is the first"):
        open_encoder(str(tmp_path / "m"))


def test_a_shape_needs_no_weights_where_fresh_ones_are_wanted(tiny: Path, tmp_path: Path) -> None:
    damaged(tiny, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no encoder that opens"):
        open_encoder(str(tmp_path / "m"))
    source, trained = open_encoder(str(tmp_path / "m"), fresh=True), open_encoder(str(tiny / "bert"))
    assert source.encoder.config.hidden_size == trained.encoder.config.hidden_size
    assert source.tokenizer.get_vocab() == trained.tokenizer.get_vocab()


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00not weights"])
def test_a_file_that_holds_no_weights(content: bytes, tiny: Path, tmp_path: Path) -> None:
    damaged(tiny, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="no encoder that opens"):
        open_encoder(str(tmp_path / "m"))


def test_a_damaged_run_is_named(joint_run: Path, tmp_path: Path) -> None:
    shutil.copytree(joint_run / "model", tmp_path / "model")
    with open(tmp_path / "model" / "model.safetensors", "r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(UserError, match="damaged"):
        open_encoder(str(tmp_path / "model"))


def test_a_directory_with_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer: there is none of"):
        open_encoder(str(tmp_path))


def test_a_run_that_trained_nothing_yet(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: x\n")
    with pytest.raises(UserError, match="holds no finished model and no complete checkpoint"):
        open_encoder(str(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "bert", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    weights = load_file(tmp_path / "m" / "model.safetensors")
    for name in [name for name in weights if weights[name].shape[0] == config["vocab_size"]]:
        weights[name] = weights[name][:20].clone()
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"vocab_size": 20}))
    with pytest.raises(UserError, match=r"its tokenizer has \d+ entries, its vocabulary 20"):
        open_encoder(str(tmp_path / "m"))


def test_a_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "d_model": 8}
    config = BartConfig(vocab_size=100, encoder_attention_heads=1, decoder_attention_heads=1, **sizes)
    BartModel(config).save_pretrained(tmp_path)
    save_tokenizer(make_tokenizer(), tmp_path, LONGEST)
    with pytest.raises(UserError, match="'bart' has a decoder"):
        open_encoder(str(tmp_path))


def test_positions_that_start_after_the_padding_id(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=100, max_position_embeddings=34, pad_token_id=1, **sizes)
    RobertaModel(config).save_pretrained(tmp_path)
    tokenizer = make_tokenizer()
    save_tokenizer(tokenizer, tmp_path, 1000)
    source = open_encoder(str(tmp_path))
    assert source.tokenizer.model_max_length == 32
    source.encoder(torch.full((1, 32), 5))
    with pytest.raises((IndexError, RuntimeError)):
        source.encoder(torch.full((1, 33), 5))


def test_the_fingerprint_is_of_weights_shape_and_tokenizer(tiny: Path, tmp_path: Path) -> None:
    one, again = open_encoder(str(tiny / "bert")), open_encoder(str(tiny / "bert"))
    save_encoder("bert", tmp_path / "other", seed=1)
    other, electra = open_encoder(str(tmp_path / "other")), open_encoder(str(tiny / "electra"))
    assert one.fingerprint(weights=True) == again.fingerprint(weights=True) != other.fingerprint(weights=True)
    assert one.fingerprint(weights=False) == other.fingerprint(weights=False) != electra.fingerprint(weights=False)
    other.tokenizer.add_tokens(["river boat"])
    assert one.fingerprint(weights=False) != other.fingerprint(weights=False)


def test_a_run_of_two_stages_gives_the_discriminator(rows: Path, generator_run: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "d", stage="discriminator", generator=str(generator_run), max_steps=2))
    source = open_encoder(str(tmp_path / "d"))
    own, _, _ = open_run(tmp_path / "d")
    assert own.generator is not None and own.discriminator is not None
    assert_same_weights(source.encoder, encoder_of(stock_model(own.discriminator)))
