"""The span-boundary head against a direct reading of SpanBERT, section 3.2, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from factories import MAX_SPAN_LENGTH, perturb
from spanelectra.span_boundary_head import SpanBoundaryHead, gather_positions


def slow_gelu(vector: Tensor) -> Tensor:
    return torch.tensor([value / 2 * (1 + math.erf(value / math.sqrt(2))) for value in vector.tolist()])


def slow_layer_norm(vector: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    mean = vector.sum() / len(vector)
    variance = ((vector - mean) ** 2).sum() / len(vector)
    return (vector - mean) / torch.sqrt(variance + 1e-5) * gain + bias


def slow_head(head: SpanBoundaryHead, hidden: Tensor, left: int, right: int, place: int) -> Tensor:
    """y = LN(GeLU(W2 LN(GeLU(W1 [x_left; x_right; p_place])))), for one token of one row."""
    features = torch.cat([hidden[left], hidden[right], head.position_embeddings.weight[place]])
    features = slow_gelu(head.boundary_dense.weight @ features + head.boundary_dense.bias)
    features = slow_layer_norm(features, head.boundary_norm.weight, head.boundary_norm.bias)
    features = slow_gelu(head.output_dense.weight @ features + head.output_dense.bias)
    return slow_layer_norm(features, head.output_norm.weight, head.output_norm.bias)


@pytest.fixture
def head() -> SpanBoundaryHead:
    torch.manual_seed(0)
    head = SpanBoundaryHead(32, 24, MAX_SPAN_LENGTH, 8)
    perturb(head)
    return head


@torch.no_grad()
def test_equals_section_3_2_token_by_token(head, batch):
    hidden = torch.randn(3, 16, 32)
    left, right, places = (batch[name] for name in ("left_boundaries", "right_boundaries", "span_positions"))
    output = head(hidden, left, right, places)
    assert output.shape == (*left.shape, 24)
    for row in range(left.shape[0]):
        for column in range(left.shape[1]):
            at = (row, column)
            expected = slow_head(head, hidden[row], int(left[at]), int(right[at]), int(places[at]))
            torch.testing.assert_close(output[at], expected, atol=1e-5, rtol=1e-5)


def test_gathering_equals_a_loop():
    hidden, positions = torch.randn(2, 9, 4), torch.tensor([[0, 8, 3], [3, 3, 1]])
    expected = torch.stack([torch.stack([hidden[row, i] for i in positions[row].tolist()]) for row in range(2)])
    assert torch.equal(gather_positions(hidden, positions), expected)


@torch.no_grad()
def test_left_right_and_place_in_the_span_all_matter(head):
    hidden = torch.randn(1, 16, 32)
    column = torch.tensor([[4]])
    outputs = [
        head(hidden, column, column + 3, torch.tensor([[0]])),
        head(hidden, column + 3, column, torch.tensor([[0]])),
        head(hidden, column, column + 3, torch.tensor([[1]])),
        head(hidden, column, column + 4, torch.tensor([[0]])),
    ]
    for index, output in enumerate(outputs):
        assert not any(torch.allclose(output, other) for other in outputs[index + 1 :])


def test_reads_only_the_two_boundaries(head):
    hidden = torch.randn(1, 16, 32, requires_grad=True)
    head(hidden, torch.tensor([[4]]), torch.tensor([[8]]), torch.tensor([[1]])).square().sum().backward()
    read = hidden.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert read == [4, 8]
