"""Runs with perturbed weights for the tests of the intrinsic report, and checks that hold for every report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factories import perturb
from small_runs import make_trainer, small_run
from spanelectra.atomic_files import write_text
from spanelectra.checkpointing import CONFIG_NAME, TOKENIZER_DIRECTORY
from spanelectra.corruption import corrupt
from spanelectra.data.row_dataset import RowDataset
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.data.training_rows import RowBatch, RowsInOrder
from spanelectra.intrinsic_report import intrinsic_report
from spanelectra.recipe_files import as_yaml

# All of `rows`, in one batch: only then is the trainer's mean over batches the mean over tokens.
ROWS = 64
IN_ONE_BATCH: dict[str, Any] = {"eval_rows": ROWS, "per_device_eval_batch_size": ROWS}
# of every run that has all of the method's objectives
HEADS = ("mlm", "sbgo", "restoration", "ato", "sbpo")


def untrained_run(data: Path, run: Path, **settings: Any) -> tuple[Path, dict[str, float]]:
    """A run directory with perturbed weights, and what its trainer's evaluation says."""
    trainer = make_trainer(small_run(data, run, **IN_ONE_BATCH, **settings))
    perturb(trainer.model)
    if trainer.model.generator is not None:
        # it knows which tokens are frequent, and so restores some
        counts = torch.from_numpy(RowDataset(data).token_counts)
        trainer.model.generator.language_model.decoder.bias.data += 1.5 * (counts + 0.1).log()
    trainer.model.save_pretrained(run / "model")
    tokenizer = load_tokenizer(data / "tokenizer")
    tokenizer.save_pretrained(run / TOKENIZER_DIRECTORY)
    write_text(run / CONFIG_NAME, as_yaml(trainer.settings))
    return run, {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}


@pytest.fixture(scope="session", name="joint")
def joint_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every head, and spans of up to 5 words at its end."""
    run, _ = untrained_run(rows, tmp_path_factory.mktemp("joint") / "run", max_span_words="0:1 1:5")
    return run


@pytest.fixture(scope="session", name="fake")
def corrupted_rows(rows: Path, generator_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows with a generator's samples in them."""
    directory = tmp_path_factory.mktemp("corrupted") / "fake"
    corrupt(str(generator_run), str(rows), str(directory), quiet=True)
    return directory


def report_of(run: Path, data: Path | str, **settings: Any) -> dict[str, Any]:
    """The report on every held-out row, checked for what holds of any."""
    report = intrinsic_report(str(run), str(data), **{"rows": ROWS, "quiet": True, **settings})
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    check_sums(report)
    return report


def every_row(held_out: RowDataset) -> RowBatch:
    """What the collator takes for all rows at once."""
    return RowsInOrder(len(held_out)).__getitems__(range(len(held_out)))


def check_sums(report: dict[str, Any]) -> None:
    """Every breakdown shares out the tokens of its total, and its weighted means are the total's."""
    for name in (*HEADS, "correction"):
        for breakdown, buckets in (report[name]["by"] if report[name] else {}).items():
            total, where = report[name]["total"], f"{name} by {breakdown}"
            tokens = np.array([bucket["tokens"] for bucket in buckets])
            assert tokens.sum() == total["tokens"] and tokens.min() > 0, where
            for key in {"loss", "accuracy", "unigram_loss", "rate"} & set(total):
                values = np.array([bucket[key] for bucket in buckets])
                assert (tokens * values).sum() / tokens.sum() == pytest.approx(total[key], rel=1e-9), f"{where}: {key}"
            for key in {"restored", "replaced"} & set(total):
                assert sum(bucket[key] for bucket in buckets) == total[key], f"{where}: {key}"


def check_against_trainer(report: dict[str, Any], expected: dict[str, float]) -> set[str]:
    """Compare every number that both have; returns the trainer's names of those."""
    found: dict[str, float] = {}
    for head, accuracy in (("mlm", "generator"), ("sbgo", "sbgo"), ("correction", "correction")):
        if report[head]:
            found[f"{head}_loss"] = report[head]["total"]["loss"]
            found[f"{accuracy}_accuracy"] = report[head]["total"]["accuracy"]
    if report["restoration"]:
        found["replaced_rate"] = 1 - report["restoration"]["total"]["rate"]
    for head in ("ato", "sbpo"):
        if report[head]:
            found[f"{head}_loss"] = report[head]["total"]["loss"]
            for part, prefix in (("total", head), ("masked", f"{head}_masked")):
                for key in ("accuracy", "majority_accuracy", "precision", "recall", "auc"):
                    found[f"{prefix}_{key}"] = report[head][part][key]
    common = set(found) & set(expected)
    for name in common:
        assert found[name] == pytest.approx(expected[name], abs=2e-6), name
    return common
