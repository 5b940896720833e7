"""Tiny models and hand-made batches that the tests of models, losses and transfers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, PreTrainedConfig

from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.encoder_families import make_encoder_config, scale_encoder_config
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining

VOCAB_SIZE = 100
LENGTH = 16
MASK_ID = 3
MAX_SPAN_LENGTH = 6
TOKEN_IDS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}

FAMILIES = ("electra", "modernbert", "bert")
# rows of (first, last) positions; no span touches another one or a special token (positions 0 and 15)
MASKED_SPANS = [[(3, 5), (9, 9)], [(2, 2)], [(5, 8)]]
DECOY_SPANS = [[(11, 13)], [(6, 8), (11, 11)], [(11, 11), (13, 13)]]
COUNT = 5


def encoder_config(
    family: str, *, hidden_size: int = 32, layers: int = 2, embedding_size: int | None = None, dropout: float = 0.0
) -> PreTrainedConfig:
    """A stock configuration small enough for a test."""
    if family == "bert":
        return BertConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * hidden_size,
            max_position_embeddings=40,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    return make_encoder_config(
        family,
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden_size,
        embedding_size=embedding_size,
        max_position_embeddings=40,
        dropout=dropout,
        token_ids=TOKEN_IDS,
    )


def joint_config(
    family: str = "electra",
    *,
    generator_size: float = 0.5,
    generator_depth: float = 1.0,
    embedding_size: int | None = None,
    **settings: Any,
) -> SpanElectraConfig:
    """Generator and discriminator of one family."""
    discriminator = encoder_config(family, embedding_size=embedding_size)
    size = 1.0 if settings.get("sharing") == "encoder" else generator_size
    defaults: dict[str, Any] = {"max_span_length": MAX_SPAN_LENGTH, "span_position_size": 8}
    return SpanElectraConfig(
        generator_config=scale_encoder_config(discriminator, size, generator_depth),
        discriminator_config=discriminator,
        **(defaults | settings),
    )


def perturb(module: nn.Module, seed: int = 7) -> None:
    """Move every parameter off its initial value, so that zero biases and unit gains cannot hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def joint_model(family: str = "electra", *, seed: int = 0, **settings: Any) -> SpanElectraForPreTraining:
    """A model of :func:`joint_config` with perturbed weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = SpanElectraForPreTraining(joint_config(family, **settings))
    perturb(model)
    return model.eval()


def _lay_out(rows: list[list[tuple[int, int]]]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Positions, left and right boundaries, places in the span and whether scored; padded to COUNT with zeros."""
    laid_out = torch.zeros(5, len(rows), COUNT, dtype=torch.int64)
    for row, spans in enumerate(rows):
        column = 0
        for first, last in spans:
            for position in range(first, last + 1):
                entry = (position, first - 1, last + 1, position - first, 1)
                laid_out[:, row, column] = torch.tensor(entry)
                column += 1
    positions, left, right, places, scored = laid_out
    return positions, left, right, places, scored.bool()


def make_batch(seed: int = 0) -> dict[str, Tensor]:
    """Three rows as DataCollatorForSpanElectra lays them out: all masked tokens are [MASK], the rest is text."""
    random = torch.Generator().manual_seed(seed)
    original_ids = torch.randint(5, VOCAB_SIZE, (3, LENGTH), generator=random)
    original_ids[:, 0], original_ids[:, -1] = TOKEN_IDS["cls_token_id"], TOKEN_IDS["sep_token_id"]
    masked, left, right, places, scored = _lay_out(MASKED_SPANS)
    decoys, decoy_left, decoy_right, decoy_places, decoy_scored = _lay_out(DECOY_SPANS)
    input_ids = original_ids.clone()
    for row in range(3):
        input_ids[row, masked[row, scored[row]]] = MASK_ID
    return {
        "original_ids": original_ids,
        "input_ids": input_ids,
        "masked_positions": masked,
        "labels": torch.where(scored, original_ids.gather(1, masked), IGNORE_INDEX),
        "left_boundaries": left,
        "right_boundaries": right,
        "span_positions": places,
        "replacement_noise": torch.rand(3, COUNT, generator=random),
        "decoy_positions": decoys,
        "decoy_left_boundaries": decoy_left,
        "decoy_right_boundaries": decoy_right,
        "decoy_span_positions": decoy_places,
        "decoy_scored": decoy_scored,
    }


def stock_labels(batch: dict[str, Tensor]) -> Tensor:
    """(batch, length) labels as a stock masked language model takes them."""
    labels = torch.full_like(batch["original_ids"], IGNORE_INDEX)
    is_masked = batch["input_ids"] != batch["original_ids"]
    labels[is_masked] = batch["original_ids"][is_masked]
    return labels


def gradient_names(model: nn.Module) -> set[str]:
    """Names of the parameters that hold a gradient which is not all zero."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
    }


@contextmanager
def count_calls(module: nn.Module) -> Iterator[list[int]]:
    """Count how often a module runs: the list's only entry."""
    calls = [0]

    def hook(*_: Any) -> None:
        calls[0] += 1

    handle = module.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()
