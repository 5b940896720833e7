"""The picture of a sentence in HTML: a document of its own, and the same pieces for the page.

Whatever comes from a text or a model is escaped here and nowhere else. Every number is there as text as well: on the
token, in what appears when it is pointed at or focused, and in a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from spanelectra.inspection.picture import Candidate, Correction, Fill, Picture, TokenBelief
from spanelectra.inspection.terminal_picture import LEGENDS
from spanelectra.inspection.token_texts import printable, visible

STATIC = Path(__file__).parent / "static"
_LEVELS = 10
_HEAD_NAMES = {"mlm": "MLM", "sbgo": "SBGO", "ato": "ATO", "sbpo": "SBPO"}


def html_document(picture: Picture, source: str) -> str:
    """A document with the picture, which needs neither a network nor a script.

    Args:
        picture: what :func:`~spanelectra.inspection.beliefs.look` gave.
        source: names the model.
    """
    masked = sum(token.masked for token in picture.tokens)
    style = (STATIC / "picture.css").read_text(encoding="utf-8")
    corrections = f"<h2>What stood there?</h2>\n{corrections_html(picture)}" if picture.corrections else ""
    candidates = f"<h2>Candidates of the generator</h2>\n{candidates_html(picture)}" if picture.fills else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SpanElectra: one sentence</title>
<style>
{style}</style>
</head>
<body>
<main class="picture">
<h1>One sentence, as <code>{escape(printable(source))}</code> sees it</h1>
<h2>The text, {masked} of {len(picture.tokens) - 2} tokens masked</h2>
<p class="text">{_sentence_html(picture)}</p>
{candidates}
<h2>{"Was it replaced?" if picture.heads else "What stands there"}</h2>
{beliefs_html(picture)}
{corrections}
{notices_html(picture.notices)}
</main>
</body>
</html>
"""


def words_html(picture: Picture) -> str:
    """The text as buttons, one a word, which are pressed where the word is masked."""
    buttons = []
    for number, word in enumerate(picture.words):
        pressed = "true" if number in picture.masked_words else "false"
        buttons.append(
            f'<button type="button" class="word" aria-pressed="{pressed}" data-word="{number}" '
            f'data-first="{word.first}" data-last="{word.last}">{escape(visible(word.text))}</button>'
        )
    return "\n".join(buttons)


def candidates_html(picture: Picture, *, interactive: bool = False) -> str:
    """For each masked token the likeliest tokens by either head, side by side; as buttons if ``interactive``."""
    cards = "\n".join(_fill_html(fill, interactive) for fill in picture.fills)
    return f'<ul class="fills">\n{cards}\n</ul>' if cards else ""


def corrections_html(picture: Picture) -> str:
    """For each token that was replaced, what the discriminator would put back."""
    cards = "\n".join(map(_correction_html, picture.corrections))
    return f'<ul class="fills">\n{cards}\n</ul>' if cards else ""


def beliefs_html(picture: Picture, *, interactive: bool = False) -> str:
    """Every token with what ATO and SBPO believe of it, the legend, and a table; buttons if ``interactive``."""
    tokens = "\n".join(_token_html(picture, token, interactive) for token in picture.tokens)
    legend = "".join(
        f'<li><span class="chip {head} level-8">{head.upper()}</span> {escape(LEGENDS[head])}.</li>'
        for head in picture.heads
    )
    scale = "<li>Numbers are per cent: the chance that the token was replaced.</li>" if picture.heads else ""
    return f"""<div class="tokens">
{tokens}
</div>
<ul class="legend">{legend}{scale}
<li><span class="masked key">dashed</span> masked; <del>struck out</del> what the text had there; <b>=</b> masked, but
restored.</li></ul>
{_table_html(picture)}"""


def notices_html(notices: Iterable[str]) -> str:
    """Sentences on what is missing, was cut, or is unlike training."""
    items = "".join(f"<li>Note: {escape(printable(notice))}.</li>" for notice in notices)
    return f'<ul class="notices">{items}</ul>' if items else ""


def _sentence_html(picture: Picture) -> str:
    parts = []
    for piece, masked in picture.pieces:
        text = printable(piece)
        body = text.lstrip(" ")
        parts.append(text[: len(text) - len(body)] + (f"<mark>{escape(body)}</mark>" if masked else escape(body)))
    return "".join(parts)


def _fill_html(fill: Fill, interactive: bool) -> str:
    original, current = (next(iter(tokens.values())) for tokens in (fill.original, fill.current))
    heads = "".join(
        f'<div class="head"><h4>{_HEAD_NAMES[head]}</h4><ol>'
        + "".join(_candidate_html(candidate, fill, head, current, interactive) for candidate in candidates)
        + f"</ol><p>the text’s own {_percent(fill.original[head].probability)}, "
        f"what stands there {_percent(fill.current[head].probability)}</p></div>"
        for head, candidates in (("mlm", fill.mlm), ("sbgo", fill.sbgo))
        if candidates
    )
    stands = "= restored" if current.token_id == original.token_id else f"→ {escape(visible(current.text))}"
    return (
        f'<li class="fill" data-position="{fill.position}"><h3><small>{fill.position}</small> '
        f"{escape(visible(original.text))} <span>{stands}</span></h3>{heads}</li>"
    )


def _correction_html(correction: Correction) -> str:
    original, current = correction.original, correction.current
    items = "".join(
        f"<li>{_chip(candidate, 'correction')}{' (right)' if candidate.token_id == original.token_id else ''}</li>"
        for candidate in correction.likeliest
    )
    return (
        f'<li class="fill"><h3><small>{correction.position}</small> {escape(visible(current.text))} '
        f'<span>was {escape(visible(original.text))}</span></h3><div class="head"><h4>says</h4><ol>{items}</ol>'
        f"<p>the text’s own {_percent(original.probability)}, "
        f"what stands there {_percent(current.probability)}</p></div></li>"
    )


def _chip(candidate: Candidate, kind: str) -> str:
    return (
        f'<span class="candidate">{escape(visible(candidate.text))}</span> '
        f'<span class="chip {kind} level-{_level(candidate.probability)}">{_percent(candidate.probability)}</span>'
    )


def _candidate_html(candidate: Candidate, fill: Fill, head: str, current: Candidate, interactive: bool) -> str:
    is_current = candidate.token_id == current.token_id
    text = _chip(candidate, "generator")
    if not interactive:
        return f"<li{' class=current' if is_current else ''}>{text}</li>"
    return (
        f'<li><button type="button" class="pick" aria-pressed="{"true" if is_current else "false"}" '
        f'data-position="{fill.position}" data-head="{head}" data-token="{candidate.token_id}" '
        f'data-probability="{candidate.probability:.6f}">{text}</button></li>'
    )


def _token_html(picture: Picture, token: TokenBelief, interactive: bool) -> str:
    classes = ["token"]
    classes += ["starts"] if token.text.startswith(" ") or token.word is None else []
    classes += [name for name in ("masked", "chosen", "replaced") if getattr(token, name)]
    if token.masked:
        neighbours = (("span-start", token.position - 1), ("span-end", token.position + 1))
        classes += [name for name, position in neighbours if not picture.tokens[position].masked]
    # what is unseen is for screen readers, which would read the numbers alone
    was = f"<del>{escape(visible(token.original))}</del>" if token.replaced else "<b>=</b>" if token.masked else ""
    chips, data = "", ""
    for head in picture.heads:
        probability = getattr(token, head)
        if probability is None:
            chips += '<span class="chip none">&nbsp;</span>'
            continue
        chips += (
            f'<span class="chip {head} level-{_level(probability)}"><span class="unseen">{_HEAD_NAMES[head]} </span>'
            f'{100 * probability:.0f}<span class="unseen"> %</span></span>'
        )
        data += f' data-{head}="{probability:.6f}"'
    fixed = ' aria-disabled="true"' if token.position in (0, len(picture.tokens) - 1) else ""
    tag, end = (f'button type="button"{fixed}', "button") if interactive else ('span tabindex="0"', "span")
    tip = "".join(f"<span>{escape(line)}</span>" for line in _details(picture, token))
    return (
        f'<{tag} class="{" ".join(classes)}" data-position="{token.position}"{data} '
        f'aria-describedby="tip-{token.position}">'
        f'<span class="was">{was}</span><span class="now">{escape(visible(token.text))}</span>{chips}'
        f'<span class="tip" id="tip-{token.position}">{tip}</span></{end}>'
    )


def _details(picture: Picture, token: TokenBelief) -> list[str]:
    """What is to be known of a token, in lines of text."""
    state = "replaced by hand" if token.replaced and token.chosen else "replaced" if token.replaced else "original"
    lines = [f"“{visible(token.text)}”, token {token.position}"]
    lines.append(f"{state}, was “{visible(token.original)}”" if token.replaced else state)
    if token.masked:
        lines[-1] += ", in a masked span"
    if token.ato is not None:
        lines.append(f"ATO {_percent(token.ato)}")
    if token.sbpo is not None and token.boundaries is not None:
        left, right = (visible(picture.tokens[position].text) for position in token.boundaries)
        lines.append(f"SBPO {_percent(token.sbpo)}, from “{left}” and “{right}”")
    return lines


def _table_html(picture: Picture) -> str:
    headings = ["token", "stands there", "in the text", "state", *(head.upper() for head in picture.heads)]
    rows = []
    for token in picture.tokens:
        state = ", ".join(name for name in ("masked", "replaced", "chosen") if getattr(token, name))
        cells = [str(token.position), visible(token.text), visible(token.original), state]
        probabilities = [getattr(token, head) for head in picture.heads]
        cells += ["" if probability is None else _percent(probability) for probability in probabilities]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = "\n".join(rows)
    return (
        "<details><summary>All numbers as a table</summary>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="All numbers"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div></details>"
    )


def _level(probability: float) -> int:
    """Which of the colours 0 to 10, from pale to full, a probability has."""
    return round(_LEVELS * probability)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f}\u00a0%" if probability >= 0.0005 or probability == 0 else "below\u00a00.1\u00a0%"
