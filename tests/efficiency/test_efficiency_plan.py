"""Budgets are met, seeds are paired, and nothing runs twice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tier import SMALL, TIER_1, TIERS, make_line_tasks, run_all, write_tier

from efficiency.flop_budget import StepCost, plan_stages, step_cost
from efficiency.plan import chosen_multiple, plan
from efficiency.results_file import append_line, with_rates
from efficiency.tiers import read_tier
from small_runs import make_trainer, small_run
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.run_data import read_data


@given(
    before=st.floats(0.5, 2.0), extra=st.floats(0.0, 3.0), head_start=st.floats(0.0, 0.9), flops=st.floats(3.0, 300.0)
)
def test_steps_are_the_most_that_the_budget_pays_for(before, extra, head_start, flops):
    after = before + extra
    cost = StepCost(lambda progress: np.where(progress < head_start, before, after))
    flops *= after

    def slowly(steps: int) -> float:
        return sum(before if step / steps < head_start else after for step in range(steps))

    steps = cost.steps_within(flops)
    assert cost.total(steps) == pytest.approx(slowly(steps))
    assert slowly(steps) <= flops * (1 + 1e-9) < slowly(steps + 1) * (1 + 2e-9)
    assert flops - slowly(steps) <= after * (1 + 1e-9)


def test_the_first_steps_of_a_longer_run_are_those_before_the_discriminator_joins():
    cost = StepCost(lambda progress: np.where(progress < 0.5, 1.0, 10.0))
    assert [cost.total(steps, of=4) for steps in range(5)] == [0.0, 1.0, 2.0, 12.0, 22.0]


def test_a_budget_below_a_step_is_refused():
    with pytest.raises(UserError, match="does not pay for one step"):
        StepCost(lambda progress: np.full_like(progress, 2.0)).steps_within(1.9)


@pytest.mark.parametrize("file", TIERS, ids=lambda file: file.stem)
def test_every_tier_can_be_read_and_its_seeds_are_paired(file):
    tier = with_rates(read_tier(file))
    units = [entry.unit for entry in plan(tier, []) if entry.unit.purpose == "evaluation" and entry.unit.budget]
    for budget in tier.budgets:
        seeds = {name: [u.seed for u in units if (u.method, u.budget) == (name, budget.flops)] for name in tier.methods}
        seeds.pop(tier.fresh_method, None)
        assert all(found == list(budget.seeds) for found in seeds.values())


def test_every_method_of_the_first_tier_meets_every_budget(rows):
    tier, data = read_tier(TIER_1), RowDataset(rows)
    for method, budget in itertools.product(tier.methods.values(), tier.budgets):
        stages = plan_stages(method, budget.flops, data.tokenizer(), data.max_seq_length)
        if not method.fresh:
            spent = sum(stage.flops for stage in stages)
            assert 0 <= budget.flops - spent < stages[-1].cost.at(np.array([1.0]))[0]
            for stage, planned in zip(method.stages, stages, strict=True):
                assert planned.flops == pytest.approx(stage.share * budget.flops, rel=0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "bert"},
        {"method": "spanbert", "max_span_words": "0:1 1:3"},
        {"method": "spanelectra", "generator_head_start": 0.5, "mask_ratio": "0:0.15 1:0.3"},
        {"method": "spanelectra", "stage": "generator"},
        {"method": "spanelectra", "stage": "discriminator", "sampling_source": "mixed"},
        {"method": "electra", "objectives": ["mlm", "ato", "correction"], "generator_head_start": 0.5},
        {"method": "electra", "stage": "discriminator", "objectives": ["ato", "correction"]},
        {"method": "electra", "ato_weight": "0:0 0.5:0 0.5:50"},
        {"method": "spanelectra", "stage": "generator", "sbgo_weight": "0:1 0.5:0"},
        {"method": "bert", "sequence_length": "0:16 0.5:16 0.5:32"},
        {"method": "spanelectra", "per_device_train_batch_size": "0:2 1:4", "gradient_accumulation_steps": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_step_costs_what_the_trainer_counts(settings, rows, generator_run, tmp_path):
    is_second = settings.get("stage") == "discriminator"
    run = small_run(rows, tmp_path / "run", embedding_size=32, **settings)
    first = small_run(rows, tmp_path / "first", stage="generator").resolved()
    cost = step_cost(run.resolved(), RowDataset(rows).tokenizer(), RowDataset(rows).max_seq_length, first)
    run.generator = str(generator_run) if is_second else None
    trainer, data = make_trainer(run), read_data(run.resolved())
    progress = np.arange(run.max_steps) / run.max_steps
    for step, expected in enumerate(cost.at(progress)):
        trainer.state.global_step = step
        numbers = np.arange(trainer.sizes.batch_rows[step])
        batch = data.collate(RowBatch(numbers, numbers * 0, progress[step]))
        assert run.gradient_accumulation_steps * trainer.floating_point_ops(batch) == expected


def test_wherever_it_is_cut_methods_are_balanced_and_nothing_runs_twice(tier):
    lines = run_all(tier, lambda unit: 50.0)
    keys = [tuple(line[name] for name in ("purpose", "method", "budget", "seed", "multiple")) for line in lines]
    assert len(set(keys)) == len(keys) == 4 * 2 + 4 * (3 + 2) + 3
    methods = [name for name in tier.methods if name != "random"]
    for end in range(len(lines)):
        evaluated = [line for line in lines[:end] if line["purpose"] == "evaluation" and line["budget"]]
        for budget in tier.budgets:
            counts = [sum(x["method"] == m and x["budget"] == budget.flops for x in evaluated) for m in methods]
            assert max(counts) - min(counts) <= 1
    # smallest budgets first
    budgets = [line["budget"] for line in lines if line["budget"]]
    assert budgets == sorted(budgets)


def test_the_learning_rate_is_the_best_on_dev_and_stays(tier):
    best = {"bert": 0.5, "spanbert": 1.0, "electra": 0.5, "spanelectra": 1.0}
    lines = run_all(tier, lambda unit: 60.0 if unit.multiple == best.get(unit.method) else 50.0)
    evaluated = [line for line in lines if line["purpose"] == "evaluation" and line["budget"]]
    assert {(line["method"], line["multiple"]) for line in evaluated} == set(best.items())
    # what was evaluated with one multiple is not evaluated with another
    changed = [{**line, "tasks": make_line_tasks(99.0)} if line["multiple"] == 1.0 else line for line in lines]
    assert chosen_multiple(tier, "bert", changed, []) == 0.5
    # of equals the smaller; a multiple that failed is out
    tuning = [line for line in lines if line["purpose"] == "tuning" and line["method"] == "bert"]
    same = [{**line, "tasks": make_line_tasks(50.0)} for line in tuning]
    assert chosen_multiple(tier, "bert", same, []) == 0.5
    assert chosen_multiple(tier, "bert", same[1:], []) is None
    assert chosen_multiple(tier, "bert", same[1:], ["bert-1e+10-seed101-x0.5"]) == 1.0


def test_rates_are_those_that_another_tier_chose_for_what_a_method_is_like(tier, tmp_path, monkeypatch):
    best = {"bert": 0.5, "spanelectra": 1.0}
    lines = run_all(tier, lambda unit: 60.0 if unit.multiple == best.get(unit.method) else 50.0)
    monkeypatch.setattr("efficiency.results_file.results_path", lambda name: tmp_path / f"{name}.jsonl")
    file = tmp_path / "second.yaml"
    methods = "spanelectra: {like: spanelectra}, masks: {like: bert, settings: {mask_ratio: 0.3}}"
    methods += ", more-masks: {like: masks, settings: {mask_ratio: 0.4}}, bert: {like: bert}, random: {like: random}"
    text = f"extends: small.yaml\nname: second\nrates_from: small.yaml\nmethods: {{{methods}}}\n"
    file.write_text(text, encoding="utf-8")
    # nothing is chosen yet: all but fresh weights wait, and no grid is run
    waiting = plan(with_rates(read_tier(file)), [])
    assert {entry.state for entry in waiting if entry.unit.method != "random"} == {"waiting"}
    assert {entry.unit.purpose for entry in waiting} == {"evaluation"}
    for line in lines:
        append_line(tmp_path / "small.jsonl", line)
    units = [entry.unit for entry in plan(with_rates(read_tier(file)), []) if entry.state == "ready"]
    chosen = {"spanelectra": 1.0, "masks": 0.5, "more-masks": 0.5, "bert": 0.5, "random": 1.0}
    assert {unit.method: unit.multiple for unit in units} == chosen
    file.write_text(text.replace("masks: {like: bert,", "masks: {like: bert, rates_of: brt,"), encoding="utf-8")
    with pytest.raises(UserError, match="Did you mean 'bert'"):
        with_rates(read_tier(file))


def test_successive_halving_keeps_the_best(tmp_path):
    text = SMALL.replace("seeds: [1, 2, 3]", "seeds: [1]").replace("seeds: [1, 2]}", "seeds: [1], keep: 0.5}")
    text = text.replace("keep: 0.5", "keep: 0.4")
    tier = read_tier(write_tier(tmp_path, text.replace("[0.5, 1.0]", "[1.0]")))
    scores = {"bert": 3.0, "spanbert": 1.0, "electra": 2.0, "spanelectra": 4.0}
    lines = run_all(tier, lambda unit: scores.get(unit.method, 0.0))
    assert [line["method"] for line in lines if line["budget"] == 4e10] == ["bert", "spanelectra"]
    states = {entry.unit.method: entry.state for entry in plan(tier, lines) if entry.unit.budget == 4e10}
    dropped = dict.fromkeys(("spanbert", "electra"), "dropped")
    assert states == {"bert": "done", "spanelectra": "done", **dropped}
    # ours and the reference go on wherever they stand, for the others to be compared with
    scores = {"bert": 1.0, "spanbert": 5.0, "electra": 4.0, "spanelectra": 2.0}
    lines = run_all(tier, lambda unit: scores.get(unit.method, 0.0))
    kept = [line["method"] for line in lines if line["budget"] == 4e10]
    assert kept == ["bert", "spanbert", "electra", "spanelectra"]


def test_a_variant_goes_on_beside_the_method_that_it_is_a_variant_of(tmp_path):
    text = SMALL.replace("seeds: [1, 2, 3]", "seeds: [1]").replace("seeds: [1, 2]}", "seeds: [1], keep: 0.2}")
    like = {name: name for name in ("bert", "spanbert", "electra", "spanelectra")} | {"electra-too": "electra"}
    methods = ", ".join(f"{name}: {{like: {parent}}}" for name, parent in like.items())
    text = text.replace("[0.5, 1.0]", "[1.0]") + f"methods: {{{methods}}}\n"
    tier = read_tier(write_tier(tmp_path, text))
    scores = {"electra-too": 5.0, "spanbert": 4.0}
    lines = run_all(tier, lambda unit: scores.get(unit.method, 1.0))
    kept = [line["method"] for line in lines if line["budget"] == 4e10]
    assert kept == ["bert", "electra", "spanelectra", "electra-too"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: small", "name: small\ncolour: red", "unknown field 'colour'"),
        ("intermediate_size: 48", "intermediate_sise: 48", "Did you mean 'intermediate_size'"),
        ("seeds: [1, 2]}", "seeds: [1, 101]}", "tuning_seed 101"),
        ("name: small", "name: small\nmethods: {bert: {like: brt}}", "like 'brt'"),
        ("name: small", "name: small\nours: bort", "'bort' is none of its methods"),
        ("name: small", "name: small\npairs: [[bert, bort]]", "'bort' is none of its methods"),
        (
            "name: small",
            "name: small\npairs: [bert]",
            "pairs: each is .method, control.*, not 'bert'",
        ),
        ("name: small", "name: small\npairs: [[bert, bert]]", "pairs: each is"),
        (
            "name: small",
            "name: small\nmethods: {spanelectra: {like: spanelectra, stages: {generator: {share: 0.9}}}}",
            "add up to 1",
        ),
    ],
)
def test_a_mistake_in_a_tier_is_named(old, new, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_tier(write_tier(tmp_path, SMALL.replace(old, new)))
