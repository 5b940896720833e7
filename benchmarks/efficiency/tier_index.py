"""What each tier asks and how much of it is there: a table in `docs/results.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from efficiency.plan import Planned, open_units, plan
from efficiency.results_file import read_lines, results_path, with_rates
from efficiency.tiers import read_tier
from results_page import replace_section, table

TIERS = Path(__file__).parent
RESULTS_PAGE = TIERS.parent.parent / "docs" / "results.md"
# in the order in which one wants to read them; a new one comes last
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
    "another-machine",
    "candidates",
    "tier2",
    "tier3",
    "gpu",
)


def write_index() -> None:
    """Replace the table of tiers in `docs/results.md`."""
    replace_section(RESULTS_PAGE, "tiers", index_table())


def index_table() -> str:
    """A row a tier, linked where there is a page."""
    rows = []
    for file in sorted(TIERS.glob("*.yaml"), key=_place):
        tier = with_rates(read_tier(file))
        lines = read_lines(results_path(tier.name))
        planned = plan(tier, lines)
        # what smaller budgets have says little of a question about the largest
        at_largest = [entry for entry in planned if entry.unit.budget == tier.budgets[-1].flops]
        page = f"efficiency/{tier.name}.md"
        name = f"[{tier.name}]({page})" if (RESULTS_PAGE.parent / page).is_file() else tier.name
        rows.append([name, tier.question, _counted(planned), _counted(at_largest)])
    return table(["tier", "what it asks", "runs that are there", "at its largest budget"], rows)


def _counted(planned: Sequence[Planned]) -> str:
    done = sum(entry.state == "done" for entry in planned)
    return f"{done} of {done + len(open_units(planned))}"


def _place(file: Path) -> tuple[int, str]:
    return (_FIRST.index(file.stem) if file.stem in _FIRST else len(_FIRST), file.stem)
