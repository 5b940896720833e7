"""Projected and disentangled embeddings, and the ordinary ones that they become on export."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification, ElectraForPreTraining

from factories import joint_model
from spanelectra.shared_embeddings import (
    DisentangledEmbedding,
    ProjectedEmbedding,
    TiedDecoder,
    materialise,
)

IDS = torch.tensor([[5, 9, 99], [0, 5, 42]])


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(100, 32)


@torch.no_grad()
@pytest.mark.parametrize("width", [16, 48])
def test_a_projected_embedding_is_the_tables_row_times_the_projection(table, width):
    embedding = ProjectedEmbedding(table, width)
    vectors = embedding(IDS)
    for row, column in [(0, 0), (0, 2), (1, 1)]:
        expected = table.weight[IDS[row, column]] @ embedding.projection
        torch.testing.assert_close(vectors[row, column], expected)
    torch.testing.assert_close(vectors, embedding.materialise()[IDS])


@torch.no_grad()
def test_a_projection_keeps_the_scale_of_the_table(table):
    table = nn.Embedding(2000, 256)
    assert ProjectedEmbedding(table, 128).materialise().std().item() == pytest.approx(
        table.weight.std().item(), rel=0.1
    )


@torch.no_grad()
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_projected_decoder_is_the_linear_layer_of_the_materialised_table(table, has_bias):
    embedding = ProjectedEmbedding(table, 16)
    bias = nn.Parameter(torch.randn(100)) if has_bias else None
    hidden = torch.randn(3, 4, 16)
    expected = nn.functional.linear(hidden, embedding.materialise(), bias)
    torch.testing.assert_close(TiedDecoder(embedding, bias)(hidden), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_disentangled_embedding_is_the_table_plus_a_difference_that_starts_at_zero(table):
    embedding = DisentangledEmbedding(table)
    assert torch.equal(embedding(IDS), table(IDS))
    embedding.difference.weight.normal_()
    torch.testing.assert_close(embedding(IDS), table.weight[IDS] + embedding.difference.weight[IDS])
    torch.testing.assert_close(embedding.materialise()[IDS], embedding(IDS))


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_disentangled_decoder_is_the_linear_layer_of_the_materialised_table_and_moves_the_difference(table, has_bias):
    embedding = DisentangledEmbedding(table)
    nn.init.normal_(embedding.difference.weight)
    bias = nn.Parameter(torch.randn(100)) if has_bias else None
    hidden = torch.randn(3, 4, 32)
    logits = TiedDecoder(embedding, bias)(hidden)
    torch.testing.assert_close(logits, nn.functional.linear(hidden, embedding.materialise(), bias))
    logits.square().sum().backward()
    assert table.weight.grad is None and embedding.difference.weight.grad.abs().min() > 0


def test_a_disentangled_embedding_sends_its_gradient_to_the_difference_alone(table):
    embedding = DisentangledEmbedding(table)
    embedding(IDS).sum().backward()
    assert table.weight.grad is None
    touched = embedding.difference.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert touched == sorted(set(IDS.flatten().tolist()))


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("sharing", ["embeddings", "gradient_disentangled", "encoder", "none"])
def test_a_materialised_model_is_stock_and_gives_the_same_logits(family, sharing, batch, tmp_path):
    model = joint_model(family, sharing=sharing, objectives=["mlm", "sbgo", "ato", "sbpo", "correction"])
    parts = (
        ("generator", model.generator.language_model, AutoModelForMaskedLM),
        (
            "discriminator",
            model.discriminator.detector,
            ElectraForPreTraining if family == "electra" else AutoModelForTokenClassification,
        ),
        ("corrector", model.discriminator.corrector, AutoModelForMaskedLM),
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for part, original, auto_class in parts:
        plain = materialise(original)
        assert type(plain.get_input_embeddings()) is nn.Embedding
        plain.save_pretrained(tmp_path / part)
        opened, information = auto_class.from_pretrained(tmp_path / part, output_loading_info=True)
        assert not any(information[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        for exported in (plain, opened.eval()):
            torch.testing.assert_close(
                exported(input_ids=batch["input_ids"]).logits, original(input_ids=batch["input_ids"]).logits,
                atol=2e-5, rtol=1e-5,
            )  # fmt: skip
    # the model that trains is as it was
    assert [name for name, _ in model.named_parameters()] == names
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_a_materialised_copy_shares_no_memory_with_the_original(batch):
    model = joint_model("modernbert", sharing="embeddings")
    original = model.generator.language_model
    expected = original(input_ids=batch["input_ids"]).logits
    for parameter in materialise(original).parameters():
        parameter.zero_()
    assert torch.equal(original(input_ids=batch["input_ids"]).logits, expected)


def test_the_materialised_vocabulary_projection_is_tied_to_the_table():
    plain = materialise(joint_model("modernbert", sharing="embeddings").generator.language_model)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
