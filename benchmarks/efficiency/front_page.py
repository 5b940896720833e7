"""The README's table and picture of scores, from the results that are committed.

python benchmarks/efficiency/front_page.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from efficiency import front_picture
from efficiency.comparisons import Line, Scores, scores_of, summarise
from efficiency.results_file import KEY, read_lines, results_path
from results_page import replace_section, table

README = Path(__file__).parent.parent.parent / "README.md"
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
            headings.append(f"{encoder}, {budget:.2g}".replace("e+", "e"))
            for label, method in METHODS.items():
                mean, entities = (scores_of(lines, method, tasks).get(budget) for tasks in (TASKS, TASKS[:1]))
                cells[label].append(f"{_cell(mean)} [{_cell(entities)}] ({len(mean)})" if mean and entities else "")
    return table(headings, [[label, *row] for label, row in cells.items() if any(row)])


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
    front_picture.draw(*picture_panels(), PICTURE)
