"""The command ``corrupt`` writes what the discriminator would have been fed, whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prepared_rows import LENGTH
from small_runs import small_run
from spanelectra.atomic_files import file_digest, find_damage
from spanelectra.callbacks import RunStopped
from spanelectra.corrupted_rows import CorruptedRows, describe_fakes, is_corrupted_data
from spanelectra.corruption import corrupt
from spanelectra.data.packing import prepare
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.training_rows import RowBatch
from spanelectra.errors import UserError
from spanelectra.export import export
from spanelectra.losses import IGNORE_INDEX
from spanelectra.masking_setup import build_collator
from spanelectra.model_building import build_model, load_generator
from spanelectra.pretraining import pretrain
from spanelectra.recipe_files import load_recipe
from spanelectra.replacement import replace_tokens, sample_tokens, sampling_logits
from spanelectra.report.run_record import read_runs
from spanelectra.report.run_tables import settings_table
from spanelectra.training_args import PretrainingArguments


@pytest.fixture(scope="module")
def fake(rows: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corrupted rows, 16 at a time, with another seed than 0."""
    directory = tmp_path_factory.mktemp("corrupted") / "fake"
    corrupt(str(generator_run), str(rows), str(directory), batch_size=16, seed=4, quiet=True)
    return directory


def first_rows(count: int) -> RowBatch:
    return RowBatch(np.arange(count), np.zeros(count, dtype=np.int64), 1.0)


def masked_batch(rows: Path, **settings: Any) -> dict[str, Tensor]:
    """The first 16 training rows as a joint run masks them in its first epoch."""
    return build_collator(RowDataset(rows, "train"), small_run(rows, Path("-"), **settings).resolved())(first_rows(16))


@pytest.mark.parametrize("source", ["mlm", "sbgo", "mixed"])
@torch.no_grad()
def test_the_rows_are_what_a_discriminator_beside_its_generator_reads(
    rows: Path, generator_run: Path, tmp_path: Path, source: str
) -> None:
    options = {"sampling_source": source, "sampling_temperature": 0.7}
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), seed=4, batch_size=16, quiet=True, **options)
    stored = CorruptedRows(tmp_path / "fake", "train").collate(first_rows(16))

    # by the model of the discriminator stage, from the same masks and the same noise
    settings = small_run(
        rows, tmp_path, stage="discriminator", generator=str(generator_run), seed=4, mask_token_ratio=1.0,
        random_token_ratio=0.0, **options,
    ).resolved()  # fmt: skip
    batch = masked_batch(rows, **{k: v for k, v in vars(settings).items() if k not in ("data", "out_dir")})
    model = build_model(settings, RowDataset(rows, "train").tokenizer(), LENGTH, print).eval()
    fed = model(**batch)
    assert torch.equal(stored["corrupted_ids"], fed.corrupted_ids)
    for name in set(batch) - {"input_ids", "replacement_noise"}:
        assert torch.equal(stored[name], batch[name]), name
    again = model(**stored)
    assert torch.equal(again.replaced, fed.replaced)
    for name in ("ato", "sbpo"):
        assert again.losses[name] == fed.losses[name], name

    # and by hand
    generator = load_generator(generator_run, print).eval().generator
    assert generator is not None
    spans = (batch[name] for name in ("left_boundaries", "right_boundaries", "span_positions"))
    said = generator(batch["input_ids"], batch["masked_positions"], *spans)
    sampled = sample_tokens(sampling_logits(said.mlm_logits, said.sbgo_logits, source), batch["replacement_noise"], 0.7)
    by_hand, _ = replace_tokens(batch["original_ids"], batch["masked_positions"], batch["labels"], sampled)
    assert torch.equal(stored["corrupted_ids"], by_hand)


def test_every_row_of_both_splits_is_there_with_masks_and_decoys(rows: Path, fake: Path) -> None:
    metadata = json.loads((fake / "features.json").read_text())
    for split in ("train", "validation"):
        source, written = RowDataset(rows, split), CorruptedRows(fake, split)  # type: ignore[arg-type]
        assert len(written) == len(source) == metadata["splits"][split]["rows"] > 0
        features = written.collate(first_rows(len(source)))
        assert np.array_equal(features["original_ids"].numpy(), source.input_ids)
        masked, decoys = (features["labels"] != IGNORE_INDEX).sum(), features["decoy_scored"].sum()
        assert int(masked) == metadata["splits"][split]["masked_tokens"]
        assert 0.7 < int(decoys) / int(masked) < 1.3, "about as many decoys"
        changed = features["corrupted_ids"] != features["original_ids"]
        assert int(changed.sum()) / int(masked) == pytest.approx(metadata["splits"][split]["replaced_rate"])
        is_masked = torch.zeros_like(changed).scatter(
            1, features["masked_positions"], features["labels"] != IGNORE_INDEX
        )
        assert not bool((changed & ~is_masked).any()), "only masked tokens change"
        decoy_changed = changed.gather(1, features["decoy_positions"])[features["decoy_scored"]]
        assert not bool(decoy_changed.any()), "decoys are original"


def test_the_metadata_says_what_was_done(rows: Path, fake: Path, generator_run: Path) -> None:
    metadata = json.loads((fake / "features.json").read_text())
    settings = PretrainingArguments(**load_recipe(str(generator_run / "config.yaml")))
    assert {name: metadata[name] for name in metadata if name != "splits"} == {
        "format_version": 1,
        "max_seq_length": LENGTH,
        "tokenizer_fingerprint": RowDataset(rows).metadata["tokenizer_fingerprint"],
        "generator": str(generator_run),
        "sampling_source": "mlm",
        "sampling_temperature": 1.0,
        "mask_ratio": settings.mask_ratio,
        "masking": "span",
        "max_span_words": settings.max_span_words,
        "span_length_probability": settings.span_length_probability,
        "max_span_length": 20,
        "seed": 4,
    }
    assert find_damage(fake) is None
    assert (fake / "tokenizer" / "tokenizer.json").is_file()


def names_in(directory: Path) -> list[str]:
    return [file.relative_to(directory).as_posix() for file in directory.rglob("*")]


def digests(directory: Path) -> dict[str, str]:
    return {file.name: file_digest(file) for file in directory.glob("*.npy")}


def test_the_same_seed_writes_the_same_files(rows: Path, fake: Path, generator_run: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 4), ("other", 5)):
        corrupt(str(generator_run), str(rows), str(tmp_path / name), batch_size=16, seed=seed, quiet=True)
    assert digests(tmp_path / "same") == digests(fake)
    assert digests(tmp_path / "other") != digests(fake)


def test_the_batch_size_changes_no_mask(rows: Path, fake: Path, generator_run: Path, tmp_path: Path) -> None:
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=7, seed=4, quiet=True)
    ours, theirs = digests(tmp_path / "fake"), digests(fake)
    # sums over larger batches may round otherwise, and then a draw may fall on the other side
    assert {name for name in ours if ours[name] != theirs[name]} <= {
        f"{s}.corrupted_ids.npy" for s in ("train", "validation")
    }
    count = len(CorruptedRows(fake, "train"))
    ids = [
        CorruptedRows(path, "train").collate(first_rows(count))["corrupted_ids"] for path in (fake, tmp_path / "fake")
    ]
    assert (ids[0] != ids[1]).float().mean() < 1e-3


def test_mask_ratio_and_span_length_can_be_chosen(rows: Path, generator_run: Path, tmp_path: Path, fake: Path) -> None:
    options: dict[str, Any] = {"mask_ratio": 0.3, "max_span_words": 1, "quiet": True}
    summary = corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), **options)
    assert (
        summary["splits"]["train"]["masked_tokens"]
        > 1.7 * json.loads((fake / "features.json").read_text())["splits"]["train"]["masked_tokens"]
    )


def test_a_saved_model_without_its_run_is_a_generator_too(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "run", stage="generator", max_span_length=3, mask_token_ratio=1.0))
    summary = corrupt(
        str(tmp_path / "run" / "model"), str(rows), str(tmp_path / "fake"), sampling_source="sbgo", quiet=True
    )
    assert summary["max_span_length"] == 3
    assert int(CorruptedRows(tmp_path / "fake", "train").collate(first_rows(16))["span_positions"].max()) < 3


def test_an_export_masks_as_its_run_did(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "run", stage="generator", mask_ratio=0.3, max_span_words=1))
    export(str(tmp_path / "run"), str(tmp_path / "export"), quiet=True)
    for name in ("run", "export"):
        corrupt(str(tmp_path / name), str(rows), str(tmp_path / f"fake-{name}"), quiet=True)
    assert digests(tmp_path / "fake-export") == digests(tmp_path / "fake-run")


def test_rows_without_a_validation_split(rows: Path, generator_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rows"
    shutil.copytree(rows, copy)
    metadata = json.loads((copy / "dataset.json").read_text())
    metadata["splits"]["validation"]["rows"] = 0
    (copy / "dataset.json").write_text(json.dumps(metadata))
    (copy / "validation.bin").write_bytes(b"")
    summary = corrupt(str(generator_run), str(copy), str(tmp_path / "fake"), quiet=True)
    assert summary["splits"]["validation"] == {"rows": 0, "masked_tokens": 0, "replaced_rate": 0.0}
    metrics = pretrain(small_run(tmp_path / "fake", tmp_path / "run", stage="discriminator"))
    assert metrics["held_out"] == {}


def test_a_generator_of_single_tokens_fills_spans_where_it_is_told_to(rows: Path, tmp_path: Path) -> None:
    pretrain(small_run(rows, tmp_path / "bert", method="bert"))
    for name, options in (("tokens", {}), ("spans", {"masking": "span", "max_span_words": 2})):
        written = corrupt(str(tmp_path / "bert"), str(rows), str(tmp_path / name), quiet=True, **options)
        assert written["masking"] == name.removesuffix("s")
        features = CorruptedRows(tmp_path / name, "train").collate(first_rows(16))
        assert bool(features["right_boundaries"].any()) == bool(features["decoy_scored"].any()) == (name == "spans")
    # as rows of older versions
    metadata = json.loads((tmp_path / "tokens" / "features.json").read_text())
    metadata.pop("masking")
    (tmp_path / "tokens" / "features.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"single tokens were masked there, and sbpo .* corrupt --masking span"):
        pretrain(small_run(tmp_path / "tokens", tmp_path / "run", stage="discriminator"))
    for name, objectives in (("tokens", ["ato"]), ("spans", ["ato", "sbpo"])):
        run = small_run(tmp_path / name, tmp_path / f"run-{name}", stage="discriminator", objectives=objectives)
        assert pretrain(run)["held_out"]["ato_auc"] > 0


def test_a_loaders_process_opens_the_same(fake: Path) -> None:
    for decoys in (True, False):
        features = CorruptedRows(fake, "train", decoys)
        again = pickle.loads(pickle.dumps(features)).collate(first_rows(4))
        assert again.keys() == features.collate(first_rows(4)).keys()


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sampling_source": "mlmm"}, "Did you mean 'mlm'"),
            ({"sampling_temperature": 0.0}, "sampling_temperature must be above 0"),
            ({"sampling_temperature": float("nan")}, "sampling_temperature must be above 0"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"seed": -1}, "seed must not be negative"),
            ({"mask_ratio": 0.9}, "boundary"),
            ({"mask_ratio": 0.0}, "mask_ratio"),
            ({"max_span_words": 0}, "max_span_words"),
            ({"max_span_words": 2000}, "max_span_words must be from 1 to 1000"),
            ({"masking": "spam"}, "Did you mean 'span'"),
            ({"masking": "token", "max_span_words": 2}, "single tokens are masked"),
            ({"masking": "token", "sampling_source": "sbgo"}, "it needs --masking span"),
            ({"generator": "nowhere"}, "nowhere does not exist"),
            ({"data": "nowhere"}, "nowhere"),
        ],
    )
    def test_settings_that_cannot_work(
        self, rows: Path, generator_run: Path, tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        given = {"generator": str(generator_run), "data": str(rows), "out_dir": str(tmp_path / "fake"), **options}
        with pytest.raises(UserError, match=message):
            corrupt(**given, quiet=True)
        assert not list(tmp_path.iterdir())

    def test_rows_of_another_tokenizer(self, other_rows: Path, generator_run: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="another tokenizer"):
            corrupt(str(generator_run), str(other_rows), str(tmp_path / "fake"), quiet=True)
        export(str(generator_run), str(tmp_path / "export"), quiet=True)
        with pytest.raises(UserError, match="another tokenizer"):
            corrupt(str(tmp_path / "export"), str(other_rows), str(tmp_path / "fake"), quiet=True)

    def test_a_boundary_head_that_was_not_trained(self, rows: Path, tmp_path: Path) -> None:
        pretrain(small_run(rows, tmp_path / "bert", stage="generator", method="bert"))
        with pytest.raises(UserError, match="needs a generator trained with SBGO"):
            corrupt(str(tmp_path / "bert"), str(rows), str(tmp_path / "fake"), sampling_source="sbgo", quiet=True)


class TestOverwriting:
    def test_its_own_earlier_work_gives_way_only_when_told_so(
        self, rows: Path, fake: Path, generator_run: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(fake, tmp_path / "fake")
        with pytest.raises(UserError, match="--overwrite"):
            corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), quiet=True)
        assert digests(tmp_path / "fake") == digests(fake)
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), seed=9, overwrite=True, quiet=True)
        assert find_damage(tmp_path / "fake") is None and digests(tmp_path / "fake") != digests(fake)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_is_not_its_own_is_never_lost(
        self, rows: Path, fake: Path, generator_run: Path, tmp_path: Path, overwrite: bool
    ) -> None:
        shutil.copytree(fake, tmp_path / "fake")
        (tmp_path / "fake" / "thesis.txt").write_text("years of work")
        (tmp_path / "file").write_text("text")
        for target, message in (("fake", "thesis.txt"), ("file", "is a file")):
            with pytest.raises(UserError, match=message):
                corrupt(str(generator_run), str(rows), str(tmp_path / target), overwrite=overwrite, quiet=True)
        with pytest.raises(UserError, match="other files"):
            corrupt(str(generator_run), str(rows), str(rows), overwrite=overwrite, quiet=True)
        assert (tmp_path / "fake" / "thesis.txt").read_text() == "years of work"

    def test_an_empty_directory_is_filled(self, rows: Path, generator_run: Path, tmp_path: Path) -> None:
        (tmp_path / "fake").mkdir()
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), quiet=True)
        assert is_corrupted_data(tmp_path / "fake")


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_kill_half_way_leaves_nothing_that_opens(
    rows: Path, generator_run: Path, tmp_path: Path, goes_on: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"""
import os
from spanelectra import corruption, corruption_progress
corruption_progress.SECONDS_BETWEEN = 0
write, calls = corruption.CorruptedRowsWriter.write, []
def die(self, batch, corrupted_ids):
    calls.append(1)
    os._exit(9) if len(calls) == 3 else write(self, batch, corrupted_ids)
corruption.CorruptedRowsWriter.write = die
corruption.corrupt({str(generator_run)!r}, {str(rows)!r}, {str(tmp_path / "fake")!r}, batch_size=16, quiet=True)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 9
    assert not (tmp_path / "fake").exists()
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".partial") and not is_corrupted_data(partial)
    with pytest.raises(UserError):
        CorruptedRows(partial, "train")
    seed = 0 if goes_on else 1
    if not goes_on:
        # hours of work are not deleted unasked
        with pytest.raises(UserError, match=r"unfinished work with other settings \(seed 0, now 1\).*--overwrite"):
            corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), seed=seed, batch_size=16, quiet=True)
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), seed=seed, batch_size=16, overwrite=not goes_on)
    assert ("going on after 32 of " in capsys.readouterr().err) == goes_on
    assert [path.name for path in tmp_path.iterdir()] == ["fake"] and find_damage(tmp_path / "fake") is None
    whole = corrupt(str(generator_run), str(rows), str(tmp_path / "whole"), seed=seed, batch_size=16, quiet=True)
    assert digests(tmp_path / "fake") == digests(tmp_path / "whole")
    assert json.loads((tmp_path / "fake" / "features.json").read_text()) == whole
    assert sorted(names_in(tmp_path / "fake")) == sorted(names_in(tmp_path / "whole"))


def test_an_error_half_way_leaves_the_earlier_rows(
    rows: Path, fake: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fake, tmp_path / "fake")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spanelectra.corruption.CorruptedRowsWriter.write", interrupt)
    with pytest.raises(RunStopped):
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), overwrite=True, quiet=True)
    assert digests(tmp_path / "fake") == digests(fake) and len(list(tmp_path.iterdir())) == 1


def interrupted(
    monkeypatch: pytest.MonkeyPatch, place: str, calls: int, rows: Path, generator_run: Path, out_dir: Path
) -> None:
    """A command that Ctrl-C reaches in the given call of a function."""
    module, _, name = place.rpartition(".")
    function, made = pydoc.locate(place), []

    def count(*arguments: Any, **named: Any) -> Any:
        made.append(1)
        if len(made) == calls:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.{name}", count)
        with pytest.raises(RunStopped):
            corrupt(str(generator_run), str(rows), str(out_dir), batch_size=16, overwrite=True)
    assert len(made) == calls


@pytest.mark.parametrize(
    "moment", ["in training rows", "in validation rows", "when it is sealed", "in its manifest", "when it is renamed"]
)
def test_ctrl_c_at_any_moment_loses_no_row(
    rows: Path,
    generator_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    moment: str,
) -> None:
    batches = -(-len(RowDataset(rows, "train")) // 16)
    place, calls, written = {
        "in training rows": ("spanelectra.corruption.CorruptedRowsWriter.write", 3, 32),
        "in validation rows": ("spanelectra.corruption.CorruptedRowsWriter.write", batches + 2, None),
        "when it is sealed": ("spanelectra.atomic_files.seal", 1, None),
        "in its manifest": ("pathlib.Path.replace", 4, None),
        "when it is renamed": ("pathlib.Path.rename", 2, None),
    }[moment]
    if "renamed" in moment:
        (tmp_path / "fake").mkdir()
    interrupted(monkeypatch, place, calls, rows, generator_run, tmp_path / "fake")
    shown = capsys.readouterr().err
    assert ("rows are kept in" in shown) == ("rows" in moment)
    # the same again
    monkeypatch.setattr("spanelectra.corruption_progress.SECONDS_BETWEEN", 0.0)
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, overwrite=True)
    total = sum(len(RowDataset(rows, split)) for split in ("train", "validation"))
    (done,) = re.findall(r"going on after ([\d,]+) of", capsys.readouterr().err)
    assert int(done.replace(",", "")) == (
        written or (len(RowDataset(rows, "train")) + 16 if "validation" in moment else total)
    )
    corrupt(str(generator_run), str(rows), str(tmp_path / "whole"), batch_size=16, quiet=True)
    assert digests(tmp_path / "fake") == digests(tmp_path / "whole")
    assert find_damage(tmp_path / "fake") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "whole"]


class TestUnfinishedWork:
    @pytest.fixture
    def unfinished(self, rows: Path, generator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        place = "spanelectra.corruption.CorruptedRowsWriter.write"
        interrupted(monkeypatch, place, 3, rows, generator_run, tmp_path / "fake")
        return tmp_path / ".partial-fake"

    @pytest.mark.parametrize("damage", ["missing", "short", "other shape"])
    def test_a_damaged_file_is_named(
        self, rows: Path, generator_run: Path, tmp_path: Path, unfinished: Path, damage: str
    ) -> None:
        file = unfinished / "train.masked_positions.npy"
        if damage == "missing":
            file.unlink()
        elif damage == "short":
            os.truncate(file, 1000)
        else:
            np.save(file, np.zeros((3, 3), dtype=np.uint16))
        with pytest.raises(UserError, match=r"train.masked_positions.npy is missing or damaged .* delete"):
            corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, quiet=True)

    @pytest.mark.parametrize("content", ["{", "[]", '{"work": 1, "splits": {}}'])
    def test_without_its_counts_it_begins_anew_where_that_is_asked_for(
        self,
        rows: Path,
        generator_run: Path,
        tmp_path: Path,
        unfinished: Path,
        content: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (unfinished / "progress.json").write_text(content)
        with pytest.raises(UserError, match=r"progress.json is damaged.*--overwrite"):
            corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, quiet=True)
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, overwrite=True)
        assert "going on" not in capsys.readouterr().err and find_damage(tmp_path / "fake") is None

    def test_other_rows_or_another_generator_do_not_delete_it(
        self, rows: Path, generator_run: Path, tmp_path: Path, unfinished: Path
    ) -> None:
        text = "a quick brown fox jumps over the lazy dog\n\n" * 20
        (tmp_path / "few.txt").write_text(text)
        tokenizer = str(rows / "tokenizer")
        prepare(str(tmp_path / "few.txt"), tokenizer, str(tmp_path / "few"), max_seq_length=LENGTH, quiet=True)
        assert len(RowDataset(tmp_path / "few", "train")) < 32
        pretrain(small_run(rows, tmp_path / "other", stage="generator", seed=9))
        for generator, data, change in (
            (generator_run, tmp_path / "few", "other train rows"),
            (tmp_path / "other", rows, "other weights of the generator"),
        ):
            with pytest.raises(UserError, match=rf"unfinished work with other settings \(.*{change}"):
                corrupt(str(generator), str(data), str(tmp_path / "fake"), batch_size=16, quiet=True)
            assert json.loads((unfinished / "progress.json").read_text())["splits"]["train"]["rows"] == 32

    def test_another_batch_size_may_go_on(
        self, rows: Path, generator_run: Path, tmp_path: Path, unfinished: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=7)
        assert "going on after 32 of" in capsys.readouterr().err
        corrupt(str(generator_run), str(rows), str(tmp_path / "whole"), batch_size=16, quiet=True)
        places = (CorruptedRows(tmp_path / name, "train") for name in ("fake", "whole"))
        mixed, whole = (place.collate(first_rows(len(place))) for place in places)
        assert all(torch.equal(mixed[name], whole[name]) for name in whole if name != "corrupted_ids")
        assert (mixed["corrupted_ids"] != whole["corrupted_ids"]).float().mean() < 1e-3

    def test_no_other_process_writes_there(
        self, rows: Path, generator_run: Path, tmp_path: Path, unfinished: Path
    ) -> None:
        script = "import fcntl, os, sys, time\nfcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        script += "print('locked', flush=True)\ntime.sleep(60)"
        command = [sys.executable, "-c", script, str(unfinished)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "locked\n"
            with pytest.raises(UserError, match="another process is writing"):
                corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, quiet=True)
            other.kill()
        corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, quiet=True)


def test_a_schedule_of_the_generator_is_read_at_its_end(rows: Path, tmp_path: Path) -> None:
    schedules = {"mask_ratio": "0:0.4 1:0.2", "max_span_words": "0:1 1:3"}
    pretrain(small_run(rows, tmp_path / "run", stage="generator", **schedules))
    corrupt(str(tmp_path / "run"), str(rows), str(tmp_path / "end"), quiet=True)
    numbers: dict[str, Any] = {"mask_ratio": 0.2, "max_span_words": 3}
    corrupt(str(tmp_path / "run"), str(rows), str(tmp_path / "numbers"), quiet=True, **numbers)
    assert digests(tmp_path / "end") == digests(tmp_path / "numbers")
    metadata = json.loads((tmp_path / "end" / "features.json").read_text())
    assert {name: metadata[name] for name in numbers} == numbers


@pytest.mark.parametrize(
    "changed",
    [{"mask_ratio": "much"}, {"mask_ratio": 0.9}, {"sampling_temperature": float("inf")}, {"masking": "spam"}],
)
def test_settings_that_no_run_could_have_are_damage(fake: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    shutil.copytree(fake, tmp_path / "fake")
    file = tmp_path / "fake" / "features.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=r"features.json is damaged .*spanelectra corrupt"):
        CorruptedRows(tmp_path / "fake", "train")


def test_rows_of_older_versions_say_less() -> None:
    assert describe_fakes({}) == "fakes: tokens"
    assert describe_fakes({"sampling_source": "mlm", "sampling_temperature": 1.0}) == (
        "fakes: tokens, sampled from mlm logits at temperature 1"
    )


def test_progress_is_said_line_by_line_where_there_is_no_bar(
    rows: Path,
    generator_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("spanelectra.corruption_progress.SECONDS_BETWEEN", 0.0)
    written = corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), batch_size=16, max_span_words=1)
    shown = capsys.readouterr().err
    total = sum(split["rows"] for split in written["splits"].values())
    assert re.search(rf"^16 of {total:,} rows, [\d,]+ a second, about [\d,]+ min left$", shown, re.MULTILINE)
    assert f"fakes: {written['mask_ratio']:.1%} of the tokens, whole words, sampled from mlm logits" in shown


def test_a_run_writes_down_how_its_fakes_were_made(
    rows: Path, generator_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"mask_ratio": 0.3, "max_span_words": 1, "sampling_temperature": 0.8, "quiet": True}
    corrupt(str(generator_run), str(rows), str(tmp_path / "fake"), **options)
    run = small_run(tmp_path / "fake", tmp_path / "run", stage="discriminator", mask_ratio=0.2, quiet=False)
    metrics = pretrain(run)
    shown = capsys.readouterr().err
    assert "fakes: 30.0% of the tokens, whole words, sampled from mlm logits at temperature 0.8" in shown
    assert any("mask_ratio=0.2 has no effect" in alarm for alarm in metrics["alarms"])
    settings = load_recipe(str(tmp_path / "run" / "config.yaml"))
    assert [settings[name] for name in ("mask_ratio", "max_span_words", "sampling_temperature")] == [0.3, 1, 0.8]
    table = {row[0]: row for row in settings_table(read_runs([tmp_path / "run"]), all_settings=False).rows}
    assert table["mask_ratio"][2].startswith("0.3") and "no effect" not in table["mask_ratio"][2]


def test_it_says_what_it_wrote(
    rows: Path, generator_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = corrupt(str(generator_run), str(rows), str(tmp_path / "[fake]"))["splits"]
    shown = capsys.readouterr().err
    assert f"[fake]: {summary['train']['rows']:,} training and {summary['validation']['rows']:,} validation" in shown
