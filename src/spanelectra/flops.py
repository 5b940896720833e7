"""How much arithmetic a training step is, and how much of it this machine could do: model-FLOPs utilisation."""

from __future__ import annotations

import time
from collections.abc import Collection

import torch
from torch import nn
from transformers import PreTrainedConfig

from spanelectra.argument_groups import OBJECTIVES
from spanelectra.configuration_spanelectra import SAMPLED_HEADS
from spanelectra.encoder_families import embedding_size, encoder_of
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.shared_embeddings import ProjectedEmbedding


def encoder_flops(config: PreTrainedConfig, length: int) -> float:
    """Multiply-adds, times two, of one forward pass over one row of ``length`` tokens.

    Counts matrix products only (projections, attention scores and sums, MLP), as is usual for utilisation.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    mlp = 3 * hidden * inner if config.model_type == "modernbert" else 2 * hidden * inner
    attention = 4 * hidden * hidden + 2 * length * hidden
    size = embedding_size(config)
    project = size * hidden if size != hidden else 0
    return 2.0 * length * (config.num_hidden_layers * (attention + mlp) + project)


def row_training_flops(
    model: SpanElectraForPreTraining, length: int, count: int, active: Collection[str] | None = None
) -> float:
    """FLOPs of training on one row: three times the forward pass of what is trained, once what is only sampled from.

    Args:
        length: tokens in the row.
        count: masked positions that heads score (and as many decoys for SBPO).
        active: objectives whose weight is not 0; by default all of the model's.
    """
    config = model.config
    objectives = set(config.objectives or ()) & set(OBJECTIVES if active is None else active)
    with_discriminator = bool(objectives & set(config.discriminator_objectives))
    sampled = SAMPLED_HEADS[config.sampling_source] if with_discriminator else set()
    total = 0.0
    if model.generator is not None:
        generator, embedding = model.generator, model.generator.language_model.get_input_embeddings()
        size = embedding_size(generator.config)
        decoder = size * generator.config.vocab_size
        products = encoder_flops(generator.config, length) / 2
        if isinstance(embedding, ProjectedEmbedding):
            projection = embedding.projection.numel()
            products += length * projection
            decoder = projection + embedding.table.weight.numel()
        heads = {"mlm": generator.config.hidden_size * size + decoder}
        if generator.span_boundary_head is not None:
            heads["sbgo"] = _linear_weights(generator.span_boundary_head) + decoder
        trained = set() if config.freeze_generator else objectives & set(heads)
        total += 2.0 * products * (3 if trained else 1)
        for name in trained | (sampled & set(heads)):
            total += 2.0 * count * heads[name] * (3 if name in trained else 1)
    if with_discriminator and model.discriminator is not None:
        discriminator = model.discriminator
        products = encoder_flops(discriminator.config, length) / 2
        if "ato" in objectives:
            detector = discriminator.detector
            products += length * (_linear_weights(detector) - _linear_weights(encoder_of(detector)))
        if "sbpo" in objectives and discriminator.span_boundary_head is not None:
            head = _linear_weights(discriminator.span_boundary_head)
            products += 2 * count * (head + _linear_weights(discriminator.span_boundary_classifier))
        if "correction" in objectives:
            size = embedding_size(discriminator.config)
            products += count * size * (discriminator.config.hidden_size + discriminator.config.vocab_size)
        total += 2.0 * products * 3
    return total


def _linear_weights(module: nn.Module) -> int:
    """Multiply-adds of applying each linear layer of a module to one position."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def measure_peak_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of a large matrix product on this device, now: what utilisation is measured against.

    The best of several, so that a busy moment does not flatter the utilisation.
    """
    size = 4096 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    best, deadline = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < deadline:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - start))
    return best


def count_parameters(module: nn.Module | None) -> int:
    """Parameters of a module, shared ones once; 0 for ``None``."""
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0
