"""What each tier asks and how much of it is there: a table in `docs/results.md`."""

from __future__ import annotations

from pathlib import Path

from efficiency.plan import open_units, plan
from efficiency.results_file import read_lines, results_path, with_rates
from efficiency.tiers import read_tier
from results_page import replace_section, table

TIERS = Path(__file__).parent
RESULTS_PAGE = TIERS.parent.parent / "docs" / "results.md"
# in the order in which one wants to read them; what is not named comes last
_FIRST = (
    "tier1",
    "default-recipe",
    "largest-budget",
    "parts",
    "start",
    "knobs",
    "next-recipe",
    "one-size-up",
    "finalists",
)


def write_index(page: Path) -> None:
    """Replace the table of tiers of a page."""
    replace_section(page, "tiers", index_table())


def index_table() -> str:
    """A row a tier; one that has results has a page."""
    rows = []
    for file in sorted(TIERS.glob("*.yaml"), key=_place):
        lines = read_lines(results_path(file.stem))
        tier = with_rates(read_tier(file))
        planned = plan(tier, lines)
        done = sum(entry.state == "done" for entry in planned)
        counted = f"{done} of {done + len(open_units(planned))}"
        is_there = any(line["purpose"] == "evaluation" for line in lines)
        name = f"[{tier.name}](efficiency/{tier.name}.md)" if is_there else tier.name
        rows.append([name, tier.question, counted])
    return table(["tier", "what it asks", "runs that are there"], rows)


def _place(file: Path) -> tuple[int, str]:
    return (_FIRST.index(file.stem) if file.stem in _FIRST else len(_FIRST), file.stem)
