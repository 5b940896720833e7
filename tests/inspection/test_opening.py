"""Runs and exports open alike; what an export has lost is said."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from factories import FAMILIES, joint_config
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.export import export
from spanelectra.inspection.beliefs import look
from spanelectra.inspection.opening import open_for_inspection
from spanelectra.recipe_files import as_yaml
from spanelectra.training_args import PretrainingArguments
from test_export import write_run

TEXT = "The names in the module are a list of the names in the file."


@pytest.fixture(scope="module")
def tokenizer(rows: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(rows / "tokenizer")


@pytest.fixture(scope="module", params=FAMILIES)
def run_and_export(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run with all heads, and its export."""
    directory = tmp_path_factory.mktemp(request.param)
    write_run(directory / "run", tokenizer, joint_config(request.param))
    export(str(directory / "run"), str(directory / "export"), quiet=True)
    return directory / "run", directory / "export"


def test_an_export_with_its_checkpoint_shows_all_that_the_run_shows(run_and_export: tuple[Path, Path]) -> None:
    run, exported = run_and_export
    inspected = open_for_inspection(run)
    expected = look(inspected, TEXT)
    assert expected.heads == ("ato", "sbpo") and inspected.notices == ()
    for directory in (exported, exported / "checkpoint", run / "model"):
        assert look(open_for_inspection(directory), TEXT) == expected


def test_exported_models_alone_say_what_they_have_lost(run_and_export: tuple[Path, Path], tmp_path: Path) -> None:
    run, exported = run_and_export
    whole = open_for_inspection(run)
    both = tmp_path / "both"
    shutil.copytree(exported, both, ignore=shutil.ignore_patterns("checkpoint"))
    for directory, has_generator, has_discriminator in (
        (both, True, True),
        (exported / "generator", True, False),
        (exported / "discriminator", False, True),
    ):
        opened = open_for_inspection(directory)
        words = [2, 3]
        picture, expected = look(opened, TEXT, words), look(whole, TEXT, words)
        assert ("no SBGO" in " ".join(opened.notices)) == has_generator
        assert ("no SBPO" in " ".join(opened.notices)) == has_discriminator
        assert all("an exported model has no span-boundary heads" in note for note in opened.notices if "SB" in note)
        assert bool(picture.fills) == has_generator
        for fill, other in zip(picture.fills, expected.fills, strict=False):
            assert [item.token_id for item in fill.mlm] == [item.token_id for item in other.mlm]
            assert [item.probability for item in fill.mlm] == pytest.approx(
                [item.probability for item in other.mlm], abs=1e-5
            )
            assert fill.sbgo == ()
        assert picture.heads == (("ato",) if has_discriminator else ())
        # the same tokens, judged alike
        chosen = {token.position: token.token_id for token in expected.tokens if token.masked}
        again = look(opened, TEXT, words, chosen=chosen)
        if has_discriminator:
            assert [token.ato for token in again.tokens] == pytest.approx(
                [token.ato for token in expected.tokens], abs=1e-5
            )


@pytest.mark.parametrize(
    ("settings", "longest"),
    [({"max_span_words": "0:1 0.5:2"}, 2), ({"method": "electra"}, 1), ({"method": "spanelectra"}, 10)],
)
def test_spans_at_random_follow_the_run_also_from_its_export(
    settings: dict[str, str], longest: int, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    (tmp_path / "run" / "config.yaml").write_text(as_yaml(PretrainingArguments(**settings)), encoding="utf-8")
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    text = " ".join([TEXT] * 4)
    run, exported = open_for_inspection(tmp_path / "run"), open_for_inspection(tmp_path / "out")
    assert run.policy == exported.policy
    lengths = []
    for seed in range(12):
        words = look(run, text, seed=seed, mask_ratio=0.4).masked_words
        assert look(exported, text, seed=seed, mask_ratio=0.4).masked_words == words
        breaks = [0, *(place for place in range(1, len(words)) if words[place] > words[place - 1] + 1), len(words)]
        lengths += [end - start for start, end in pairwise(breaks)]
    assert 1 <= max(lengths) <= longest and (longest < 10 or max(lengths) > 2)


def test_an_export_without_its_checkpoint_says_that_it_draws_by_the_defaults(
    run_and_export: tuple[Path, Path],
) -> None:
    notices = open_for_inspection(run_and_export[1] / "generator").notices
    assert any("spans at random follow the defaults" in notice for notice in notices)


def test_a_model_of_another_kind_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForTokenClassification(config).save_pretrained(tmp_path / "names")
    tokenizer.save_pretrained(tmp_path / "names")
    with pytest.raises(UserError, match="is BertForTokenClassification; only"):
        open_for_inspection(tmp_path / "names")


def test_parts_that_do_not_belong_together(
    tokenizer: PreTrainedTokenizerFast, other_rows: Path, tmp_path: Path
) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    shutil.rmtree(tmp_path / "out" / "checkpoint")
    generator = tmp_path / "out" / "generator"
    load_tokenizer(other_rows / "tokenizer").save_pretrained(generator)
    with pytest.raises(UserError, match="different tokenizers"):
        open_for_inspection(tmp_path / "out")
    shutil.rmtree(generator)
    shutil.copytree(tmp_path / "out" / "discriminator", generator)
    with pytest.raises(UserError, match="holds no generator: it is ElectraForPreTraining"):
        open_for_inspection(tmp_path / "out")


def test_weights_that_are_damaged_or_missing(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_run(tmp_path / "run", tokenizer, joint_config())
    export(str(tmp_path / "run"), str(tmp_path / "out"), quiet=True)
    discriminator = tmp_path / "out" / "discriminator"
    config = json.loads((discriminator / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (discriminator / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="weights are missing"):
        open_for_inspection(discriminator)
    (discriminator / "model.safetensors").write_bytes(b"none")
    with pytest.raises(UserError, match="the weights cannot be read"):
        open_for_inspection(discriminator)


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_for_inspection(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no finished model"):
        open_for_inspection(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError):
        open_for_inspection(tmp_path)
