"""The picture in the terminal says all of it without colour, and never controls the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.opening import InspectedModel, open_for_inspection
from spanelectra.inspection.picture import Picture
from spanelectra.inspection.terminal_picture import print_picture
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."


@pytest.fixture(scope="module")
def inspected(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> InspectedModel:
    run = tmp_path_factory.mktemp("terminal") / "run"
    write_run(run, load_tokenizer(rows / "tokenizer"), joint_config())
    return open_for_inspection(run)


def printed(picture: Picture, width: int = 80) -> str:
    """What a pipe receives."""
    file = io.StringIO()
    print_picture(picture, Console(file=file, width=width, highlight=False))
    return file.getvalue()


def test_all_is_said_without_colour(inspected: InspectedModel) -> None:
    picture = look(inspected, TEXT)
    out = printed(picture)
    lines = out.splitlines()
    for head in ("ato", "sbpo"):
        numbers = [line.split()[2:] for line in lines if line.startswith(f"  {head.upper()} %")]
        beliefs = [getattr(token, head) for token in picture.tokens]
        expected = [round(100 * belief) for belief in beliefs if belief is not None]
        assert [int(number) for line in numbers for number in line] == expected
    truth = "".join(line.removeprefix("  truth") for line in lines if line.startswith("  truth"))
    assert truth.count("R") == sum(token.replaced for token in picture.tokens)
    assert truth.count("R") + truth.count("=") == len(picture.fills) > 0
    masked = [text.strip() for text, is_masked in picture.pieces if is_masked]
    assert masked and all(f"«{text}»" in " ".join(out.split()) for text in masked)


def test_what_would_be_put_back_is_listed(rows: Path, tmp_path: Path) -> None:
    config = joint_config(objectives=["mlm", "ato", "correction"])
    write_run(tmp_path / "run", load_tokenizer(rows / "tokenizer"), config)
    picture = look(open_for_inspection(tmp_path / "run"), TEXT, [2, 4])
    table = printed(picture, width=200).split("Corrected: ")[1].split("R: replaced")[0].splitlines()[1:]
    lines = [line for line in table if line.strip(" ─")][1:]
    assert len(lines) == len(picture.corrections) > 1
    for line, correction in zip(lines, picture.corrections, strict=True):
        assert all(f" {best.probability:.2f}" in line for best in correction.likeliest[:3])
        assert f" {correction.original.probability:.2f}" in line


def test_text_is_neither_markup_nor_control(inspected: InspectedModel) -> None:
    picture = look(inspected, "a [red]name[/red] [/] in \x1b[31m the\n file\t🙂 東", mask_ratio=0.1)
    for out in (printed(picture, width=30), printed(picture, width=200)):
        assert all(character.isprintable() or character == "\n" for character in out)
    sentence = printed(picture, width=200).splitlines()[1]
    assert sentence.replace("«", "").replace("»", "") == "  a [red]name[/red] [/] in \\x1b[31m the\\n file\\t🙂 東"


def test_heads_that_are_not_there_are_not_spoken_of(rows: Path, tmp_path: Path) -> None:
    config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm"])
    write_run(tmp_path / "generator", load_tokenizer(rows / "tokenizer"), config)
    out = printed(look(open_for_inspection(tmp_path / "generator"), TEXT))
    assert "no discriminator" in out and "ATO" not in out and "Filled" in out
    config = SpanElectraConfig(discriminator_config=encoder_config("electra"), objectives=["ato"], sharing="none")
    write_run(tmp_path / "discriminator", load_tokenizer(rows / "tokenizer"), config)
    out = printed(look(open_for_inspection(tmp_path / "discriminator"), TEXT))
    assert "no generator" in out and "ATO %" in out and "Filled" not in out
