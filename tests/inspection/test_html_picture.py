"""The picture as a file: whole, escaped, without a script or a network, and with every number in it."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path

import pytest

from factories import joint_config
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.html_picture import beliefs_html, candidates_html, html_document, words_html
from spanelectra.inspection.opening import InspectedModel, open_for_inspection
from spanelectra.inspection.token_texts import visible
from test_export import write_run

TEXT = "The names in the module are a list of the names."
HOSTILE = "<img onclick='x'>\"&amp; \x1b[31m <!--"
VOID = {"meta", "br", "link", "input"}


@pytest.fixture(scope="module")
def inspected(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> InspectedModel:
    run = tmp_path_factory.mktemp("html") / "run"
    write_run(run, load_tokenizer(rows / "tokenizer"), joint_config())
    return open_for_inspection(run)


class Outline(HTMLParser):
    """Reads a document strictly: which tags, and whether each is closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_document_is_whole_and_asks_nobody(inspected: InspectedModel) -> None:
    picture = look(inspected, TEXT)
    document = html_document(picture, "a run")
    outline = Outline(document)
    assert outline.open == []
    assert {"script", "img", "link", "iframe"}.isdisjoint(tag for tag, _ in outline.tags)
    assert "http" not in document and "url(" not in document
    tokens = [attributes for _, attributes in outline.tags if "token" in (attributes.get("class") or "").split()]
    assert len(tokens) == len(picture.tokens)
    for head in ("ato", "sbpo"):
        beliefs = [getattr(token, head) for token in picture.tokens]
        shown = [attributes.get(f"data-{head}") for attributes in tokens]
        assert shown == [None if belief is None else f"{belief:.6f}" for belief in beliefs]
        # to one decimal in the table, for those who neither point nor see
        text = " ".join(outline.words)
        assert all(f"{100 * belief:.1f}\u00a0%" in text for belief in beliefs if belief is not None and belief > 0.001)


def test_what_would_be_put_back_is_shown_where_there_is_such_a_head(
    inspected: InspectedModel, rows: Path, tmp_path: Path
) -> None:
    config = joint_config(objectives=["mlm", "ato", "correction"])
    write_run(tmp_path / "run", load_tokenizer(rows / "tokenizer"), config)
    picture = look(open_for_inspection(tmp_path / "run"), TEXT, [2])
    document = html_document(picture, "a run")
    outline = Outline(document)
    assert outline.open == [] and "What stood there?" in outline.words
    shown = [attributes for _, attributes in outline.tags if "correction" in (attributes.get("class") or "").split()]
    assert len(shown) == sum(len(correction.likeliest) for correction in picture.corrections) > 0
    # the token of the text is named, and marked in words where it is among them
    first = picture.corrections[0]
    assert f"was {visible(first.original.text)}" in outline.words
    right = dataclasses.replace(first, likeliest=(first.original,))
    assert " (right)" in Outline(html_document(dataclasses.replace(picture, corrections=(right,)), "")).words
    assert "What stood there?" not in html_document(look(inspected, TEXT, [2]), "a run")


@pytest.mark.parametrize("interactive", [False, True])
def test_what_comes_from_outside_is_escaped(interactive: bool, inspected: InspectedModel) -> None:
    picture = look(inspected, HOSTILE, [2])
    pieces = [
        beliefs_html(picture, interactive=interactive),
        candidates_html(picture, interactive=interactive),
        words_html(picture),
        html_document(picture, "<i>run</i>"),
    ]
    for piece in pieces:
        outline = Outline(piece)
        assert outline.open == []
        assert all("onclick" not in attributes and tag not in ("img", "i") for tag, attributes in outline.tags)
        assert "\x1b" not in piece and "<!--" not in piece


def test_candidates_are_by_either_head(inspected: InspectedModel) -> None:
    picture = look(inspected, TEXT, [2])
    picks = [
        attributes for tag, attributes in Outline(candidates_html(picture, interactive=True)).tags if tag == "button"
    ]
    for head in ("mlm", "sbgo"):
        shown = [
            (int(pick["data-position"] or 0), int(pick["data-token"] or 0), pick["data-probability"])
            for pick in picks
            if pick["data-head"] == head
        ]
        assert shown == [
            (fill.position, best.token_id, f"{best.probability:.6f}")
            for fill in picture.fills
            for best in getattr(fill, head)
        ]
    assert candidates_html(look(inspected, TEXT, [])) == ""
