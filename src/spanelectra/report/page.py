"""Everything about the runs -> one HTML file that needs no network."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs
from rich.console import Console

from spanelectra import __version__
from spanelectra.atomic_files import write_text
from spanelectra.checkpointing import REPORT_NAME
from spanelectra.console import say
from spanelectra.errors import reason_of
from spanelectra.report.breakdown_charts import HeldOutPass, breakdown_charts, token_tables
from spanelectra.report.curve_charts import KINDS, Chart, curve_chart
from spanelectra.report.curves import AXES, Curves, read_curves
from spanelectra.report.findings import overall, read_findings
from spanelectra.report.fine_tuning_charts import (
    fine_tuning_charts,
    fine_tuning_findings,
    fine_tuning_overview,
    fine_tuning_table,
)
from spanelectra.report.panels import Section, sections_for
from spanelectra.report.run_record import RunRecord, read_runs
from spanelectra.report.run_tables import Table, comparability, overview, results_table, settings_table

LEFT_OUT = "left out, for it takes the model a while. Make this page again with: spanelectra report {run} --out FILE"

_FILES = Path(__file__).parent
_BADGES = {"good": "Good", "attention": "Look", "problem": "Problem", "note": "Note"}
_FLAG = re.compile(r"--[a-z]\w*")
# Of the curves of training, at first; short histories are shown as they are.
_SMOOTHING, _SHORT_HISTORY = 0.6, 20


@dataclass
class _FineTuning:
    overview: Table
    scores: Table
    charts: list[Chart]


def write_report(run: str | Path, console: Console) -> Path | None:
    """Write ``report.html`` into a run's own directory, without running its model again.

    A run that is otherwise fine must not fail for want of a page: what goes wrong is said, and nothing is raised.

    Returns:
        The file, or ``None`` where it could not be written.
    """
    file = Path(run) / REPORT_NAME
    try:
        (record,) = read_runs([run])
        left_out = [] if record.is_fine_tuning else [HeldOutPass(record, left_out=LEFT_OUT.format(run=run))]
        write_page(file, [record], left_out)
    except Exception as error:  # whatever it is, the run has done its work
        reason = reason_of(error)
        say(console, f"{file} was not written ({reason}); try later: spanelectra report {run}")
        return None
    return file


def write_page(file: Path, records: list[RunRecord], passes: list[HeldOutPass]) -> None:
    """Write the page of some runs.

    Args:
        file: to write, atomically.
        records: the runs, in the order in which they get their colours.
        passes: what the pre-training runs' models make of their held-out rows.
    """
    pretraining = [record for record in records if not record.is_fine_tuning]
    fine_tuned = [record for record in records if record.is_fine_tuning]
    curves = [read_curves(record) for record in pretraining]
    sections = _curve_sections(pretraining, curves)
    breakdowns = breakdown_charts(passes)
    fine_tuning = None
    if fine_tuned:
        charts = fine_tuning_charts(fine_tuned)
        fine_tuning = _FineTuning(fine_tuning_overview(fine_tuned), fine_tuning_table(fine_tuned), charts)
    shown = [chart for _, charts in sections for chart in charts] + breakdowns
    findings = [(record, read_findings(record)) for record in pretraining]
    findings += [(record, fine_tuning_findings(record)) for record in fine_tuned]
    text = _template().render(
        title=f"{records[0].name}: what it did" if len(records) == 1 else f"{len(records)} runs side by side",
        lead=_lead(pretraining, fine_tuned),
        contents=_contents(bool(pretraining), bool(sections), bool(passes), fine_tuning is not None),
        verdicts=[(record.name, overall(found), found) for record, found in findings],
        badges=_BADGES,
        results=results_table(pretraining),
        comparability=comparability(pretraining),
        overview=overview(pretraining) if pretraining else Table([], []),
        settings=settings_table(pretraining, all_settings=False),
        all_settings=settings_table(pretraining, all_settings=True),
        pretraining=pretraining,
        axes=list(AXES.items()),
        averaged=max((lines.averaged for both in curves for lines in both), default=1),
        smoothing=_SMOOTHING if any(len(both[0].axes["steps"]) > _SHORT_HISTORY for both in curves) else 0,
        sections=sections,
        passes=passes,
        breakdowns=breakdowns,
        tokens=[
            (held_out.record.name, held_out.difficulty.least, token_tables(held_out.difficulty))
            for held_out in passes
            if held_out.difficulty
        ],
        fine_tuning=fine_tuning,
        data={
            "axes": AXES,
            "runs": [record.name for record in pretraining],
            "lines": {
                f"{place} {kind}": lines.axes
                for place, both in enumerate(curves)
                for kind, lines in zip(KINDS, both, strict=True)
            },
            "charts": [{"key": chart.key, **chart.specification} for chart in shown]
            + [
                {"key": chart.key, "names": [record.name for record in fine_tuned], **chart.specification}
                for chart in (fine_tuning.charts if fine_tuning else [])
            ],
        },
        version=__version__,
        date=datetime.date.today().isoformat(),
        plotly=Markup(get_plotlyjs()),
        style=_own_file("page.css"),
        script=_own_file("page.js"),
    )
    write_text(file, text)


def _template() -> Any:
    """The page's template; everything that is put in is escaped, but for our own style and scripts."""
    environment = Environment(
        loader=FileSystemLoader(_FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["flags"] = _with_flags
    return environment.get_template("page.html.jinja")


def _with_flags(sentence: str) -> Markup:
    """A sentence, escaped, whose flags of the command line are not broken over two lines."""
    return Markup(_FLAG.sub(r"<code>\g<0></code>", str(escape(sentence))))


def _own_file(name: str) -> Markup:
    return Markup((_FILES / name).read_text(encoding="utf-8"))


def _curve_sections(records: list[RunRecord], curves: list[tuple[Curves, Curves]]) -> list[tuple[Section, list[Chart]]]:
    metrics = [name for both in curves for lines in both for name in lines.values]
    sections = []
    for section in sections_for(metrics):
        charts = [curve_chart(panel, records, curves) for panel in section.panels]
        sections.append((section, [chart for chart in charts if chart is not None]))
    return sections


def _lead(pretraining: list[RunRecord], fine_tuned: list[RunRecord]) -> str:
    sentences = []
    if pretraining:
        sentences.append(
            "A generator learned to fill masked spans of text, and a discriminator to tell which tokens it had "
            "replaced (some runs train only one of them). Below: whether that went well, what was run, and how it "
            "learned."
        )
    if fine_tuned:
        sentences.append("Fine-tuning taught an encoder a task, once for every seed.")
    return " ".join(sentences)


def _contents(pretraining: bool, curves: bool, spans: bool, fine_tuning: bool) -> list[tuple[str, str]]:
    """(id, heading) of the page's parts that are there."""
    parts = [
        (True, "health", "Is it healthy?"),
        (pretraining, "runs", "What was run"),
        (curves, "curves", "Learning curves"),
        (spans, "spans", "Spans and tokens"),
        (fine_tuning, "fine-tuning", "Fine-tuning"),
        (pretraining, "words", "The words of this page"),
    ]
    return [(key, heading) for there, key, heading in parts if there]
