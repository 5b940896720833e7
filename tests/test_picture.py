"""The picture of a sentence shows what the library computes, and says all of it without colour."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from factories import encoder_config, joint_config
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.data.data_collator import DataCollatorForSpanElectra
from spanelectra.data.span_masking import SpanMaskingPolicy
from spanelectra.data.tokenization import load_tokenizer, word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.losses import IGNORE_INDEX
from spanelectra.picture import render, show
from spanelectra.schedules import Schedule
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."


@pytest.fixture(scope="session")
def tokenizer(rows: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    return load_tokenizer(rows / "tokenizer")


def printed(picture: dict[str, Any], width: int = 80) -> str:
    """What a pipe receives."""
    file = io.StringIO()
    render(picture, Console(file=file, width=width, highlight=False))
    return file.getvalue()


@torch.no_grad()
@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_the_numbers_are_those_of_the_model(
    family: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    model = write_run(tmp_path / "run", tokenizer, joint_config(family))
    picture = show(str(tmp_path / "run"), TEXT, seed=3, quiet=True)

    row = np.array([tokenizer(TEXT)["input_ids"]])
    collator = DataCollatorForSpanElectra(
        input_ids=row,
        word_starts=word_start_table(tokenizer),
        policy=SpanMaskingPolicy(mask_ratio=0.25, max_span_length=model.config.max_span_length),
        mask_token_id=tokenizer.mask_token_id,
        seed=3,
        mask_ratio=Schedule.parse(0.25, "mask_ratio"),
        max_span_words=Schedule.parse(10, "max_span_words"),
    )
    batch = collator(RowBatch(np.array([0]), np.array([0]), 1.0))
    output = model(**batch)
    assert output.mlm_logits is not None and output.sbgo_logits is not None and output.sbpo_logits is not None
    assert output.ato_logits is not None and output.corrupted_ids is not None and output.replaced is not None

    tokens, fills = picture["tokens"], picture["fills"]
    assert len(tokens) == row.shape[1]
    assert [token["ato"] for token in tokens] == pytest.approx(output.ato_logits[0].sigmoid().tolist(), abs=1e-6)
    assert [token["replaced"] for token in tokens] == output.replaced[0].tolist()
    masked = batch["labels"][0] != IGNORE_INDEX
    positions = batch["masked_positions"][0][masked].tolist()
    assert [fill["position"] for fill in fills] == positions
    assert [number for number, token in enumerate(tokens) if token["masked"]] == positions
    for slot, fill in enumerate(fills):
        for name, logits in (("mlm", output.mlm_logits), ("sbgo", output.sbgo_logits)):
            expected = logits[0, slot].softmax(-1).topk(3)
            assert [best["probability"] for best in fill[name]] == pytest.approx(expected.values.tolist(), abs=1e-6)
            assert [best["token"].strip() for best in fill[name]] == [
                tokenizer.decode([token_id]).strip() for token_id in expected.indices.tolist()
            ]
        sampled = output.corrupted_ids[0, fill["position"]]
        assert fill["sampled"].strip() == tokenizer.decode([sampled]).strip()
    # the boundary head judges masked spans and decoys, and nothing else
    judged = torch.cat([batch["masked_positions"], batch["decoy_positions"]], 1)[output.sbpo_scored].tolist()
    expected_sbpo = dict(zip(judged, output.sbpo_logits[output.sbpo_scored].sigmoid().tolist(), strict=True))
    assert {number for number, token in enumerate(tokens) if token["sbpo"] is not None} == set(judged)
    for position, probability in expected_sbpo.items():
        assert tokens[position]["sbpo"] == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("kind", ["rows", "other_rows"])
def test_the_tokens_make_up_the_text(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    write_run(tmp_path / "run", load_tokenizer(request.getfixturevalue(kind) / "tokenizer"), joint_config())
    picture = show(str(tmp_path / "run"), "The names in the modules", mask_ratio=0.5, quiet=True)
    assert "".join(token["original"] for token in picture["tokens"][1:-1]).strip() == "The names in the modules"
    assert "".join(piece["text"] for piece in picture["sentence"]).strip() == "The names in the modules"


def test_the_same_seed_gives_the_same_json(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    first = show(str(tmp_path / "run"), TEXT, seed=1, quiet=True)
    assert first == show(str(tmp_path / "run"), TEXT, seed=1, quiet=True) == json.loads(json.dumps(first))
    assert any(first["fills"] != show(str(tmp_path / "run"), TEXT, seed=seed, quiet=True)["fills"] for seed in (2, 3))


def test_all_is_said_without_colour(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    picture = show(str(tmp_path / "run"), TEXT)
    out = capsys.readouterr().out
    lines = out.splitlines()
    numbers = [line.split()[2:] for line in lines if line.startswith("  ATO %")]
    shown = [int(number) for line in numbers for number in line]
    assert shown == [round(100 * token["ato"]) for token in picture["tokens"]]
    numbers = [line.split()[2:] for line in lines if line.startswith("  SBPO %")]
    assert [int(number) for line in numbers for number in line] == [
        round(100 * token["sbpo"]) for token in picture["tokens"] if token["sbpo"] is not None
    ]
    truth = "".join(line.removeprefix("  truth") for line in lines if line.startswith("  truth"))
    assert truth.count("R") == sum(token["replaced"] for token in picture["tokens"])
    assert truth.count("R") + truth.count("=") == len(picture["fills"])
    masked = [piece["text"].strip() for piece in picture["sentence"] if piece["masked"]]
    assert masked and all(f"«{text}»" in " ".join(out.split()) for text in masked)


def test_text_is_neither_markup_nor_control(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    text = "a [red]name[/red] [/] in \x1b[31m the\n file\t🙂 東"
    picture = show(str(tmp_path / "run"), text, mask_ratio=0.1)
    for out in (capsys.readouterr().out, printed(picture, width=30), printed(picture, width=200)):
        assert all(character.isprintable() or character == "\n" for character in out)
    sentence = printed(picture, width=200).splitlines()[1].rstrip()
    assert sentence.replace("«", "").replace("»", "") == "  a [red]name[/red] [/] in \\x1b[31m the\\n file\\t🙂 東"


def test_a_run_with_a_generator_alone(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = SpanElectraConfig(generator_config=encoder_config("electra"), objectives=["mlm"])
    write_run(tmp_path / "run", tokenizer, config)
    picture = show(str(tmp_path / "run"), TEXT)
    assert all(token["ato"] is None and token["sbpo"] is None for token in picture["tokens"])
    assert all(len(fill["mlm"]) == 3 and fill["sbgo"] == [] for fill in picture["fills"])
    assert any(token["replaced"] for token in picture["tokens"])
    out = capsys.readouterr().out
    assert "no discriminator" in out and "ATO" not in out and "SBGO" not in out


def test_a_run_with_a_discriminator_alone(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = SpanElectraConfig(
        discriminator_config=encoder_config("electra"), objectives=["ato", "sbpo"], sharing="none"
    )
    write_run(tmp_path / "run", tokenizer, config)
    picture = show(str(tmp_path / "run"), TEXT)
    assert all(fill["mlm"] == fill["sbgo"] == [] for fill in picture["fills"])
    assert any(token["replaced"] for token in picture["tokens"]) and picture["tokens"][0]["ato"] is not None
    assert "[MASK]" not in [token["corrupted"].strip() for token in picture["tokens"]]
    out = capsys.readouterr().out
    assert "no generator" in out and "Filled" not in out


def test_a_frozen_generator_fills_what_its_discriminator_judges(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    config = SpanElectraConfig(
        generator_config=encoder_config("electra"),
        discriminator_config=encoder_config("electra"),
        objectives=["ato"],
        sharing="none",
        freeze_generator=True,
    )
    write_run(tmp_path / "run", tokenizer, config)
    picture = show(str(tmp_path / "run"), TEXT, quiet=True)
    assert all(len(fill["mlm"]) == 3 for fill in picture["fills"])
    assert all(token["ato"] is not None and token["sbpo"] is None for token in picture["tokens"])
    assert picture["notices"] == []


def test_a_long_text_is_cut_with_a_notice(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    picture = show(str(tmp_path / "run"), TEXT * 10)
    assert len(picture["tokens"]) == 40, "the encoder's longest input"
    assert "only the first 38 fit" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "the", "the names", " "])
def test_a_text_too_short_for_a_span(text: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    with pytest.raises(UserError, match="too few"):
        show(str(tmp_path / "run"), text, mask_ratio=0.5)


@pytest.mark.parametrize("mask_ratio", [0.0, -1.0, 0.9, float("nan")])
def test_a_mask_ratio_out_of_range(
    mask_ratio: float,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    with pytest.raises(UserError, match="mask_ratio"):
        show(str(tmp_path / "run"), TEXT, mask_ratio=mask_ratio)


def test_a_run_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        show(str(tmp_path / "run"))
