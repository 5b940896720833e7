"""Sampling against its law and a slow inverse of the cumulative sum; corrupted ids against a loop."""

from __future__ import annotations

import math

import pytest
import torch

from spanelectra.losses import IGNORE_INDEX
from spanelectra.replacement import replace_tokens, sample_tokens, sampling_logits

CHI_SQUARE_999 = {11: 31.26}  # 0.999 quantile by degrees of freedom (tables)


def chi_square(sampled: torch.Tensor, probabilities: torch.Tensor) -> float:
    counts = torch.bincount(sampled, minlength=len(probabilities)).double()
    expected = probabilities.double() * len(sampled)
    assert (expected >= 5).all()
    return ((counts - expected) ** 2 / expected).sum().item()


def slow_sample(logits: list[float], noise: float, temperature: float) -> int:
    """Walk along the cumulative sum until it passes the noise."""
    weights = [math.exp(value / temperature) for value in logits]
    total = 0.0
    for token, weight in enumerate(weights):
        total += weight / sum(weights)
        if noise < total:
            return token
    raise AssertionError("the noise is not below 1")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_softmax_at_each_temperature(temperature):
    torch.manual_seed(0)
    logits = torch.randn(12)
    sampled = sample_tokens(logits.expand(30_000, -1), torch.rand(30_000), temperature)
    assert chi_square(sampled, torch.softmax(logits / temperature, -1)) < CHI_SQUARE_999[11]
    # and they do not follow that of another temperature, which the statistic must tell
    assert chi_square(sampled, torch.softmax(logits / (1.2 * temperature), -1)) > CHI_SQUARE_999[11]


@pytest.mark.parametrize("count", [1, 2, 3, 16, 23])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_each_sample_is_the_inverse_of_the_cumulative_sum(temperature, count):
    torch.manual_seed(1)
    logits, noise = torch.randn(4, 50, count) * 2, torch.rand(4, 50)
    sampled = sample_tokens(logits, noise, temperature)
    expected = [
        [slow_sample(logits[i, j].tolist(), noise[i, j].item(), temperature) for j in range(50)] for i in range(4)
    ]
    assert sampled.dtype == torch.int64
    assert sampled.tolist() == expected


def test_noise_is_the_only_source_of_randomness():
    logits, noise = torch.randn(64, 100), torch.rand(64)
    torch.manual_seed(0)
    first = sample_tokens(logits, noise)
    torch.manual_seed(1)
    assert torch.equal(sample_tokens(logits, noise), first)
    assert not torch.equal(sample_tokens(logits, 1 - noise), first)


@pytest.mark.parametrize(
    ("noise", "token"),
    [(0.0, 0), (0.25 - 2**-25, 0), (0.25, 1), (0.5, 2), (0.75, 3), (1 - 2**-24, 3)],
)
def test_a_token_owns_its_interval_up_to_but_without_the_upper_end(noise, token):
    assert sample_tokens(torch.zeros(1, 4), torch.tensor([noise])).item() == token


@pytest.mark.parametrize("noise", [0.0, 2**-24, 0.5, 1 - 2**-24, 1 - 2**-40])
def test_a_token_without_probability_is_never_drawn(noise):
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 300:600] = torch.randn(300, generator=torch.Generator().manual_seed(2))
    sampled = sample_tokens(logits, torch.tensor([noise], dtype=torch.float64)).item()
    assert 300 <= sampled < 600


@pytest.mark.parametrize("count", [2, 10, 50])
def test_what_is_no_number_draws_a_token_that_there_is(count):
    logits = torch.full((3, count), torch.nan)
    assert sample_tokens(logits, torch.tensor([0.0, 0.5, 1.0])).max() < count


def test_a_low_temperature_is_argmax_and_samples_carry_no_gradient():
    torch.manual_seed(3)
    logits = torch.randn(20, 50, requires_grad=True)
    sampled = sample_tokens(logits, torch.rand(20), temperature=1e-3)
    assert torch.equal(sampled, logits.argmax(-1))
    assert not sampled.requires_grad


def test_sources_of_the_sampling_logits():
    mlm, sbgo = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert sampling_logits(mlm, None, "mlm") is mlm
    assert sampling_logits(None, sbgo, "sbgo") is sbgo
    mixed = sampling_logits(mlm, sbgo, "mixed")
    for index in [(0, 0, 0), (1, 2, 4), (0, 1, 3)]:
        assert mixed[index].item() == pytest.approx((mlm[index].item() + sbgo[index].item()) / 2)


def test_corrupted_ids_and_labels_equal_a_loop(batch):
    original, positions, labels = batch["original_ids"], batch["masked_positions"], batch["labels"]
    sampled = torch.randint(5, 100, labels.shape, generator=torch.Generator().manual_seed(4))
    sampled[0, 1] = labels[0, 1]  # restored by luck
    before = original.clone()
    corrupted, replaced = replace_tokens(original, positions, labels, sampled)
    expected = [row[:] for row in original.tolist()]
    for row in range(3):
        for column in range(labels.shape[1]):
            if labels[row, column] != IGNORE_INDEX:
                expected[row][positions[row, column]] = int(sampled[row, column])
    assert corrupted.tolist() == expected
    assert replaced.tolist() == [
        [new != old for new, old in zip(*rows, strict=True)] for rows in zip(expected, before.tolist(), strict=True)
    ]
    assert torch.equal(original, before)


def test_a_restored_token_counts_as_original(batch):
    labels = batch["labels"]
    sampled = torch.where(labels == IGNORE_INDEX, 77, labels)
    corrupted, replaced = replace_tokens(batch["original_ids"], batch["masked_positions"], labels, sampled)
    assert torch.equal(corrupted, batch["original_ids"])
    assert not replaced.any()
