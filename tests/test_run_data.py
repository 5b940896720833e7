"""What a run reads: prepared and corrupted rows, refused where they do not suit the settings; a budget in tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_runs import small_run
from spanelectra.corruption import corrupt
from spanelectra.data.row_dataset import RowDataset
from spanelectra.errors import UserError
from spanelectra.pretraining import pretrain
from spanelectra.run_data import read_data, with_step_budget


@pytest.fixture(scope="module")
def fake(rows: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows with the generator's fake spans in them."""
    directory = tmp_path_factory.mktemp("corrupted") / "fake"
    corrupt(str(generator_run), str(rows), str(directory), quiet=True)
    return directory


def test_prepared_rows(rows: Path, tmp_path: Path) -> None:
    data = read_data(small_run(rows, tmp_path, eval_rows=3).resolved())
    assert (data.rows, data.length, data.held_out_rows, data.corrupted) == (len(RowDataset(rows)), 32, 3, False)
    assert data.collate_held_out is not None and data.unigram_cross_entropy is not None
    assert len(data.tokenizer) == 600


def test_corrupted_rows(rows: Path, fake: Path, tmp_path: Path) -> None:
    data = read_data(small_run(fake, tmp_path, stage="discriminator").resolved())
    assert (data.rows, data.length, data.corrupted) == (len(RowDataset(rows)), 32, True)
    assert data.unigram_cross_entropy is None and data.collate_held_out is not None


def test_corrupted_rows_are_for_the_discriminator_stage_and_its_longest_span(fake: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only --stage discriminator takes"):
        read_data(small_run(fake, tmp_path).resolved())
    with pytest.raises(UserError, match=r"spans of up to 20 tokens: set --max_span_length"):
        read_data(small_run(fake, tmp_path, stage="discriminator", max_span_length=10).resolved())


def test_a_discriminator_on_prepared_rows_needs_a_generator(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --generator"):
        read_data(small_run(rows, tmp_path, stage="discriminator").resolved())


def test_a_budget_in_tokens_is_shared_by_processes(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pretrain(small_run(rows, tmp_path / "run", max_tokens=1000, gradient_accumulation_steps=2))
    assert metrics["steps"] == 4 and metrics["tokens"] == 4 * 2 * 4 * 32
    monkeypatch.setenv("WORLD_SIZE", "2")
    settings = small_run(rows, tmp_path / "other", max_tokens=1000, gradient_accumulation_steps=2)
    assert with_step_budget(settings, 32).max_steps == 2
    assert with_step_budget(small_run(rows, tmp_path / "other"), 32).max_steps == 6
