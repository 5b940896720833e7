"""SpanElectraTrainer: transformers' Trainer with our losses by name, our metrics, and checkpoints that are atomic."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from spanelectra.atomic_files import write_directory
from spanelectra.checkpointing import remove_old_checkpoints
from spanelectra.data.row_cutting import RowCutting
from spanelectra.data.training_rows import RowBatch, RowsInOrder, ShuffledRows
from spanelectra.errors import UserError, reason_of
from spanelectra.flops import measure_peak_flops, row_training_flops
from spanelectra.metrics import PretrainingMetrics
from spanelectra.modeling_spanelectra import WEIGHTS_NAME, SpanElectraForPreTraining, SpanElectraOutput
from spanelectra.numerical_safety import (
    NonFiniteSteps,
    break_gradient_of_broken_loss,
    nonfinite_counts,
    set_learning_rates,
)
from spanelectra.optimization import build_optimizer
from spanelectra.run_flops import row_flops_over_run
from spanelectra.several_processes import mean_over_processes, wait_for_all
from spanelectra.training_args import PretrainingArguments

# Heads' verdicts are gathered every so many micro-batches, for they want all logits to be read once more.
METRICS_INTERVAL = 5
# Steps that the time left is told from.
STEPS_SAMPLED = 1000


def _scored(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """What :meth:`PretrainingMetrics.update` wants to know of a batch."""
    return inputs.get("masked_positions"), inputs.get("labels"), inputs.get("input_ids")


class SpanElectraTrainer(Trainer):
    """Trains a :class:`SpanElectraForPreTraining` on the rows of a run.

    Args:
        model: the model.
        args: transformers' arguments (budget, schedule, devices).
        settings: the run's settings (loss weights, optimiser, masking).
        train_dataset: which rows every step reads.
        collate: from a row batch of ``train_dataset`` to the model's inputs.
        evaluation_rows: number of held-out rows; 0 for none.
        collate_evaluation: the same for held-out rows.
        length: tokens in a row.
        scored: tokens of a row, or of a part of one -> its places for masked tokens.
        unigram_costs: (vocabulary,) nats of guessing each token by its frequency; ``None`` if unknown.
        cutting: how rows become shorter ones on the way; ``None`` for whole rows.
        **kwargs: for ``Trainer``.
    """

    model: SpanElectraForPreTraining
    optimizer: Any
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        model: SpanElectraForPreTraining,
        args: TrainingArguments,
        settings: PretrainingArguments,
        train_dataset: ShuffledRows,
        collate: Callable[[RowBatch], dict[str, torch.Tensor]],
        evaluation_rows: int,
        collate_evaluation: Callable[[RowBatch], dict[str, torch.Tensor]] | None,
        length: int,
        scored: Callable[[int], int],
        unigram_costs: NDArray[np.float32] | None = None,
        cutting: RowCutting | None = None,
        **kwargs: Any,
    ) -> None:
        self.settings = settings
        self.scored = scored
        self.sizes, self.rows = train_dataset.sizes, train_dataset.num_rows
        self.cutting = cutting
        self._batch_changes = bool(np.ptp(self.sizes.batch_rows))
        self._length_changes = cutting is not None and len({tokens for _, tokens in cutting.sequence_length.points}) > 1
        self.collate_evaluation = collate_evaluation
        self.length = length
        self.temperature_schedule = settings.temperature_schedule()
        self.train_metrics = PretrainingMetrics(training=True)
        self._micro_batches = 0
        self._weights_of: tuple[int, dict[str, float]] = (-1, {})
        self._known_row_flops: dict[tuple[int, int, tuple[str, ...]], float] = {}
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=RowsInOrder(evaluation_rows),
            data_collator=collate,
            **kwargs,
        )
        self.remove_callback(PrinterCallback)
        self.unigram_costs = None if unigram_costs is None else torch.from_numpy(unigram_costs).to(args.device)
        self.nonfinite_steps = NonFiniteSteps(args.device)
        self.peak_flops = self._measure_peak_flops()
        self._window_start: tuple[float, int, float] | None = None
        self._seconds_outside_training = 0.0
        self._session_start = time.perf_counter()
        self.seconds_before_session = 0.0

    def _measure_peak_flops(self) -> float:
        """FLOP/s that the devices of all processes can reach in this run's arithmetic."""
        dtype = torch.bfloat16 if self.args.bf16 else torch.float32
        return measure_peak_flops(self.args.device, dtype) * self.args.world_size

    def _progress(self, step: int) -> float:
        """From 0 at the start of the run to 1 at its end."""
        return step / max(1, self.args.max_steps)

    def loss_weights(self, step: int) -> dict[str, float]:
        """Objective -> weight at an optimiser step; the discriminator's are 0 during the generator's head start."""
        if self._weights_of[0] != step:
            weights = self.settings.loss_weights_at(np.asarray(self._progress(step)))
            self._weights_of = (step, {name: float(weight) for name, weight in weights.items()})
        return self._weights_of[1]

    def tokens_before(self, step: int) -> int:
        """Tokens that the run has read before an optimiser step."""
        return self.sizes.rows_before(step) * self.length

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Weighted sum of the losses of one micro-batch; the losses themselves are remembered by name."""
        step = self.state.global_step
        temperature = self.temperature_schedule(self._progress(step))
        output: SpanElectraOutput = model(
            **inputs, loss_weights=self.loss_weights(step), sampling_temperature=temperature
        )
        self.train_metrics.update_losses(output)
        if self._micro_batches % METRICS_INTERVAL == 0:
            self.train_metrics.update(output, *_scored(inputs))
        self._micro_batches += 1
        loss = break_gradient_of_broken_loss(output.loss)
        return (loss, output) if return_outputs else loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The gradient's norm; a step for which it is not a number is left out by the optimiser."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # the optimiser is inside accelerate's wrapper
        getattr(self.optimizer, "optimizer", self.optimizer).found_inf = self.nonfinite_steps.update(norm)
        return norm

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW or Muon as the settings say."""
        if self.optimizer is None:
            settings = self.settings
            self.optimizer = build_optimizer(
                self.model if model is None else model,
                optimizer=settings.optimizer,
                learning_rate=settings.learning_rate,
                muon_learning_rate=settings.muon_learning_rate,
                weight_decay=settings.weight_decay,
                betas=(settings.adam_beta1, settings.adam_beta2),
                eps=settings.adam_epsilon,
            )
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """FLOPs of training on this micro-batch, generator included."""
        rows, length = inputs["original_ids"].shape
        count = inputs["masked_positions"].shape[1]
        weights = self.loss_weights(self.state.global_step)
        kind = (length, count, tuple(name for name in weights if weights[name]))
        if kind not in self._known_row_flops:
            self._known_row_flops[kind] = row_training_flops(self.model, *kind)
        return rows * self._known_row_flops[kind]

    def _remaining_flops(self) -> float:
        """FLOPs of the steps that are left, which may cost more or less than those before: a sample of long runs'."""
        left = self.args.max_steps - self.state.global_step
        if left == 0:
            return 0.0
        steps = self.state.global_step + np.arange(min(left, STEPS_SAMPLED)) * left // min(left, STEPS_SAMPLED)
        progress = steps / max(1, self.args.max_steps)
        row_flops = row_flops_over_run(self.model, self.settings, self.length, self.cutting, self.scored, progress)
        rows = self.sizes.batch_rows[steps] * self.sizes.micro_batches
        return float(left * (rows * row_flops).mean())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add metrics and throughput of the steps since the last entry, and how often the data has been read."""
        # to transformers a run is one epoch, for its rows are one long sequence
        self.state.epoch = self.sizes.rows_before(self.state.global_step) / self.rows
        if "loss" in logs:
            # the loss, too: of the steps that were numbers
            logs.update(self._mean_over_processes(self.train_metrics.compute()))
            self.train_metrics.reset()
            logs["nonfinite_steps"] = self.nonfinite_steps.total
            if self.nonfinite_steps.in_a_row:
                logs["nonfinite_steps_in_a_row"] = self.nonfinite_steps.in_a_row
            logs.update(self._changing_sizes())
            logs.update(self._throughput())
        super().log(logs, start_time)

    def _changing_sizes(self) -> dict[str, int]:
        """What the last step read, where a schedule changes it on the way."""
        step, sizes = max(0, self.state.global_step - 1), {}
        if self._batch_changes:
            sizes["per_device_train_batch_size"] = int(self.sizes.batch_rows[step])
        if self.cutting is not None and self._length_changes:
            sizes["sequence_length"] = int(self.cutting.lengths(np.asarray(self._progress(step))))
        return sizes

    def _mean_over_processes(self, metrics: dict[str, float]) -> dict[str, float]:
        """Losses as means over the processes where they are numbers; what heads say is the first process's."""
        names = sorted(name for name in metrics if name == "loss" or name.endswith("_loss"))
        means = mean_over_processes([metrics[name] for name in names], self.args.device)
        return {**metrics, **dict(zip(names, means, strict=True))}

    def wall_seconds(self) -> float:
        """Seconds that the run has taken, over all its sessions."""
        return self.seconds_before_session + time.perf_counter() - self._session_start

    def _throughput(self) -> dict[str, float]:
        """Tokens/s, utilisation and time left, without the time that evaluations and checkpoints took."""
        now, step, flops = time.perf_counter(), self.state.global_step, float(self.state.total_flos)
        values = {"tokens": float(self.tokens_before(step)), "wall_seconds": self.wall_seconds()}
        if self._window_start is not None and step > self._window_start[1]:
            start, first_step, first_flops = self._window_start
            seconds = now - start - self._seconds_outside_training
            values["tokens_per_second"] = (self.tokens_before(step) - self.tokens_before(first_step)) / seconds
            rate = (flops - first_flops) / seconds
            if rate > self.peak_flops:
                # what was measured on a busy machine is no peak
                self.peak_flops = max(rate, self._measure_peak_flops())
            values["model_flops_utilisation"], values["peak_flops"] = rate / self.peak_flops, self.peak_flops
            if flops > first_flops:
                values["seconds_left"] = self._remaining_flops() * seconds / (flops - first_flops)
        # only now, for measuring a peak takes time
        self._window_start, self._seconds_outside_training = (time.perf_counter(), step, flops), 0.0
        return values

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch, its dropout seeded by (seed, number of the micro-batch in the run) like every other draw.

        So neither loader processes nor resuming, on however many processes, change anything, and no generator's state
        needs to be kept.
        """
        if self._window_start is None:
            # the first one starts the clock, so that start-up does not count as slow training
            self._window_start = (time.perf_counter(), self.state.global_step, float(self.state.total_flos))
            self._micro_batches = self.state.global_step * self.args.gradient_accumulation_steps
        key = (self.args.seed, 0, self._micro_batches * self.args.world_size + self.args.process_index)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
        return super().training_step(*args, **kwargs)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics on the held-out rows, each masked in its one fixed way.

        Every process evaluates all of them: they are few, and so nothing needs to be gathered.
        """
        dataset = self.eval_dataset
        if self.collate_evaluation is None or not isinstance(dataset, RowsInOrder) or len(dataset) == 0:
            return {}
        start = time.perf_counter()
        model = self.model
        was_training = model.training
        model.eval()
        metrics = PretrainingMetrics(unigram_costs=self.unigram_costs)
        size = self.args.per_device_eval_batch_size
        weights = self.loss_weights(self.args.max_steps)
        for first in range(0, len(dataset), size):
            batch = dataset.__getitems__(range(first, min(first + size, len(dataset))))
            inputs = self._prepare_inputs(self.collate_evaluation(batch))
            with self.accelerator.autocast():
                output = model(**inputs, loss_weights=weights)
            metrics.update_losses(output)
            metrics.update(output, *_scored(inputs))
        model.train(was_training)
        results = {f"{metric_key_prefix}_{name}": value for name, value in metrics.compute().items()}
        results["tokens"] = float(self.tokens_before(self.state.global_step))
        self.log(dict(results))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, results)
        self._seconds_outside_training += time.perf_counter() - start
        return results

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write model, optimiser, schedule and trainer state beside, then rename: whole or not at all."""
        start = time.perf_counter()
        run = Path(self.args.output_dir)
        checkpoint = run / f"checkpoint-{self.state.global_step}"
        self.store_flos()
        if self.args.should_save:
            with write_directory(checkpoint, replace=True) as partial:
                self.model.save_pretrained(partial)
                for name, part in (("optimizer.pt", self.optimizer), ("scheduler.pt", self.lr_scheduler)):
                    # into a file of Python's, whose errors tell a full disk
                    with open(partial / name, "wb") as stream:
                        torch.save(part.state_dict(), stream)
                self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
            losses = {line["step"]: line["eval_loss"] for line in self.state.log_history if "eval_loss" in line}
            remove_old_checkpoints(run, self.settings.save_total_limit, losses)
        # the others would wait in the next step, less patiently
        wait_for_all()
        self._seconds_outside_training += time.perf_counter() - start

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; learning rates are the settings' even where the checkpoint was written at higher ones."""
        wanted = list(self.lr_scheduler.base_lrs)
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (MemoryError, torch.OutOfMemoryError):
            # that is not the checkpoint's fault
            raise
        except Exception as error:  # torch's reader of pickles raises whatever damage leads it to
            reason = reason_of(error)
            raise UserError(
                f"{checkpoint}: its optimiser or schedule does not open ({reason}); delete this checkpoint, to go on "
                "from the one before."
            ) from error
        self.nonfinite_steps = NonFiniteSteps(self.args.device, *nonfinite_counts(self.state.log_history))
        if self.lr_scheduler.base_lrs != wanted:
            set_learning_rates(self.lr_scheduler, self.optimizer, wanted)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load the weights strictly: a key that does not match is an error, not a warning."""
        self.model.load_weights(Path(resume_from_checkpoint) / WEIGHTS_NAME)
