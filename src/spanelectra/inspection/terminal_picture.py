"""The picture of a sentence in a terminal; everything that colour says is said by a number or a letter as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spanelectra.inspection.picture import Candidate, Correction, Fill, Picture, TokenBelief
from spanelectra.inspection.token_texts import printable, visible

_CANDIDATES = 3
# what each head reads
LEGENDS = {
    "ato": "reads the token itself",
    "sbpo": "reads only the two tokens beside a span: a masked one, or else each word taken as a span",
}


class Column(NamedTuple):
    """A token and what is said of it: a text and a style for each line, and whether a word goes on with it."""

    cells: Sequence[tuple[str, str]]
    continues: bool


def print_picture(picture: Picture, console: Console) -> None:
    """Print what :func:`~spanelectra.inspection.beliefs.look` gave."""
    tokens, heads = picture.tokens, picture.heads
    masked = sum(token.masked for token in tokens)
    console.print(Text(f"Masked: {masked} of {len(tokens) - 2} tokens, in «spans»", style="bold"))
    for line in _sentence_with_spans(picture.pieces).wrap(console, console.width - 2):
        line.rstrip()
        console.print(Text("  ") + line)
    console.print()
    if picture.fills:
        console.print(Text("Filled: the generator's likeliest tokens, and the one that stands there", style="bold"))
        console.print(_fills_table(picture.fills))
    heading = "Judged: the chance of each token to be a replacement, in %" if heads else "Corrupted: what stands there"
    console.print(Text(heading, style="bold"))
    names = ["", *(f"{head.upper()} %" for head in heads), "truth"]
    for line in column_lines(names, [_verdict_column(token, heads) for token in tokens], console.width):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    if picture.corrections:
        console.print(Text("Corrected: the tokens that the discriminator would put back", style="bold"))
        console.print(_corrections_table(picture.corrections))
    legend = ["R: replaced; =: masked, but restored."]
    legend += [f"{head.upper()} {LEGENDS[head]}." for head in heads]
    legend += [f"Note: {notice}." for notice in picture.notices]
    console.print(Text("\n".join(legend), style="dim"))


def column_lines(names: Sequence[str], columns: Sequence[Column], width: int) -> list[Text]:
    """Columns beside one another, over as many blocks of lines as it takes; a blank line ends each block.

    Args:
        names: of the lines of a block.
        columns: one for each token, with as many cells as there are names.
        width: of the terminal, in characters.
    """
    blocks: list[list[Text]] = []
    for column in columns:
        column_width = max(cell_len(text) for text, _ in column.cells)
        gap = 1 if column.continues else 2
        if not blocks or cell_len(blocks[-1][0].plain) + gap + column_width > width:
            blocks.append([Text(f"  {name:<6}") for name in names])
        for line, (text, style) in zip(blocks[-1], column.cells, strict=True):
            line.append(" " * gap)
            line.append(text, style=style)
            line.append(" " * (column_width - cell_len(text)))
    lines = [line for block in blocks for line in (*block, Text())]
    for line in lines:
        line.rstrip()
    return lines


def _sentence_with_spans(pieces: Sequence[tuple[str, bool]]) -> Text:
    sentence = Text()
    for piece, masked in pieces:
        text = printable(piece)
        body = text.lstrip(" ")
        # the space before a span, or before the sentence, is not part of it
        sentence.append(" " * (len(text) - len(body)) if sentence else "")
        sentence.append(f"«{body}»" if masked else body, style="underline" if masked else "")
    return sentence


def _fills_table(fills: Sequence[Fill]) -> Table:
    has_boundary_head = any(fill.sbgo for fill in fills)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("original", "MLM", *(["SBGO"] if has_boundary_head else []), "stands"):
        table.add_column(heading)
    for fill in fills:
        original, current = next(zip(fill.original.values(), fill.current.values(), strict=True))
        heads = [fill.mlm[:_CANDIDATES], *([fill.sbgo[:1]] if has_boundary_head else [])]
        cells = [_in_a_row(head) for head in heads]
        same = " (the same)" if current.token_id == original.token_id else ""
        table.add_row(*map(Text, (visible(original.text), *cells, visible(current.text) + same)))
    return table


def _corrections_table(corrections: Sequence[Correction]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("stands", "corrected", "original"):
        table.add_column(heading)
    for correction in corrections:
        original = f"{visible(correction.original.text)} {correction.original.probability:.2f}"
        cells = (visible(correction.current.text), _in_a_row(correction.likeliest[:_CANDIDATES]), original)
        table.add_row(*map(Text, cells))
    return table


def _in_a_row(candidates: Sequence[Candidate]) -> str:
    # not by commas, which are candidates
    return " · ".join(f"{visible(candidate.text)} {candidate.probability:.2f}" for candidate in candidates)


def _verdict_column(token: TokenBelief, heads: Sequence[str]) -> Column:
    probabilities: list[float | None] = [getattr(token, head) for head in heads]
    cells = [(visible(token.text), _colour(token.ato))]
    cells += [
        ("" if probability is None else f"{100 * probability:.0f}", _colour(probability))
        for probability in probabilities
    ]
    cells.append(("R" if token.replaced else "=" if token.masked else "", "bold"))
    return Column(cells, continues=not token.text.startswith(" "))


def _colour(probability: float | None) -> str:
    if probability is None:
        return ""
    return "bold red" if probability >= 0.5 else "yellow" if probability >= 0.2 else "green"
