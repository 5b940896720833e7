"""Results of a tier -> a page in `docs/efficiency` with its pictures, and the table of tiers in `docs/results.md`.

    python benchmarks/efficiency/page.py benchmarks/efficiency/tier1.yaml

It says what is missing. Scores on test are shown once every unit of the tier is there, and not before: everything is
chosen on dev.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from checked_out import at
from efficiency.comparisons import (
    CONFIDENCE,
    Judgement,
    Line,
    averaged_tasks,
    crossings,
    evaluated,
    flops_needed,
    judge_task,
    needed_by_seed,
    paired_differences,
    probe_scores,
    scores_of,
    summarise,
)
from efficiency.goals import baselines_of, goals, judged_at, others_of, without_pooling
from efficiency.plan import Planned, chosen_multiple, dev_score, open_units, plan
from efficiency.plots import PANELS, plot_curves, plot_scores
from efficiency.results_file import read_lines, results_path, with_rates
from efficiency.tier_index import write_index
from efficiency.tiers import Tier, read_tier
from results_page import table

PAGES = Path(__file__).parent.parent.parent / "docs" / "efficiency"
AVERAGE = "mean"


def missing(planned: Sequence[Planned]) -> str:
    """What is not there yet, in a sentence; empty where all is."""
    still_open = open_units(planned)
    counts = Counter((unit.purpose, unit.budget, unit.method) for unit in still_open)
    parts = [
        f"{method}{' learning rates' if purpose == 'tuning' else f' at {budget:.2g}' if budget else ''} ({count})"
        for (purpose, budget, method), count in counts.items()
    ]
    done = sum(entry.state == "done" for entry in planned)
    if not parts:
        return ""
    return f"**Not complete: {done} of {done + len(still_open)} units.** Missing: {', '.join(parts)}."


def measures_of(tier: Tier, averaged: Sequence[str]) -> dict[str, list[str]]:
    """What is shown of a method, and the tasks whose mean it is."""
    return {AVERAGE: list(averaged), **{task: [task] for task in tier.tasks}}


def score_table(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], split: str) -> str:
    """A row for every budget and method: the mean, each task, the probe, and what it cost."""
    measures = measures_of(tier, averaged)
    # the probe is scored on dev, and so shown beside it alone
    probed = tier.probe["only"] if split == "dev" else []
    headings = ["FLOPs", "method", *measures, *(f"probe {task}" for task in probed), "M tokens", "hours (processor)"]
    rows = []
    for budget in (0.0, *(budget.flops for budget in tier.budgets)):
        for name, method in tier.methods.items():
            found = evaluated(lines, name, budget)
            if not found:
                continue
            cells = [scores_of(lines, name, tasks, split).get(budget, {}).values() for tasks in measures.values()]
            rows.append(
                [
                    f"{budget:.2g}" if budget else "-",
                    name + _collapsed(found),
                    *(str(summarise(values)) if values else "-" for values in cells),
                    *(_probe(found if not method.fresh else lines, task, method.fresh) for task in probed),
                    f"{statistics.fmean(line['tokens'] for line in found) / 1e6:.1f}" if budget else "-",
                    _hours(found) if budget else "-",
                ]
            )
    return table(headings, rows)


def _collapsed(found: Sequence[Line]) -> str:
    count = sum(len(task["collapsed"]) for line in found for task in line["tasks"].values())
    return f" ({count} fine-tunings collapsed)" if count else ""


def _probe(found: Sequence[Line], task: str, fresh: bool) -> str:
    """Best layer of a linear probe; one of fresh weights is the same in all lines of a seed."""
    layers = "fresh_layers" if fresh else "layers"
    evaluated = [line for line in found if line["purpose"] == "evaluation" and task in line["probe"]]
    values = {line["seed"]: max(line["probe"][task][layers]) for line in evaluated}.values()
    return str(summarise(values)) if values else "-"


def _hours(found: Sequence[Line]) -> str:
    wall = statistics.fmean(line["wall_seconds"] for line in found) / 3600
    processor = [line["processor_seconds"] for line in found if line["processor_seconds"] is not None]
    return f"{wall:.2f} ({statistics.fmean(processor) / 3600:.2f})" if processor else f"{wall:.2f}"


def difference_table(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], split: str) -> str:
    """Ours minus each other method, for the mean and every task: a column a budget."""
    rows = []
    for measure, tasks in measures_of(tier, averaged).items():
        ours = scores_of(lines, tier.ours, tasks, split)
        for name in others_of(tier):
            found = {d.budget: d for d in paired_differences(ours, scores_of(lines, name, tasks, split))}
            cells = [str(found[budget.flops]) if budget.flops in found else "-" for budget in tier.budgets]
            if found:
                rows.append([measure, name, *cells])
    return (
        "Not yet: there is no seed that two methods have."
        if not rows
        else table([f"{tier.ours} less", "", *(f"{budget.flops:.2g}" for budget in tier.budgets)], rows)
    )


def pair_table(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], split: str) -> str:
    """Each method of the tier's pairs minus its control: a row a pair and budget, a column a measure."""
    measures = measures_of(tier, averaged)
    # the probe is scored on dev, and so shown beside it alone
    probed = tier.probe["only"] if split == "dev" else []
    rows = []
    for pair in tier.pairs:
        compared = [
            *([scores_of(lines, name, tasks, split) for name in pair] for tasks in measures.values()),
            *([probe_scores(lines, name, task) for name in pair] for task in probed),
        ]
        found = [{d.budget: str(d) for d in paired_differences(ours, control)} for ours, control in compared]
        for budget in (budget.flops for budget in tier.budgets):
            if any(budget in column for column in found):
                rows.append([f"{budget:.2g}", *pair, *(column.get(budget, "-") for column in found)])
    headings = ["FLOPs", "method", "less", *measures, *(f"probe {task}" for task in probed)]
    return table(headings, rows) if rows else "Not yet: no pair has a seed in common."


def compute_table(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], split: str) -> str:
    """FLOPs that every method needs for the reference's score at the judged budget, and where curves cross."""
    rows, largest = [], judged_at(tier, lines, averaged, split)
    for measure, tasks in measures_of(tier, averaged).items():
        reference = scores_of(lines, tier.reference, tasks, split)
        if largest not in reference:
            continue
        level = statistics.fmean(reference[largest].values())
        ours = scores_of(lines, tier.ours, tasks, split)
        for name in (tier.ours, *others_of(tier)):
            scores = scores_of(lines, name, tasks, split)
            by_seed = ", ".join(str(needed) for needed in needed_by_seed(scores, level))
            is_curve = name != tier.ours and len(paired_differences(ours, scores)) > 1
            points = ", ".join(f"{point:.2g}" for point in crossings(ours, scores)) or "none seen"
            needed = flops_needed(scores, level)
            if needed is not None:
                rows.append([f"{measure}, {level:.2f}", name, str(needed), by_seed or "-", points if is_curve else "-"])
    if not rows:
        return f"Not yet: {tier.reference} has no result at {largest:.2g} FLOPs."
    return table(["score", "method", "FLOPs needed", "seed by seed", f"crosses {tier.ours} at"], rows)


def rate_table(tier: Tier, lines: list[Line]) -> str:
    """The grid: mean over all tasks on dev of every multiple, and which was chosen, at the grid's edge or within."""
    tuned = [line for line in lines if line["purpose"] == "tuning"]
    if tier.rates_from is not None:
        used = {line["method"]: line["multiple"] for line in lines if line["budget"]}
        rows = [[name, tier.methods[name].rates_of, f"{used[name]:g}"] for name in tier.methods if name in used]
        return table(["method", f"has the rates of, in {tier.rates_from.stem}", "times the rates"], rows)
    if not tuned:
        return ""
    rows, edges = [], (min(tier.learning_rate_multiples), max(tier.learning_rate_multiples))
    for name in tier.methods:
        scores = {line["multiple"]: line for line in tuned if line["method"] == name}
        chosen = chosen_multiple(tier, name, lines, [])
        cells = [_mean_and_tasks(tier, scores[m]) if m in scores else "-" for m in tier.learning_rate_multiples]
        if scores:
            edge = " (edge)" if chosen in edges else ""
            rows.append([name, *cells, "not yet" if chosen is None else f"{chosen:g}{edge}"])
    grid = table(["times the rates", *(f"{m:g}" for m in tier.learning_rate_multiples), "chosen"], rows)
    return f"Mean over all tasks ({', '.join(tier.tasks)}), one seed of pre-training.\n\n{grid}"


def _mean_and_tasks(tier: Tier, line: Line) -> str:
    tasks = ", ".join(f"{line['tasks'][task]['dev']:.1f}" for task in tier.tasks)
    return f"{dev_score(line, tier.tasks):.2f} ({tasks})"


def held_out_table(tier: Tier, lines: Sequence[Line]) -> str:
    """A row for every budget and method: what the last stage that has a metric ended with."""
    rows = []
    for budget in tier.budgets:
        for name in tier.methods:
            found = [
                {metric: value for stage in line["stages"] for metric, value in stage["held_out"].items()}
                for line in evaluated(lines, name, budget.flops)
            ]
            cells = [[run[metric] for run in found if metric in run] for metric in PANELS]
            if found:
                rows.append([f"{budget.flops:.2g}", name, *(str(summarise(cell)) if cell else "-" for cell in cells)])
    return table(["FLOPs", "method", *PANELS.values()], rows)


def judgement_lines(tier: Tier, judgements: Sequence[Judgement]) -> list[str]:
    """Which tasks tell a pre-trained encoder from a fresh one."""
    lines = []
    for judgement in judgements:
        if judgement.counts is None:
            lines.append(f"- {judgement.task}: not known yet whether {tier.reference} is above fresh weights")
            continue
        verdict = "averaged" if judgement.counts else "**within two standard deviations: reported, not averaged**"
        lines.append(
            f"- {judgement.task}: {tier.reference} {judgement.reference}, fresh weights {judgement.fresh}, standard "
            f"deviation {judgement.deviation:.2f}: {verdict}"
        )
    early = {judgement.budget for judgement in judgements if judgement.counts is not None} - {tier.budgets[-1].flops}
    if early:
        lines.append(
            f"- **Provisional**: judged at {max(early):.2g} FLOPs, the largest budget at which {tier.reference} has "
            f"results; the protocol's rule is about {tier.budgets[-1].flops:.2g}"
        )
    return lines


def whole_page(tier: Tier, lines: list[Line]) -> str:
    """The page of a tier; what is missing is said at its top."""
    planned = plan(tier, lines)
    gaps = missing(planned)
    judgements = [judge_task(tier, lines, task) for task in tier.tasks]
    averaged = averaged_tasks(judgements)
    parts = [
        f"# Who learns most from the same compute: {tier.name}",
        "",
        *([tier.question, ""] if tier.question else []),
        f"Written by `python benchmarks/efficiency/page.py benchmarks/efficiency/{tier.name}.yaml`; "
        "[what all tiers say together](../results.md), [protocol](../efficiency-protocol.md).",
        "Mean ± sample standard deviation (seeds); a seed is a pre-training run, and its score on a task the mean of "
        f"{tier.fine_tuning_seeds} fine-tunings. Hours are those of the machine that a run was made on: no comparison "
        "of methods that were run on different ones.",
        _made_on(lines),
        "",
        *([gaps, ""] if gaps else []),
        *([tier.note, ""] if tier.note else []),
    ]
    rates = rate_table(tier, lines)
    grid = ["## Learning rates, on dev", "", rates] if rates else []
    if not any(line["purpose"] == "evaluation" for line in lines):
        return "\n".join([*parts, "No run has been evaluated yet.", "", *grid])
    parts += [
        f"![score over training FLOPs and over wall time]({tier.name}.png)",
        "",
    ]
    splits = ["dev"] + (["test"] if tier.score_test and not gaps else [])
    if tier.goals:
        parts += ["## Goals", "", *goal_lines(tier, lines, averaged, splits), ""]
    for split in splits:
        parts += [
            f"## Scores on {split}",
            "",
            *([*judgement_lines(tier, judgements), ""] if split == "dev" and tier.fresh_method else []),
            score_table(tier, lines, averaged, split),
            "",
            f"Paired differences: mean ± half of the {CONFIDENCE:.0%} interval (seeds; p of the paired t test).",
            "",
            difference_table(tier, lines, averaged, split),
            "",
            *(
                ["Each part against its own control, likewise:", "", pair_table(tier, lines, averaged, split), ""]
                if tier.pairs
                else []
            ),
            *(_compute_lines(tier, lines, averaged, split) if tier.reference != tier.ours else []),
        ]
    parts += [
        "## Held out",
        "",
        "At the end of a run, and on the way. Each method has masks and heads of its own: no comparison of losses.",
        "",
        f"![held-out loss and AUC over training FLOPs]({tier.name}-curves.png)",
        "",
        held_out_table(tier, lines),
        "",
    ]
    return "\n".join([*parts, *grid])


def _compute_lines(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], split: str) -> list[str]:
    """What the reference's score costs; a tier of variants of our own method has no such reference."""
    largest = judged_at(tier, lines, averaged, split)
    return [
        f"Compute for {tier.reference}'s score at {largest:.2g} FLOPs, interpolated in log FLOPs:",
        "",
        compute_table(tier, lines, averaged, split),
        "",
    ]


def goal_lines(tier: Tier, lines: Sequence[Line], averaged: Sequence[str], splits: Sequence[str]) -> list[str]:
    """The goals, a column a split; the verdicts are those of test."""
    largest, planned = judged_at(tier, lines, averaged, "dev"), tier.budgets[-1].flops
    found = {split: goals(tier, lines, averaged, split) for split in splits}
    alone = {split: without_pooling(tier, lines, averaged, split) for split in splits}
    rows = [
        [of_all[0].sentence, *(f"{goal.verdict}: {goal.found}" for goal in of_all)]
        for of_all in zip(*found.values(), strict=True)
    ]
    names = ", ".join(baselines_of(tier))
    about = f"The goals are about {names}; any other is shown beside them. They are judged on test"
    early = (
        f"**Provisional**: judged at {largest:.2g} FLOPs, the largest budget at which all of them have results; the "
        f"protocol's goals are about {planned:.2g}."
    )
    return [
        f"{about}." if "test" in splits else f"{about}, which is opened when all units are there.",
        "",
        *([early, ""] if largest != planned else []),
        table(["goal", *(f"on {split}" for split in splits)], rows),
        *(
            f"\nThe last one on {split} with the variance of the pairs at {largest:.2g} alone, not pooled: {words}."
            for split, words in alone.items()
            if words
        ),
    ]


def _made_on(lines: Sequence[Line]) -> str:
    """Machines, versions and commits."""
    if not lines:
        return "No results yet."
    machines: dict[str, Any] = {}
    for line in lines:
        environment = line["environment"]
        versions = environment["versions"]
        where = ", ".join(environment["devices"]) or environment["processor"]
        threads = "one thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
        machines[f"{where}, {threads} a run, {environment['workers']} side by side; torch {versions['torch']}, "
                 f"transformers {versions['transformers']}"] = None  # fmt: skip
    commits = dict.fromkeys(at(line) for line in lines)
    # lines from before it was fixed
    earlier = [line for line in lines if "fine_tuned_in" not in line]
    mixed = "" if not earlier or len(earlier) == len(lines) else (
        f" {len(earlier)} of the {len(lines)} lines were fine-tuned in their processor's own arithmetic, which may be "
        "bfloat16; the others in float32 (docs/log.md, \"Arithmetic\")."
    )  # fmt: skip
    return f"Machine: {'; or '.join(machines)}; {', '.join(commits)}.{mixed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier", type=Path)
    parser.add_argument("--results", type=Path, help="another file of results, for trials; needs --out_dir")
    parser.add_argument("--out_dir", type=Path, help="where the page of a trial goes")
    arguments = parser.parse_args()
    is_trial = arguments.results is not None
    if is_trial != (arguments.out_dir is not None):
        parser.error("--results and --out_dir go together: docs/efficiency is of the results that are committed.")
    out_dir = arguments.out_dir or PAGES
    out_dir.mkdir(parents=True, exist_ok=True)
    tier = with_rates(read_tier(arguments.tier))
    lines = read_lines(arguments.results or results_path(tier.name))
    averaged = averaged_tasks([judge_task(tier, lines, task) for task in tier.tasks])
    if any(line["purpose"] == "evaluation" for line in lines):
        plot_scores(tier, lines, averaged, out_dir / f"{tier.name}.png")
        plot_curves(tier, lines, out_dir / f"{tier.name}-curves.png")
    page = out_dir / f"{tier.name}.md"
    page.write_text(whole_page(tier, lines) + "\n", encoding="utf-8")
    print(f"{page} written")
    if not is_trial:
        write_index()


if __name__ == "__main__":
    main()
