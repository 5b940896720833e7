"""The README's tables and picture of scores, and the differences in `docs/results.md`, from the committed results.

python benchmarks/efficiency/front_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from efficiency import front_picture
from efficiency.comparisons import Line, Scores, difference_at, scores_of, summarise
from efficiency.goals import baselines_of
from efficiency.plan import open_units, plan
from efficiency.results_file import KEY, read_lines, results_path, with_rates
from efficiency.tiers import read_tier
from results_page import replace_section, table

TIERS = Path(__file__).parent
README = Path(__file__).parent.parent.parent / "README.md"
RESULTS = README.parent / "docs" / "results.md"
PICTURE = README.parent / "docs" / "images" / "scores.png"
TASKS = ("conll2003", "sst2", "sst2-500")
# A line of the table -> the method in the results.
METHODS = {
    "**`tiny-generator`** (MLM with a better start)": "bert-with-the-same",
    "BERT": "bert",
    "SpanBERT": "spanbert",
    "ELECTRA": "electra",
    "ELECTRA with `tiny-generator`'s start": "electra-with-the-same",
    "SpanElectra, all four objectives, two stages": "spanelectra",
    "`tiny-generator` for 70%, then ATO and SBPO": "mlm-then-both",
}
FRESH = "random"
# What the goals are about -> its tier.
JUDGED = {"`tiny-generator`": "default-recipe", "SpanElectra, two stages": "tier1"}
# Encoder -> the tiers that have it, and the budgets that are shown.
ENCODERS = {
    "128 x 4": (("tier1", "default-recipe", "candidates", "parts", "next-recipe"), (1e13, 4e13, 1.6e14)),
    "192 x 6": (("one-size-up",), (4e13, 1.6e14)),
}


def lines_of(tiers: Sequence[str]) -> list[Line]:
    """What tiers have evaluated; a unit that several have, once."""
    found = {tuple(line[name] for name in KEY): line for tier in tiers for line in read_lines(results_path(tier))}
    return [line for line in found.values() if line["purpose"] == "evaluation"]


def score_table() -> str:
    """A row a method, a column an encoder and budget; the mean of the tasks, in brackets that on entities."""
    headings = ["trained as"]
    cells: dict[str, list[str]] = {label: [] for label in METHODS}
    for encoder, (tiers, budgets) in ENCODERS.items():
        lines = lines_of(tiers)
        for budget in budgets:
            if not any(line["budget"] == budget for line in lines):
                continue
            headings.append(f"{encoder}, {_in_short(budget)}")
            for label, method in METHODS.items():
                mean, entities = (scores_of(lines, method, tasks).get(budget) for tasks in (TASKS, TASKS[:1]))
                cells[label].append(f"{_cell(mean)} [{_cell(entities)}] ({len(mean)})" if mean and entities else "")
    return table(headings, [[label, *row] for label, row in cells.items() if any(row)])


def gap_table(budgets: Sequence[float] | None = None) -> str:
    """Ours less each baseline, mean and in brackets entities: a row a method, budget and split; test once it is open.

    Args:
        budgets: those that are shown; all by default.
    """
    rows = []
    for label, name in JUDGED.items():
        tier = with_rates(read_tier(TIERS / f"{name}.yaml"))
        lines = read_lines(results_path(name))
        splits = ("dev",) if open_units(plan(tier, lines)) else ("test", "dev")
        for budget in (budget.flops for budget in tier.budgets if budgets is None or budget.flops in budgets):
            for split in splits:
                cells = [
                    "{} [{}]".format(
                        *(_gap(lines, tier.ours, other, tasks, budget, split) for tasks in (TASKS, TASKS[:1]))
                    )
                    for other in baselines_of(tier)
                ]
                rows.append([label, _in_short(budget), split, *cells])
    names = {method: label for label, method in METHODS.items()}
    return table(["", "FLOPs", "on", *(f"less {names[other]}" for other in baselines_of(tier))], rows)


def _in_short(budget: float) -> str:
    return f"{budget:.2g}".replace("e+", "e")


def _gap(lines: Sequence[Line], ours: str, other: str, tasks: Sequence[str], budget: float, split: str) -> str:
    found = difference_at(*(scores_of(lines, name, tasks, split) for name in (ours, other)), budget)
    if found is None:
        return "-"
    return f"{found.mean:+.1f}" + ("" if found.half_width is None else f" ± {found.half_width:.1f}")


def picture_panels() -> tuple[dict[str, dict[str, Scores]], dict[str, float]]:
    """The first encoder's methods that have several budgets, and fresh weights, under the titles of two panels."""
    encoder, (tiers, budgets) = next(iter(ENCODERS.items()))
    lines = [line for line in lines_of(tiers) if line["budget"] in (0.0, *budgets)]
    titles = {f"Mean of three tasks, dev ({encoder})": TASKS, f"CoNLL-2003, entity F1, dev ({encoder})": TASKS[:1]}
    chosen = {_short(name): method for name, method in METHODS.items() if len(scores_of(lines, method, TASKS)) > 1}
    panels = {
        title: {name: scores_of(lines, method, tasks) for name, method in chosen.items()}
        for title, tasks in titles.items()
    }
    fresh = {title: summarise(scores_of(lines, FRESH, tasks)[0.0].values()).mean for title, tasks in titles.items()}
    return panels, fresh


def _short(label: str) -> str:
    """A method's name where there is little room: no explanation, no markup."""
    return label.partition(" (")[0].partition(",")[0].replace("*", "").replace("`", "").replace(" with ", "\nwith ")


def _cell(scores: dict[int, float]) -> str:
    summary = summarise(scores.values())
    return f"{summary.mean:.1f}" + ("" if summary.deviation is None else f" ± {summary.deviation:.1f}")


if __name__ == "__main__":
    replace_section(README, "scores", score_table())
    replace_section(README, "gaps", gap_table(budgets=[1.6e14]))
    replace_section(RESULTS, "gaps", gap_table())
    front_picture.draw(*picture_panels(), PICTURE)
