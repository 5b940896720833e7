"""The command ``spanelectra inspect``: look into a model at work on a sentence, or into the rows that train one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from spanelectra.atomic_files import write_text
from spanelectra.console import make_console, make_output, say
from spanelectra.data.row_dataset import Split
from spanelectra.errors import UserError
from spanelectra.inspection.picture import Picture
from spanelectra.inspection.row_view import RowView

PORT = 8765
ROWS = 3


def inspect(
    text: str | None = None,
    model: str | None = None,
    terminal: bool = False,
    html: str | None = None,
    overwrite: bool = False,
    mask: str | list[str] | None = None,
    mask_ratio: float | None = None,
    seed: int | None = None,
    port: int = PORT,
    prepared: str | None = None,
    rows: int = ROWS,
    first_row: int = 0,
    split: Split = "train",
    quiet: bool = False,
) -> Picture | list[RowView] | None:
    """Open a page in which a model fills and judges text; or print the picture, write it, or print rows of data.

    The page is served to this machine alone, until Ctrl-C. Every option but the first two is for one of the four.

    Args:
        text: the sentence; one of our own if left out.
        model: directory of a `spanelectra pretrain` run, one of its checkpoints, an export, or a model of an export.
        terminal: print the picture of the sentence instead of opening the page.
        html: write the picture to this file, .html, instead of opening the page.
        overwrite: replace a file that is there already.
        mask: words or phrases of the sentence to mask, instead of spans at random.
        mask_ratio: share of the tokens to mask at random, at most; 0.25 by default, with --prepared the run's.
        seed: of the masked spans and of the sampled tokens; 0 by default, with --prepared the run's.
        port: of the page; 0 for any free one.
        prepared: print rows of this directory, which `spanelectra prepare` or `spanelectra corrupt` wrote, as training
            masks them: by the settings of the run (or export) that --model names, or by the defaults.
        rows: how many.
        first_row: number of the first.
        split: train or validation.
        quiet: print nothing but what was asked for.

    Returns:
        The picture that was printed or written, or the rows; nothing once the page is closed.

    Raises:
        UserError: for a model or rows that are not there, a text that cannot be shown, a port that is taken.
    """
    output = make_output()
    for_rows = {"rows": rows != ROWS, "first_row": first_row != 0, "split": split != "train"}
    _refuse_idle_options(for_rows, prepared is not None, "goes with --prepared ROWS")
    _refuse_idle_options({"overwrite": overwrite}, html is not None, "goes with --html FILE")
    _refuse_idle_options({"mask": mask is not None}, terminal or html is not None, "goes with --terminal or --html")
    opens_page = prepared is None and not terminal and html is None
    _refuse_idle_options({"port": port != PORT}, opens_page, "is of the page, which is not opened here")
    if prepared is not None:
        if text is not None or terminal or html is not None:
            raise UserError("--prepared prints rows of data: leave out the text, --terminal and --html.")
        # here and below, for help and mistakes must not take the seconds that this takes
        from spanelectra.inspection.batch_view import describe_masking, print_rows, view_rows

        views = view_rows(prepared, rows, first_row, split=split, run=model, mask_ratio=mask_ratio, seed=seed)
        output.print(describe_masking(prepared, model, mask_ratio), markup=False, highlight=False)
        print_rows(views, output)
        return views
    if model is None:
        raise UserError("--model RUN is missing: the directory of a run or of an export (or give --prepared ROWS).")
    if mask is not None and mask_ratio is not None:
        raise UserError("--mask says what is masked, --mask_ratio how much of it at random: give one of them.")
    if opens_page and (mask_ratio is not None or seed is not None):
        raise UserError("--mask_ratio and --seed go with --terminal, --html or --prepared; the page has its own.")
    target = _check_html_file(html, overwrite=overwrite) if html is not None else None
    from spanelectra.inspection.beliefs import DEFAULT_MASK_RATIO, DEFAULT_TEXT, look
    from spanelectra.inspection.html_picture import html_document
    from spanelectra.inspection.opening import open_for_inspection
    from spanelectra.inspection.terminal_picture import print_picture

    shown = text if text is not None else DEFAULT_TEXT
    inspected = open_for_inspection(model)
    notes = make_console(quiet)
    if terminal or target is not None:
        ratio = DEFAULT_MASK_RATIO if mask_ratio is None else mask_ratio
        picture = look(
            inspected, shown, phrases=[mask] if isinstance(mask, str) else mask, seed=seed or 0, mask_ratio=ratio
        )
        if terminal:
            print_picture(picture, output)
        if target is not None:
            write_text(target, html_document(picture, inspected.source))
            say(notes, f"the picture is in {target}")
        return picture
    # here, because nothing else needs a server
    from spanelectra.inspection.page import make_page_server

    server = make_page_server(inspected, shown, port)
    # whatever else is not to be said, a page without an address would be none
    say(
        Console(stderr=True, soft_wrap=True),
        f"inspector of {model}: open http://{server.host}:{server.port} (Ctrl-C stops it)",
    )
    server.serve_forever()
    return None


def _refuse_idle_options(chosen: dict[str, bool], has_effect: bool, reason: str) -> None:
    for name in chosen:
        if chosen[name] and not has_effect:
            raise UserError(f"--{name} {reason}.")


def _check_html_file(html: str, *, overwrite: bool) -> Path:
    """Refuse, before anything is computed, what cannot be written or would overwrite something else."""
    path = Path(html).expanduser()
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--html {html}: the file's name must end in .html.")
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a directory" if path.is_dir() else f"lies in {path.parent}, which does not exist"
        raise UserError(f"--html {html} {reason}.")
    if path.exists() and not overwrite:
        raise UserError(f"--html {html} is there already; choose another name, or pass --overwrite to replace it.")
    return path
