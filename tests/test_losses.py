"""The losses against plain Python loops."""

from __future__ import annotations

import math

import pytest
import torch

from spanelectra.losses import IGNORE_INDEX, replaced_token_loss, vocabulary_loss


def slow_vocabulary_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Minus the log probability of each label, one by one."""
    losses = []
    for row, label in zip(logits.double().flatten(0, -2).tolist(), labels.flatten().tolist(), strict=True):
        if label != IGNORE_INDEX:
            losses.append(math.log(sum(math.exp(value) for value in row)) - row[label])
    return sum(losses) / len(losses)


def slow_replaced_token_loss(logits: torch.Tensor, replaced: torch.Tensor, scored: torch.Tensor) -> float:
    """Minus the log probability of each verdict, one by one."""
    losses = []
    entries = zip(
        logits.double().flatten().tolist(), replaced.flatten().tolist(), scored.flatten().tolist(), strict=True
    )
    for logit, is_replaced, is_scored in entries:
        if is_scored:
            probability = 1 / (1 + math.exp(-logit))
            losses.append(-math.log(probability if is_replaced else 1 - probability))
    return sum(losses) / len(losses)


@pytest.fixture
def vocabulary_case():
    torch.manual_seed(0)
    labels = torch.randint(0, 11, (3, 4))
    labels[0, 1] = labels[2, 3] = IGNORE_INDEX
    return torch.randn(3, 4, 11) * 3, labels


@pytest.fixture
def detection_case():
    torch.manual_seed(1)
    return torch.randn(3, 7) * 3, torch.rand(3, 7) < 0.4, torch.rand(3, 7) < 0.7


def test_vocabulary_loss_equals_a_loop(vocabulary_case):
    logits, labels = vocabulary_case
    assert vocabulary_loss(logits, labels).item() == pytest.approx(slow_vocabulary_loss(logits, labels), rel=1e-5)


def test_replaced_token_loss_equals_a_loop(detection_case):
    assert replaced_token_loss(*detection_case).item() == pytest.approx(
        slow_replaced_token_loss(*detection_case), rel=1e-5
    )


def test_ignored_labels_have_no_influence_and_no_gradient(vocabulary_case):
    logits, labels = vocabulary_case
    changed = logits.clone()
    changed[labels == IGNORE_INDEX] = 1e4
    changed.requires_grad_()
    loss = vocabulary_loss(changed, labels)
    loss.backward()
    assert loss.item() == vocabulary_loss(logits, labels).item()
    assert not changed.grad[labels == IGNORE_INDEX].any()
    assert (changed.grad[labels != IGNORE_INDEX].abs().sum(-1) > 0).all()


def test_unscored_tokens_have_no_influence_and_no_gradient(detection_case):
    logits, replaced, scored = detection_case
    changed = torch.where(scored, logits, torch.full_like(logits, 1e4)).requires_grad_()
    loss = replaced_token_loss(changed, replaced ^ ~scored, scored)
    loss.backward()
    assert loss.item() == replaced_token_loss(logits, replaced, scored).item()
    assert not changed.grad[~scored].any()
    assert changed.grad[scored].all()


@pytest.mark.parametrize("columns", [0, 4])
def test_nothing_scored_gives_zero_and_a_zero_gradient(columns):
    logits = torch.randn(2, columns, 11, requires_grad=True)
    verdicts = torch.randn(2, columns, requires_grad=True)
    nothing = torch.zeros(2, columns, dtype=torch.bool)
    loss = vocabulary_loss(logits, torch.full((2, columns), IGNORE_INDEX)) + replaced_token_loss(
        verdicts, nothing, nothing
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert torch.equal(verdicts.grad, torch.zeros_like(verdicts))


def test_half_precision_logits_are_scored_in_float32(vocabulary_case, detection_case):
    logits, labels = vocabulary_case
    low = logits.bfloat16()
    assert vocabulary_loss(low, labels).dtype == torch.float32
    assert torch.equal(vocabulary_loss(low, labels), vocabulary_loss(low.float(), labels))
    verdicts, replaced, scored = detection_case
    low = verdicts.bfloat16()
    assert torch.equal(replaced_token_loss(low, replaced, scored), replaced_token_loss(low.float(), replaced, scored))


def test_both_are_means_so_repeating_a_batch_changes_nothing(vocabulary_case, detection_case):
    twice = [torch.cat([tensor, tensor]) for tensor in vocabulary_case]
    torch.testing.assert_close(vocabulary_loss(*twice), vocabulary_loss(*vocabulary_case))
    twice = [torch.cat([tensor, tensor]) for tensor in detection_case]
    torch.testing.assert_close(replaced_token_loss(*twice), replaced_token_loss(*detection_case))


@pytest.mark.parametrize("scored", [True, False])
def test_vocabulary_loss_and_its_gradient_are_torchs(scored):
    """Ours goes over the vocabulary once on the way back; the reference is torch's own cross entropy."""
    torch.manual_seed(2)
    labels = torch.randint(0, 500, (6, 9))
    labels[torch.rand(6, 9) < (0.3 if scored else 1.1)] = IGNORE_INDEX
    ours = (torch.randn(6, 9, 500) * 4).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    loss = vocabulary_loss(ours, labels)
    reference = torch.nn.functional.cross_entropy(theirs.flatten(0, -2), labels.flatten(), reduction="sum")
    reference = reference / max(1, int((labels != IGNORE_INDEX).sum()))
    torch.testing.assert_close(loss, reference)
    (3 * loss).backward()
    (3 * reference).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)


def test_a_hopeless_guess_costs_what_it_should():
    """The label's probability is below the smallest float: the loss is still the logits' difference."""
    logits = torch.tensor([[[300.0, 0.0]]], requires_grad=True)
    loss = vocabulary_loss(logits, torch.tensor([[1]]))
    loss.backward()
    assert loss.item() == 300.0
    assert logits.grad.tolist() == [[[1.0, -1.0]]]


def test_bfloat16_logits_get_a_bfloat16_gradient():
    logits = torch.randn(2, 3, 50, dtype=torch.bfloat16, requires_grad=True)
    vocabulary_loss(logits, torch.randint(0, 50, (2, 3))).backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad.float().sum(-1), torch.zeros(2, 3), atol=2e-3, rtol=0)


def test_what_is_not_scored_may_be_anything():
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 0] = -torch.inf
    assert vocabulary_loss(logits, torch.tensor([[IGNORE_INDEX, 1]])).item() == pytest.approx(math.log(4))


def test_a_second_derivative_is_refused():
    logits = torch.randn(1, 2, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(vocabulary_loss(logits, torch.tensor([[0, 1]])), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.square().sum().backward()


def test_a_second_backward_pass_raises():
    logits = torch.randn(6, 50, requires_grad=True)
    loss = vocabulary_loss(logits, torch.arange(6))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
