"""Every setting of fine-tuning, in groups, and the presets of well-known tasks.

Like `argument_groups.py` this file imports neither torch nor transformers, so that asking for help is quick.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from spanelectra.errors import UserError, did_you_mean
from spanelectra.recipe_files import check_ranges, checked_value

# Name -> settings of a task as its authors publish it. A setting beside --preset that is not its default wins.
PRESETS: dict[str, dict[str, Any]] = {
    "sst2": {"task": "classification", "metric": "accuracy"},
    "cola": {"task": "classification", "text_column": "3", "label_column": "1", "header": "no", "metric": "matthews"},
    "mrpc": {
        "task": "classification",
        "text_column": "#1 String",
        "text_pair_column": "#2 String",
        "label_column": "Quality",
        "header": "yes",
        "metric": "f1",
    },
    "stsb": {
        "task": "classification",
        "text_column": "sentence1",
        "text_pair_column": "sentence2",
        "label_column": "score",
        "header": "yes",
        "regression": True,
        "metric": "spearman",
    },
    "conll2003": {"task": "token", "text_column": "0", "label_column": "3", "metric": "f1"},
    "squad": {"task": "qa", "metric": "f1"},
    "squad2": {"task": "qa", "metric": "f1"},
}
METRICS = {
    "classification": ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman", "r2"),
    "token": ("f1", "precision", "recall", "accuracy"),
    "qa": ("f1", "exact_match"),
}
_DEFAULT_METRIC = {"classification": "accuracy", "token": "f1", "qa": "f1"}
_DEFAULT_EPOCHS = {"classification": 4.0, "token": 4.0, "qa": 3.0}
_DEFAULT_LENGTH = {"classification": 128, "token": 128, "qa": 384}
# Settings that only some tasks read.
READ_BY = {
    "text_column": ("classification", "token"),
    "label_column": ("classification", "token"),
    "text_pair_column": ("classification",),
    "header": ("classification",),
    "regression": ("classification",),
    "doc_stride": ("token", "qa"),
    "max_answer_length": ("qa",),
    "n_best": ("qa",),
}
_PATHS = ("model", "train", "dev", "test", "out_dir")


@dataclass
class TaskArguments:
    """What to learn, from which files.

    A column is a name from the header, or its number from 0 (-1 is the last).

    Args:
        task: classification (of texts or pairs, or regression), token (CoNLL column files) or qa (SQuAD's layout).
        preset: settings of a well-known task: sst2, cola, mrpc, stsb, conll2003, squad or squad2; what is set beside it
            and is not the default wins.
        model: directory (or Hub name) of any Hugging Face encoder, or of a run or an export of this package.
        train: training file: csv, tsv, jsonl or parquet; CoNLL columns for token; SQuAD JSON for qa.
        dev: file on which checkpoint and thresholds are chosen, or the fraction of the training file to hold out for
            that, such as 0.1.
        test: file that is scored once, at the end.
        out_dir: directory to write.
        text_column: column of the text; by default the first (or the one named sentence or text).
        text_pair_column: column of the second text of a pair.
        label_column: column of the label; by default the last (or the one named label).
        max_train_examples: train on so many, drawn by the first seed; by default on all.
        encoding: of the files, but for parquet; a name that Python knows, such as latin-1.
        header: whether a csv or tsv file's first line names its columns; auto looks whether it says what names say.
        regression: labels are numbers to predict.
        metric: score by which the best checkpoint is chosen; by default accuracy; of
            --regression pearson, of entities and qa f1. Where tags are no entities, f1 stands for accuracy.
        max_length: longest input in tokens, at most what the encoder takes; longer ones are windowed (token, qa) or cut
            and counted (classification). By default 128, qa 384.
        doc_stride: tokens by which windows overlap, token and qa; by default a third of max_length.
        max_answer_length: longest answer in tokens, qa.
        n_best: answers kept for each question, qa.
    """

    task: Literal["classification", "token", "qa"] | None = None
    preset: str | None = None
    model: str = ""
    train: str = ""
    dev: str = ""
    test: str | None = None
    out_dir: str = ""
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    max_train_examples: int | None = None
    encoding: str = "utf-8"
    header: Literal["auto", "yes", "no"] = "auto"
    regression: bool = False
    metric: str | None = None
    max_length: int | None = None
    doc_stride: int | None = None
    max_answer_length: int = 30
    n_best: int = 20


@dataclass
class FineTuningArguments(TaskArguments):
    """All settings of a fine-tuning run.

    Args:
        learning_rate: peak; by default 1e-3 up to width 192, 3e-4 up to 256, 1e-4 up to 512, 5e-5 above.
        layerwise_lr_decay: each layer below the head learns at this times the rate of the one above it (ELECTRA,
            appendix A.2); 1 for none.
        epochs: passes over the training file; by default 4, qa 3.
        batch_size: examples a step.
        eval_batch_size: examples at once when nothing is learned.
        warmup_ratio: fraction of the steps that warm up; the rate then falls to 0 in a line.
        weight_decay: decoupled, not on biases and norms.
        dropout: dropout probability; by default the model's own.
        max_grad_norm: clip at this norm; 0 for none.
        evaluations_per_epoch: times that dev is scored an epoch.
        patience: stop after so many evaluations without a better score on dev; 0 for never.
        seed: the first seed; of the head's weights, of the order and of dropout.
        seeds: how many runs, with seeds seed, seed + 1 and so on.
        random_weights: keep the model's shape only, and start from fresh weights: the baseline of pre-training.
        bf16: bfloat16 autocast; auto where GPU or processor have matrix units for it.
        resume: go on with out_dir: seeds that are finished stay.
        overwrite: replace what is in out_dir.
        report: write report.html at the end: one page to look at.
        quiet: no progress, only errors.
    """

    learning_rate: float | None = None
    layerwise_lr_decay: float = 0.9
    epochs: float | None = None
    batch_size: int = 32
    eval_batch_size: int = 128
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    dropout: float | None = None
    max_grad_norm: float = 1.0
    evaluations_per_epoch: int = 1
    patience: int = 0
    seed: int = 0
    seeds: int = 1
    random_weights: bool = False
    bf16: Literal["auto", "true", "false"] = "auto"
    resume: bool = False
    overwrite: bool = False
    report: bool = True
    quiet: bool = False

    def resolved(self) -> FineTuningArguments:
        """A copy in which preset and defaults are filled in, every value of its setting's type.

        Raises:
            UserError: for a value of another type, out of range or at odds with another, and without a task.
        """
        kinds = get_type_hints(FineTuningArguments)
        preset = self._preset()
        given: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in preset and value == field.default:
                value = preset[field.name]
            given[field.name] = checked_value(value, kinds[field.name], field.name)
        settings = FineTuningArguments(**given)
        settings.preset = self.preset and self.preset.lower()
        if settings.task is None:
            raise UserError("task is missing: pass --task classification, token or qa, or a --preset.")
        for name in _PATHS:
            if (given[name] or "").startswith("~"):
                setattr(settings, name, str(Path(given[name]).expanduser()))
        settings._check_settings_of_tasks()
        filled = {
            "metric": "pearson" if settings.regression else _DEFAULT_METRIC[settings.task],
            "epochs": _DEFAULT_EPOCHS[settings.task],
            "max_length": _DEFAULT_LENGTH[settings.task],
        }
        for name, value in filled.items():
            if getattr(settings, name) is None:
                setattr(settings, name, value)
        if settings.doc_stride is None and settings.task in READ_BY["doc_stride"]:
            assert settings.max_length is not None
            settings.doc_stride = settings.max_length // 3
        settings._check_values()
        return settings

    def check(self) -> None:
        """Raise :class:`UserError` where resolved settings name no model, no files or no place to write."""
        for name in ("model", "train", "dev", "out_dir"):
            if not getattr(self, name):
                hint = " (a file, or the fraction of train to hold out, such as 0.1)" if name == "dev" else ""
                raise UserError(f"{name} is missing: pass --{name}{hint}.")

    def fitted_to(self, longest: int) -> FineTuningArguments:
        """A copy of resolved settings for an encoder that takes ``longest`` tokens at most."""
        assert self.max_length is not None
        if longest >= self.max_length:
            return self
        doc_stride = None if self.doc_stride is None else min(self.doc_stride, longest // 3)
        return dataclasses.replace(self, max_length=longest, doc_stride=doc_stride)

    def _preset(self) -> dict[str, Any]:
        if self.preset is None:
            return {}
        preset = PRESETS.get(self.preset.lower())
        if preset is None:
            raise UserError(
                f"unknown preset '{self.preset}'; there are {', '.join(PRESETS)}.{did_you_mean(self.preset, PRESETS)}"
            )
        if self.task not in (None, preset["task"]):
            raise UserError(f"preset {self.preset} is for --task {preset['task']}, not for --task {self.task}.")
        return preset

    @property
    def dev_fraction(self) -> float | None:
        """The fraction of the training file to hold out, where ``dev`` is one and no file.

        Raises:
            UserError: for a number that is no fraction.
        """
        try:
            fraction = float(self.dev)
        except ValueError:
            return None
        if Path(self.dev).exists():
            return None
        if not 0 < fraction < 1:
            raise UserError(f"dev {self.dev} is neither a file nor a fraction between 0 and 1.")
        return fraction

    def _check_settings_of_tasks(self) -> None:
        defaults = FineTuningArguments()
        for name, tasks in READ_BY.items():
            if self.task not in tasks and getattr(self, name) != getattr(defaults, name):
                raise UserError(f"{name} is for --task {' or '.join(tasks)}, not for --task {self.task}.")

    def _check_values(self) -> None:
        check_ranges(self)
        assert self.task is not None and self.max_length is not None
        choices = METRICS[self.task]
        if self.task == "classification":
            choices = choices[4:] if self.regression else choices[:4]
        if self.metric not in choices:
            raise UserError(
                f"metric '{self.metric}' does not fit the task; choose one of {', '.join(choices)}."
                f"{did_you_mean(str(self.metric), choices)}"
            )
        if self.doc_stride is not None and not 0 <= self.doc_stride < self.max_length:
            raise UserError(f"doc_stride must be from 0 to below max_length {self.max_length}, got {self.doc_stride}.")
        if self.seed + self.seeds > 2**32:
            raise UserError(f"seed {self.seed} leaves no room for {self.seeds} seeds below {2**32}.")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude one another: go on with out_dir, or replace it.")
        # a number that is no fraction is said to be so at once
        _ = self.dev_fraction
