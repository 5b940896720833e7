"""The statistics against scipy and slow obvious versions, and the page says what it should."""

from __future__ import annotations

import itertools
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_tier import SMALL, TIER_1, TIERS, run_all, write_tier

from efficiency import comparisons, front_page, front_picture, page, tier_index
from efficiency.goals import baselines_of, goals
from efficiency.plan import Unit
from efficiency.results_file import append_line, read_lines, results_path, with_rates
from efficiency.tiers import Tier, read_tier


def test_the_paired_test_of_one_budget_is_that_of_scipy():
    ours, other = {1.0: {1: 5.0, 2: 6.5, 3: 7.0, 4: 9.0}}, {1.0: {1: 4.0, 2: 6.0, 3: 5.5, 5: 1.0}}
    (difference,) = comparisons.paired_differences(ours, other)
    expected = stats.ttest_rel([5.0, 6.5, 7.0], [4.0, 6.0, 5.5])
    interval = expected.confidence_interval(0.95)
    assert difference.count == 3 and difference.p == pytest.approx(expected.pvalue)
    assert difference.mean - difference.half_width == pytest.approx(interval.low)


def test_the_pooled_test_is_a_regression_on_budgets():
    source = np.random.default_rng(0)
    ours = {b: {s: float(source.normal(b)) for s in range(n)} for b, n in ((1.0, 5), (2.0, 3), (3.0, 2))}
    other = {b: {s: float(source.normal()) for s in seeds} for b, seeds in ours.items()}
    gaps = [(b, ours[b][s] - other[b][s]) for b in ours for s in ours[b]]
    design = np.array([[float(b == column) for column in ours] for b, _ in gaps])
    values = np.array([gap for _, gap in gaps])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ values
    freedom = len(values) - 3
    variance = np.sum((values - design @ coefficients) ** 2) / freedom
    expected = 2 * stats.t.sf(np.abs(coefficients) / np.sqrt(variance * np.diag(inverse)), freedom)
    found = comparisons.paired_differences(ours, other)
    assert [difference.p for difference in found] == pytest.approx(list(expected))
    assert [difference.mean for difference in found] == pytest.approx(list(coefficients))


def test_a_single_seed_is_no_test():
    (difference,) = comparisons.paired_differences({1.0: {1: 5.0}}, {1.0: {1: 4.0}})
    assert difference.mean == 1.0 and difference.p is None and str(difference) == "+1.00 (1)"


def test_holm():
    # each of the ordered p values times the tests that are left, never falling
    assert comparisons.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert comparisons.holm([0.9, 0.8]) == [1.0, 1.0]


def curve(*means: float) -> comparisons.Scores:
    """Scores at budgets a factor of four apart, of two seeds each."""
    return {4.0**power: {1: mean - 0.5, 2: mean + 0.5} for power, mean in enumerate(means)}


def test_crossings_lie_between_budgets_in_log_flops():
    assert comparisons.crossings(curve(1, 3), curve(2, 2)) == pytest.approx([2.0])
    assert comparisons.crossings(curve(1, 5), curve(2, 2)) == pytest.approx([4**0.25])
    assert comparisons.crossings(curve(1, 2, 3), curve(2, 2, 2)) == pytest.approx([4.0])
    assert comparisons.crossings(curve(3, 2, 3), curve(2, 2, 2)) == []
    assert comparisons.crossings(curve(1, 2), curve(3, 4)) == []
    # where they are equal at a budget, it is there
    assert comparisons.crossings(curve(3, 2, -1), curve(2, 2, 2)) == [4.0]
    assert comparisons.crossings(curve(3, 2, 2, 1), curve(2, 2, 2, 2)) == [4.0]
    # only budgets that both have, and of these only seeds that both have: the curves cross where the pairs do
    assert comparisons.crossings(curve(1, 3), curve(2)) == []
    lucky = {**curve(2, 2), 1.0: {1: 1.5, 2: 2.5, 3: -9.0}}
    assert comparisons.crossings(curve(1, 3), lucky) == pytest.approx([2.0])


def test_flops_needed_for_a_score():
    assert str(comparisons.flops_needed(curve(1, 2, 4), 3.0)) == "8"
    assert str(comparisons.flops_needed(curve(1, 2, 4), 1.0)) == "≤ 1"
    assert str(comparisons.flops_needed(curve(1, 2, 4), 4.1)) == "> 16"
    assert comparisons.flops_needed({}, 1.0) is None
    # the first time that it is reached, where the curve falls again
    assert comparisons.flops_needed(curve(1, 3, 1, 3), 2.0).flops == pytest.approx(2.0)
    assert [needed.flops for needed in comparisons.needed_by_seed(curve(1, 3), 2.0)] == pytest.approx(
        [4**0.75, 4**0.25]
    )


def lines_with(tier: Tier, scores: dict[str, float], spread: float = 0.1) -> list[dict[str, Any]]:
    """A whole tier: a method's score, more by one point at the larger budget, and a seed's share of the spread."""

    def score(unit: Unit) -> float:
        wobble = (zlib.crc32(unit.name.encode()) % 100 - 50) / 50
        return scores[unit.method] + (unit.budget == 4e10) + spread * wobble

    return run_all(tier, score)


SCORES = {"bert": 60.0, "spanbert": 61.0, "electra": 59.0, "spanelectra": 64.0, "random": 50.0}


def test_a_task_on_which_bert_is_near_fresh_weights_is_not_averaged(tier):
    lines = lines_with(tier, SCORES)
    for line in lines:
        if line["method"] == "bert":
            line["tasks"]["sst2"]["dev"] = 50.0 + 0.02 * line["seed"]
    verdicts = {task: comparisons.judge_task(tier, lines, task) for task in tier.tasks}
    assert verdicts["conll2003"].counts is True and verdicts["sst2"].counts is False
    groups = [
        [line["tasks"]["sst2"]["dev"] for line in lines if line["method"] == method and line["budget"] == budget]
        for method, budget in (("bert", 4e10), ("random", 0.0))
    ]
    pooled = (np.var(groups[0], ddof=1) * 1 + np.var(groups[1], ddof=1) * 2) / 3
    assert verdicts["sst2"].deviation == pytest.approx(pooled**0.5)
    assert comparisons.averaged_tasks(verdicts.values()) == ["conll2003"]
    assert comparisons.judge_task(tier, lines[:10], "sst2").counts is None
    assert not any("Provisional" in line for line in page.judgement_lines(tier, list(verdicts.values())))
    early = [line for line in lines if line["budget"] != 4e10]
    said = page.judgement_lines(tier, [comparisons.judge_task(tier, early, task) for task in tier.tasks])
    assert len(said) == 3 and "judged at 1e+10 FLOPs" in said[-1] and "is about 4e+10" in said[-1]


def test_the_page_of_all_results_and_of_some(tier, tmp_path, monkeypatch):
    lines = lines_with(tier, SCORES)
    for line in lines:
        line["tasks"]["sst2"]["test"] = line["tasks"]["conll2003"]["test"] = 12.34
    whole = page.whole_page(tier, lines)
    assert "Scores on test" in whole and "12.34" in whole and "Not complete" not in whole
    below = next(row for row in whole.splitlines() if "is at no budget below the best baseline" in row)
    # a column a split: of test nobody is above anybody
    assert re.fullmatch(r"\| [^|]+ \| yes: [^|]+ \| yes: \+0.00 at 1e\+10, \+0.00 at 4e\+10 \|", below)
    assert "They are judged on test.\n" in whole
    assert "| 1e+10 | bert | 4.50 ± 0.00 (3) | - | - |" in whole
    assert " | 0.5 (edge) |" in whole
    assert "≤ 1e+10" in whole and "none seen" in whole
    # test stays closed until all is there
    some = page.whole_page(tier, lines[:-1])
    assert "Scores on test" not in some and "12.34" not in some and "| goal | on dev |\n" in some
    assert "They are judged on test, which is opened when all units are there." in some
    assert "**Not complete: 30 of 31 units.** Missing: spanelectra at 4e+10 (1)." in some
    grid = page.whole_page(tier, [line for line in lines if line["purpose"] == "tuning"][:-1])
    assert "No run has been evaluated yet." in grid and "small.png" not in grid
    assert (
        "| spanelectra | 63.99 (64.0, 64.0) | - | not yet |" in grid
        and "Mean over all tasks (sst2, conll2003), one seed of pre-training." in grid
    )
    nothing = page.whole_page(tier, [])
    assert "No results yet." in nothing and "Not complete: 0 of" in nothing

    results = tmp_path / "results.jsonl"
    for line in lines[:24]:
        append_line(results, line)
    words = ["page.py", str(tmp_path / "small.yaml"), "--results", str(results), "--out_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    page.main()
    written = (tmp_path / "small.md").read_text(encoding="utf-8")
    page.main()
    assert (tmp_path / "small.md").read_text(encoding="utf-8") == written and "(small.png)" in written
    assert (tmp_path / "small.png").stat().st_size > 10_000


def test_a_part_is_compared_with_its_own_control(tmp_path: Path) -> None:
    """And of the probe: fresh weights' layers do not count, nor do seeds that only one of the two has."""
    file = write_tier(tmp_path, f"{SMALL}pairs: [[spanbert, electra]]\nprobe: {{only: [sst2], train_examples: 9}}\n")
    tier = read_tier(file)
    lines = lines_with(tier, SCORES, spread=0.0)
    lines = [line for line in lines if (line["method"], line["budget"], line["seed"]) != ("electra", 1e10, 3)]
    for line in lines:
        layers = [0.0, 9.0 + line["seed"]] if line["method"] == "spanbert" else [5.0, 1.0]
        line["probe"] = {"sst2": {"layers": layers, "fresh_layers": [99.0]}}
        line["tasks"]["sst2"]["dev"] += 0.2 * line["seed"] * (line["method"] == "spanbert")
    written = page.pair_table(tier, lines, ["sst2", "conll2003"], "dev")
    heading, _, *rows = written.splitlines()
    assert heading == "| FLOPs | method | less | mean | sst2 | conll2003 | probe sst2 |"
    expected = comparisons.paired_differences(
        *(comparisons.scores_of(lines, name, ["sst2", "conll2003"]) for name in ("spanbert", "electra"))
    )
    assert rows[0].startswith("| 1e+10 | spanbert | electra | +2.15 ± ") and len(rows) == 2
    assert all(f"| electra | {difference} | " in row for difference, row in zip(expected, rows, strict=True))
    assert all(" | +2.00 (2) | " in row for row in rows)  # of conll2003, which all seeds make alike
    assert [row.split(" | ")[-1][:5] for row in rows] == ["+5.50", "+5.50"]
    assert "probe" not in page.pair_table(tier, lines, ["sst2"], "test")
    assert "Each part against its own control" in page.whole_page(tier, lines)
    # what another file extends has pairs of its own, or none
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {file.name}\nname: other\n", encoding="utf-8")
    assert read_tier(other).pairs == () and "## Goals" not in page.whole_page(read_tier(other), lines)
    assert "Each part against" not in page.whole_page(read_tier(other), lines)
    assert page.pair_table(read_tier(file), lines[:1], ["sst2"], "dev").startswith("Not yet")


def test_no_goal_is_about_a_control(tmp_path):
    methods = [f"{name}: {{like: {name}}}" for name in SCORES] + ["control: {like: bert, control: true}"]
    tier = read_tier(write_tier(tmp_path, f"{SMALL}methods: {{{', '.join(methods)}}}\n"))
    lines = lines_with(tier, {**SCORES, "control": 70.0}, spread=0.01)
    met = {goal.sentence: goal.met for goal in goals(tier, lines, list(tier.tasks), "dev")}
    assert met["spanelectra is at no budget below the best baseline"] is True
    text = page.whole_page(tier, lines)
    assert "The goals are about bert, spanbert, electra; any other is shown beside them." in text
    assert "| mean | control | -" in text


def test_goals_that_are_not_reached_are_said_not_to_be(tier):
    lines = lines_with(tier, {**SCORES, "spanelectra": 59.5})
    text = page.whole_page(tier, lines)
    assert text.count(" | no: ") >= 3


def test_goals_are_judged_so_far_where_the_largest_budget_is_missing(tier):
    lines = lines_with(tier, SCORES)
    whole = page.whole_page(tier, lines)
    assert "Provisional" not in whole and "so far" not in whole and "score at 4e+10 FLOPs, interp" in whole
    # one baseline has no result at the largest budget
    some = [line for line in lines if (line["method"], line["budget"]) != ("electra", 4e10)]
    text = page.whole_page(tier, some)
    assert "judged at 1e+10 FLOPs, the largest budget at which all of them have results" in text
    assert "| at 1e+10 it is on average 1 point or more above every" in text and " | yes, so far: +" in text
    assert "score at 1e+10 FLOPs, interp" in text
    # at the smallest budget ours may need any less than it
    reaches = next(goal for goal in goals(tier, some, list(tier.tasks), "dev") if "reaches bert's" in goal.sentence)
    assert reaches.verdict == "not known yet" and reaches.found.startswith("≤ 1e+10")
    # a seed is missing there
    fewer = [line for line in lines if (line["method"], line["budget"], line["seed"]) != ("electra", 4e10, 1)]
    assert "yes, so far" in page.whole_page(tier, fewer)


def test_a_page_says_what_the_last_goal_hangs_on_where_nothing_is_pooled(tier):
    lines = lines_with(tier, SCORES)
    ours, *others = (
        comparisons.scores_of(lines, name, list(tier.tasks))[4e10] for name in ("spanelectra", *baselines_of(tier))
    )
    pairs = [([ours[seed] for seed in ours], [other[seed] for seed in ours]) for other in others]
    adjusted = comparisons.holm([float(stats.ttest_rel(*pair).pvalue) for pair in pairs])
    text = page.whole_page(tier, lines)
    said = next(line for line in text.splitlines() if "on dev" in line and "at 4e+10 alone, not pooled" in line)
    assert re.findall(r"p = ([\d.e-]+)", said) == [f"{p:.2g}" for p in adjusted]
    single = [line for line in lines if line["seed"] == 1 or line["purpose"] == "tuning" or not line["budget"]]
    assert "not pooled" not in page.whole_page(tier, single)


def test_a_baseline_is_not_judged_by_a_seed_that_others_lack(tier):
    def lucky(line: dict[str, Any]) -> bool:
        return line["method"] == "bert" and line["seed"] == 2

    lines = [line for line in lines_with(tier, SCORES) if line["seed"] == 1 or lucky(line)]
    for line in filter(lucky, lines):
        line["tasks"] = {name: {**task, "dev": 99.0} for name, task in line["tasks"].items()}
    below = next(goal for goal in goals(tier, lines, list(tier.tasks), "dev") if "at no budget" in goal.sentence)
    assert below.met is True


def test_what_no_missing_result_can_change_is_settled(tier):
    lines = [line for line in lines_with(tier, {**SCORES, "spanelectra": 59.5}) if line["budget"] != 4e10]
    verdicts = {goal.sentence: goal.verdict for goal in goals(tier, lines, list(tier.tasks), "dev")}
    assert verdicts.pop("spanelectra is at no budget below the best baseline") == "no"
    assert next(verdict for sentence, verdict in verdicts.items() if "above every" in sentence) == "no, so far"


def test_results_of_several_arithmetics_are_said_to_be():
    def line(processor: str, **changes: Any) -> dict[str, Any]:
        versions = {"torch": "2", "transformers": "5"}
        environment = {"processor": processor, "devices": [], "versions": versions, "threads": 2, "workers": 1}
        return {"environment": environment, "commit": "c", "clean": True, **changes}

    new, float32, unknown = line("any", fine_tuned_in="float32"), line("b", fine_tuned_in="float32"), line("c")
    said = page._made_on([new, float32, unknown])
    assert "any, 2 threads a run, 1 side by side" in said and "1 of the 3 lines were fine-tuned" in said
    assert "fine-tuned" not in page._made_on([new, float32]) + page._made_on([unknown])


def test_a_tier_says_what_is_to_be_known_of_its_goals(tmp_path: Path) -> None:
    tier = read_tier(write_tier(tmp_path, f"{SMALL}note: Read it with care.\n"))
    assert "\nRead it with care.\n\n![score" in page.whole_page(tier, lines_with(tier, SCORES))


def test_of_a_method_without_results_nothing_is_said(tier):
    lines = [line for line in lines_with(tier, SCORES) if line["method"] != "electra"]
    some = [line for line in lines if (line["method"], line["budget"]) != ("spanbert", 1e10)]
    rows = page.compute_table(tier, some, ["sst2"], "dev").splitlines()
    assert not any("electra" in row.split(" | ")[1] for row in rows if "spanelectra" not in row)
    # and of a single budget no crossing
    assert [row.split(" | ")[-1] for row in rows if " | spanbert | " in row] == ["- |"] * 3


def test_the_front_page_shows_what_the_results_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = with_rates(read_tier(TIER_1))
    judged = [comparisons.judge_task(tier, read_lines(results_path("tier1")), task) for task in tier.tasks]
    assert tuple(comparisons.averaged_tasks(judged)) == front_page.TASKS
    readme = front_page.README.read_text(encoding="utf-8")
    assert front_page.score_table() in readme and front_page.gap_table(budgets=[1.6e14]) in readme
    assert front_page.gap_table() in front_page.RESULTS.read_text(encoding="utf-8")
    monkeypatch.setattr(front_page, "results_path", lambda tier: tmp_path / f"{tier}.jsonl")
    for tier, seed, score in (("tier1", 1, 70.0), ("default-recipe", 1, 70.0), ("candidates", 2, 72.0)):
        line = {"purpose": "evaluation", "method": "bert", "budget": 4e13, "seed": seed, "multiple": 1.0}
        tasks = {task: {"dev": score} for task in front_page.TASKS}
        append_line(tmp_path / f"{tier}.jsonl", {**line, "tasks": tasks})
    assert front_page.score_table().splitlines()[2:] == ["| BERT | 71.0 ± 1.4 [71.0 ± 1.4] (2) |"]


def test_differences_are_those_of_dev_until_every_unit_is_there(
    tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = lines_with(tier, SCORES, spread=0.0)
    for line in lines:
        for task in line["tasks"].values():
            task["test"] = task["dev"] * 2
    monkeypatch.setattr(front_page, "TIERS", tmp_path)
    monkeypatch.setattr(front_page, "JUDGED", {"ours": "small"})
    monkeypatch.setattr(front_page, "TASKS", tuple(tier.tasks))
    monkeypatch.setattr(front_page, "results_path", lambda name: tmp_path / f"{name}.jsonl")
    for line in lines[:-1]:
        append_line(tmp_path / "small.jsonl", line)
    assert {row.split(" | ")[2] for row in front_page.gap_table().splitlines()[2:]} == {"dev"}
    append_line(tmp_path / "small.jsonl", lines[-1])
    assert front_page.gap_table(budgets=[4e10]).splitlines() == [
        "|  | FLOPs | on | less BERT | less SpanBERT | less ELECTRA |",
        "| --- | --- | --- | --- | --- | --- |",
        "| ours | 4e10 | test | +8.0 [+8.0] | +6.0 [+6.0] | +10.0 [+10.0] |",
        "| ours | 4e10 | dev | +4.0 [+4.0] | +3.0 [+3.0] | +5.0 [+5.0] |",
    ]


def test_the_front_picture_has_the_methods_that_were_run_at_several_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_page, "results_path", lambda tier: tmp_path / f"{tier}.jsonl")
    for method, budget, score in (
        ("bert", 1e13, 70.0),
        ("bert", 4e13, 72.0),
        ("electra", 4e13, 69.0),
        ("random", 0, 60.0),
    ):
        line = {"purpose": "evaluation", "method": method, "budget": float(budget), "seed": 1, "multiple": 1.0}
        append_line(tmp_path / "tier1.jsonl", {**line, "tasks": {task: {"dev": score} for task in front_page.TASKS}})
    panels, fresh = front_page.picture_panels()
    assert list(panels.values()) == [{"BERT": {1e13: {1: 70.0}, 4e13: {1: 72.0}}}] * 2
    assert list(fresh.values()) == [60.0, 60.0]
    front_picture.draw(panels, fresh, tmp_path / "scores.svg")
    drawn = (tmp_path / "scores.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {text} -->" in drawn for text in ("BERT", "fresh weights", "1e13", "4e13"))
    assert "ELECTRA" not in drawn


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.01, 5))
def test_names_keep_their_order_and_their_distance(heights: list[float], distance: float) -> None:
    placed = front_picture._apart(heights, distance)
    by_height = [placed[index] for index in sorted(range(len(heights)), key=lambda index: heights[index])]
    assert all(after - before >= distance - 1e-6 for before, after in itertools.pairwise(by_height))
    # as many go up as down: the middle of all stays where it was
    assert sum(placed) == pytest.approx(sum(heights), abs=1e-6)
    if all(after - before >= distance for before, after in itertools.pairwise(sorted(heights))):
        assert placed == pytest.approx(heights, abs=1e-6)


def test_the_index_links_every_page_of_a_tier() -> None:
    shown = tier_index.RESULTS_PAGE.read_text(encoding="utf-8")
    assert tier_index.index_table() in shown
    with_page = {file.stem for file in page.PAGES.glob("*.md")}
    assert with_page == set(re.findall(r"^\| \[([\w-]+)\]\(efficiency/", shown, flags=re.MULTILINE))


@pytest.mark.parametrize("name", sorted(file.stem for file in page.PAGES.glob("*.md")))
def test_a_page_says_what_its_results_say(name: str) -> None:
    tier = with_rates(read_tier(TIER_1.with_name(f"{name}.yaml")))
    expected = page.whole_page(tier, read_lines(results_path(name)))
    assert (page.PAGES / f"{name}.md").read_text(encoding="utf-8") == expected + "\n"


def test_results_of_a_trial_leave_the_pages_alone(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["page.py", str(TIER_1), "--results", "trial.jsonl"])
    with pytest.raises(SystemExit):
        page.main()
    assert "--results and --out_dir go together" in capsys.readouterr().err


def test_every_tier_says_what_it_asks() -> None:
    assert all(read_tier(file).question.endswith("?") for file in TIERS)
    assert len({read_tier(file).question for file in TIERS}) == len(TIERS)
