"""The command ``spanelectra report``: what runs have left -> one page to look at."""

from __future__ import annotations

from pathlib import Path

from spanelectra.checkpointing import REPORT_NAME
from spanelectra.console import make_console, say
from spanelectra.errors import UserError
from spanelectra.intrinsic_report import intrinsic_report
from spanelectra.report.breakdown_charts import HeldOutPass
from spanelectra.report.page import LEFT_OUT, write_page
from spanelectra.report.run_record import RunRecord, read_runs
from spanelectra.report.token_difficulty import token_difficulty


def report(
    runs: list[str], out: str = REPORT_NAME, rows: int = 256, overwrite: bool = False, quiet: bool = False
) -> Path:
    """Write one self-contained HTML file about runs: settings, health, learning curves, spans and hardest tokens.

    Unfinished and damaged runs are shown as far as they go. The file opens in any browser and needs no network.

    Args:
        runs: directories of `spanelectra pretrain` and `spanelectra finetune` runs; several are compared.
        out: HTML file to write.
        rows: held-out rows that each run's model reads once more, for what depends on the span and for the hardest
            tokens; 0 leaves that out.
        overwrite: replace a file that is there already.
        quiet: print nothing.

    Returns:
        The file.

    Raises:
        UserError: where a directory holds no run, or ``out`` may not be written.
    """
    console = make_console(quiet)
    if rows < 0:
        raise UserError(f"rows must be 0 or more, got {rows}.")
    records = read_runs(runs)
    file = _check_file(out, overwrite=overwrite)
    passes = []
    for record in records:
        if record.is_fine_tuning:
            continue
        if rows:
            say(console, f"{record.name}: reading {rows} held-out rows (--rows 0 leaves that out)")
        passes.append(_read_rows(record, rows))
        if rows and passes[-1].left_out:
            say(console, f"{record.name}: {passes[-1].left_out}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_page(file, records, passes)
    say(console, f"{file}: written; open it in a browser")
    return file


def _check_file(out: str, *, overwrite: bool) -> Path:
    file = Path(out).expanduser().resolve()
    if file.is_dir():
        raise UserError(f"--out {out} is a directory; give the name of an HTML file, such as {file / REPORT_NAME}.")
    if file.exists() and not overwrite:
        raise UserError(f"--out {out} exists already; choose another name, or replace it with --overwrite.")
    return file


def _read_rows(record: RunRecord, rows: int) -> HeldOutPass:
    """Run the model over held-out rows, if they and it are still there."""
    if not rows:
        return HeldOutPass(record, left_out=LEFT_OUT.format(run=record.directory))
    try:
        breakdowns = intrinsic_report(str(record.directory), str(record.settings.get("data")), rows=rows, quiet=True)
        return HeldOutPass(record, breakdowns, token_difficulty(record, rows))
    except UserError as error:
        return HeldOutPass(record, left_out=f"left out: {error}")
