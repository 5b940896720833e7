"""The two losses, as pure functions: computed in float32, each a mean over its own tokens."""

from __future__ import annotations

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
    logits = logits.float().flatten(0, -2)
    labels = labels.flatten()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)


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
