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
