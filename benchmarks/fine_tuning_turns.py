"""Turns of fine-tuning: so many steps of a real `FineTuningTrainer`, batches padded in one way or another.

Used by `fine_tuning_speed.py`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from transformers import AutoModel, PreTrainedTokenizerBase, TrainerCallback

from spanelectra.data.tokenization import load_tokenizer, vocab
from spanelectra.encoder_families import make_encoder_config
from spanelectra.finetuning import inference
from spanelectra.finetuning.encoder_source import EncoderSource
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.task import Feature, Task
from spanelectra.finetuning.task_data import TaskData, read_task_data
from spanelectra.finetuning.task_directory import make_task
from spanelectra.finetuning.task_models import build_task_model
from spanelectra.finetuning.task_trainer import FineTuningTrainer

GROUPED, PADDED = "as `finetune` does", "padded to the maximum"
RANDOM = "random order, padded to the longest (transformers' default)"
EIGHT_AT_ONCE = "padded to the maximum, 8 at once"


class CountingCollator:
    """A task's own collator, which counts the tokens it is given and the places that they take with padding.

    Args:
        collate: the task's.
        to_length: pad every row to this; ``None`` leaves it to the collator, which takes the longest of a batch.
    """

    def __init__(self, collate: Any, to_length: int | None) -> None:
        if to_length is not None:
            collate.padding, collate.max_length = "max_length", to_length
        self.collate = collate
        self.tokens: list[int] = []
        self.places: list[int] = []

    def __call__(self, features: list[Feature]) -> Any:
        batch = self.collate(features)
        self.tokens.append(sum(len(feature["input_ids"]) for feature in features))
        self.places.append(batch["input_ids"].numel())
        return batch


class Stopwatch(TrainerCallback):
    """Takes the time of the first ``steps`` steps and ends the training after them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.started = 0.0
        self.seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = self.started or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.steps:
            self.seconds = time.perf_counter() - self.started
            control.should_training_stop = True


class Bench:
    """A task with its data, and an encoder of the tiny shape.

    Args:
        name: sst2 or conll2003.
        files: split -> file.
        work: for the vocabulary.
    """

    def __init__(self, name: str, files: dict[str, Path], work: Path) -> None:
        self.settings = FineTuningArguments(
            preset=name,
            model="fresh",
            random_weights=True,
            train=str(files["train"]),
            dev=str(files["dev"]),
            out_dir=str(work / "out"),
            quiet=True,
        ).resolved()
        assert self.settings.max_length is not None
        self.length = self.settings.max_length
        self.task: Task = make_task(self.settings)
        tokenizer = make_tokenizer(work / name, self.task, files["train"])
        self.data: TaskData = read_task_data(self.task, self.settings, tokenizer)
        token_ids = {token: getattr(tokenizer, token) for token in ("pad_token_id", "cls_token_id", "sep_token_id")}
        config = make_encoder_config(
            "electra",
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=512,
            embedding_size=128,
            max_position_embeddings=512,
            dropout=0.1,
            token_ids=token_ids,
        )
        self.source = EncoderSource("electra 128 x 4, fresh", AutoModel.from_config(config), tokenizer)
        # as transformers' sampler has it: 50 batches, or a fourth of the file
        batches = len(self.data.train_features) // (4 * self.settings.batch_size)
        self.steps = max(1, min(batches, 50))

    def trainer(self, collate: CountingCollator, seed: int) -> FineTuningTrainer:
        """The trainer that `finetune` would make; it would score dev only after the last of our steps."""
        return FineTuningTrainer(
            model=build_task_model(self.source, self.task, self.settings, seed),
            tokenizer=self.source.tokenizer,
            settings=self.settings,
            train_features=self.data.train_features,
            dev_features=[],
            collate=collate,
            score_dev=lambda logits: {},
            metric=self.task.metric,
            seed=seed,
            out_dir=self.settings.out_dir,
            console=Console(quiet=True),
        )

    def ordering(self, way: str, seed: int) -> float:
        """Seconds a step that the order of an epoch takes, sorting by length included; it is made before any step.

        Who pads to the maximum needs no sorting, and is charged for a random order.
        """
        trainer = self.trainer(CountingCollator(self.task.collator(self.source.tokenizer), None), seed)
        if way != GROUPED:
            trainer.args.train_sampling_strategy = "random"
        start = time.perf_counter()
        sampler = trainer._get_train_sampler()
        assert sampler is not None
        count = len(list(sampler))
        return (time.perf_counter() - start) / math.ceil(count / self.settings.batch_size)

    def train(self, way: str, seed: int, steps: int) -> tuple[float, CountingCollator]:
        """Seconds of the first steps of a run, without what ordering took, and what its batches held."""
        collator = self.task.collator(self.source.tokenizer)
        collate = CountingCollator(collator, self.length if way == PADDED else None)
        trainer, watch = self.trainer(collate, seed), Stopwatch(steps)
        if way == RANDOM:
            trainer.args.train_sampling_strategy = "random"
        trainer.add_callback(watch)
        torch.manual_seed(seed)
        trainer.train()
        return watch.seconds, collate


def make_tokenizer(directory: Path, task: Task, train: Path) -> PreTrainedTokenizerBase:
    """A WordPiece vocabulary of the training file's texts, made once."""
    if not (directory / "tokenizer").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        inputs: list[Any] = [task.input_of(example) or () for example in task.read(str(train))]
        texts = [" ".join(filter(None, parts)) for parts in inputs]
        (directory / "text.txt").write_text("\n".join(texts), encoding="utf-8")
        vocab(str(directory / "text.txt"), str(directory / "tokenizer"), "BERT", 10_000, quiet=True)
    return load_tokenizer(directory / "tokenizer")


@contextlib.contextmanager
def padded_batches(length: int, size: int) -> Iterator[None]:
    """`predict_logits` with batches in the file's order, all padded to ``length``."""

    def batches(
        tokenizer: PreTrainedTokenizerBase, features: Sequence[Feature], names: Sequence[str], batch_size: int
    ) -> Iterator[tuple[list[int], Any]]:
        for first in range(0, len(features), size):
            chosen = list(range(first, min(first + size, len(features))))
            inputs = [{name: features[index][name] for name in names if name in features[index]} for index in chosen]
            yield (
                chosen,
                tokenizer.pad(
                    inputs, padding="max_length", max_length=length, padding_side="right", return_tensors="pt"
                ),
            )

    with mock.patch.object(inference, "length_batches", batches):
        yield
