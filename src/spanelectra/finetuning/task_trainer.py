"""transformers' Trainer with layer-wise learning rates, batches of similar length, and the best state on dev kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from spanelectra.callbacks import TrainingBar, TrainingDiverged
from spanelectra.console import say
from spanelectra.environment import has_bfloat16_units
from spanelectra.finetuning.fine_tuning_args import FineTuningArguments
from spanelectra.finetuning.inference import model_inputs, predict_logits
from spanelectra.finetuning.layerwise_learning_rates import layerwise_groups
from spanelectra.finetuning.task import Feature, Logits

Score = Callable[[Sequence[Logits]], dict[str, float]]

_LEARNING_RATES = ((192, 1e-3), (256, 3e-4), (512, 1e-4))
_LABELS = ("labels", "start_positions", "end_positions")


def default_learning_rate(hidden_size: int) -> float:
    """Peak rate by width: the wider, the smaller (ELECTRA, table 7: 3e-4 for Small, 1e-4 for Base; up to 192 measured,
    docs/results.md, "The peak rate of fine-tuning").
    """
    return next((rate for width, rate in _LEARNING_RATES if hidden_size <= width), 5e-5)


def peak_learning_rate(settings: FineTuningArguments, hidden_size: int) -> float:
    """The one that is set, or else that of the width."""
    return settings.learning_rate or default_learning_rate(hidden_size)


def use_bfloat16(settings: FineTuningArguments) -> bool:
    """Whether to train under bfloat16 autocast."""
    return settings.bf16 == "true" or (settings.bf16 == "auto" and has_bfloat16_units())


class BestState(TrainerCallback):
    """Keeps, in memory, the weights that scored best on dev; stops when they do no more for too long.

    Attributes:
        score: the best so far.
        step: its optimiser step.
        history: an entry for every evaluation: step, epoch, mean training loss since the last one, and dev's scores.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric = metric
        self.patience = patience
        self.score = -math.inf
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self._weights: dict[str, torch.Tensor] = {}
        self._without_gain = 0

    def consider(self, model: PreTrainedModel, entry: dict[str, Any]) -> None:
        """Take note of an evaluation, and of the weights where it is the best."""
        self.history.append(entry)
        if entry["dev"][self.metric] > self.score:
            self.score, self.step, self._without_gain = entry["dev"][self.metric], entry["step"], 0
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        else:
            self._without_gain += 1

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.patience and self._without_gain >= self.patience:
            control.should_training_stop = True

    def restore(self, model: PreTrainedModel) -> None:
        """Put the best weights back."""
        model.load_state_dict(self._weights)


class LossWatch(TrainerCallback):
    """Ends a run whose loss is no longer a number: what follows would be trained silently on rubbish."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("loss", "grad_norm"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{name} is {value} at step {state.global_step} of seed {args.seed}: lower --learning_rate, raise "
                    "--warmup_ratio, or pass --bf16 false."
                )


class FineTuningTrainer(Trainer):
    """Trains a stock task model on features; dev is scored by the task.

    Args:
        model: a stock task model.
        tokenizer: of the features.
        settings: resolved settings.
        train_features: with labels.
        dev_features: without.
        collate: features to a padded batch.
        score_dev: logits of the dev features to metric -> value.
        metric: the one that the best weights are chosen by.
        seed: of the order and of dropout.
        out_dir: where transformers would write; nothing is written there.
        console: where lines and the bar go.
    """

    model: PreTrainedModel
    optimizer: Any
    control: Any

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: FineTuningArguments,
        train_features: Sequence[Feature],
        dev_features: Sequence[Feature],
        collate: Any,
        score_dev: Score,
        metric: str,
        seed: int,
        out_dir: str,
        console: Console,
    ) -> None:
        self.settings = settings
        self.dev_features = dev_features
        self.score_dev = score_dev
        self.best = BestState(metric, settings.patience)
        self.console = console
        self._losses_since: list[float] = []
        assert settings.epochs is not None
        names = model_inputs(model) & {*tokenizer.model_input_names, *_LABELS}
        features = [{name: feature[name] for name in sorted(names) if name in feature} for feature in train_features]
        steps_per_epoch = math.ceil(len(features) / settings.batch_size)
        max_steps = math.ceil(steps_per_epoch * settings.epochs)
        self.learning_rate = peak_learning_rate(settings, model.config.hidden_size)
        has_gpu = torch.cuda.is_available()
        args = TrainingArguments(
            output_dir=out_dir,
            max_steps=max_steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=self.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=math.ceil(settings.warmup_ratio * max_steps),
            max_grad_norm=settings.max_grad_norm,
            # every step, so that none goes on from a loss that is no number, and means are of all steps
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            eval_strategy="steps",
            eval_steps=max(1, steps_per_epoch // settings.evaluations_per_epoch),
            save_strategy="no",
            bf16=use_bfloat16(settings),
            use_cpu=not has_gpu,
            seed=seed,
            data_seed=seed,
            train_sampling_strategy="group_by_length",
            dataloader_pin_memory=has_gpu,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
        )
        if args.n_gpu > 1:
            args._n_gpu = 1
        super().__init__(
            model=model,
            args=args,
            train_dataset=features,
            eval_dataset=list(dev_features),
            data_collator=collate,
            processing_class=tokenizer,
            callbacks=[self.best, TrainingBar(console, f"seed {seed}"), LossWatch()],
        )
        self.remove_callback(PrinterCallback)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate for each layer."""
        if self.optimizer is None:
            groups = layerwise_groups(
                self.model,
                learning_rate=self.learning_rate,
                decay=self.settings.layerwise_lr_decay,
                weight_decay=self.settings.weight_decay,
            )
            self.optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        return self.optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Remember the training loss for the next line about dev."""
        if "loss" in logs:
            self._losses_since.append(logs["loss"])
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score dev, keep the weights if they are the best, say so in a line."""
        was_training = self.model.training
        scores = self.score_dev(self.logits(self.dev_features))
        self.model.train(was_training)
        losses, self._losses_since = self._losses_since, []
        entry: dict[str, Any] = {
            "step": self.state.global_step,
            "epoch": round(float(self.state.epoch or 0.0), 3),
            "loss": sum(losses) / len(losses) if losses else None,
            "dev": scores,
        }
        self.best.consider(self.model, entry)
        loss = "" if entry["loss"] is None else f"  loss {entry['loss']:.4f}"
        mark = "  best" if self.best.step == entry["step"] else ""
        # what the best one is chosen by comes first
        names = list(dict.fromkeys([self.best.metric, *scores]))[:3]
        shown = "  ".join(f"{name} {scores[name]:.2f}" for name in names)
        say(self.console, f"  epoch {entry['epoch']:.2f}{loss}  dev {shown}{mark}")
        results = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, results)
        return results

    def logits(self, features: Sequence[Feature], *, bf16: bool | None = None) -> list[Logits]:
        """See :func:`~spanelectra.finetuning.inference.predict_logits`; in the precision of training by default."""
        return predict_logits(
            self.model,
            self.processing_class,
            features,
            self.settings.eval_batch_size,
            bf16=self.args.bf16 if bf16 is None else bf16,
        )

    def fit(self) -> None:
        """Train, with dev scored at the last step too, and take the best weights.

        Raises:
            TrainingDiverged: where loss or gradient is no number any more.
        """
        # whatever was drawn since the trainer was made
        set_seed(self.args.seed)
        self.train()
        if not self.best.history or self.best.history[-1]["step"] != self.state.global_step:
            self.evaluate()
        self.best.restore(self.model)
        # accelerate has put its autocast around `forward`, which no precision of ours would lift
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
