"""The command ``evaluate``: a fine-tuned model scores as its run said; a pre-training run gets its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from small_runs import small_run
from spanelectra.atomic_files import file_digest
from spanelectra.errors import UserError
from spanelectra.evaluation import evaluate
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.pretraining import pretrain
from tiny_tasks import quick, save_encoder, write_task

ENDINGS = {"classification": "tsv", "token": "conll", "qa": "json"}


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of task a folder with its files and a run of one epoch, trained in bfloat16."""
    directory = tmp_path_factory.mktemp("fine-tuned")
    save_encoder("modernbert", directory / "encoder", detector=True)
    for kind in ENDINGS:
        files = write_task(directory / kind, kind, train=80)
        finetune(quick(directory / "encoder", files, directory / kind / "run", epochs=1, bf16="true"))
    return directory


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", ENDINGS)
def test_scores_are_those_of_the_run(kind: str, fine_tuned: Path, tmp_path: Path) -> None:
    run = fine_tuned / kind / "run"
    (expected,) = json.loads((run / "metrics.json").read_text())["runs"]
    for split in ("dev", "test"):
        data = fine_tuned / kind / f"{split}.{ENDINGS[kind]}"
        # the run, or its model alone
        model = run if split == "dev" else run / "model"
        results = evaluate(str(model), str(data), out_dir=str(tmp_path / split), quiet=True)
        assert results["scores"] == expected[split] and results["examples"] == 40 and results["collapsed"] is None
        assert results["data"] == {"file": data.name, "sha256": file_digest(data)}
        assert json.loads((tmp_path / split / "metrics.json").read_text()) == results
        assert read(tmp_path / split / "predictions.jsonl") == read(run / "seed-0" / f"predictions-{split}.jsonl")


def test_it_says_scores_remarks_and_collapse(
    fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.tsv").write_text("sentence\tlabel\n" + "the mill\tgood\nthe mill\tbad\n" * 3)
    results = evaluate(str(fine_tuned / "classification" / "run"), str(tmp_path / "odd.tsv"))
    said = capsys.readouterr()
    assert results["collapsed"] in ("always 'good'", "always 'bad'")
    assert f"ALARM the model gives one answer to everything: {results['collapsed']}" in said.err
    assert "classification: 6 records" in said.err
    assert said.out.splitlines()[0] == "accuracy  50.00   (always 'bad', the commonest of this file: 50.00)"
    (tmp_path / "long.tsv").write_text(f"sentence\tlabel\n{'mill ' * 50}\tgood\nbad\tbad\n")
    evaluate(str(fine_tuned / "classification" / "run"), str(tmp_path / "long.tsv"))
    assert "warning: 1 of 2 texts of" in capsys.readouterr().err


def test_columns_of_another_file_and_the_training_file(
    fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fine_tuned / "classification" / "run"
    expected = evaluate(str(run), str(fine_tuned / "classification" / "dev.tsv"))
    assert "trained on" not in capsys.readouterr().err
    header, *rows = (fine_tuned / "classification" / "dev.tsv").read_text().splitlines()
    assert header == "sentence\tlabel"
    swapped = ["\t".join(reversed(row.split("\t"))) for row in ["Satz\tUrteil", *rows]]
    (tmp_path / "swapped.tsv").write_text("\n".join(swapped) + "\n")
    columns = {"text_column": "Satz", "label_column": "Urteil"}
    results = evaluate(str(run), str(tmp_path / "swapped.tsv"), **columns, header="yes", quiet=True)
    assert results["scores"] == expected["scores"] and results["baseline"] == expected["baseline"]
    assert 0 < results["baseline"]["scores"]["accuracy"] < 100
    for model in (run, run / "model"):
        evaluate(str(model), str(fine_tuned / "classification" / "train.tsv"))
        assert "train.tsv is the file that this model was trained on" in capsys.readouterr().err
    with pytest.raises(UserError, match="label_column is for classification and token; this model's task is qa"):
        evaluate(str(fine_tuned / "qa" / "run"), str(fine_tuned / "qa" / "dev.json"), label_column="1", quiet=True)
    with pytest.raises(UserError, match="trained on single texts, not on pairs"):
        evaluate(str(run), str(tmp_path / "swapped.tsv"), text_pair_column="1", quiet=True)
    with pytest.raises(UserError, match=f"seed-0 holds no model; it is a part of the fine-tuning run {run}: give"):
        evaluate(str(run / "seed-0"), str(tmp_path / "swapped.tsv"), label_column="1", quiet=True)
    with pytest.raises(UserError, match="header is for a fine-tuned model"):
        evaluate(str(fine_tuned), str(tmp_path / "swapped.tsv"), header="yes", quiet=True)


def test_a_closed_pipe_loses_no_results(fine_tuned: Path, tmp_path: Path) -> None:
    run, data = fine_tuned / "classification" / "run", fine_tuned / "classification" / "dev.tsv"
    words = ["-m", "spanelectra.cli", "evaluate", "--model", run, "--data", data, "--out_dir", tmp_path / "out"]
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert b"Traceback" not in errors
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["examples"] == 40


def test_a_label_that_the_model_does_not_know(fine_tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "new.tsv").write_text("sentence\tlabel\nfine\tgood\nold\tneutral\n")
    with pytest.raises(UserError, match=r"new\.tsv:3: the label 'neutral' is not among those"):
        evaluate(str(fine_tuned / "classification" / "run"), str(tmp_path / "new.tsv"), quiet=True)


def test_a_file_with_other_columns_is_not_guessed_at(fine_tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "docs.csv").write_text('file,kind,body\na.txt,good,"a fine\nfilm"\nb.txt,bad,dull\n')
    message = "docs.csv: no column 'sentence' and no column 'label', as the training file had; choose with "
    with pytest.raises(UserError, match=f"{message}--text_column and --label_column: file, kind, body.$"):
        evaluate(str(fine_tuned / "classification" / "run"), str(tmp_path / "docs.csv"), quiet=True)


def test_a_file_without_labels_gets_the_command_for_it(fine_tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "new.conll").write_text("Ida\nlives\n")
    with pytest.raises(UserError, match=r"so there are no labels\. .* For answers alone: spanelectra predict --model"):
        evaluate(str(fine_tuned / "token" / "run"), str(tmp_path / "new.conll"), quiet=True)
    with pytest.raises(UserError) as error:
        evaluate(str(fine_tuned / "token" / "run"), str(tmp_path / "new.conll"), label_column="7", quiet=True)
    assert "predict" not in str(error.value)
    (tmp_path / "new.conll").write_text("")
    with pytest.raises(UserError) as error:
        evaluate(str(fine_tuned / "token" / "run"), str(tmp_path / "new.conll"), quiet=True)
    assert "predict" not in str(error.value)


def test_a_run_on_text_has_the_intrinsic_report(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(small_run(rows, tmp_path / "run", max_steps=2))
    arguments = {"rows": 4, "out_dir": str(tmp_path / "out")}
    results = evaluate(str(tmp_path / "run"), str(rows), **arguments)
    assert results["rows"] == 4 and results["mlm"]["total"]["tokens"] > 0 and results["ato"]["total"]["auc"] >= 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == results
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    assert "Discriminator, replaced or original" in capsys.readouterr().out
    (tmp_path / "text.txt").write_bytes(("caf\u00e9 " * 500).encode("latin-1"))
    flags = {"encoding": "latin-1", "max_seq_length": 24, "quiet": True}
    results = evaluate(str(tmp_path / "run"), str(tmp_path / "text.txt"), rows=4, **flags)
    assert (results["kind"], results["max_seq_length"]) == ("text", 24)


def test_earlier_results_are_not_overwritten_by_chance(fine_tuned: Path, tmp_path: Path) -> None:
    run, data = str(fine_tuned / "qa" / "run"), str(fine_tuned / "qa" / "dev.json")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        evaluate(run, data, out_dir=str(tmp_path / "out"), quiet=True)
    assert (tmp_path / "out" / "metrics.json").read_text() == "mine"
    evaluate(run, data, out_dir=str(tmp_path / "out"), overwrite=True, quiet=True)
    assert len(read(tmp_path / "out" / "predictions.jsonl")) == 40
    # the run itself holds more than an evaluation
    with pytest.raises(UserError, match="holds other files"):
        evaluate(run, data, out_dir=run, overwrite=True, quiet=True)


@pytest.mark.parametrize(("flag", "value"), [("rows", 10), ("seed", 1), ("max_seq_length", 16)])
def test_flags_that_would_change_nothing_are_refused(flag: str, value: Any, fine_tuned: Path) -> None:
    with pytest.raises(UserError, match=f"{flag} is for a pre-trained run"):
        evaluate(str(fine_tuned / "qa" / "run"), "x.json", quiet=True, **{flag: value})


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        evaluate(str(tmp_path / "nowhere"), "text.txt", quiet=True)
