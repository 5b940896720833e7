"""The correction objective: its loss against the stock class, what it scores and reaches, and runs that have it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from factories import FAMILIES, encoder_config, gradient_names, joint_config, joint_model
from small_runs import pretrain_with_a_stop, read_lines, small_run, weights
from spanelectra.configuration_spanelectra import SHARING, SpanElectraConfig
from spanelectra.corrupted_rows import CorruptedRows
from spanelectra.corruption import corrupt
from spanelectra.data.training_rows import RowBatch
from spanelectra.encoder_families import encoder_of
from spanelectra.export import export
from spanelectra.inspection.command import inspect
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.pretraining import pretrain
from spanelectra.weight_transfer import warm_start

OBJECTIVES = ["mlm", "ato", "correction"]
ONLY = {"mlm": 0.0, "ato": 0.0}


def with_a_restored_token(model: SpanElectraForPreTraining, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch with what the model's generator makes of it, and two of its masked tokens restored."""
    corrupted_ids = model(**batch).corrupted_ids
    for row, column in ((0, 0), (2, 1)):
        position = batch["masked_positions"][row, column]
        corrupted_ids[row, position] = batch["original_ids"][row, position]
    return batch | {"corrupted_ids": corrupted_ids}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharing", SHARING)
def test_the_loss_is_the_cross_entropy_of_the_stock_class_at_replaced_tokens(family, sharing, batch):
    model = joint_model(family, objectives=OBJECTIVES, sharing=sharing)
    given = with_a_restored_token(model, batch)
    output = model(**given)
    logits = model.discriminator.corrector(input_ids=given["corrupted_ids"]).logits
    costs = [
        F.cross_entropy(logits[row, position], batch["original_ids"][row, position]).item()
        for row in range(3)
        for position in range(16)
        if given["corrupted_ids"][row, position] != batch["original_ids"][row, position]
    ]
    assert 0 < len(costs) < int((batch["labels"] != IGNORE_INDEX).sum())
    assert output.losses["correction"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    expected = logits.gather(1, batch["masked_positions"].unsqueeze(-1).expand(-1, -1, 100))
    torch.testing.assert_close(output.correction_logits, expected, atol=1e-4, rtol=1e-4)


def test_restored_and_padded_positions_have_no_gradient(batch):
    model = joint_model("electra", objectives=OBJECTIVES)
    given = with_a_restored_token(model, batch)
    computed = []

    def remember(module, inputs, logits):
        computed.append(logits)

    model.discriminator.corrector.get_output_embeddings().register_forward_hook(remember)
    output = model(**given)
    # one pass over the masked positions, none over the row
    assert [logits.shape for logits in computed] == [(3, 5, 100)]
    (gradient,) = torch.autograd.grad(output.losses["correction"], computed)
    moved = gradient.abs().sum(-1) > 0
    is_replaced = output.replaced.gather(1, batch["masked_positions"]) & (batch["labels"] != IGNORE_INDEX)
    assert torch.equal(moved, is_replaced) and not moved[0, 0] and not moved[2, 1]
    assert not output.correction_logits.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharing", SHARING)
def test_fresh_weights_start_at_guessing_evenly(family, sharing, batch):
    torch.manual_seed(0)
    model = SpanElectraForPreTraining(joint_config(family, objectives=OBJECTIVES, sharing=sharing))
    assert model(**batch).losses["correction"].item() == pytest.approx(math.log(100), abs=0.2)


@torch.no_grad()
@pytest.mark.parametrize("sharing", SHARING)
def test_without_it_nothing_is_built_and_fresh_weights_are_the_same(sharing):
    models = []
    for objectives in (["mlm", "sbgo", "ato", "sbpo"], ["mlm", "sbgo", "ato", "sbpo", "correction"]):
        torch.manual_seed(0)
        models.append(SpanElectraForPreTraining(joint_config("modernbert", objectives=objectives, sharing=sharing)))
    plain, correcting = (model.state_dict() for model in models)
    assert not any("corrector" in name for name in plain)
    assert all(torch.equal(tensor, correcting[name]) for name, tensor in plain.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharing", SHARING)
def test_it_trains_the_discriminators_encoder_embeddings_and_head(family, sharing, batch):
    model = joint_model(family, objectives=OBJECTIVES, sharing=sharing).train()
    discriminator = model.discriminator
    assert encoder_of(discriminator.corrector) is encoder_of(discriminator.detector)
    model(**batch, loss_weights=ONLY).loss.backward()
    reached = gradient_names(discriminator)
    names = [name for name, _ in discriminator.named_parameters()]
    encoder = {name for name in names if name.startswith(f"detector.{discriminator.detector.base_model_prefix}.")}
    head = {name for name in names if name.startswith("corrector.")}
    # of the table that the generator has too, only the difference moves
    kept = {name for name in encoder if name.endswith("table.weight")} if sharing == "gradient_disentangled" else set()
    assert head and reached == (encoder - kept) | head


def test_each_weight_has_one_name():
    for sharing in SHARING:
        model = joint_model("electra", objectives=OBJECTIVES, sharing=sharing)
        names = [name for name, _ in model.named_parameters() if "corrector" in name]
        assert names and not any(".electra." in name or name.endswith("lm_head.weight") for name in names)
        assert len({id(parameter) for parameter in model.parameters()}) == len(list(model.parameters()))


# --- warm start -------------------------------------------------------------------------------------------------------


def parts(family: str) -> Any:
    trained = joint_model(family, seed=3, objectives=OBJECTIVES, sharing="none", generator_size=1.0)
    torch.manual_seed(5)
    started = SpanElectraDiscriminator(
        encoder_config(family), span_boundary=False, max_span_length=6, span_position_size=8
    )
    started.add_corrector()
    return trained.generator, started.eval()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_warm_start_makes_the_corrector_the_generators_language_model(family, batch):
    generator, discriminator = parts(family)
    report = warm_start(discriminator, generator, "full")
    ids = batch["input_ids"]
    assert torch.equal(discriminator.corrector(input_ids=ids).logits, generator.language_model(input_ids=ids).logits)
    assert report.fresh == [] and report.unused == []
    assert any(name.endswith("bias") and "embeddings" not in name for name in report.filled)
    # a copy: what trains later must not move the frozen generator
    own = {parameter.data_ptr() for parameter in generator.parameters()}
    assert not own & {parameter.data_ptr() for parameter in discriminator.parameters()}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", ["grow", "embeddings"])
def test_other_warm_starts_leave_the_head_fresh_and_say_so(family, policy):
    generator, discriminator = parts(family)
    head = {n: p.clone() for n, p in discriminator.named_parameters() if n.startswith("corrector.")}
    report = warm_start(discriminator, generator, policy)
    now = dict(discriminator.named_parameters())
    assert head and all(torch.equal(now[name], tensor) for name, tensor in head.items())
    assert {name.removeprefix("corrector.") for name in head} <= set(report.fresh)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["discriminator", "joint"])
def test_a_run_trains_resumes_to_the_bit_and_is_exported_and_inspected(
    stage, rows, generator_run, tmp_path, monkeypatch
):
    settings = {"stage": stage, "objectives": OBJECTIVES if stage == "joint" else ["ato", "correction"]}
    settings |= {"generator": str(generator_run)} if stage == "discriminator" else {"sharing": "gradient_disentangled"}
    metrics = pretrain(small_run(rows, tmp_path / "whole", **settings))
    assert 0 < metrics["held_out"]["correction_loss"] < 2 * math.log(600)
    assert 0 <= metrics["held_out"]["correction_accuracy"] <= 1
    # so young a generator restores hardly anything
    expected = pytest.approx(metrics["unigram_cross_entropy"], rel=0.1)
    assert metrics["held_out"]["correction_unigram_loss"] == expected
    assert all("correction_loss" in line for line in read_lines(tmp_path / "whole"))

    pretrain_with_a_stop(small_run(rows, tmp_path / "cut", **settings))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

    written = export(str(tmp_path / "whole"), str(tmp_path / "out"), quiet=True)
    assert written["discriminator"]["class"] == "ModernBertForTokenClassification"
    assert written["discriminator"]["difference"] < 1e-5
    reopened = SpanElectraForPreTraining.from_pretrained(tmp_path / "out" / "checkpoint")
    assert reopened.discriminator.corrector is not None
    inspect("to be or not to be", model=str(tmp_path / "whole"), html=str(tmp_path / "picture.html"))


def test_rows_of_corrupt_are_corrected_too(rows, generator_run, tmp_path):
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), quiet=True)
    settings = {"stage": "discriminator", "objectives": ["correction"]}
    metrics = pretrain(small_run(tmp_path / "fake", tmp_path / "run", **settings))
    model = SpanElectraForPreTraining.from_pretrained(tmp_path / "run" / "model").eval()
    held_out = CorruptedRows(str(tmp_path / "fake"), "validation", decoys=True)
    batch = held_out.collate(RowBatch(np.arange(8), np.zeros(8, np.int64), 1.0))
    replaced = batch["corrupted_ids"] != batch["original_ids"]
    with torch.no_grad():
        logits = model.discriminator.corrector(input_ids=batch["corrupted_ids"]).logits
    expected = F.cross_entropy(logits[replaced], batch["original_ids"][replaced])
    assert replaced.any() and metrics["held_out"]["correction_loss"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_configuration_takes_it_by_name_and_by_name_alone():
    assert "correction" not in SpanElectraConfig().objectives
    config = SpanElectraConfig(objectives=["correction"], discriminator_config=encoder_config("electra"))
    config.check()
    assert config.discriminator_objectives == ("correction",) and not config.uses_span_boundaries
