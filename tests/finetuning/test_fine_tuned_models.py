"""What the command ``finetune`` leaves: scores, predictions, and models that open anywhere with the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fine_tuned_runs import ENDINGS, FAMILIES, files_of, metrics_of, predictions_of
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

from spanelectra.atomic_files import file_digest, find_damage
from spanelectra.errors import UserError
from spanelectra.evaluation import evaluate
from spanelectra.finetuning.fine_tuning import finetune
from spanelectra.finetuning.seed_summary import summarise_runs
from tiny_tasks import quick


@pytest.mark.parametrize("kind", ENDINGS)
def test_it_learns(kind: str, fine_tuned_runs: dict[str, Path]) -> None:
    metrics = metrics_of(fine_tuned_runs[kind])
    for split in ("dev", "test"):
        baseline = metrics["baseline"][split]["scores"][metrics["metric"]]
        assert metrics["summary"][split][metrics["metric"]]["mean"] > baseline + 30
    assert metrics["collapsed"] == []


@pytest.mark.parametrize("kind", ENDINGS)
def test_the_results_say_everything(kind: str, tiny: Path, fine_tuned_runs: dict[str, Path]) -> None:
    metrics = metrics_of(fine_tuned_runs[kind])
    assert (metrics["task"], metrics["model"]) == (kind, FAMILIES[kind]) and metrics["parameters"] > 10_000
    assert [result["seed"] for result in metrics["runs"]] == list(range(2 if kind == "classification" else 1))
    for result in metrics["runs"]:
        assert metrics["metric"] in result["dev"] and metrics["metric"] in result["test"]
        assert result["collapsed"] is None and result["seconds"] > 0 and result["bf16"] is False
        assert (result["learning_rate"], result["steps"]) == (3e-3, 40)
        assert [entry["step"] for entry in result["history"]] == [10, 20, 30, 40]
        assert max(entry["dev"][metrics["metric"]] for entry in result["history"]) == pytest.approx(
            result["dev"][metrics["metric"]], abs=3
        )
        assert json.loads((fine_tuned_runs[kind] / f"seed-{result['seed']}" / "metrics.json").read_text()) == result
        assert find_damage(fine_tuned_runs[kind] / f"seed-{result['seed']}") is None
    for split in ("dev", "test"):
        assert metrics["summary"][split] == summarise_runs(metrics["runs"], split)
        assert len(predictions_of(fine_tuned_runs[kind], split)) == 40
    assert metrics["data"]["train"]["sha256"] == file_digest(Path(files_of(tiny, kind)["train"]))
    assert metrics["config"]["learning_rate"] == 3e-3 and "torch" in metrics["environment"]["versions"]
    names = {f"seed-{result['seed']}" for result in metrics["runs"]}
    names |= {"config.yaml", "metrics.json", "model", "report.html"}
    assert {path.name for path in fine_tuned_runs[kind].iterdir()} == names


@pytest.mark.parametrize("kind", ENDINGS)
def test_nothing_of_the_machine_is_in_the_model(kind: str, tiny: Path, fine_tuned_runs: dict[str, Path]) -> None:
    for file in (fine_tuned_runs[kind] / "model").iterdir():
        assert str(tiny.parent).encode() not in file.read_bytes(), file.name


def test_the_classifiers_pipeline_gives_the_same_answers(fine_tuned_runs: dict[str, Path]) -> None:
    classify = pipeline("text-classification", str(fine_tuned_runs["classification"] / "model"), device="cpu")
    for prediction in predictions_of(fine_tuned_runs["classification"], "test"):
        (found,) = classify([prediction["text"]])
        assert found["label"] == prediction["predicted"]
        assert found["score"] == pytest.approx(max(prediction["probabilities"].values()), abs=1e-3)


def test_the_taggers_pipeline_gives_the_same_answers(fine_tuned_runs: dict[str, Path]) -> None:
    tag = pipeline("token-classification", str(fine_tuned_runs["token"] / "model"), ignore_labels=[], device="cpu")
    for prediction in predictions_of(fine_tuned_runs["token"], "test"):
        assert [entry["entity"] for entry in tag(" ".join(prediction["words"]))] == prediction["predicted"]


def test_the_question_answerer_gives_the_same_answers(tiny: Path, fine_tuned_runs: dict[str, Path]) -> None:
    directory = fine_tuned_runs["qa"] / "model"
    model, tokenizer = (
        AutoModelForQuestionAnswering.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    articles = json.loads(Path(files_of(tiny, "qa")["test"]).read_text())["data"]
    for paragraph, prediction in zip(
        articles[0]["paragraphs"], predictions_of(fine_tuned_runs["qa"], "test"), strict=True
    ):
        inputs = tokenizer(prediction["question"], paragraph["context"], return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        # ends on or after starts, both in the context
        scores = output.start_logits[0][:, None] + output.end_logits[0][None, :]
        inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
        allowed = (inside[:, None] & inside[None, :]).triu() & ~torch.ones_like(scores, dtype=torch.bool).triu(30)
        start, end = divmod(int(scores.masked_fill(~allowed, -torch.inf).argmax()), len(inside))
        answer = " ".join(
            paragraph["context"].split()[start - len(prediction["question"].split()) - 2 :][: end - start + 1]
        )
        assert answer == prediction["predicted"]


@pytest.mark.parametrize(("centre", "step"), [(40_000.0, 9_000.0), (-3e-6, 1e-6)])
def test_a_regression_answers_in_the_units_of_its_file(centre: float, step: float, tiny: Path, tmp_path: Path) -> None:
    files = files_of(tiny, "classification")
    for name, file in files.items():
        text = Path(file).read_text().replace("\tgood", f"\t{centre + step}").replace("\tbad", f"\t{centre - step}")
        (tmp_path / f"{name}.tsv").write_text(text)
        files[name] = str(tmp_path / f"{name}.tsv")
    results = finetune(quick(tiny / "modernbert", files, tmp_path / "run", epochs=3, regression=True))
    assert results["summary"]["test"]["pearson"]["mean"] > 80 and results["collapsed"] == []
    predictions = predictions_of(tmp_path / "run", "test")
    errors = [abs(prediction["predicted"] - prediction["label"]) for prediction in predictions]
    assert sum(errors) / len(errors) < 0.6 * step
    # whoever opens the model gets the same
    answer = pipeline("text-classification", str(tmp_path / "run" / "model"), device="cpu")
    for prediction in predictions[:5]:
        (found,) = answer([prediction["text"]])
        assert found["label"] == "score" and found["score"] == pytest.approx(prediction["predicted"], abs=1e-3 * step)
    assert evaluate(str(tmp_path / "run"), files["test"], quiet=True)["scores"] == results["runs"][0]["test"]


def test_files_may_be_in_another_encoding(tiny: Path, tmp_path: Path) -> None:
    files = files_of(tiny, "classification", "train", "dev")
    for name, file in files.items():
        text = Path(file).read_text().replace("\tgood", "\tgr\u00fcn")
        (tmp_path / f"{name}.tsv").write_bytes(text.encode("latin-1"))
        files[name] = str(tmp_path / f"{name}.tsv")
    small = {"epochs": 0.2, "max_train_examples": 32}
    with pytest.raises(UserError, match=r"train\.tsv' is not utf-8.*--encoding latin-1"):
        finetune(quick(tiny / "bert", files, tmp_path / "run", **small))
    results = finetune(quick(tiny / "bert", files, tmp_path / "run", encoding="latin-1", **small))
    with pytest.raises(UserError, match="--encoding latin-1"):
        evaluate(str(tmp_path / "run"), files["dev"], quiet=True)
    found = evaluate(str(tmp_path / "run"), files["dev"], encoding="latin-1", quiet=True)
    assert found["scores"] == results["runs"][0]["dev"]
