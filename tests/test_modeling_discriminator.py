"""The discriminator's heads against the stock detectors, and what the boundary head can and cannot see."""

from __future__ import annotations

import pytest
import torch

from factories import FAMILIES, MAX_SPAN_LENGTH, encoder_config, perturb
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from test_span_boundary_head import slow_head

MASKED_NAMES = ("left_boundaries", "right_boundaries", "span_positions")


def build_discriminator(family: str, span_boundary: bool = True) -> SpanElectraDiscriminator:
    torch.manual_seed(0)
    discriminator = SpanElectraDiscriminator(
        encoder_config(family), span_boundary=span_boundary, max_span_length=MAX_SPAN_LENGTH, span_position_size=8
    )
    perturb(discriminator)
    return discriminator.eval()


def all_spans(batch):
    """Masked spans, then decoys, as the joint model joins them."""
    return [torch.cat([batch[name], batch[f"decoy_{name}"]], dim=1) for name in MASKED_NAMES]


@torch.no_grad()
def test_all_token_logits_are_those_of_electra_for_pre_training(batch):
    discriminator = build_discriminator("electra")
    logits = discriminator.all_token_logits(discriminator.encode(batch["original_ids"]))
    torch.testing.assert_close(logits, discriminator.detector(input_ids=batch["original_ids"]).logits)


@torch.no_grad()
@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_sigmoid_of_all_token_logits_is_the_token_classifiers_probability_of_replaced(family, batch):
    discriminator = build_discriminator(family)
    logits = discriminator.all_token_logits(discriminator.encode(batch["original_ids"]))
    stock = discriminator.detector(input_ids=batch["original_ids"]).logits.softmax(-1)
    label = discriminator.detector.config.label2id["replaced"]
    torch.testing.assert_close(logits.sigmoid(), stock[..., label])


@pytest.mark.parametrize("family", FAMILIES)
def test_sbpo_never_reads_the_position_it_judges_but_only_its_two_boundaries(family, batch):
    discriminator = build_discriminator(family)
    left, right, places = all_spans(batch)
    positions = torch.cat([batch["masked_positions"], batch["decoy_positions"]], dim=1)
    scored = torch.cat([batch["labels"] != -100, batch["decoy_scored"]], dim=1)
    hidden = torch.randn(3, 16, 32, requires_grad=True)
    logits = discriminator.span_boundary_logits(hidden, left, right, places)
    assert int(scored.sum()) == 18
    for row, column in scored.nonzero().tolist():
        (gradient,) = torch.autograd.grad(logits[row, column], hidden, retain_graph=True)
        read = {(int(r), int(c)) for r, c in gradient.abs().sum(-1).nonzero()}
        assert read == {(row, int(left[row, column])), (row, int(right[row, column]))}
        assert (row, int(positions[row, column])) not in read


@torch.no_grad()
def test_sbpo_logits_equal_a_direct_reading_token_by_token(batch):
    discriminator = build_discriminator("electra")
    left, right, places = all_spans(batch)
    hidden = discriminator.encode(batch["original_ids"])
    logits = discriminator.span_boundary_logits(hidden, left, right, places)
    classifier = discriminator.span_boundary_classifier
    for row in range(left.shape[0]):
        for column in range(left.shape[1]):
            at = (row, column)
            features = slow_head(
                discriminator.span_boundary_head, hidden[row], int(left[at]), int(right[at]), int(places[at])
            )
            expected = features @ classifier.weight[0] + classifier.bias[0]
            torch.testing.assert_close(logits[at], expected, atol=1e-4, rtol=1e-4)


def test_without_sbpo_there_are_no_boundary_parameters():
    names = [name for name, _ in build_discriminator("electra", span_boundary=False).named_parameters()]
    assert names and all(name.startswith("detector.") for name in names)
