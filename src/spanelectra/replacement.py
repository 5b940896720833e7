"""Generator logits and noise -> corrupted ids and their labels."""

from __future__ import annotations

import torch
from torch import Tensor

from spanelectra.losses import IGNORE_INDEX


def sampling_logits(mlm_logits: Tensor | None, sbgo_logits: Tensor | None, source: str) -> Tensor:
    """Choose the logits that replacements are drawn from: ``mlm``, ``sbgo`` or ``mixed``, the mean of both."""
    if source == "mixed":
        assert mlm_logits is not None and sbgo_logits is not None
        return (mlm_logits + sbgo_logits) / 2
    chosen = mlm_logits if source == "mlm" else sbgo_logits
    assert chosen is not None
    return chosen


@torch.no_grad()
def sample_tokens(logits: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Draw one token a position from softmax(logits / temperature) by inverting the cumulative sum.

    Cheaper than Gumbel noise, which needs a random number and a logarithm for every entry of the vocabulary.

    Args:
        logits: (…, vocabulary) float.
        noise: (…) float in [0, 1), the only source of randomness.
        temperature: above 0; below 1 sharpens.

    Returns:
        (…) int64 token ids, without a gradient to the logits.
    """
    logits = logits.detach().float()
    # the usual temperature of 1 would cost a pass over the vocabulary
    cumulative = torch.softmax(logits if temperature == 1.0 else logits / temperature, dim=-1).cumsum(dim=-1)
    # the sum may end a rounding error away from 1, so noise is scaled to where it does end
    total = cumulative[..., -1:]
    threshold = noise.to(cumulative).unsqueeze(-1) * total
    # noise that rounds to 1 must not fall off the end, onto a last token that may have no probability at all
    threshold = torch.minimum(threshold, torch.nextafter(total, torch.zeros_like(total)))
    # where logits are no numbers there is none; the step is left out later, and must not fail here
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def replace_tokens(
    original_ids: Tensor, masked_positions: Tensor, labels: Tensor, sampled: Tensor
) -> tuple[Tensor, Tensor]:
    """Put sampled tokens at the masked positions.

    Args:
        original_ids: (batch, length) int64.
        masked_positions: (batch, count) int64; padding points at a position that is never masked (0, the [CLS]).
        labels: (batch, count) int64, the original token there, or ``IGNORE_INDEX`` for padding.
        sampled: (batch, count) int64, the generator's draws.

    Returns:
        corrupted ids (batch, length) int64, and whether each token was replaced (batch, length) bool. A token that the
        generator happens to restore counts as original.
    """
    kept = original_ids.gather(1, masked_positions)
    # padding writes back what stands at its position already; no boolean index, so a GPU need not wait for the count
    written = torch.where(labels != IGNORE_INDEX, sampled, kept)
    corrupted_ids = original_ids.scatter(1, masked_positions, written)
    return corrupted_ids, corrupted_ids != original_ids
