"""A folder of tasks -> the settings of each: which files it has, and how they are read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from spanelectra.data.text_files import COMPRESSIONS
from spanelectra.errors import UserError, did_you_mean
from spanelectra.finetuning.fine_tuning_args import PRESETS, FineTuningArguments
from spanelectra.recipe_files import read_fields

TASK_FILE_NAME = "task.yaml"
# What a split's file may have in its name, the surest first; CoNLL's are called testa and testb.
_SPLIT_WORDS = {
    "train": ("train",),
    "dev": ("in_domain_dev", "dev", "valid", "testa"),
}
_TASK_OF_SUFFIX = {
    ".json": "qa",
    ".tsv": "classification",
    ".csv": "classification",
    ".jsonl": "classification",
    ".parquet": "classification",
    ".conll": "token",
    ".iob": "token",
    ".iob2": "token",
    ".bio": "token",
}
_FIELDS = (
    "task", "preset", "train", "dev", "text_column", "text_pair_column", "label_column", "encoding", "header",
    "regression", "metric", "max_length", "doc_stride",
)  # fmt: skip
_TEXTS = ("train", "dev", "text_column", "text_pair_column", "label_column")
# Where no file is for choosing, so much of the training file is held out.
HELD_OUT = "0.1"


def read_task_folder(folder: str, model: str, only: Collection[str] | None = None) -> dict[str, FineTuningArguments]:
    """Find the tasks in a folder: each subfolder that has a training file, or the folder itself.

    A subfolder's ``task.yaml`` says what its files are (fields of :class:`FineTuningArguments`; paths from there).
    Without one, a subfolder named as a preset is that task; any other is guessed by its files' names and endings.

    Args:
        folder: the folder.
        model: the encoder, for the settings.
        only: names of the tasks to take; by default all.

    Returns:
        Name -> resolved settings, in the order of names.

    Raises:
        UserError: where there is no task, or one is not clear, naming it.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"tasks '{folder}' is not a folder; give one that has a subfolder for every task.")
    candidates = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    tasks = {
        entry.name: settings
        for entry in [*candidates, path]
        if (not only or entry.name in only) and (settings := _settings(entry, model, entry == path)) is not None
    }
    for name in only or ():
        if name not in tasks:
            names = ", ".join(entry.name for entry in candidates)
            raise UserError(f"only: there is no task '{name}' in {folder}; its folders are {names}.")
    if not tasks:
        raise UserError(
            f"{folder} holds no task: a task is a folder with a file whose name has 'train' in it, or with a "
            f"{TASK_FILE_NAME} that names its files."
        )
    return tasks


def _settings(folder: Path, model: str, is_root: bool) -> FineTuningArguments | None:
    """Settings of one task's folder; ``None`` for a folder that has no training file."""
    fields = _read_task_file(folder / TASK_FILE_NAME)
    for split in ("train", "dev"):
        # dev may be a fraction
        if split in fields and (
            split == "train" or (folder / fields[split]).is_file() or not _is_number(fields[split])
        ):
            fields[split] = str(folder / fields[split])
    if "train" not in fields:
        train = _find(folder, "train")
        if train is None:
            if not is_root and _find(folder, "dev") is not None:
                raise UserError(
                    f"{folder}: a dev file, and none with 'train' in its name; add it, or a {TASK_FILE_NAME}."
                )
            return None
        fields["train"] = str(train)
    if "dev" not in fields:
        fields["dev"] = str(_find(folder, "dev") or HELD_OUT)
    if "preset" not in fields and "task" not in fields:
        if folder.name.lower() in PRESETS:
            fields["preset"] = folder.name.lower()
        else:
            fields["task"] = _guess(folder, Path(str(fields["train"])))
    try:
        return FineTuningArguments(**{**fields, "model": model}).resolved()
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def _read_task_file(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = read_fields(file, "task")
    for name in content:
        if name not in _FIELDS:
            raise UserError(f"{file}: unknown field '{str(name)[:100]}'.{did_you_mean(str(name)[:100], _FIELDS)}")
    # a fraction and a column's number are text to the settings
    return {name: str(value) if name in _TEXTS else value for name, value in content.items() if value is not None}


def _find(folder: Path, split: str) -> Path | None:
    """The split's file, by the words that its name has.

    Raises:
        UserError: where several could be meant.
    """
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    files = [file for file in files if file.name != TASK_FILE_NAME]
    for word in _SPLIT_WORDS[split]:
        found = [file for file in files if word in file.name.lower()]
        if len(found) > 1:
            names = " or ".join(file.name for file in found)
            raise UserError(f"{folder}: which is the {split} file, {names}? Say so in a {TASK_FILE_NAME} there.")
        if found:
            return found[0]
    return None


def _guess(folder: Path, train: Path) -> str:
    plain = train.with_suffix("") if train.suffix.lower() in COMPRESSIONS else train
    if plain.suffix.lower() in _TASK_OF_SUFFIX:
        return _TASK_OF_SUFFIX[plain.suffix.lower()]
    raise UserError(
        f"{folder}: what kind of task is {train.name}? Write a {TASK_FILE_NAME} there, such as 'task: token', or name "
        f"the folder as its preset ({', '.join(PRESETS)})."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
