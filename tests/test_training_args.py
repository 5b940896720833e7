"""Settings of a run: presets by method and stage, recipes, and mistakes that are named."""

from __future__ import annotations

import dataclasses
import re

import pytest

from spanelectra.errors import UserError
from spanelectra.recipe_files import load_recipe
from spanelectra.training_args import METHODS, PretrainingArguments

PLACES = {"data": "rows", "out_dir": "run"}
SECOND_STAGE = {"stage": "discriminator", "generator": "gen"}


@pytest.mark.parametrize(
    ("method", "stage", "objectives", "masking", "mask_token_ratio", "generator_size"),
    [
        ("bert", "joint", ["mlm"], "token", 0.8, 1.0),
        ("bert", "generator", ["mlm"], "token", 0.8, 1.0),
        ("spanbert", "joint", ["mlm", "sbgo"], "span", 0.8, 1.0),
        ("electra", "joint", ["mlm", "ato"], "token", 0.85, 0.5),
        ("electra", "generator", ["mlm"], "token", 0.85, 1.0),
        ("electra", "discriminator", ["ato"], "token", 0.85, 0.5),
        ("spanelectra", "joint", ["mlm", "sbgo", "ato", "sbpo"], "span", 0.85, 0.5),
        ("spanelectra", "generator", ["mlm", "sbgo"], "span", 0.85, 1.0),
        ("spanelectra", "discriminator", ["ato", "sbpo"], "span", 0.85, 0.5),
    ],
)
def test_method_and_stage_decide_what_is_left_open(
    method, stage, objectives, masking, mask_token_ratio, generator_size
):
    settings = PretrainingArguments(method=method, stage=stage).resolved()
    assert settings.objectives == objectives
    assert settings.masking == masking
    assert settings.mask_token_ratio == mask_token_ratio
    assert settings.random_token_ratio == pytest.approx(0.1 if mask_token_ratio == 0.8 else 0.0)
    assert settings.generator_size == generator_size


def test_what_is_chosen_wins_over_the_method():
    chosen = {"masking": "span", "mask_token_ratio": 0.9, "random_token_ratio": 0.05, "generator_size": 0.25}
    settings = PretrainingArguments(method="electra", objectives=["mlm", "sbpo"], **chosen).resolved()
    assert {name: getattr(settings, name) for name in chosen} == chosen
    assert settings.objectives == ["mlm", "sbpo"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "mun"}, r"^optimizer: 'mun' is not one of adamw, muon\. Did you mean 'muon'\?$"),
        ({"method": "berd"}, r"^method: 'berd' is not one of .* Did you mean 'bert'\?$"),
        ({"max_steps": "many"}, r"^max_steps: 'many' is not a whole number\.$"),
        ({"objectives": ["mlm", "sbop"]}, r"^objectives: 'sbop' is not one of .* Did you mean 'sbpo'\?$"),
    ],
)
def test_a_value_of_another_type_is_named_by_the_check_and_when_resolving(settings, message):
    with pytest.raises(UserError, match=message):
        PretrainingArguments(**settings).resolved()
    with pytest.raises(UserError, match=message):
        PretrainingArguments(**PLACES, **settings).check()


def test_objectives_may_be_a_comma_list():
    settings = PretrainingArguments(**PLACES, objectives="mlm,ato")
    settings.check()
    assert settings.resolved().objectives == ["mlm", "ato"]


def test_sharing_the_encoder_takes_a_generator_of_full_size():
    assert PretrainingArguments(sharing="encoder").resolved().generator_size == 1.0


def test_resolving_twice_changes_nothing_and_the_original_stays_open():
    settings = PretrainingArguments(method="spanelectra", stage="generator")
    once = settings.resolved()
    assert once.resolved() == once
    assert settings.objectives is None and settings.masking is None
    assert METHODS["spanelectra"]["objectives"] == ["mlm", "sbgo", "ato", "sbpo"]


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_every_method_pass_the_check(method):
    PretrainingArguments(method=method, **PLACES).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": ""}, "data is missing: pass --data"),
        ({"out_dir": ""}, "out_dir is missing: pass --out_dir"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"per_device_train_batch_size": -1}, "per_device_train_batch_size must be at least 1, got -1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1"),
        ({"max_span_length": 0}, "max_span_length must be from 1 to 1000"),
        ({"warmup_ratio": 1.0}, "warmup_ratio must be a fraction"),
        ({"generator_head_start": -0.1}, "generator_head_start must be a fraction"),
        ({"dropout": 1.5}, "dropout must be a fraction"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"muon_learning_rate": -1.0}, "muon_learning_rate must be above 0"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"ato_weight": "0:1 1:-2"}, "ato_weight must not be negative"),
        ({"sbgo_weight": "much"}, "sbgo_weight: 'much' is neither"),
        ({"correction_weight": -1.0}, "correction_weight must not be negative"),
        ({"objectives": ["mlm", "corection"]}, r"'corection' is not one of .* Did you mean 'correction'"),
        (
            {"objectives": ["ato", "correction"], "ato_weight": 0, "correction_weight": "0:1 1:0", **SECOND_STAGE},
            "at 100% of the run no objective has a weight above 0: raise one of ato_weight, correction_weight",
        ),
        ({"stage": "generator", "objectives": ["correction"]}, "name at least one of mlm, sbgo for --stage generator"),
        ({"mask_ratio": 0}, "mask_ratio must be above 0"),
        ({"mask_ratio": "0:0.2 1:0"}, "mask_ratio must be above 0"),
        ({"max_span_words": "0:0.5 1:10"}, "max_span_words must be from 1 to 1000"),
        (
            {"stage": "discriminator", "method": "bert"},
            r"needs a method that trains a discriminator \(electra or spanelectra\), not bert",
        ),
        (
            {"stage": "discriminator", "objectives": ["mlm"]},
            "name at least one of ato, sbpo, correction for --stage discriminator",
        ),
        ({"stage": "generator", "objectives": ["ato"]}, "name at least one of mlm, sbgo for --stage generator"),
        ({"objectives": []}, "name at least one of mlm, sbgo, ato, sbpo"),
        ({"objectives": ["mlm", "ato", "mlm"]}, "objectives: mlm is there twice"),
        ({"seed": 5_000_000_000}, "seed must be from 0 to 4294967295, got 5000000000"),
        ({"adam_beta1": 1.5}, "adam_beta1 must be a fraction from 0 to below 1, got 1.5"),
        ({"adam_beta2": 1.0}, "adam_beta2 must be a fraction"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be 0 or more"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers must be 0 or more"),
        ({"eval_steps": -1}, "eval_steps must be 0 or more"),
        ({"span_position_size": -1}, "span_position_size must be at least 1, got -1"),
        ({"span_position_size": 0}, "span_position_size must be at least 1, got 0"),
        ({"max_position_embeddings": -5}, "max_position_embeddings must be at least 1"),
        ({"save_total_limit": 0}, "save_total_limit must be at least 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_span_words": 10**12}, "max_span_words must be from 1 to 1000, got 1000000000000"),
        ({"max_span_length": 10**12}, "max_span_length must be from 1 to 1000"),
        ({"span_length_probability": 0.0}, "span_length_probability must be above 0 and at most 1"),
        ({"span_length_probability": 1.1}, "span_length_probability must be above 0 and at most 1"),
        ({"generator_size": 2.0}, "generator_size must be above 0 and at most 1"),
        ({"sampling_temperature": 0.0}, "sampling_temperature must be above 0"),
        ({"sampling_temperature": "0:2 1:0"}, "sampling_temperature must be above 0, got 0:2 1:0"),
        ({"sampling_temperature": "1:2 0:1"}, "sampling_temperature: '1:2 0:1' is neither a number nor"),
        ({"sampling_temperature": "warm"}, "sampling_temperature: 'warm' is neither a number nor"),
        ({"mask_ratio": 0.51}, "mask_ratio must be above 0 and at most 0.5, got 0.51"),
        ({"mask_ratio": "0:0.15 1:0.6"}, "mask_ratio must be above 0 and at most 0.5"),
        ({"stage": "discriminator", "sharing": "encoder"}, "--sharing encoder"),
        ({"stage": "discriminator", "init_generator_from": "dir"}, "--init_generator_from has no place"),
        ({"generator": "gen"}, "--generator GEN .* add --stage discriminator .it is joint now"),
        ({"init_generator_from": "dir"}, "--init_generator_from goes with --init_from"),
        ({"init_from": "dir", "init_generator_from": "other"}, "embeddings of its own.*add --sharing none"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "warmup_ratio": 0.5, "decay_ratio": 0.6},
            "warmup_ratio 0.5 and decay_ratio 0.6 are shares of the run",
        ),
    ],
)
def test_a_setting_out_of_range_or_at_odds_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        PretrainingArguments(**(PLACES | settings)).check()


def test_a_recipe_is_taken_from_python_too():
    settings = PretrainingArguments.from_recipe("tiny-generator", learning_rate=3.0)
    assert (settings.recipe, settings.learning_rate) == ("tiny-generator", 3.0)
    recipe = load_recipe("tiny-generator")
    assert {name: getattr(settings, name) for name in recipe} == {**recipe, "learning_rate": 3.0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"method": "bert", "ato_weight": 3.0}, "ato_weight=3.0 has no effect: ATO"),
        ({"method": "electra", "sbgo_weight": 2.0}, "sbgo_weight=2.0 has no effect: SBGO"),
        ({"method": "electra", "decoys": False}, "decoys=False has no effect"),
        ({"method": "electra", "max_span_words": 5}, "max_span_words=5 has no effect: single tokens"),
        ({"method": "bert", "generator_head_start": 0.2}, "generator_head_start=0.2 has no effect"),
        ({"method": "bert", "sharing": "none"}, "sharing=none has no effect"),
        ({"method": "bert", "sampling_temperature": 2.0}, "sampling_temperature=2.0 has no effect: nothing is sampled"),
        ({"muon_learning_rate": 0.1}, "muon_learning_rate=0.1 has no effect: the optimiser is AdamW"),
        ({"decay_ratio": 0.5}, "decay_ratio=0.5 has no effect"),
        ({"warm_start": "grow"}, "warm_start=grow has no effect"),
        ({"stage": "generator", "sbpo_weight": 3.0}, "sbpo_weight=3.0 has no effect"),
        ({"correction_weight": 3.0}, "correction_weight=3.0 has no effect: correction is not among the objectives"),
        ({"init_from": "dir", "generator_size": 0.25}, "generator_size=0.25 has no effect: the width"),
        (
            {"init_from": "dir", "init_generator_from": "other", "generator_depth": 0.5},
            "generator_depth=0.5 has no effect: --init_generator_from",
        ),
        (SECOND_STAGE | {"generator_size": 0.25}, "generator_size=0.25 has no effect: the generator is there"),
        (SECOND_STAGE | {"generator_depth": 0.5}, "generator_depth=0.5 has no effect: the generator is there"),
        (SECOND_STAGE | {"mask_token_ratio": 0.8}, "mask_token_ratio=0.8 has no effect: a frozen generator sees"),
        (SECOND_STAGE | {"generator_head_start": 0.5}, "generator_head_start=0.5 has no effect"),
        (SECOND_STAGE | {"dropout": 0.3}, "dropout=0.3 has no effect: the discriminator takes the generator's"),
        (SECOND_STAGE | {"init_from": "dir", "warm_start": "grow"}, "warm_start=grow has no effect: .* --init_from"),
        ({"stage": "discriminator", "warm_start": "grow"}, "warm_start=grow has no effect: there is no --generator"),
        ({"method": "electra", "span_position_size": 8}, "span_position_size=8 has no effect: no objective"),
        ({"method": "electra", "max_span_length": 8}, "max_span_length=8 has no effect: single tokens"),
        ({"method": "bert", "sampling_source": "sbgo"}, "sampling_source=sbgo has no effect: nothing is sampled"),
        ({"stage": "generator", "sampling_temperature": 2.0}, "sampling_temperature=2.0 has no effect"),
        ({"init_from": "dir", "hidden_size": 64}, "hidden_size=64 has no effect: --init_from"),
    ],
)
def test_a_chosen_setting_without_effect_is_said_to_have_none(settings, named):
    (sentence,) = PretrainingArguments(**settings).resolved().settings_without_effect()
    assert re.match(named, sentence)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_source", "sbgo"),
        ("sampling_temperature", 2.0),
        ("sampling_temperature", "0:2 1:1"),
        ("masking", "token"),
        ("mask_ratio", 0.3),
        ("max_span_words", 5),
        ("span_length_probability", 0.5),
        ("mask_token_ratio", 0.5),
        ("random_token_ratio", 0.1),
    ],
)
def test_rows_with_fake_spans_leave_nothing_to_mask_or_sample(name, value):
    settings = PretrainingArguments(**SECOND_STAGE, **{name: value}).resolved()
    (sentence,) = settings.settings_without_effect(corrupted_data=True)
    assert sentence == f"{name}={value} has no effect: the rows were masked and filled when they were written"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ato_weight": 3.0},
        {"optimizer": "muon", "muon_learning_rate": 0.1},
        {"sharing": "none"},
        {"objectives": ["mlm", "ato", "correction"], "correction_weight": "0:0 1:2"},
        {"objectives": ["mlm", "correction"], "sampling_temperature": 2.0, "generator_head_start": 0.2},
        {"method": "bert"},
        {"method": "electra"},
        {"sharing": "encoder"},
        {"generator_size": 0.25, "generator_depth": 0.5},
        {"stage": "discriminator", "generator": "gen"},
        {"stage": "discriminator", "generator": "gen", "warm_start": "grow"},
        # the first stage hands it on to `spanelectra corrupt`
        {"stage": "generator", "sampling_source": "sbgo"},
        # a frozen generator that fills from span boundaries has the head that they size
        {
            "stage": "discriminator",
            "method": "electra",
            "generator": "gen",
            "sampling_source": "sbgo",
            "span_position_size": 8,
        },
        {"init_from": "dir", "generator_depth": 0.5},
        # a longer word is cut to it, boundary heads or not
        {"method": "electra", "masking": "span", "max_span_length": 8},
    ],
)
def test_settings_that_have_an_effect_or_were_not_chosen_are_not_mentioned(settings):
    assert PretrainingArguments(**settings).resolved().settings_without_effect() == []


def test_rows_with_fake_spans_are_not_held_against_the_user():
    assert PretrainingArguments(**SECOND_STAGE).resolved().settings_without_effect(corrupted_data=True) == []


def test_what_a_recipe_sets_is_not_held_against_the_user(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("generator_head_start: 0.4\nmax_span_words: '0:1 0.3:10'\n")
    settings = PretrainingArguments(**load_recipe(str(recipe)), recipe=str(recipe), method="bert")
    assert settings.resolved().settings_without_effect() == []


@pytest.mark.parametrize(("value", "kept"), [("2", 2.0), (2, 2.0), (0.5, 0.5), ("0:2 1:1", "0:2 1:1")])
def test_a_temperature_that_is_a_number_stays_one(value, kept):
    settings = PretrainingArguments(sampling_temperature=value).resolved()
    assert settings.sampling_temperature == kept and type(settings.sampling_temperature) is type(kept)


def test_every_setting_is_explained_in_the_help():
    for group in PretrainingArguments.__mro__[1:-1]:
        for field in dataclasses.fields(group):
            assert f"{field.name}: " in group.__doc__, field.name
