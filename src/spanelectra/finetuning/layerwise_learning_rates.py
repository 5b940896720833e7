"""Layer-wise learning-rate decay: what lies deeper learns slower (ELECTRA, appendix A.2; ULMFiT, section 3.2)."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from spanelectra.encoder_families import encoder_of

# `encoder.layer.3.…` of BERT and ELECTRA, `layers.3.…` of ModernBERT, `block.3.`, `h.3.` of others.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d+)\.")


def depth_of(name: str, layers: int) -> int:
    """Depth of a parameter of the encoder: 0 for embeddings, 1 to ``layers`` for its layers, from the bottom.

    What is neither (a final norm, a pooler) lies above all layers, at ``layers + 1``.
    """
    match = _LAYER.search(name)
    if match:
        return int(match.group(1)) + 1
    return 0 if name.startswith("embedding") else layers + 1


def layerwise_groups(
    model: PreTrainedModel, *, learning_rate: float, decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser.

    The head learns at ``learning_rate``, the last layer at ``learning_rate * decay``, the embeddings at
    ``learning_rate * decay ** (layers + 1)``. (ELECTRA's code counts the head as two steps above the last layer, so
    that its whole encoder is slower by one more ``decay``.) Biases, norms and other vectors get no weight decay.

    Args:
        model: a stock task model.
        learning_rate: of the head.
        decay: factor from a layer to the one below it; 1 for none.
        weight_decay: of matrices.
    """
    layers = model.config.num_hidden_layers
    encoder = encoder_of(model)
    inside = {id(parameter): name for name, parameter in encoder.named_parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            name = inside.get(id(parameter))
            depth = layers + 1 if name is None else depth_of(name, layers)
            groups.setdefault((depth, parameter.dim() >= 2), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * decay ** (layers + 1 - depth),
            "weight_decay": weight_decay if is_matrix else 0.0,
        }
        for (depth, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]
