"""A task's files -> what a fine-tuning run trains on and is scored on, with fingerprints of the files."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from spanelectra.atomic_files import file_digest
from spanelectra.errors import UserError
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.task import Baseline, Feature, Task
from spanelectra.finetuning.words_alone import words_alone

# With fewer examples the standard error of an accuracy near a half is above 7 points.
FEWEST_TO_SCORE = 50
# The part of a file's examples above which it matters that they are trained on, too.
_MANY_SHARED = 0.02


@dataclass(frozen=True)
class Split:
    """What a model is scored on.

    Attributes:
        examples: as the task reads them.
        features: without labels, for prediction.
        baseline: see :meth:`Task.baseline`, with what was trained on.
        words_alone: what the words alone tell, scored likewise; ``None`` where they tell nothing.
    """

    examples: Sequence[Any]
    features: Sequence[Feature]
    baseline: Baseline
    words_alone: Baseline | None


@dataclass(frozen=True)
class TaskData:
    """All that a run reads.

    Attributes:
        train_features: with labels.
        splits: dev, and where there is one test.
        described: train, dev and test -> file, SHA-256, and numbers of examples, features and tokens; of dev and test
            also ``also_in_train``, how many examples have an input that is trained on, too.
    """

    train_features: Sequence[Feature]
    splits: dict[str, Split]
    described: dict[str, dict[str, Any]]

    def digests(self) -> dict[str, str]:
        """Split -> SHA-256 of its file."""
        return {name: entry["sha256"] for name, entry in self.described.items()}


def read_task_data(task: Task, settings: FineTuningArguments, tokenizer: PreTrainedTokenizerBase) -> TaskData:
    """Read, check and tokenise the files that settings name.

    Args:
        task: learns its labels.
        settings: resolved, and fitted to the encoder.
        tokenizer: the encoder's.

    Raises:
        UserError: for files that do not fit.
    """
    assert settings.max_length is not None
    examples = read_splits(task, settings)
    train = examples.pop("train")
    train_features = task.features(train, tokenizer, settings.max_length, training=True)
    splits = {
        name: Split(
            found,
            task.features(found, tokenizer, settings.max_length, training=False),
            task.baseline(train, found),
            words_alone(task, train, found),
        )
        for name, found in examples.items()
    }
    described = {"train": _describe(settings.train, train, train_features)}
    files = {"dev": settings.train if settings.dev_fraction else settings.dev, "test": settings.test or ""}
    for name, split in splits.items():
        described[name] = _describe(files[name], split.examples, split.features)
        described[name]["also_in_train"] = task.shared_with_training(train, split.examples)
    return TaskData(train_features, splits, described)


def read_splits(task: Task, settings: FineTuningArguments) -> dict[str, list[Any]]:
    """Split (train, dev and where there is one test) -> its examples; the task has learned its labels then.

    Where ``dev`` is a fraction, that much of the training file is held out, drawn by the first seed; with an example
    goes all that has its input: a context stays on one side with all its questions. Labels are learned before
    ``max_train_examples`` are drawn: a rare one that is not among them is no mistake in another file. The task remarks
    on what is scored though it is trained on, too.

    Raises:
        UserError: for files that do not fit.
    """
    train = task.read(settings.train)
    fraction = settings.dev_fraction
    if fraction is None:
        dev, dev_path = task.read(settings.dev), settings.dev
    else:
        examples_in_file = len(train)
        dev, train = _hold_out(task, train, max(1, round(fraction * len(train))), settings.seed)
        if not train:
            raise UserError(
                f"{settings.train} has {examples_in_file} example(s): dev {settings.dev} leaves none to train on. "
                "(What has the same text or context is held out together.)"
            )
        dev_path = settings.train
    task.fit(train)
    try:
        task.check(dev, dev_path)
    except UserError:
        if fraction is None:
            raise
        # all examples of a label were held out
        task.fit([*train, *dev])
    examples = {"train": train, "dev": dev}
    if settings.max_train_examples is not None and settings.max_train_examples < len(train):
        examples["train"], _ = _draw(train, settings.max_train_examples, settings.seed)
        task.check(examples["train"], f"{settings.train} ({settings.max_train_examples:,} {task.unit} drawn)")
    if settings.test:
        examples["test"] = task.read(settings.test)
        task.check(examples["test"], settings.test)
    paths = {"dev": dev_path, "test": settings.test or ""}
    _remark_on_leaks(task, examples, paths)
    for name, path in paths.items():
        if 0 < len(examples.get(name, ())) < FEWEST_TO_SCORE:
            place = f"held out of {path}" if name == "dev" and fraction is not None else path
            task.remark(
                f"{name} has {len(examples[name])} {task.unit} ({place}): a score of so few says little of others."
            )
    return examples


def _remark_on_leaks(task: Task, examples: dict[str, list[Any]], paths: dict[str, str]) -> None:
    """One remark on inputs of dev and test that are trained on, too."""
    counts = {
        name: task.shared_with_training(examples["train"], examples[name]) for name in examples if name != "train"
    }
    if any(counts.values()):
        parts = [
            f"{count:,} of {len(examples[name]):,} {task.unit} of {paths[name]}"
            for name, count in counts.items()
            if count
        ]
        many = any(count > _MANY_SHARED * len(examples[name]) for name, count in counts.items())
        means = (
            "scores tell how well it is remembered, and less about new text"
            if many
            else "they can change a score by no more than their share"
        )
        task.remark(f"{' and '.join(parts)} {task.standing} in the training data, too: {means}.")


def _hold_out(task: Task, examples: list[Any], count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """``count`` examples drawn at random with whatever shares their input, and the others; both in their order."""
    of_input: dict[Hashable, list[int]] = {}
    keys = [task.input_of(example) or index for index, example in enumerate(examples)]
    for index, key in enumerate(keys):
        of_input.setdefault(key, []).append(index)
    held: set[int] = set()
    for index in np.random.default_rng(seed).permutation(len(examples)).tolist():
        together = of_input[keys[index]]
        # what is too many at once stays in training: half of a file may be one empty answer
        if index not in held and len(held) + len(together) <= count:
            held.update(together)
    if not held:
        held.update(sorted(of_input.values(), key=len)[0])
    dev = [example for index, example in enumerate(examples) if index in held]
    return dev, [example for index, example in enumerate(examples) if index not in held]


def _draw(examples: list[Any], count: int, seed: int) -> tuple[list[Any], list[Any]]:
    """``count`` examples drawn at random, and the others; both in their order."""
    drawn = set(np.random.default_rng(seed).permutation(len(examples))[:count].tolist())
    chosen = [example for index, example in enumerate(examples) if index in drawn]
    return chosen, [example for index, example in enumerate(examples) if index not in drawn]


def _describe(path: str, examples: Sequence[Any], features: Sequence[Feature]) -> dict[str, Any]:
    return {
        "file": Path(path).name,
        "sha256": file_digest(Path(path)),
        "examples": len(examples),
        "features": len(features),
        "tokens": sum(len(feature["input_ids"]) for feature in features),
    }
