"""The two losses, as pure functions: computed in float32, each a mean over its own tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100


def vocabulary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of MLM and SBGO (BERT, section 3.1; SpanBERT, section 3.2).

    Args:
        logits: (…, vocabulary) float.
        labels: (…) int64 original tokens, ``IGNORE_INDEX`` where nothing is scored.

    Returns:
        Scalar float32; 0 where no label is scored, so that an unlucky batch does not end a run.
    """
    return _MeanCrossEntropy.apply(logits.float().flatten(0, -2), labels.flatten())


class _MeanCrossEntropy(torch.autograd.Function):
    """The mean of ``F.cross_entropy`` over scored rows, with fewer passes over the vocabulary.

    Kept for the backward pass are probabilities, of which the gradient is a multiple but for one entry a row; torch
    keeps their logarithms, fills a gradient with zeros and takes exponentials then. Once differentiable, and not for
    ``torch.vmap``.
    """

    @staticmethod
    def forward(context: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """(count, vocabulary) float32 and (count,) int64 -> scalar."""
        log_probabilities = logits.log_softmax(-1)
        scored = labels != IGNORE_INDEX
        targets = labels.where(scored, 0).unsqueeze(-1)
        share = scored / scored.sum().clamp(min=1)
        # what is not scored may be anything, even no number
        losses = -log_probabilities.gather(-1, targets).squeeze(-1).where(scored, 0.0)
        if context.needs_input_grad[0]:
            context.save_for_backward(log_probabilities.exp_(), targets, share.unsqueeze(-1))
        return (losses * share).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        probabilities, targets, share = context.saved_tensors
        factors = gradient * share
        # in place, for it is a large tensor; torch refuses a second way back (but under saved_tensors_hooks)
        return probabilities.mul_(factors).scatter_add_(-1, targets, -factors), None


def replaced_token_loss(logits: Tensor, replaced: Tensor, scored: Tensor) -> Tensor:
    """Mean binary cross-entropy in nats of ATO and SBPO (ELECTRA, section 3.1).

    Args:
        logits: (…) float, above 0 for 'replaced'.
        replaced: (…) bool labels.
        scored: (…) bool, False where nothing is scored (padding).

    Returns:
        Scalar float32; 0 where nothing is scored.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), replaced.float(), reduction="none")
    return (losses * scored).sum() / scored.sum().clamp(min=1)
