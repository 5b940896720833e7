"""The joint model: its losses against the stock models', what gradients reach, what runs, and what is saved."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from factories import (
    FAMILIES,
    count_calls,
    encoder_config,
    gradient_names,
    joint_config,
    joint_model,
    make_batch,
    perturb,
    stock_labels,
)
from spanelectra.configuration_spanelectra import DISCRIMINATOR_OBJECTIVES, OBJECTIVES, SHARING, SpanElectraConfig
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError
from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import WEIGHTS_NAME, SpanElectraForPreTraining
from spanelectra.replacement import sample_tokens
from spanelectra.training_args import PretrainingArguments
from test_losses import slow_replaced_token_loss, slow_vocabulary_loss

SUBSETS = [subset for size in range(1, 6) for subset in itertools.combinations(OBJECTIVES, size)]
DISCRIMINATOR_ONLY = {"mlm": 0.0, "sbgo": 0.0}
GENERATOR_ONLY = {"ato": 0.0, "sbpo": 0.0, "correction": 0.0}
ALL = {"objectives": list(OBJECTIVES)}


def preset(method: str, family: str, **settings) -> SpanElectraForPreTraining:
    """The model of a method as its preset resolves it."""
    resolved = PretrainingArguments(method=method).resolved()
    config = joint_config(family, generator_size=resolved.generator_size, objectives=resolved.objectives, **settings)
    if not resolved.discriminator_objectives:
        config.discriminator_config = None
    torch.manual_seed(0)
    model = SpanElectraForPreTraining(config)
    perturb(model)
    return model.eval()


# --- losses -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_preset_bert_is_the_stock_masked_language_models_own_loss(family, batch):
    model = preset("bert", family)
    output = model(**batch)
    stock = model.generator.language_model(input_ids=batch["input_ids"], labels=stock_labels(batch))
    assert list(output.losses) == ["mlm"]
    torch.testing.assert_close(output.loss, stock.loss)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_preset_spanbert_is_the_stock_loss_plus_a_loop_over_boundary_predictions(family, batch):
    model = preset("spanbert", family)
    output = model(**batch)
    stock = model.generator.language_model(input_ids=batch["input_ids"], labels=stock_labels(batch))
    assert list(output.losses) == ["mlm", "sbgo"]
    torch.testing.assert_close(output.losses["mlm"], stock.loss)
    # the logits themselves are read token by token in test_modeling_generator
    assert output.losses["sbgo"].item() == pytest.approx(
        slow_vocabulary_loss(output.sbgo_logits, batch["labels"]), rel=1e-5
    )
    torch.testing.assert_close(output.loss, output.losses["mlm"] + output.losses["sbgo"])


@torch.no_grad()
@pytest.mark.parametrize("sharing", SHARING)
def test_preset_electra_is_the_losses_of_the_two_stock_electra_models(sharing, batch):
    model = preset("electra", "electra", sharing=sharing)
    output = model(**batch, loss_weights={"ato": 50.0})
    generator = model.generator.language_model(input_ids=batch["input_ids"], labels=stock_labels(batch))
    detector = model.discriminator.detector(input_ids=output.corrupted_ids, labels=output.replaced.long())
    assert output.replaced.any()
    torch.testing.assert_close(output.losses["mlm"], generator.loss)
    torch.testing.assert_close(output.losses["ato"], detector.loss)
    torch.testing.assert_close(output.loss, generator.loss + 50 * detector.loss)


@torch.no_grad()
def test_ato_with_padding_is_the_stock_loss_with_its_attention_mask(batch):
    model = preset("electra", "electra")
    mask = torch.ones_like(batch["input_ids"])
    mask[:, 14:] = 0
    output = model(**batch, attention_mask=mask)
    stock = model.discriminator.detector(
        input_ids=output.corrupted_ids, attention_mask=mask, labels=output.replaced.long()
    )
    torch.testing.assert_close(output.losses["ato"], stock.loss)


@torch.no_grad()
@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_ato_of_a_family_without_a_pre_training_class_is_the_token_classifiers_cross_entropy(family, batch):
    model = joint_model(family)
    output = model(**batch)
    stock = model.discriminator.detector(input_ids=output.corrupted_ids, labels=output.replaced.long())
    torch.testing.assert_close(output.losses["ato"], stock.loss)


@torch.no_grad()
def test_sbpo_is_a_mean_over_masked_and_decoy_tokens_and_decoys_are_original(batch):
    model = joint_model("electra")
    output = model(**batch)
    scored = torch.cat([batch["labels"] != IGNORE_INDEX, batch["decoy_scored"]], dim=1)
    positions = torch.cat([batch["masked_positions"], batch["decoy_positions"]], dim=1)
    labels = [
        [bool(output.corrupted_ids[row, column] != batch["original_ids"][row, column]) for column in columns]
        for row, columns in enumerate(positions.tolist())
    ]
    count = batch["labels"].shape[1]
    assert output.sbpo_replaced.tolist() == labels
    assert output.sbpo_replaced[:, :count].any() and not output.sbpo_replaced[:, count:].any()
    assert torch.equal(output.sbpo_scored, scored)
    expected = slow_replaced_token_loss(output.sbpo_logits, torch.tensor(labels), scored)
    assert output.losses["sbpo"].item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_sbpo_without_decoys_scores_the_masked_tokens_alone(batch):
    model = joint_model("electra")
    with_decoys = model(**batch)
    without = model(**{name: tensor for name, tensor in batch.items() if not name.startswith("decoy")})
    count = batch["labels"].shape[1]
    torch.testing.assert_close(without.sbpo_logits, with_decoys.sbpo_logits[:, :count])
    expected = slow_replaced_token_loss(without.sbpo_logits, without.sbpo_replaced, batch["labels"] != IGNORE_INDEX)
    assert without.losses["sbpo"].item() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_padded_scores_have_no_influence_on_any_loss(family, batch):
    model = joint_model(family, **ALL)
    padded = dict(batch)
    for name, tensor in batch.items():
        if tensor.dim() == 2 and tensor.shape[1] == batch["labels"].shape[1]:
            filler = {"labels": IGNORE_INDEX, "replacement_noise": 0.99}.get(name, 0)
            padded[name] = torch.cat([tensor, torch.full((3, 4), filler, dtype=tensor.dtype)], dim=1)
    assert padded["labels"].shape[1] == batch["labels"].shape[1] + 4
    expected, output = model(**batch), model(**padded)
    assert torch.equal(output.corrupted_ids, expected.corrupted_ids)
    for name in OBJECTIVES:
        torch.testing.assert_close(output.losses[name], expected.losses[name])


def test_a_batch_with_nothing_masked_gives_zero_losses_and_finite_gradients(batch):
    model = joint_model("electra", **ALL)
    batch["input_ids"] = batch["original_ids"].clone()
    batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
    batch["decoy_scored"] = torch.zeros_like(batch["decoy_scored"])
    output = model(**batch)
    output.loss.backward()
    assert [output.losses[name].item() for name in ("mlm", "sbgo", "sbpo", "correction")] == [0, 0, 0, 0]
    assert output.losses["ato"].item() > 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@torch.no_grad()
def test_weights_multiply_the_losses(batch):
    model = joint_model("electra", **ALL)
    weights = {"mlm": 2.0, "sbgo": 0.5, "ato": 50.0, "sbpo": 10.0, "correction": 0.3}
    output = model(**batch, loss_weights=weights)
    assert output.loss.item() == pytest.approx(sum(weights[name] * output.losses[name].item() for name in OBJECTIVES))
    assert model(**batch).losses == output.losses


# --- sampling ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("source", ["mlm", "sbgo", "mixed"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_replacements_are_drawn_from_the_chosen_logits_with_the_given_noise(source, temperature, batch):
    model = joint_model("electra", sampling_source=source, sampling_temperature=temperature)
    output = model(**batch)
    logits = {
        "mlm": output.mlm_logits,
        "sbgo": output.sbgo_logits,
        "mixed": (output.mlm_logits + output.sbgo_logits) / 2,
    }[source]
    sampled = sample_tokens(logits, batch["replacement_noise"], temperature)
    expected = batch["original_ids"].clone()
    for row, column in (batch["labels"] != IGNORE_INDEX).nonzero().tolist():
        expected[row, batch["masked_positions"][row, column]] = sampled[row, column]
    assert torch.equal(output.corrupted_ids, expected)
    assert torch.equal(output.replaced, expected != batch["original_ids"])
    assert torch.equal(model(**batch).corrupted_ids, expected)


@torch.no_grad()
def test_a_pass_can_have_a_temperature_of_its_own(batch):
    model, sharp = joint_model("electra"), joint_model("electra", sampling_temperature=0.3)
    output = model(**batch, sampling_temperature=0.3)
    assert torch.equal(output.corrupted_ids, sharp(**batch).corrupted_ids)
    assert not torch.equal(output.corrupted_ids, model(**batch).corrupted_ids)
    assert torch.equal(model.draw_replacements(batch).corrupted_ids, model(**batch).corrupted_ids)


@torch.no_grad()
def test_given_corrupted_ids_the_discriminator_reads_them_and_no_generator_runs(batch):
    model = joint_model("electra", **ALL)
    sampled = model(**batch)
    batch = dict(batch)
    del batch["input_ids"], batch["replacement_noise"]
    with count_calls(encoder_of(model.generator.language_model)) as calls:
        output = model(**batch, corrupted_ids=sampled.corrupted_ids)
    assert calls == [0]
    assert list(output.losses) == ["ato", "sbpo", "correction"]
    assert all(torch.equal(output.losses[name], sampled.losses[name]) for name in output.losses)


# --- gradients --------------------------------------------------------------------------------------------------------


def discriminator_gradients(model, batch) -> set[str]:
    model.train()
    model(**batch, loss_weights=DISCRIMINATOR_ONLY).loss.backward()
    names = gradient_names(model)
    assert any(name.startswith("discriminator.") for name in names)
    return names


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("source", ["mlm", "sbgo", "mixed"])
def test_no_gradient_crosses_the_sampling(family, source, batch):
    model = joint_model(family, sharing="none", sampling_source=source, **ALL)
    assert not {name for name in discriminator_gradients(model, batch) if name.startswith("generator.")}
    assert all(parameter.grad is None for parameter in model.generator.parameters())


@pytest.mark.parametrize(
    ("family", "size", "shared"),
    [
        ("electra", 0.5, {"word_embeddings", "position_embeddings", "token_type_embeddings"}),
        ("bert", 1.0, {"word_embeddings", "position_embeddings", "token_type_embeddings"}),
        ("modernbert", 1.0, {"tok_embeddings"}),
        ("bert", 0.5, {"word_embeddings.table"}),  # read through a projection
        ("modernbert", 0.5, {"tok_embeddings.table"}),
    ],
)
def test_sharing_embeddings_lets_the_discriminator_reach_the_shared_tables_and_nothing_else(
    family, size, shared, batch
):
    model = joint_model(family, sharing="embeddings", generator_size=size, **ALL)
    discriminator_gradients(model, batch)
    reached = gradient_names(model.generator)
    prefix = f"language_model.{model.generator.language_model.base_model_prefix}.embeddings."
    assert reached == {f"{prefix}{name}.weight" for name in shared}


@pytest.mark.parametrize(
    ("family", "size"), [("electra", 0.5), ("modernbert", 1.0), ("modernbert", 0.5), ("bert", 0.5)]
)
def test_gradient_disentangled_sharing_moves_the_difference_and_not_the_generators_table(family, size, batch):
    model = joint_model(family, sharing="gradient_disentangled", generator_size=size, **ALL)
    embedding = model.discriminator.detector.get_input_embeddings()
    discriminator_gradients(model, batch)
    assert not gradient_names(model.generator)
    assert embedding.table.weight.grad is None
    assert embedding.difference.weight.grad.abs().max() > 0
    model.zero_grad()
    model(**batch, loss_weights=GENERATOR_ONLY).loss.backward()
    assert embedding.table.weight.grad.abs().max() > 0
    assert embedding.difference.weight.grad is None


def test_gradient_disentangled_sharing_starts_at_the_generators_table():
    torch.manual_seed(0)
    model = SpanElectraForPreTraining(joint_config("modernbert", generator_size=1.0, sharing="gradient_disentangled"))
    ids = torch.arange(100)
    generator = model.generator.language_model.get_input_embeddings()
    assert torch.equal(model.discriminator.detector.get_input_embeddings()(ids), generator(ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_the_encoder_shares_every_parameter_of_it(family, batch):
    model = joint_model(family, sharing="encoder")
    encoder = encoder_of(model.generator.language_model)
    assert encoder_of(model.discriminator.detector) is encoder
    model.train()
    model(**batch, loss_weights=DISCRIMINATOR_ONLY).loss.backward()
    assert len(gradient_names(encoder)) == len(list(encoder.parameters()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharing", SHARING)
def test_the_vocabulary_projection_stays_tied_to_the_generators_embeddings(family, sharing):
    model = joint_model(family, sharing=sharing, generator_size=1.0)
    language_model = model.generator.language_model
    assert language_model.get_output_embeddings().weight is language_model.get_input_embeddings().weight
    detector = model.discriminator.detector.get_input_embeddings()
    table = {"gradient_disentangled": "table.weight"}.get(sharing, "weight")
    is_shared = dict(detector.named_parameters())[table] is language_model.get_input_embeddings().weight
    assert is_shared is (sharing != "none")


# --- any subset of the objectives -------------------------------------------------------------------------------------


def subset_model(family: str, subset: tuple[str, ...]) -> SpanElectraForPreTraining:
    """The model of a subset; without a generator where the subset trains none."""
    config = joint_config(family, objectives=list(subset), sampling_source="mlm" if "mlm" in subset else "sbgo")
    if not {"mlm", "sbgo"} & set(subset):
        config.generator_config = None
    if not set(DISCRIMINATOR_OBJECTIVES) & set(subset):
        config.discriminator_config = None
    torch.manual_seed(0)
    return SpanElectraForPreTraining(config).train()


@pytest.mark.parametrize("family", ["electra", "modernbert"])
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_of_the_objectives_builds_runs_and_trains(family, subset, batch):
    model = subset_model(family, subset)
    assert (model.generator is None) == (not {"mlm", "sbgo"} & set(subset))
    assert (model.discriminator is None) == (not set(DISCRIMINATOR_OBJECTIVES) & set(subset))
    if model.generator is None:
        ids = batch["original_ids"].clone()
        ids[0, 3] = ids[2, 6] = 50
        batch["corrupted_ids"] = ids
    output = model(**batch)
    assert list(output.losses) == list(subset)
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    output.loss.backward()
    encoders = [encoder_of(part) for part in (
        model.generator and model.generator.language_model, model.discriminator and model.discriminator.detector
    ) if part]  # fmt: skip
    for encoder in encoders:
        assert {name for name, _ in encoder.named_parameters()} - gradient_names(encoder) == set()
    for name, part in (("sbgo", model.generator), ("sbpo", model.discriminator)):
        if name in subset:
            head = part.span_boundary_head
            assert {n for n, _ in head.named_parameters()} == gradient_names(head)
        elif part is not None:
            assert part.span_boundary_head is None
    if model.discriminator is not None:
        assert (model.discriminator.corrector is not None) == ("correction" in subset)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert any(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@torch.no_grad()
def test_an_objective_of_weight_zero_is_not_computed(batch):
    model = joint_model("electra", **ALL)
    everything = model(**batch)
    for left_out in OBJECTIVES:
        output = model(**batch, loss_weights={left_out: 0.0})
        assert list(output.losses) == [name for name in OBJECTIVES if name != left_out]
        assert all(torch.equal(output.losses[name], everything.losses[name]) for name in output.losses)


def test_the_discriminator_does_not_run_when_its_weights_are_zero(batch):
    model = joint_model("electra", **ALL)
    with (
        count_calls(encoder_of(model.discriminator.detector)) as discriminator,
        count_calls(encoder_of(model.generator.language_model)) as generator,
    ):
        output = model(**batch, loss_weights=GENERATOR_ONLY)
        assert (generator, discriminator) == ([1], [0])
        model(**batch)
        assert (generator, discriminator) == ([2], [1])
    assert list(output.losses) == ["mlm", "sbgo"]
    assert output.corrupted_ids is None and output.ato_logits is None
    output.loss.backward()
    assert all(name.startswith("generator.") or "embeddings" in name for name in gradient_names(model))


def test_a_head_without_a_loss_runs_only_to_be_sampled_from(batch):
    model = joint_model("electra")
    with count_calls(model.generator.language_model.generator_predictions) as calls:
        model(**batch, loss_weights={"mlm": 0.0} | GENERATOR_ONLY)
        assert calls == [0]
        model(**batch, loss_weights={"mlm": 0.0})
        assert calls == [1]


# --- a frozen generator -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "has_head"), [("mlm", False), ("sbgo", True), ("mixed", True)])
def test_a_frozen_generator_draws_samples_without_dropout_or_gradients(source, has_head, batch):
    config = joint_config(
        "electra", objectives=["ato", "sbpo"], sharing="none", freeze_generator=True, sampling_source=source
    )
    for part in (config.generator_config, config.discriminator_config):
        part.hidden_dropout_prob = 0.5
    torch.manual_seed(0)
    model = SpanElectraForPreTraining(config).train()
    assert (model.generator.span_boundary_head is not None) is has_head
    assert model.discriminator.training and not model.generator.training
    assert not any(parameter.requires_grad for parameter in model.generator.parameters())
    first, second = model(**batch), model(**batch)
    assert torch.equal(first.corrupted_ids, second.corrupted_ids)
    assert not torch.equal(first.ato_logits, second.ato_logits)  # the discriminator has its dropout
    first.loss.backward()
    assert list(first.losses) == ["ato", "sbpo"]
    assert all(parameter.grad is None for parameter in model.generator.parameters())


# --- saving and loading -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sharing", SHARING)
def test_saved_and_loaded_it_is_the_same_model_with_the_same_sharing(family, sharing, batch, tmp_path):
    model = joint_model(family, sharing=sharing, **ALL)
    model.save_pretrained(tmp_path)
    loaded = SpanElectraForPreTraining.from_pretrained(tmp_path).eval()
    expected, state = model.state_dict(), loaded.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]
    before, after = model(**batch), loaded(**batch)
    assert torch.equal(after.corrupted_ids, before.corrupted_ids)
    assert {n: v.item() for n, v in after.losses.items()} == {n: v.item() for n, v in before.losses.items()}


@pytest.mark.parametrize("sharing", SHARING)
def test_each_shared_tensor_is_saved_once(sharing, tmp_path):
    model = joint_model("modernbert", sharing=sharing, **ALL)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / WEIGHTS_NAME, framework="pt") as file:
        saved = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - not a dictionary
    assert saved == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("objectives", [["mlm"], ["ato"]])
def test_a_model_without_one_part_comes_back_without_it(objectives, tmp_path):
    part = "generator_config" if objectives == ["mlm"] else "discriminator_config"
    model = SpanElectraForPreTraining(SpanElectraConfig(objectives=objectives, **{part: encoder_config("modernbert")}))
    model.save_pretrained(tmp_path)
    loaded = SpanElectraForPreTraining.from_pretrained(tmp_path)
    assert (loaded.generator is None) == (model.generator is None)
    assert (loaded.discriminator is None) == (model.discriminator is None)
    assert list(loaded.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("sharing", SHARING)
def test_a_missing_and_an_unexpected_weight_are_errors_that_name_them(sharing, tmp_path):
    joint_model("electra", sharing=sharing).save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    name = "discriminator.span_boundary_classifier.weight"
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(UserError, match=name):
        SpanElectraForPreTraining.from_pretrained(tmp_path)
    save_file(weights | {"generator.surplus": torch.ones(2)}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(UserError, match=r"generator\.surplus"):
        SpanElectraForPreTraining.from_pretrained(tmp_path)


def test_a_weight_of_another_shape_is_an_error_that_names_it(tmp_path):
    joint_model("electra").save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS_NAME)
    name = "discriminator.span_boundary_classifier.weight"
    save_file(weights | {name: torch.zeros(1, 5)}, tmp_path / WEIGHTS_NAME)
    with pytest.raises(UserError, match=name):
        SpanElectraForPreTraining.from_pretrained(tmp_path)


def test_a_directory_that_holds_no_such_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere holds no SpanElectra model"):
        SpanElectraForPreTraining.from_pretrained(tmp_path / "nowhere")
    joint_model("electra").generator.language_model.save_pretrained(tmp_path / "stock")
    with pytest.raises(UserError, match=r"model_type is 'electra'.*--init_from"):
        SpanElectraForPreTraining.from_pretrained(tmp_path / "stock")


def test_damaged_files_are_a_users_error_that_names_the_file(tmp_path):
    joint_model("electra").save_pretrained(tmp_path)
    weights = tmp_path / WEIGHTS_NAME
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        SpanElectraForPreTraining.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(UserError, match=r"config\.json is not"):
        SpanElectraForPreTraining.from_pretrained(tmp_path)


def test_the_saved_configuration_is_plain_json_with_the_stock_configurations_inside(tmp_path):
    joint_model("modernbert", sharing="gradient_disentangled").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "spanelectra"
    assert config["sharing"] == "gradient_disentangled"
    assert config["generator_config"]["model_type"] == config["discriminator_config"]["model_type"] == "modernbert"
    assert (config["generator_config"]["hidden_size"], config["discriminator_config"]["hidden_size"]) == (16, 32)


def test_one_seed_gives_one_model_and_one_loss():
    models = [joint_model("modernbert", seed=5) for _ in range(2)]
    losses = [model(**make_batch(3)).loss.item() for model in models]
    assert losses[0] == losses[1] != joint_model("modernbert", seed=6)(**make_batch(3)).loss.item()


@torch.no_grad()
def test_a_generator_that_overflows_gives_a_loss_that_is_no_number_not_an_error(batch):
    # so that the trainer can leave the step out, and go back
    model = joint_model("electra")
    model.generator.language_model.get_output_embeddings().bias.fill_(torch.nan)
    assert not torch.isfinite(model(**batch).loss)
