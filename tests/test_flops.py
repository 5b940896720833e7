"""The formula against torch's own counter of matrix products, heads and backward pass included."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from factories import COUNT, LENGTH, encoder_config, joint_config, make_batch
from spanelectra.flops import count_parameters, encoder_flops, measure_peak_flops, row_training_flops
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining

ROWS = 3
# ModernBERT turns positions into angles by a product of one multiplication each; nothing else may be missing
TOLERANCE = 0.005


def eager(config):
    """The attention whose products torch can count."""
    config._attn_implementation = "eager"
    return config


def eager_model(family: str, **settings) -> SpanElectraForPreTraining:
    torch.manual_seed(0)
    config = joint_config(family, **settings)
    for part in (config.generator_config, config.discriminator_config):
        if part is not None:
            eager(part)
    return SpanElectraForPreTraining(config)


def counted(model: SpanElectraForPreTraining, *, backward: bool = True, **arguments) -> float:
    with FlopCounterMode(display=False) as counter:
        output = model(**make_batch(), **arguments)
        if backward:
            output.loss.backward()
    return counter.get_total_flops() / ROWS


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "embedding_size"), [("electra", None), ("electra", 16), ("modernbert", None), ("bert", None)]
)
@pytest.mark.parametrize("length", [8, 32])
def test_an_encoders_forward_pass(family, embedding_size, length):
    config = eager(encoder_config(family, embedding_size=embedding_size))
    encoder = AutoModel.from_config(config)
    if family == "bert":
        encoder.pooler = None
    with FlopCounterMode(display=False) as counter:
        encoder(torch.randint(5, 100, (2, length)))
    assert encoder_flops(config, length) == pytest.approx(counter.get_total_flops() / 2, rel=TOLERANCE)


@pytest.mark.parametrize("family", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("sharing", ["embeddings", "gradient_disentangled", "none"])
@pytest.mark.parametrize("others", [[], ["correction"]])
def test_a_joint_training_step_forward_and_backward(family, sharing, others):
    model = eager_model(family, sharing=sharing, objectives=["mlm", "sbgo", "ato", "sbpo", *others])
    formula = row_training_flops(model, LENGTH, COUNT)
    forward = counted(model, backward=False)
    assert formula / 3 == pytest.approx(forward, rel=TOLERANCE)
    assert formula == pytest.approx(counted(model), rel=TOLERANCE)


@pytest.mark.parametrize(
    "settings",
    [
        {"objectives": ["mlm"], "discriminator_config": None},
        {"objectives": ["mlm", "sbgo"], "discriminator_config": None},
        {"objectives": ["sbgo"], "discriminator_config": None},
        {"objectives": ["mlm", "ato"]},
        {"objectives": ["mlm", "sbpo"]},
        {"objectives": ["mlm", "correction"]},
        {"objectives": ["mlm", "ato", "correction"], "embedding_size": 24},
        {"objectives": ["mlm", "correction"], "sharing": "encoder"},
        {"objectives": ["sbgo", "ato"], "sampling_source": "sbgo"},
        {"embedding_size": 24},
        {"sharing": "encoder"},
        {"generator_depth": 0.5},
    ],
    ids=str,
)
def test_other_sets_of_heads_and_shapes(settings):
    settings = dict(settings)
    without_discriminator = "discriminator_config" in settings
    settings.pop("discriminator_config", None)
    torch.manual_seed(0)
    config = joint_config("electra", **settings)
    if without_discriminator:
        config.discriminator_config = None
    for part in (config.generator_config, config.discriminator_config):
        if part is not None:
            eager(part)
    model = SpanElectraForPreTraining(config)
    assert row_training_flops(model, LENGTH, COUNT) == pytest.approx(counted(model), rel=TOLERANCE)


@pytest.mark.parametrize("source", ["mlm", "sbgo", "mixed"])
def test_a_frozen_generator_counts_once_and_only_the_heads_it_samples_from(source):
    objectives = ["ato", "sbpo", "correction"]
    model = eager_model(
        "electra", objectives=objectives, sharing="none", freeze_generator=True, sampling_source=source
    ).train()
    assert row_training_flops(model, LENGTH, COUNT) == pytest.approx(counted(model), rel=TOLERANCE)


def test_a_head_start_counts_the_generator_alone():
    model = eager_model("electra")
    off = {"ato": 0.0, "sbpo": 0.0}
    formula = row_training_flops(model, LENGTH, COUNT, ["mlm", "sbgo"])
    assert formula == pytest.approx(counted(model, loss_weights=off), rel=TOLERANCE)
    assert formula < 0.5 * row_training_flops(model, LENGTH, COUNT)


@pytest.mark.parametrize("resting", ["mlm", "sbgo", "ato", "sbpo", "correction", "mlm sbgo", "ato correction"])
@pytest.mark.parametrize("source", ["mlm", "mixed"])
def test_what_has_no_weight_now_counts_only_where_it_is_sampled_from(resting, source):
    objectives = ["mlm", "sbgo", "ato", "sbpo", "correction"]
    model = eager_model("electra", objectives=objectives, sampling_source=source, sharing="none")
    off = dict.fromkeys(resting.split(), 0.0)
    formula = row_training_flops(model, LENGTH, COUNT, set(objectives) - set(off))
    assert formula == pytest.approx(counted(model, loss_weights=off), rel=TOLERANCE)


def test_peak_flops_is_what_a_product_of_matrices_reaches():
    assert 1e8 < measure_peak_flops(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14


def test_shared_parameters_are_counted_once():
    separate, shared = eager_model("electra", sharing="none"), eager_model("electra", sharing="embeddings")
    table = separate.discriminator.detector.electra.embeddings
    saved = sum(
        e.weight.numel() for e in (table.word_embeddings, table.position_embeddings, table.token_type_embeddings)
    )
    assert count_parameters(separate) - count_parameters(shared) == saved
    assert count_parameters(None) == 0
