"""The command ``predict``: texts, files and standard input; lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.squad_files import Question
from spanelectra.prediction import FEWEST_TO_JUDGE, predict
from tiny_tasks import QUESTION, quick, save_encoder, write_task


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of task a folder with its files and a run."""
    directory = tmp_path_factory.mktemp("fine-tuned")
    save_encoder("modernbert", directory / "encoder", detector=True)
    for kind in ("classification", "token", "qa"):
        finetune(quick(directory / "encoder", write_task(directory / kind, kind), directory / kind / "run", epochs=2))
    return directory


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def run_command(*words: Any, stdin: bytes = b"", **settings: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "spanelectra.cli", "predict", *map(str, words)]
    environment = {**os.environ, **settings}
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, env=environment, check=False)


def test_a_file_without_labels(fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t")[0] for line in (fine_tuned / "classification" / "dev.tsv").read_text().splitlines()]
    (tmp_path / "new.tsv").write_text("\n".join(rows) + "\n")
    run, data = str(fine_tuned / "classification" / "run"), str(tmp_path / "new.tsv")
    out = tmp_path / "new" / "answers.jsonl"
    found = predict(run, data=data, out_file=str(out))
    said = capsys.readouterr()
    assert said.out == "" and "classification: 40 records" in said.err and f"{out}: written" in said.err
    assert "'sentence' is the text" in said.err and "f1 is that of" not in said.err
    expected = read(fine_tuned / "classification" / "run" / "seed-0" / "predictions-dev.jsonl")
    for prediction in expected:
        del prediction["label"]
    assert read(out) == found == expected
    with pytest.raises(UserError, match=r"answers\.jsonl' is there already"):
        predict(run, ["fine"], out_file=str(out))
    predict(run, ["fine"], out_file=str(out), overwrite=True, quiet=True)
    assert len(read(out)) == 1 and capsys.readouterr().err == ""
    with pytest.raises(UserError, match="is a directory"):
        predict(run, ["fine"], out_file=str(tmp_path), overwrite=True)


def test_columns_of_another_file(fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(fine_tuned / "classification" / "run")
    (tmp_path / "new.tsv").write_bytes("Nummer\tSatz\n1\tfine caf\u00e9\n2\tbad\n".encode("latin-1"))
    found = predict(run, data=str(tmp_path / "new.tsv"), text_column="Satz", header="yes", encoding="latin-1")
    assert [entry["text"] for entry in found] == ["fine café", "bad"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found
    with pytest.raises(UserError, match="trained on single texts, not on pairs"):
        predict(run, data=str(tmp_path / "new.tsv"), text_pair_column="1")
    with pytest.raises(UserError, match="header is for classification; this model's task is token"):
        predict(str(fine_tuned / "token" / "run"), data=str(tmp_path / "new.tsv"), header="yes")


def test_questions_from_a_file_or_about_a_context(fine_tuned: Path, tmp_path: Path) -> None:
    run = str(fine_tuned / "qa" / "run")
    expected = read(fine_tuned / "qa" / "run" / "seed-0" / "predictions-dev.jsonl")
    articles = json.loads((fine_tuned / "qa" / "dev.json").read_text())["data"]
    pairs = [(paragraph, record) for paragraph in articles[0]["paragraphs"] for record in paragraph["qas"]]
    questions = [Question(record["id"], record["question"], paragraph["context"], None) for paragraph, record in pairs]
    lines = [{"id": q.id, "question": q.question, "context": q.context} for q in questions]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = predict(run, data=str(tmp_path / "new.jsonl"), out_file=str(tmp_path / "answers.jsonl"), quiet=True)
    assert [entry["predicted"] for entry in found] == [entry["predicted"] for entry in expected]
    assert not any("answers" in entry for entry in found)
    assert FineTunedModel.from_pretrained(run).predict_examples(questions) == found
    (alone,) = predict(run, [QUESTION], context=questions[0].context, quiet=True)
    assert alone["predicted"] == found[0]["predicted"] and alone["id"] == "1"


def test_standard_input_has_a_text_a_line(fine_tuned: Path) -> None:
    run = fine_tuned / "token" / "run"
    # in a terminal of another alphabet lines of JSON are UTF-8 all the same
    done = run_command("--model", run, stdin="ida by oslo\n\nŁódź".encode(), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["ida by oslo", "", "Łódź"]
    assert lines == FineTunedModel.from_pretrained(run).predict(["ida by oslo", "", "Łódź"])
    done = run_command("--model", run)
    assert (done.returncode, done.stdout) == (2, b"") and b"standard input is empty" in done.stderr
    done = run_command("--model", run, stdin=b"ida\n\xff\n")
    assert done.returncode == 2 and b"is not utf-8: line 2" in done.stderr and b"--encoding" in done.stderr


def test_words_of_the_command_line_are_texts(fine_tuned: Path) -> None:
    run = fine_tuned / "classification" / "run"
    done = run_command("--model", run, "a fine mill", "a bad mill", "--quiet")
    assert done.returncode == 0 and done.stderr == b""
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a fine mill", "a bad mill"]
    done = run_command("--model", run, b"\xff".decode(errors="surrogateescape"))
    assert done.returncode == 2 and b"holds half a character" in done.stderr


def test_a_closed_pipe_ends_it_in_silence(fine_tuned: Path, tmp_path: Path) -> None:
    # more than a pipe holds
    (tmp_path / "new.tsv").write_text("the mill stood by a river\n" * 2000)
    words = ["-m", "spanelectra.cli", "predict", "--model", fine_tuned / "classification" / "run"]
    words += ["--data", tmp_path / "new.tsv", "--quiet"]
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["predicted"] in ("good", "bad")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) == 0 and b"Error" not in errors
    process.stderr.close()


def test_a_few_texts_may_all_be_of_one_class(fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in (FEWEST_TO_JUDGE - 1, FEWEST_TO_JUDGE):
        predict(str(fine_tuned / "classification" / "run"), ["the mill"] * count)
        assert ("gives one answer to everything" in capsys.readouterr().err) == (count == FEWEST_TO_JUDGE)


def test_it_warns_of_what_was_cut(fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(str(fine_tuned / "classification" / "run"), ["mill " * 50, "fine"])
    assert "warning: 1 of 2 texts of what was given are longer than 32 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["a"], "data": "x.tsv"}, "texts are given, and data"),
        ({"data": "x.tsv", "context": "c"}, "context is for given texts"),
        ({"texts": ["a"], "text_column": "0"}, "text_column is for data, and there is none"),
        ({"texts": ["a"], "context": "c"}, "needs no context"),
        ({"data": "x.tsv"}, "'?x.tsv"),
    ],
)
def test_what_cannot_be_answered(arguments: dict[str, Any], message: str, fine_tuned: Path) -> None:
    with pytest.raises(UserError, match=message):
        predict(str(fine_tuned / "classification" / "run"), **arguments)
