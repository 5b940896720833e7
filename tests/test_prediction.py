"""The command ``predict``: texts, files and standard input; lines of JSON."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spanelectra import prediction as prediction_module
from spanelectra.cli import main
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuned_model import FineTunedModel
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.squad_files import Question
from spanelectra.prediction import FEWEST_TO_JUDGE, predict
from tiny_tasks import FILLERS, QUESTION, quick, save_encoder, write_task


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of task a folder with its files and a run."""
    directory = tmp_path_factory.mktemp("fine-tuned")
    save_encoder("modernbert", directory / "encoder", detector=True)
    for kind in ("classification", "token", "qa"):
        finetune(quick(directory / "encoder", write_task(directory / kind, kind), directory / kind / "run", epochs=2))
    return directory


@pytest.fixture
def answers(capsys: pytest.CaptureFixture[str]) -> Any:
    """Call it for the objects that were printed since."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def command(*words: Any) -> list[str]:
    return [sys.executable, "-m", "spanelectra.cli", "predict", *map(str, words)]


def run_command(*words: Any, stdin: bytes = b"", **settings: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **settings}
    return subprocess.run(command(*words), input=stdin, capture_output=True, timeout=120, env=environment, check=False)


def test_a_file_without_labels(fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t")[0] for line in (fine_tuned / "classification" / "dev.tsv").read_text().splitlines()]
    (tmp_path / "new.tsv").write_text("\n".join(rows) + "\n")
    predict(str(fine_tuned / "classification" / "run"), data=str(tmp_path / "new.tsv"))
    said = capsys.readouterr()
    assert "classification: 40 records" in said.err
    assert "'sentence' is the text" in said.err and "f1 is that of" not in said.err
    expected = read(fine_tuned / "classification" / "run" / "seed-0" / "predictions-dev.jsonl")
    for line, prediction in enumerate(expected, start=2):
        del prediction["label"]
        prediction["line"] = line
    assert [json.loads(line) for line in said.out.splitlines()] == expected


def test_a_file_with_labels_and_columns_of_its_own(fine_tuned: Path, tmp_path: Path, answers: Any) -> None:
    run = str(fine_tuned / "classification" / "run")
    (tmp_path / "new.tsv").write_bytes("label\tSatz\ngood\tfine caf\u00e9\nbad\tbad\n".encode("latin-1"))
    predict(run, data=str(tmp_path / "new.tsv"), text_column="Satz", header="yes", encoding="latin-1")
    found = [(entry["line"], entry["text"], entry["label"]) for entry in answers()]
    assert found == [(2, "fine café", "good"), (3, "bad", "bad")]
    with pytest.raises(UserError, match="trained on single texts, not on pairs"):
        predict(run, data=str(tmp_path / "new.tsv"), text_pair_column="1")
    with pytest.raises(UserError, match="header is for classification; this model's task is token"):
        predict(str(fine_tuned / "token" / "run"), data=str(tmp_path / "new.tsv"), header="yes")


def test_questions_from_a_file_or_about_a_context(fine_tuned: Path, tmp_path: Path, answers: Any) -> None:
    run = str(fine_tuned / "qa" / "run")
    expected = read(fine_tuned / "qa" / "run" / "seed-0" / "predictions-dev.jsonl")
    articles = json.loads((fine_tuned / "qa" / "dev.json").read_text())["data"]
    pairs = [(paragraph, record) for paragraph in articles[0]["paragraphs"] for record in paragraph["qas"]]
    questions = [Question(record["id"], record["question"], paragraph["context"], None) for paragraph, record in pairs]
    lines = [{"id": q.id, "question": q.question, "context": q.context} for q in questions]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    predict(run, data=str(tmp_path / "new.jsonl"), quiet=True)
    found = answers()
    assert [entry["predicted"] for entry in found] == [entry["predicted"] for entry in expected]
    assert not any("answers" in entry for entry in found)
    assert [entry.pop("line") for entry in found] == [None] * len(questions)
    assert FineTunedModel.from_pretrained(run).predict_examples(questions) == found
    predict(run, [QUESTION, QUESTION], context=questions[0].context, quiet=True)
    first, second = answers()
    assert first["predicted"] == second["predicted"] == found[0]["predicted"]
    assert (first["id"], second["id"]) == ("1", "2")


def test_standard_input_has_a_text_a_line(fine_tuned: Path) -> None:
    run = fine_tuned / "token" / "run"
    # in a terminal of another alphabet lines of JSON are UTF-8 all the same
    done = run_command("--model", run, stdin="ida by oslo\n\nŁódź".encode(), PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert [line["text"] for line in lines] == ["ida by oslo", "", "Łódź"]
    assert [line.pop("line") for line in lines] == [1, 2, 3]
    assert lines == FineTunedModel.from_pretrained(run).predict(["ida by oslo", "", "Łódź"])
    done = run_command("--model", run)
    assert (done.returncode, done.stdout) == (2, b"") and b"standard input is empty" in done.stderr
    done = run_command("--model", run, stdin=b"ida\n\xff\n")
    assert done.returncode == 2 and b"standard input is not utf-8: line 2" in done.stderr


def test_standard_input_is_answered_in_parts(fine_tuned: Path, monkeypatch: pytest.MonkeyPatch, answers: Any) -> None:
    monkeypatch.setattr(prediction_module, "LINES_AT_ONCE", 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{QUESTION} {word}\n" for word in FILLERS[:5])))
    predict(str(fine_tuned / "qa" / "run"), context="the mill turned two all day")
    found = answers()
    assert [(entry["line"], entry["id"]) for entry in found] == list(enumerate("12345", start=1))
    assert [entry["question"] for entry in found] == [f"{QUESTION} {word}" for word in FILLERS[:5]]


def test_standard_input_may_be_a_socket_or_missing(fine_tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fine_tuned / "classification" / "run"
    near, far = socket.socketpair()
    with near, far:
        near.sendall(b"a fine mill\n")
        near.shutdown(socket.SHUT_WR)
        done = subprocess.run(command("--model", run), stdin=far, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["text"] == "a fine mill"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="there is no text: give texts"):
        predict(str(run))


def test_words_of_the_command_line_are_texts(fine_tuned: Path) -> None:
    run = fine_tuned / "classification" / "run"
    done = run_command("--model", run, "--quiet", "--", "a fine mill", "-- bad")
    assert done.returncode == 0 and done.stderr == b""
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a fine mill", "-- bad"]
    done = run_command("--model", run, b"\xff".decode(errors="surrogateescape"))
    assert done.returncode == 2 and b"text 1 holds half a character" in done.stderr


def test_a_closed_pipe_ends_it_in_silence(fine_tuned: Path, tmp_path: Path) -> None:
    # more than a pipe holds
    (tmp_path / "new.tsv").write_text("the mill stood by a river\n" * 2000)
    words = command("--model", fine_tuned / "classification" / "run", "--data", tmp_path / "new.tsv", "--quiet")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["predicted"] in ("good", "bad")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) == 0 and b"Error" not in errors
    process.stderr.close()


def test_one_answer_to_many_different_texts(fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(fine_tuned / "classification" / "run")
    for count in (FEWEST_TO_JUDGE - 1, FEWEST_TO_JUDGE):
        predict(run, ["good " * number for number in range(1, count + 1)])
        assert ("one answer to everything: always 'good'" in capsys.readouterr().err) == (count == FEWEST_TO_JUDGE)
    # nothing is remarkable in one answer to one text
    predict(run, ["a good mill"] * 2 * FEWEST_TO_JUDGE + [" "])
    assert "one answer" not in capsys.readouterr().err


def test_running_text_in_place_of_a_column_file(
    fine_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = str(fine_tuned / "token" / "run"), tmp_path / "text.txt"
    file.write_text("ida by oslo\nthe mill stood\n")
    predict(run, data=str(file))
    said = capsys.readouterr()
    assert [json.loads(line)["words"] for line in said.out.splitlines()] == [["ida", "the"]]
    assert "of every line only the word. Running text, a text a line, goes to standard input" in said.err
    file.write_text("ida by oslo\nthe mill\n")
    with pytest.raises(UserError, match=r"2 columns where line 1 has 3.* Running text, a text a line, goes to"):
        predict(run, data=str(file))
    predict(run, ["ida", "by"])
    assert "2 texts of one word each" in capsys.readouterr().err


def test_it_warns_of_what_was_cut(fine_tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(str(fine_tuned / "classification" / "run"), ["mill " * 50, "fine"])
    assert "warning: 1 of 2 texts of the text that was given are longer than 32 tokens" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_answer_that_is_no_number(fine_tuned: Path) -> None:
    broken = FineTunedModel.from_pretrained(fine_tuned / "qa" / "run")
    for parameter in broken.model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(UserError, match="the model's answer is no number"):
        prediction_module._print_lines(broken.predict([QUESTION], ["two mills"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": ["a"], "data": "x.tsv"}, "texts are given, and data"),
        ({"texts": "a text"}, r"a text alone is \['…'\]"),
        ({"data": "x.tsv", "context": "c"}, "context is for given texts"),
        ({"texts": ["a"], "text_column": "0"}, "text_column is for data, and there is none"),
        ({"texts": ["a"], "encoding": "latin-1"}, "encoding is for data and standard input"),
        ({"texts": ["a"], "context": "c"}, "needs no context"),
        ({"data": "x.tsv"}, "'?x.tsv"),
        ({"data": "-"}, "no regular file; standard input is read without --data"),
        ({"data": "/dev/null"}, "no regular file"),
    ],
)
def test_what_cannot_be_answered(arguments: dict[str, Any], message: str, fine_tuned: Path) -> None:
    with pytest.raises(UserError, match=message):
        predict(str(fine_tuned / "classification" / "run"), **arguments)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--texts", "a"], "TEXTS is given without a flag."),
        (["--text", "a"], "TEXTS is given without a flag."),
        (["a", "--model", "M", "b"], "Give all texts side by side"),
        (["--contxt", "a"], "Did you mean '--context'?"),
    ],
)
def test_hints(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *words]) == 2
    assert hint in capsys.readouterr().err
