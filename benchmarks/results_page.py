"""`docs/results.md` is written by several scripts, each its own section between two marks."""

from __future__ import annotations

from pathlib import Path


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_section(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks of the section ``name``; a new section goes to the end of the page."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    content = page.read_text(encoding="utf-8") if page.is_file() else "# Results\n"
    block = f"{begin}\n\n{text.strip()}\n\n{end}"
    if begin in content and end in content:
        before, rest = content.split(begin, 1)
        content = before + block + rest.split(end, 1)[1]
    else:
        content = f"{content.rstrip()}\n\n{block}\n"
    page.write_text(content, encoding="utf-8")
