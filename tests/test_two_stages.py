"""The README's main road: the recipes of both stages, one after the other, and the export of what they made."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModel, AutoModelForMaskedLM

from spanelectra.data.row_dataset import RowDataset
from spanelectra.export import export
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from spanelectra.training_args import PretrainingArguments


def test_the_discriminator_starts_from_the_generator_that_was_saved(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"generator": tmp_path / "generator", "discriminator": tmp_path / "discriminator"}
    for stage, place in places.items():
        settings = {**load_recipe(f"tiny-{stage}"), "data": str(rows), "out_dir": str(place), "recipe": f"tiny-{stage}"}
        settings |= {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "per_device_train_batch_size": 2}
        if stage == "discriminator":
            settings["generator"] = str(places["generator"])
        metrics = pretrain(PretrainingArguments(**settings))
        assert metrics["alarms"] == []
    said = capsys.readouterr().err
    assert "no effect" not in said and "ALARM" not in said
    assert "start from what they occur with" in said and "discriminator from generator (full)" in said
    # the generator alone is an encoder, too
    export(str(places["generator"]), str(tmp_path / "alone"), quiet=True)
    assert sorted(path.name for path in (tmp_path / "alone").iterdir() if path.is_dir()) == ["checkpoint", "generator"]
    assert AutoModel.from_pretrained(tmp_path / "alone" / "generator").config.num_hidden_layers == 4
    card = (tmp_path / "alone" / "generator" / "README.md").read_text(encoding="utf-8")
    assert "discriminator" not in card and "| stage |" not in card and "span-boundary heads" not in card
    assert f"| tokens in a row | {RowDataset(rows).max_seq_length} |" in card
    export(str(places["discriminator"]), str(tmp_path / "out"), quiet=True)
    card = (tmp_path / "out" / "discriminator" / "README.md").read_text(encoding="utf-8")
    assert "The generator trained with it is one, too" in card and "| stage | discriminator |" in card
    assert "It comes without the span-boundary heads;" in card
    encoder = AutoModel.from_pretrained(tmp_path / "out" / "discriminator")
    filler = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "generator")
    assert encoder.config.num_hidden_layers == filler.config.num_hidden_layers == 4
