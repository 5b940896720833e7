"""Rows as the model sees them: what is shown is what the collator of training gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from prepared_rows import LENGTH
from small_runs import small_run
from spanelectra.corruption import corrupt
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.tokenization import word_start_table
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.inspection.batch_view import describe_masking, print_rows, view_rows
from spanelectra.inspection.row_view import RowView
from spanelectra.inspection.token_texts import TokenTexts
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.recipe_files import as_yaml
from spanelectra.training_args import PretrainingArguments


def collated(rows: Path, numbers: list[int], settings: PretrainingArguments) -> dict[str, np.ndarray]:
    """The batch of training."""
    batch = RowBatch(np.array(numbers), np.zeros(len(numbers), np.int64), 1.0)
    return {name: tensor.numpy() for name, tensor in build_collator(RowDataset(rows), settings)(batch).items()}


def assert_shows(views: list[RowView], batch: dict[str, np.ndarray], rows: Path) -> None:
    """Every token, mask, boundary and decoy of the views is one of the batch, and the other way round."""
    tokenizer = RowDataset(rows).tokenizer()
    texts, table = TokenTexts(tokenizer), word_start_table(tokenizer)
    starts = table.word_starts(batch["original_ids"])
    for place, view in enumerate(views):
        tokens = view.tokens
        assert [token.text for token in tokens] == [texts(token) for token in batch["original_ids"][place].tolist()]
        assert [token.reads for token in tokens] == [texts(token) for token in batch["input_ids"][place].tolist()]
        assert [token.starts_word for token in tokens] == starts[place].tolist()
        valid = batch["labels"][place] != IGNORE_INDEX
        for kind, prefix, scored in (("m", "", valid), ("d", "decoy_", batch["decoy_scored"][place])):
            names = "masked" if kind == "m" else "decoy"
            positions = batch[f"{names}_positions"][place][scored].tolist()
            shown = [number for number, token in enumerate(tokens) if (token.span or "").startswith(kind)]
            assert shown == positions
            for position, left, right in zip(
                positions,
                batch[f"{prefix}left_boundaries"][place][scored].tolist(),
                batch[f"{prefix}right_boundaries"][place][scored].tolist(),
                strict=True,
            ):
                if right:
                    name = tokens[position].span
                    assert name in tokens[left].left_of and name in tokens[right].right_of
                    assert all(token.span == name for token in tokens[left + 1 : right])
        kinds = {number: token.hidden for number, token in enumerate(tokens) if token.is_masked}
        assert sorted(kinds) == batch["masked_positions"][place][valid].tolist()
        for position, kind in kinds.items():
            read, original = batch["input_ids"][place, position], batch["original_ids"][place, position]
            expected = "[MASK]" if read == tokenizer.mask_token_id else "kept" if read == original else "random"
            assert kind == expected


def test_the_defaults_of_training(rows: Path) -> None:
    views = view_rows(rows, rows=4, first_row=2)
    assert [view.number for view in views] == [2, 3, 4, 5]
    assert_shows(views, collated(rows, [2, 3, 4, 5], PretrainingArguments().resolved()), rows)
    assert any(token.is_masked for token in views[0].tokens)
    assert "15.5% of the tokens, as you say; spans of up to" in describe_masking(rows, mask_ratio=0.155)
    assert "by default (--model RUN shows a run's own masking)" in describe_masking(rows)


@pytest.mark.parametrize("method", ["bert", "spanbert", "spanelectra"])
def test_the_settings_of_a_run(method: str, rows: Path, tmp_path: Path) -> None:
    settings = small_run(rows, tmp_path / "run", method=method, seed=5, mask_ratio=0.3, random_token_ratio=0.2,
                         mask_token_ratio=0.5).resolved()  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(as_yaml(settings), encoding="utf-8")
    views = view_rows(rows, rows=16, run=tmp_path / "run")
    assert_shows(views, collated(rows, list(range(16)), settings), rows)
    assert {token.hidden for view in views for token in view.tokens} >= {"[MASK]", "random", "kept"}
    assert view_rows(rows, rows=16, run=tmp_path / "run", seed=5, mask_ratio=0.3) == views
    assert view_rows(rows, rows=16, run=tmp_path / "run", seed=6) != views
    # an export has the settings in its checkpoint
    (tmp_path / "run").rename(tmp_path / "checkpoint")
    assert view_rows(rows, rows=16, run=tmp_path) == views
    what = "single tokens" if method == "bert" else f"spans of up to {settings.max_span_words} words"
    said = describe_masking(rows, tmp_path)
    assert said == f"Masked: 30.0% of the tokens, {what}, as in {tmp_path}, at its end."


def test_schedules_are_shown_as_they_end(rows: Path, tmp_path: Path) -> None:
    settings = small_run(rows, tmp_path, mask_ratio="0:0.3 1:0.2", max_span_words="0:5 1:2").resolved()
    (tmp_path / "config.yaml").write_text(as_yaml(settings), encoding="utf-8")
    assert describe_masking(rows, tmp_path).startswith("Masked: 20.0% of the tokens, spans of up to 2 words")


def test_a_fine_tuning_has_no_masking_to_show(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "task.json").write_text("{}")
    settings = FineTuningArguments(task="classification", model="m", train="t", dev="0.1", out_dir=str(tmp_path))
    (tmp_path / "config.yaml").write_text(as_yaml(settings), encoding="utf-8")
    for directory in (tmp_path, tmp_path / "model"):
        with pytest.raises(UserError, match="for --prepared this must be a run, or an export with its checkpoint"):
            view_rows(rows, run=directory)


def test_documents_end_with_their_separator(rows: Path) -> None:
    views = view_rows(rows, rows=10_000)
    assert len(views) == len(RowDataset(rows))
    for view in views:
        assert len(view.tokens) == LENGTH
        for document in view.documents:
            assert [token.text.strip() for token in document].count("[SEP]") == 1
            assert document[-1].text.strip() == "[SEP]"
    assert max(len(view.documents) for view in views) > 1


def test_all_is_printed_without_colour(rows: Path) -> None:
    views = view_rows(rows, rows=3)
    file = io.StringIO()
    print_rows(views, Console(file=file, width=100, highlight=False))
    out = file.getvalue()
    assert all(character.isprintable() or character == "\n" for character in out)
    assert max(map(len, out.splitlines())) <= 130
    cells = out.split()
    for view in views:
        assert f"Row {view.number}:" in out
    masked = sum(token.hidden == "[MASK]" for view in views for token in view.tokens)
    assert sum(line.split().count("[MASK]") for line in out.splitlines() if line.startswith("  reads")) == masked
    for name in {token.span for view in views for token in view.tokens if token.span}:
        assert name in cells and f"{name}>" in cells and f"<{name}" in cells


def test_corrupted_rows(rows: Path, generator_run: Path, tmp_path: Path) -> None:
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), seed=4, quiet=True)
    assert describe_masking(tmp_path / "fake") == "Masked and filled when `spanelectra corrupt` wrote them."
    tokens = [token for view in view_rows(tmp_path / "fake", rows=8) for token in view.tokens]
    kinds = {token.hidden for token in tokens}
    assert "sampled" in kinds and kinds <= {None, "sampled", "restored"}
    for token in tokens:
        assert (token.reads != token.text) <= (token.hidden == "sampled")
    original = [token.text for view in view_rows(rows, rows=8) for token in view.tokens]
    assert [token.text for token in tokens] == original
    with pytest.raises(UserError, match="masked when they were written"):
        view_rows(tmp_path / "fake", seed=1)


def test_what_is_not_there(rows: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"rows": 0}, "--rows 0"),
        ({"first_row": 10**6}, "--first_row 1000000: the train split"),
        ({"first_row": -1}, "--first_row -1"),
        ({"mask_ratio": 0.9}, "mask_ratio"),
        ({"run": tmp_path}, "config.yaml"),
    ):
        with pytest.raises(UserError, match=message):
            view_rows(rows, **arguments)
    with pytest.raises(UserError, match="spanelectra prepare"):
        view_rows(tmp_path)
