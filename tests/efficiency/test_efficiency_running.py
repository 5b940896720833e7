"""What was stopped goes on; what fails is named; results of something else are refused."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_commands import FakeRunner
from small_tier import SMALL, make_line, write_tier

from efficiency import run as program
from efficiency.plan import Unit
from efficiency.results_file import append_line, read_lines
from efficiency.tiers import read_tier
from efficiency.units import Places
from spanelectra.atomic_files import find_damage
from spanelectra.errors import UserError


def test_a_unit_that_was_stopped_goes_on_where_it_was(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "method=spanelectra,purpose=tuning")
    runner.run(stop_at=4)
    assert not (tmp_path / "results.jsonl").exists()
    # a new program knows only what is on disk
    again = FakeRunner(tmp_path, rows, "method=spanelectra,purpose=tuning")
    again.run()
    kinds = [" ".join(words[:2]) for words in again.commands]
    assert sum(kind == "pretrain --resume" for kind in kinds) == 2
    # each stage was started once, whoever finished it
    started = [words for words in runner.commands + again.commands if "--max_steps" in words]
    assert len(started) == 4 and sum("--generator" in words for words in started) == 2
    lines = read_lines(tmp_path / "results.jsonl")
    assert [(line["method"], line["multiple"]) for line in lines] == [("spanelectra", 0.5), ("spanelectra", 1.0)]
    assert lines[0]["tasks"]["sst2"]["dev"] == 40.0 and lines[0]["probe"]["sst2"]["layers"] == [1.0, 2.0]
    assert lines[0]["training_flops"] == 14 and lines[0]["processor_seconds"] == 3.0
    # and with the work lost, what has a line is not run again
    lost = FakeRunner(tmp_path, rows, "method=spanelectra,purpose=tuning")
    lost.run()
    assert not lost.commands


def test_what_a_unit_cost_is_unknown_where_nobody_saw_the_end_of_a_command(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning")

    def dies() -> None:
        raise KeyboardInterrupt

    # the program is killed as its first command runs
    with pytest.raises(KeyboardInterrupt):
        runner.run(look=dies)
    FakeRunner(tmp_path, rows, "method=bert,purpose=tuning").run()
    assert {line["processor_seconds"] for line in read_lines(tmp_path / "results.jsonl")} == {None}


def test_a_line_that_a_power_cut_has_torn_costs_nothing_but_itself(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning")
    runner.run(stop_at=1)
    times = next((tmp_path / "work").glob("*/times.jsonl"))
    whole = times.read_bytes()
    times.write_bytes(whole[:-9])
    FakeRunner(tmp_path, rows, "method=bert,purpose=tuning").run()
    # what follows stands in lines of its own, the unit has its result, and what it cost is not known
    assert times.read_bytes().startswith(whole[:-9] + b"\n")
    costs = [line["processor_seconds"] for line in read_lines(tmp_path / "results.jsonl")]
    assert len(costs) == 2 and costs.count(None) == 1


def test_two_programs_may_add_to_one_file_of_results(tmp_path):
    line = make_line(Unit("evaluation", "bert", 1e10, 1, 1.0), 1.0)
    code = (
        "import json, sys; from pathlib import Path; from efficiency.results_file import append_line\n"
        "for seed in range(20): append_line(Path(sys.argv[1]), {**json.loads(sys.argv[2]), 'seed': seed})"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "results.jsonl"), json.dumps(line)]
    folders = os.pathsep.join(str(Path(program.__file__).parents[2] / name) for name in ("benchmarks", "src"))
    started = [subprocess.Popen(words, env={**os.environ, "PYTHONPATH": folders}) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    seeds = sorted(line["seed"] for line in read_lines(tmp_path / "results.jsonl"))
    assert seeds == sorted([*range(20)] * 2)


def test_commands_of_methods_differ_in_the_method_alone(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "purpose=tuning")
    runner.run()
    told = [dict(itertools.pairwise(words)) for words in runner.commands]
    firsts = [words for words in told if "--max_steps" in words and "--generator" not in words]
    ours = {
        "--method",
        "--stage",
        "--masking",
        "--max_span_words",
        "--max_steps",
        "--eval_steps",
        "--save_steps",
        "--out_dir",
    }
    common = [{k: v for k, v in words.items() if k.startswith("--") and k not in ours} for words in firsts]
    rates = {(words.pop("--learning_rate"), words.pop("--muon_learning_rate")) for words in common}
    assert rates == {("0.001", "0.01"), ("0.002", "0.02")}
    assert all(words == common[0] for words in common)
    seconds = [words for words in told if "--generator" in words]
    assert {f"{float(words['--learning_rate']):g}" for words in seconds} == {"0.0001", "0.0002"}
    tasks = [words for words in told if "--preset" in words]
    assert {words["--seed"] for words in tasks} == {"1010"}
    # the grid never sees a test file
    assert not any("--test" in words for words in tasks)


def test_a_unit_that_fails_is_named_and_passed_over(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning", fails="x0.5")
    runner.run()
    assert [line["multiple"] for line in read_lines(tmp_path / "results.jsonl")] == [1.0]
    assert any("FAILED" in sentence and "no number" in sentence for sentence in runner.said)
    again = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning")
    again.run()
    assert not again.commands
    assert {entry.state for entry in again.experiment.plan()} == {"done", "failed"}
    # the choice goes on without it
    evaluation = FakeRunner(tmp_path, rows, "method=bert,seed=1,budget=1e10")
    evaluation.run()
    assert [line["multiple"] for line in read_lines(tmp_path / "results.jsonl")] == [1.0, 1.0]
    # of a tier that fine-tunes the same encoder on other tasks it says nothing
    (reason,) = (tmp_path / "work").glob("*/failed-small.json")
    other = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning", tier_text=SMALL.replace("name: small", "name: o"))
    assert "failed" not in {entry.state for entry in other.experiment.plan()}
    reason.unlink()
    again.run()
    assert len(read_lines(tmp_path / "results.jsonl")) == 3


def test_results_that_were_made_with_something_else_are_refused(tmp_path, rows):
    FakeRunner(tmp_path, rows, "method=bert,purpose=tuning").run()
    file = write_tier(tmp_path, SMALL.replace("intermediate_size: 48", "intermediate_size: 64"))
    places = Places(rows, tmp_path, tmp_path / "work")
    with pytest.raises(UserError, match=r"results.jsonl line 1 \(bert"):
        program.Experiment(read_tier(file), places, tmp_path / "results.jsonl", [])


def test_work_that_was_done_otherwise_is_not_taken_for_this(tmp_path, rows):
    def run(text: str) -> list[str]:
        """The commands of a tier without results in the same folder of work."""
        (tmp_path / "results.jsonl").unlink(missing_ok=True)
        runner = FakeRunner(tmp_path, rows, "method=bert,seed=1,budget=1e10", tier_text=text)
        runner.run()
        (line,) = read_lines(tmp_path / "results.jsonl")
        found.append((line["multiple"], line["tasks"]["sst2"].get("test")))
        return [words[0] for words in runner.commands]

    found: list[tuple[float, float | None]] = []
    text = SMALL.replace("[0.5, 1.0]", "[0.5]")
    everything = ["pretrain", "probe", "finetune", "finetune"]
    without_test = text + "score_test: false\n"
    assert run(without_test) == everything and run(without_test) == []
    # a task with a test file is scored on it, the other one is as it was
    assert run(text) == ["finetune"]
    assert run(text.replace("preset: sst2", "preset: sst2, epochs: 7")) == ["finetune"]
    assert run(text + "probe: {only: [sst2], train_examples: 7, minutes: 1.0}\n") == ["probe"]
    (tmp_path / "test.tsv").write_text("another", encoding="utf-8")
    assert run(text.replace("[0.5]", "[1.0]")) == everything
    assert found == [(0.5, None), (0.5, None), (0.5, 30.0), (0.5, 30.0), (0.5, 30.0), (1.0, 30.0)]


def test_a_run_of_other_rates_than_its_unit_is_refused(tmp_path, rows):
    runner = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning")
    runner.run(stop_at=2)
    (config,) = (tmp_path / "work").glob("*-x0.5-*/mlm/config.yaml")
    config.write_text(config.read_text(encoding="utf-8").replace("learning_rate: 0.001", "learning_rate: 0.002"))
    runner = FakeRunner(tmp_path, rows, "method=bert,purpose=tuning")
    runner.run()
    assert [line["multiple"] for line in read_lines(tmp_path / "results.jsonl")] == [1.0]
    assert any("learning_rate 0.002, and the plan says 0.001" in sentence for sentence in runner.said)


def test_evaluations_of_a_method_have_one_and_the_same_rates(tmp_path, rows):
    single = SMALL.replace("[0.5, 1.0]", "[0.5]")
    FakeRunner(tmp_path, rows, "method=bert,seed=1,budget=1e10", tier_text=single).run()
    fixed = single + "methods: {bert: {like: bert, learning_rate_multiple: 1.0}, spanelectra: {like: spanelectra}}\n"
    with pytest.raises(UserError, match=r"with 0.5 times the learning rates, and bert is to have 1 times"):
        FakeRunner(tmp_path, rows, "method=bert", tier_text=fixed)
    # a grid that changes on the way does not change a choice that was used
    later = FakeRunner(tmp_path, rows, "method=bert,purpose=evaluation", tier_text=SMALL.replace("[0.5, 1.0]", "[1.0]"))
    assert {entry.unit.multiple for entry in later.experiment.plan()} == {0.5}


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("budget=abc", "--only budget=abc: small has 0, 1e\\+10, 4e\\+10"),
        ("budget=3e10", "small has 0, 1e"),
        ("method=brt", "Did you mean 'bert'"),
        ("seed=9", "small has 1, 2, 3, 101"),
        ("metod=bert", "Did you mean 'method'"),
        ("bert", "write one of budget=…"),
    ],
)
def test_a_mistake_in_only_is_named(only, message, tier):
    with pytest.raises(UserError, match=message):
        program.read_filters(only, tier)


def test_another_tier_takes_over_what_is_the_same_to_the_last_setting(tmp_path, rows, monkeypatch):
    runner = FakeRunner(tmp_path, rows, "method=bert,method=electra,seed=1,seed=101")
    runner.run()
    made = read_lines(tmp_path / "results.jsonl")
    monkeypatch.setattr("efficiency.results_file.results_path", lambda name: tmp_path / "results.jsonl")
    variants = "methods: {spanelectra: {like: spanelectra}, bert: {like: bert},"
    variants += " electra: {like: electra, settings: {weight_decay: 0.2}}}"
    text = SMALL.replace("name: small", f"name: other\nreuses: [small]\n{variants}").replace("[0.5, 1.0]", "[0.5]")
    places = Places(rows, tmp_path, tmp_path / "work")
    own = tmp_path / "other.jsonl"
    experiment = program.Experiment(read_tier(write_tier(tmp_path, text)), places, own, [])
    assert experiment.reuse() == 2
    assert [(line["method"], line["budget"], line["reused_from"]) for line in read_lines(own)] == [
        ("bert", 1e10, "small"),
        ("bert", 4e10, "small"),
    ]
    assert experiment.reuse() == 0 and len(made) > 2


VARIANTS = """
methods:
  spanelectra: {like: spanelectra}
  no-sbpo: {like: spanelectra, stages: {discriminator: {settings: {objectives: [ato]}}}}
  no-sbgo: {like: spanelectra, stages: {generator: {settings: {objectives: [mlm]}}}}
  bert: {like: bert}
"""


def stages_started(runner: FakeRunner) -> list[str]:
    """Unit and stage of every pre-training that a program started from its beginning."""
    places = [Path(dict(itertools.pairwise(words))["--out_dir"]) for words in runner.commands if "--max_steps" in words]
    return sorted(f"{place.parent.name.rpartition('-')[0]} {place.name}" for place in places)


@pytest.fixture
def variants(tmp_path: Path, rows: Path) -> Callable[..., FakeRunner]:
    """Runs units of a tier whose variants share a first stage, in one folder of work."""

    def run(only: str, **settings: Any) -> FakeRunner:
        text = SMALL.replace("[0.5, 1.0]", settings.pop("multiples", "[0.5]")) + VARIANTS
        runner = FakeRunner(tmp_path, rows, only, tier_text=text)
        runner.run(**settings)
        return runner

    return run


def test_a_stage_that_another_unit_has_trained_is_not_trained_again(tmp_path, variants, capsys):
    variants("method=spanelectra,seed=1,budget=1e10")
    (first,) = (tmp_path / "work").glob("spanelectra-*")
    (first / "generator" / "checkpoint-5").mkdir()
    seconds = '{"command": "pretrain generator", "exit_code": 0, "processor_seconds": 50.0}\n'
    (first / "times.jsonl").write_text(seconds + '{"command": "pretrain generator", "started": "then"}\n')
    again = variants("method=no-sbpo,method=no-sbgo,seed=1,budget=1e10")
    # a generator with other objectives is another one
    assert stages_started(again) == [
        "no-sbgo-1e+10-seed1-x0.5 discriminator",
        "no-sbgo-1e+10-seed1-x0.5 generator",
        "no-sbpo-1e+10-seed1-x0.5 discriminator",
    ]
    assert "no-sbpo-1e+10-seed1-x0.5: generator is that of spanelectra-1e+10-seed1-x0.5" in capsys.readouterr().out
    (copied,) = (tmp_path / "work").glob("no-sbpo-*")
    assert find_damage(copied / "generator") is None and not (copied / "generator" / "checkpoint-5").exists()
    # what it cost there counts here, and the line says where that was
    lines = {line["method"]: line for line in read_lines(tmp_path / "results.jsonl")}
    assert lines["no-sbpo"]["processor_seconds"] == 51.0 and lines["no-sbgo"]["processor_seconds"] == 2.0
    assert [stage["trained_in"] for stage in lines["no-sbpo"]["stages"]] == ["spanelectra-1e+10-seed1-x0.5", None]
    assert [stage["trained_in"] for stage in lines["spanelectra"]["stages"]] == [None, None]


def test_a_copy_of_a_copy_knows_who_trained_it(tmp_path, variants):
    variants("method=no-sbpo,seed=1,budget=1e10")
    variants("method=spanelectra,seed=1,budget=1e10")
    (trained,) = (tmp_path / "work").glob("no-sbpo-*")
    shutil.rmtree(trained)
    (tmp_path / "results.jsonl").unlink()
    assert stages_started(variants("method=no-sbpo,seed=1,budget=1e10")) == ["no-sbpo-1e+10-seed1-x0.5 discriminator"]
    (line,) = read_lines(tmp_path / "results.jsonl")
    assert line["stages"][0]["trained_in"] == "no-sbpo-1e+10-seed1-x0.5" and line["processor_seconds"] == 2.0


def test_only_of_the_same_seed_budget_and_rates_is_a_stage_taken_over(variants):
    both = "[0.5, 1.0]"
    variants("method=spanelectra,purpose=tuning", multiples=both)
    variants("method=spanelectra,seed=1,budget=1e10", multiples=both)
    started = stages_started(variants("method=no-sbpo,seed=101,seed=1,seed=2,seed=3", multiples=both))
    assert [name for name in started if name.endswith("generator")] == [
        # the multiple that the grid chose is 0.5
        "no-sbpo-1e+10-seed2-x0.5 generator",
        "no-sbpo-1e+10-seed3-x0.5 generator",
        "no-sbpo-4e+10-seed1-x0.5 generator",
        "no-sbpo-4e+10-seed2-x0.5 generator",
    ]


def _forget_model(run: Path) -> None:
    (run / "model" / "weights").unlink()


def _tear_times(run: Path) -> None:
    (run.parent / "times.jsonl").write_text('{"command": "pretrain gen')


def _forget_end(run: Path) -> None:
    (run.parent / "times.jsonl").write_text('{"command": "pretrain generator", "started": "then"}\n')


def _change_steps(run: Path) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"max_steps: \d+", "max_steps: 999999", text))


def _leave_unfinished(run: Path) -> None:
    (run / "metrics.json").unlink()


@pytest.mark.parametrize("spoil", [_forget_model, _tear_times, _forget_end, _change_steps, _leave_unfinished])
def test_a_stage_that_is_not_whole_or_was_planned_otherwise_is_trained_anew(tmp_path, variants, spoil):
    variants("method=spanelectra,seed=1,budget=1e10")
    (donor,) = (tmp_path / "work").glob("spanelectra-*")
    spoil(donor / "generator")
    again = variants("method=no-sbpo,seed=1,budget=1e10")
    assert "no-sbpo-1e+10-seed1-x0.5 generator" in stages_started(again)
    assert {line["method"] for line in read_lines(tmp_path / "results.jsonl")} == {"spanelectra", "no-sbpo"}


def test_a_copy_that_was_cut_off_is_made_again(tmp_path, variants, monkeypatch):
    variants("method=spanelectra,seed=1,budget=1e10")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    # all files are copied by then
    monkeypatch.setattr("efficiency.shared_stages.write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        variants("method=no-sbpo,seed=1,budget=1e10")
    (unit,) = (tmp_path / "work").glob("no-sbpo-*")
    assert not (unit / "generator").exists()
    monkeypatch.undo()
    assert stages_started(variants("method=no-sbpo,seed=1,budget=1e10")) == ["no-sbpo-1e+10-seed1-x0.5 discriminator"]


def test_a_stage_that_was_begun_is_gone_on_with_though_another_unit_has_it(variants):
    variants("method=no-sbpo,seed=1,budget=1e10", stop_at=1)
    variants("method=spanelectra,seed=1,budget=1e10")
    again = variants("method=no-sbpo,seed=1,budget=1e10")
    assert next(words[1] for words in again.commands if words[0] == "pretrain") == "--resume"


def test_the_estimate_counts_a_shared_stage_once(tmp_path, rows):
    text = SMALL.replace("[0.5, 1.0]", "[0.5]") + VARIANTS
    runner = FakeRunner(tmp_path, rows, "method=spanelectra,method=no-sbpo,seed=1,budget=1e10", tier_text=text)
    units = [entry.unit for entry in runner.experiment.plan()]
    alone, trained = [runner.experiment.hours(unit) for unit in units], set()
    together = [runner.experiment.hours(unit, trained) for unit in units]
    assert len(units) == 2 and together[0] == alone[0]
    stage, planned = runner.experiment.tier.methods["no-sbpo"].stages[0], runner.experiment.stages(units[1])[0]
    assert alone[1] - together[1] == pytest.approx(planned.tokens / stage.tokens_per_second / 3600)


def test_a_line_that_is_none_is_named(tmp_path):
    append_line(tmp_path / "r.jsonl", make_line(Unit("evaluation", "bert", 1e10, 1, 1.0), 1.0))
    with open(tmp_path / "r.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"cut": ')
    with pytest.raises(UserError, match="line 2"):
        read_lines(tmp_path / "r.jsonl")
