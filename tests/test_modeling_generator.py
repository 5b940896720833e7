"""The generator's heads against the stock masked language model and a direct reading of SpanBERT."""

from __future__ import annotations

import pytest
import torch

from factories import FAMILIES, MAX_SPAN_LENGTH, count_calls, encoder_config, perturb
from spanelectra.encoder_families import encoder_of
from spanelectra.modeling_generator import SpanElectraGenerator
from test_span_boundary_head import slow_head

SPAN_NAMES = ("left_boundaries", "right_boundaries", "span_positions")
CONFIGS = [("electra", None), ("electra", 24), ("modernbert", None), ("bert", None)]


def build_generator(family: str, embedding_size: int | None = None, span_boundary: bool = True) -> SpanElectraGenerator:
    torch.manual_seed(0)
    generator = SpanElectraGenerator(
        encoder_config(family, embedding_size=embedding_size),
        span_boundary=span_boundary,
        max_span_length=MAX_SPAN_LENGTH,
        span_position_size=8,
    )
    perturb(generator)
    return generator.eval()


def spans_of(batch):
    return [batch[name] for name in SPAN_NAMES]


@torch.no_grad()
@pytest.mark.parametrize(("family", "embedding_size"), CONFIGS)
def test_mlm_logits_are_the_stock_models_own_at_the_masked_positions(family, embedding_size, batch):
    generator = build_generator(family, embedding_size)
    output = generator(batch["input_ids"], batch["masked_positions"], *spans_of(batch))
    stock = generator.language_model(input_ids=batch["input_ids"]).logits
    assert output.mlm_logits.shape == (*batch["masked_positions"].shape, stock.shape[-1])
    for row, positions in enumerate(batch["masked_positions"].tolist()):
        torch.testing.assert_close(output.mlm_logits[row], stock[row, positions])


@torch.no_grad()
@pytest.mark.parametrize(("family", "embedding_size"), CONFIGS)
def test_sbgo_logits_are_the_boundary_vector_times_each_tokens_embedding(family, embedding_size, batch):
    generator = build_generator(family, embedding_size)
    output = generator(batch["input_ids"], batch["masked_positions"], *spans_of(batch))
    hidden = encoder_of(generator.language_model)(batch["input_ids"]).last_hidden_state
    table = generator.language_model.get_input_embeddings().weight
    bias = generator.language_model.get_output_embeddings().bias
    left, right, places = spans_of(batch)
    for row in range(left.shape[0]):
        for column in range(left.shape[1]):
            at = (row, column)
            features = slow_head(
                generator.span_boundary_head, hidden[row], int(left[at]), int(right[at]), int(places[at])
            )
            expected = torch.stack([features @ table[token] + bias[token] for token in range(len(table))])
            torch.testing.assert_close(output.sbgo_logits[at], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_sbgo_never_reads_the_token_it_is_asked_about(family, batch):
    generator = build_generator(family)
    hidden = torch.randn(3, 16, 32, requires_grad=True)
    left, right, places = spans_of(batch)
    logits = generator.language_model.get_output_embeddings()(generator.span_boundary_head(hidden, left, right, places))
    for row, column, position in [(0, 0, 3), (0, 3, 9), (2, 2, 7)]:
        (gradient,) = torch.autograd.grad(logits[row, column].logsumexp(-1), hidden, retain_graph=True)
        read = {(int(r), int(c)) for r, c in gradient.abs().sum(-1).nonzero()}
        assert read == {(row, int(left[row, column])), (row, int(right[row, column]))}
        assert (row, position) not in read


def test_heads_run_only_when_asked_for(batch):
    generator = build_generator("electra")
    arguments = (batch["input_ids"], batch["masked_positions"], *spans_of(batch))
    with (
        count_calls(generator.language_model.generator_predictions) as mlm,
        count_calls(generator.span_boundary_head) as sbgo,
    ):
        only_mlm = generator(*arguments, sbgo=False)
        assert (mlm, sbgo) == ([1], [0])
        only_sbgo = generator(*arguments, mlm=False)
        assert (mlm, sbgo) == ([1], [1])
    assert only_mlm.sbgo_logits is None and only_sbgo.mlm_logits is None
    both = generator(*arguments)
    assert torch.equal(both.mlm_logits, only_mlm.mlm_logits)
    assert torch.equal(both.sbgo_logits, only_sbgo.sbgo_logits)


def test_without_a_boundary_head_there_are_no_sbgo_logits(batch):
    generator = build_generator("electra", span_boundary=False)
    assert generator(batch["input_ids"], batch["masked_positions"], *spans_of(batch)).sbgo_logits is None


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_tokens_have_no_influence(family, batch):
    generator = build_generator(family)
    mask = torch.ones_like(batch["input_ids"])
    mask[:, 14:] = 0
    outputs = []
    for filler in (0, 50):
        input_ids = torch.where(mask.bool(), batch["input_ids"], filler)
        outputs.append(generator(input_ids, batch["masked_positions"], *spans_of(batch), attention_mask=mask))
    torch.testing.assert_close(outputs[0].mlm_logits, outputs[1].mlm_logits)
    torch.testing.assert_close(outputs[0].sbgo_logits, outputs[1].sbgo_logits)
