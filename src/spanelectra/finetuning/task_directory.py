"""A fine-tuned model on disk: a stock Hugging Face directory that also remembers its task."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.atomic_files import MANIFEST_NAME, find_damage, write_directory, write_json, write_text
from spanelectra.checkpointing import MODEL_DIRECTORY, TASK_NAME
from spanelectra.data.text_files import did_you_mean_path
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError, reason_of
from spanelectra.export import save_tokenizer
from spanelectra.finetuning.classification import Classification
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.question_answering import QuestionAnswering
from spanelectra.finetuning.task import Prediction, Task
from spanelectra.finetuning.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classification, TokenClassification, QuestionAnswering)}
# settings that say how a file is read and an input is made, which must be the same when the model is used again
_REMEMBERED = (
    "task", "text_column", "text_pair_column", "label_column", "header", "regression", "metric", "max_length",
    "doc_stride", "max_answer_length", "n_best", "eval_batch_size",
)  # fmt: skip
# the Hub's names of what a model is for
_PIPELINE_TAGS = {"classification": "text-classification", "token": "token-classification", "qa": "question-answering"}


def make_task(settings: FineTuningArguments) -> Task:
    """The task that resolved settings name."""
    assert settings.task is not None
    return TASKS[settings.task](settings)


def save_task_model(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, card: str
) -> None:
    """Write model, tokenizer, task and model card; the directory appears complete or not at all."""
    settings = {name: getattr(task.settings, name) for name in _REMEMBERED}
    model.config.name_or_path = ""  # where the encoder lay, on the machine that trained
    with write_directory(directory, replace=True) as partial:
        model.save_pretrained(partial)
        save_tokenizer(tokenizer, partial, tokenizer.model_max_length)
        write_json(partial / TASK_NAME, {"settings": settings, "state": task.state()})
        write_text(partial / "README.md", card)


def holds_task_model(directory: str | Path) -> bool:
    """Whether there is a fine-tuned model of ours, or the output of a fine-tuning run."""
    path = Path(directory).expanduser()
    return any((place / TASK_NAME).is_file() for place in (path, path / MODEL_DIRECTORY))


def check_place(directory: str | Path, writers: str) -> None:
    """Look whether a model can be there at all.

    Args:
        writers: the commands that write such models, in words.

    Raises:
        UserError: nothing is there, or one seed of a run, which has no model of its own.
    """
    place = Path(directory).expanduser().resolve()
    if not place.exists():
        raise UserError(f"model '{directory}' does not exist; give what {writers} wrote.{did_you_mean_path(place)}")
    if place.name.startswith("seed-") and not holds_task_model(place) and holds_task_model(place.parent):
        raise UserError(f"{directory} holds no model; it is a part of the fine-tuning run {place.parent}: give that.")


def open_task_model(directory: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Task]:
    """Open what :func:`save_task_model` wrote, or the run that holds it.

    Raises:
        UserError: where nothing of the kind is there, or it is damaged.
    """
    path = Path(directory).expanduser()
    if (path / MODEL_DIRECTORY / TASK_NAME).is_file():
        path = path / MODEL_DIRECTORY
    check_place(directory, "`spanelectra finetune`")
    if not (path / TASK_NAME).is_file():
        raise UserError(
            f"{directory} holds no model of `spanelectra finetune`: {path / TASK_NAME} is missing. If it is an "
            "encoder, fine-tune it first."
        )
    damage = find_damage(path) if (path / MANIFEST_NAME).is_file() else None
    if damage is not None:
        raise UserError(f"{path} is damaged: {damage}. Fine-tune again.")
    try:
        content = json.loads((path / TASK_NAME).read_text(encoding="utf-8"))
        names = {field.name for field in dataclasses.fields(FineTuningArguments)}
        settings = FineTuningArguments(**{name: v for name, v in content["settings"].items() if name in names})
        task = make_task(settings)
        task.load_state(content["state"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path / TASK_NAME} is unreadable ({error}). Fine-tune again.") from error
    try:
        model, info = getattr(transformers, task.model_class).from_pretrained(
            path, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # the configuration and the weights raise what they like
        reason = reason_of(error)
        raise UserError(f"{path} holds no model that opens ({reason}). Fine-tune again.") from error
    if info["missing_keys"]:
        raise UserError(f"{path}: the weights lack {sorted(info['missing_keys'])[0]}. Fine-tune again.")
    return model.eval(), load_tokenizer(path), task


def write_predictions(file: Path, predictions: Sequence[Prediction]) -> None:
    """One JSON object a line."""
    write_text(file, "".join(json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictions))


def fine_tuned_card(task: Task, source: str, results: dict[str, Any]) -> str:
    """The page that goes with a fine-tuned model.

    Args:
        source: the encoder, in words.
        results: of the seed whose model this is.
    """
    tag = _PIPELINE_TAGS[task.kind]
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {tag}",
        "---",
        "",
        "# Fine-tuned with SpanElectra",
        "",
    ]
    lines += [f"Encoder: {source}. Chosen by {task.metric} on dev among the run's evaluations and seeds."]
    lines += ["", "| split | metric | score |", "|---|---|---|"]
    for split in ("dev", "test"):
        for metric, value in (results.get(split) or {}).items():
            lines.append(f"| {split} | {metric} | {value:.2f} |")
    if task.kind == "qa":
        # transformers 5 has no pipeline for it any more
        code = [f"from transformers import {task.model_class}", "", f'{task.model_class}.from_pretrained("DIRECTORY")']
    else:
        # of a word only the first token has learned to speak
        words = ', aggregation_strategy="first"' if task.kind == "token" else ""
        code = ["from transformers import pipeline", "", f'pipeline("{tag}", "DIRECTORY"{words})']
    answers = "spanelectra predict --model DIRECTORY --data FILE > answers.jsonl"
    lines += ["", "```python", *code, "```", "", "Answers for a whole file:", "", "```bash", answers, "```", ""]
    return "\n".join(lines)
