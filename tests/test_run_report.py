"""What a run says of itself before its first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_runs import small_run
from spanelectra import run_report
from spanelectra.data.row_dataset import RowDataset
from spanelectra.masking_setup import build_collator
from spanelectra.pretraining import pretrain
from spanelectra.run_report import _describe_masks
from spanelectra.training_args import PretrainingArguments


def test_the_first_lines_say_when_the_discriminator_joins_and_what_is_masked(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(small_run(rows, tmp_path / "run", generator_head_start=0.5, quiet=False))
    said = " ".join(capsys.readouterr().err.split())
    assert "join at step 3" in said and "rows have no room for all of theirs" in said


@pytest.mark.parametrize(
    ("bf16", "has_instructions", "is_said"), [("auto", True, True), ("auto", False, False), ("false", True, False)]
)
def test_bfloat16_is_offered_where_a_processor_has_instructions_for_it_and_nobody_has_chosen(
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bf16: str,
    has_instructions: bool,
    is_said: bool,
) -> None:
    monkeypatch.setattr(run_report, "has_bfloat16_instructions", lambda: has_instructions)
    pretrain(small_run(rows, tmp_path / "run", max_steps=1, bf16=bf16, quiet=False))
    assert ("--bf16 true" in " ".join(capsys.readouterr().err.split())) is is_said


def test_rows_that_stay_below_their_budget_are_counted(rows: Path) -> None:
    data = RowDataset(rows)
    collate = build_collator(data, PretrainingArguments(max_span_length=20).resolved())
    assert "0 of 8 rows" in _describe_masks(collate, 8)
    # where every second token is special, no span has a neighbour on either side
    crowded = data.input_ids[:8].copy()
    crowded[:, ::2] = data.tokenizer().sep_token_id
    collate.input_ids = crowded
    assert "8 of 8 rows" in _describe_masks(collate, 8)
