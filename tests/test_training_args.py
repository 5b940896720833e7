"""Settings of a run: presets by method and stage, recipes, and mistakes that are named."""

from __future__ import annotations

import dataclasses

import pytest

from spanelectra.errors import UserError
from spanelectra.training_args import METHODS, RECIPES_DIRECTORY, PretrainingArguments, as_yaml, load_recipe

PLACES = {"data": "rows", "out_dir": "run"}


@pytest.mark.parametrize(
    ("method", "stage", "objectives", "masking", "mask_token_ratio", "generator_size"),
    [
        ("bert", "joint", ["mlm"], "token", 0.8, 1.0),
        ("bert", "generator", ["mlm"], "token", 0.8, 1.0),
        ("spanbert", "joint", ["mlm", "sbgo"], "span", 0.8, 1.0),
        ("electra", "joint", ["mlm", "ato"], "token", 1.0, 0.5),
        ("electra", "generator", ["mlm"], "token", 1.0, 1.0),
        ("electra", "discriminator", ["ato"], "token", 1.0, 0.5),
        ("spanelectra", "joint", ["mlm", "sbgo", "ato", "sbpo"], "span", 1.0, 0.5),
        ("spanelectra", "generator", ["mlm", "sbgo"], "span", 1.0, 1.0),
        ("spanelectra", "discriminator", ["ato", "sbpo"], "span", 1.0, 0.5),
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
        ({"max_span_length": 0}, "max_span_length must be at least 1"),
        ({"warmup_ratio": 1.0}, "warmup_ratio is a fraction"),
        ({"generator_head_start": -0.1}, "generator_head_start is a fraction"),
        ({"dropout": 1.5}, "dropout is a fraction"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"muon_learning_rate": -1.0}, "muon_learning_rate must be above 0"),
        ({"seed": -1}, "seed must not be negative"),
        ({"ato_weight": "0:1 1:-2"}, "ato_weight must not be negative"),
        ({"sbgo_weight": "much"}, "sbgo_weight: 'much' is neither"),
        ({"mask_ratio": 0}, "mask_ratio must be above 0"),
        ({"mask_ratio": "0:0.2 1:0"}, "mask_ratio must be above 0"),
        ({"max_span_words": "0:0.5 1:10"}, "max_span_words must be at least 1"),
        ({"stage": "discriminator", "method": "bert"}, "needs a method with one, not bert"),
        ({"stage": "discriminator", "sharing": "encoder"}, "--sharing encoder"),
        ({"stage": "discriminator", "init_generator_from": "dir"}, "--init_generator_from has no place"),
        ({"generator": "gen"}, "--generator is for --stage discriminator, not for --stage joint"),
        ({"init_generator_from": "dir"}, "--init_generator_from goes with --init_from"),
    ],
)
def test_a_setting_out_of_range_or_at_odds_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        PretrainingArguments(**(PLACES | settings)).check()


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
    ],
)
def test_a_chosen_setting_without_effect_is_said_to_have_none(settings, named):
    (sentence,) = PretrainingArguments(**settings).resolved().settings_without_effect()
    assert sentence.startswith(named)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ato_weight": 3.0},
        {"optimizer": "muon", "muon_learning_rate": 0.1},
        {"sharing": "none"},
        {"method": "bert"},
    ],
)
def test_settings_that_have_an_effect_or_were_not_chosen_are_not_mentioned(settings):
    assert PretrainingArguments(**settings).resolved().settings_without_effect() == []


def test_what_a_recipe_sets_is_not_held_against_the_user(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("generator_head_start: 0.4\nmax_span_words: '0:1 0.3:10'\n")
    settings = PretrainingArguments(**load_recipe(str(recipe)), recipe=str(recipe), method="bert")
    assert settings.resolved().settings_without_effect() == []


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES_DIRECTORY.glob("*.yaml")))
def test_every_shipped_recipe_can_be_read_and_passes_the_check(recipe):
    settings = PretrainingArguments(**(load_recipe(recipe) | PLACES), recipe=recipe)
    settings.check()
    settings.resolved().check()


def test_a_recipe_can_extend_another_and_its_own_settings_win(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny-modern\nmax_steps: 7\n")
    parent, child = load_recipe("tiny-modern"), load_recipe(str(tmp_path / "mine.yaml"))
    assert child == parent | {"max_steps": 7}
    assert parent["max_steps"] != 7 and len(parent) > 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_raito: 0.2\n", r"mine\.yaml: unknown field 'mask_raito'\. Did you mean 'mask_ratio'\?"),
        ("max_steps: 5\nmethod: [bert\nseed: 1\n", r"mine\.yaml line [23]: not valid YAML"),
        ("max_steps: 5\n\tseed: 1\n", r"mine\.yaml line 2: not valid YAML"),
        ("- a\n- b\n", "a recipe is a list of 'field: value' lines"),
        ("", "a recipe is a list of 'field: value' lines"),
        ("extends: tiny-moderm\n", r"--recipe tiny-moderm: .* Did you mean 'tiny-modern'\?"),
    ],
)
def test_a_recipe_that_cannot_be_read_says_where_and_why(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(str(file))


def test_an_error_in_the_extended_recipe_names_that_recipe(tmp_path):
    (tmp_path / "parent.yaml").write_text("sede: 1\n")
    (tmp_path / "child.yaml").write_text(f"extends: {tmp_path / 'parent.yaml'}\n")
    with pytest.raises(UserError, match=r"parent\.yaml: unknown field 'sede'\. Did you mean 'seed'"):
        load_recipe(str(tmp_path / "child.yaml"))


def test_bytes_that_are_no_text_are_named_with_their_place(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"seed: 1 # \xff\n")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 10\)"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_an_unknown_recipe_lists_the_shipped_ones():
    with pytest.raises(UserError, match=r"--recipe tny: .*tiny-modern"):
        load_recipe("tny")


def test_settings_written_as_yaml_read_back_the_same(tmp_path):
    settings = PretrainingArguments(
        **PLACES, method="electra", mask_ratio="0:0.15 1:0.3", adam_epsilon=1e-8, learning_rate=5e-4, sharing="none"
    ).resolved()
    (tmp_path / "config.yaml").write_text(as_yaml(settings))
    assert PretrainingArguments(**load_recipe(str(tmp_path / "config.yaml"))) == settings


def test_every_setting_is_explained_in_the_help():
    for group in PretrainingArguments.__mro__[1:-1]:
        for field in dataclasses.fields(group):
            assert f"{field.name}: " in group.__doc__, field.name
