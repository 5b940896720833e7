"""What a generator and a discriminator do, in numbers: gathered batch by batch, computed when they are logged."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_precision, binary_recall

from spanelectra.losses import IGNORE_INDEX
from spanelectra.modeling_spanelectra import SpanElectraOutput


def detection_metrics(prefix: str, logits: Tensor, replaced: Tensor) -> dict[str, float]:
    """Accuracy, the majority class's accuracy, precision, recall and AUC of replaced-token detection.

    Args:
        prefix: of the names.
        logits: (count,) float, above 0 for 'replaced'.
        replaced: (count,) bool.

    Returns:
        Name -> value. What is not defined is left out: precision where no token is judged replaced, recall where none
        is, AUC where only one class is present.
    """
    if replaced.numel() == 0:
        return {}
    labels, verdicts = replaced.long(), logits > 0
    # counted in whole numbers, so that a constant verdict's accuracy equals the majority's to the last bit
    count, positives = replaced.numel(), int(replaced.sum().item())
    metrics = {
        f"{prefix}_accuracy": int((verdicts == replaced).sum().item()) / count,
        f"{prefix}_majority_accuracy": max(positives, count - positives) / count,
    }
    if verdicts.any():
        metrics[f"{prefix}_precision"] = binary_precision(verdicts.long(), labels).item()
    if positives:
        metrics[f"{prefix}_recall"] = binary_recall(verdicts.long(), labels).item()
    if 0 < positives < count:
        # of ranks, for the sigmoid of a confident model's logits is 1.0 for many different ones
        distinct, rank = logits.float().unique(return_inverse=True)
        metrics[f"{prefix}_auc"] = binary_auroc(rank.double() / len(distinct), labels).item()
    return metrics


class PretrainingMetrics:
    """Gathers outputs of the model and computes named metrics from them.

    Losses are means over batches. ``generator_accuracy`` is the share of masked tokens whose best guess (by the MLM
    logits, by SBGO's for ``sbgo_accuracy``) is right, ``generator_entropy`` the mean entropy in nats of the MLM
    distribution, ``replaced_rate`` the share of masked tokens that sampling changed. ``ato_…`` are over all tokens,
    ``ato_masked_…`` over masked ones, ``sbpo_…`` over masked and decoy spans, ``sbpo_masked_…`` over masked spans.
    ``correction_accuracy`` is the share of replaced tokens whose original is the discriminator's best guess,
    ``correction_unigram_loss`` what guessing the same originals by frequency costs.

    Args:
        unigram_costs: (vocabulary,) nats of guessing each token by its frequency.
        training: leave out what is not a number, for such a step is skipped, and add to each loss the largest of its
            batches, as ``…_loss_max``.
    """

    def __init__(self, training: bool = False, unigram_costs: Tensor | None = None) -> None:
        self.training = training
        self.unigram_costs = unigram_costs
        self._losses: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._sums: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._detections: defaultdict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def update_losses(self, output: SpanElectraOutput) -> None:
        """Remember the losses of one batch, ``loss`` for their weighted sum; costs nothing on the device."""
        self._losses["loss"].append(output.loss.detach())
        for name, loss in output.losses.items():
            self._losses[f"{name}_loss"].append(loss.detach())

    @torch.no_grad()
    def update(
        self,
        output: SpanElectraOutput,
        masked_positions: Tensor | None,
        labels: Tensor | None,
        input_ids: Tensor | None = None,
    ) -> None:
        """Remember what heads said about one batch; reads all logits once.

        Args:
            output: of the model.
            masked_positions, labels: (batch, count) as the model got them.
            input_ids: (batch, length) as the generator got them; masked tokens that stand there unchanged are left
                out, for copying them is no guess.
        """
        scored = labels != IGNORE_INDEX if labels is not None else None
        if input_ids is not None and masked_positions is not None and labels is not None and scored is not None:
            scored = scored & (input_ids.gather(1, masked_positions) != labels)
        if labels is not None and scored is not None:
            for name, logits in (("generator", output.mlm_logits), ("sbgo", output.sbgo_logits)):
                if logits is not None:
                    self._sums[f"{name}_accuracy"].append((logits.argmax(-1) == labels)[scored].float())
            if output.mlm_logits is not None:
                log_probabilities = output.mlm_logits[scored].float().log_softmax(-1)
                self._sums["generator_entropy"].append(-(log_probabilities.exp() * log_probabilities).sum(-1))
        if output.replaced is not None and masked_positions is not None and scored is not None:
            masked_replaced = output.replaced.gather(1, masked_positions)[scored]
            self._sums["replaced_rate"].append(masked_replaced.float())
            if output.correction_logits is not None and labels is not None:
                # where the generator read the token itself, too: the discriminator does not
                corrected = output.replaced.gather(1, masked_positions) & (labels != IGNORE_INDEX)
                is_right = output.correction_logits.argmax(-1) == labels
                self._sums["correction_accuracy"].append(is_right[corrected].float())
                if self.unigram_costs is not None:
                    self._sums["correction_unigram_loss"].append(self.unigram_costs[labels[corrected]])
            if output.ato_logits is not None:
                self._detections["ato_masked"].append(
                    (output.ato_logits.gather(1, masked_positions)[scored], masked_replaced)
                )
        if output.ato_logits is not None and output.replaced is not None:
            self._detections["ato"].append((output.ato_logits.flatten(), output.replaced.flatten()))
        if output.sbpo_logits is not None and output.sbpo_replaced is not None and output.sbpo_scored is not None:
            every = output.sbpo_scored
            self._detections["sbpo"].append((output.sbpo_logits[every], output.sbpo_replaced[every]))
            if masked_positions is not None:
                count = masked_positions.shape[1]
                masked = every[:, :count]
                self._detections["sbpo_masked"].append(
                    (output.sbpo_logits[:, :count][masked], output.sbpo_replaced[:, :count][masked])
                )

    def compute(self) -> dict[str, float]:
        """Metrics of everything gathered since the last :meth:`reset`; an empty dictionary if nothing was."""
        metrics: dict[str, float] = {}
        for name, batches in self._losses.items():
            losses = torch.stack(batches).float()
            if self.training:
                losses = losses[losses.isfinite()]
                metrics[f"{name}_max"] = losses.max().item() if losses.numel() else math.nan
            metrics[name] = losses.mean().item()
        for name, parts in self._sums.items():
            values = torch.cat(parts)
            if self.training:
                values = values[values.isfinite()]
            if values.numel():
                metrics[name] = values.mean().item()
        for prefix, pairs in self._detections.items():
            logits, replaced = (torch.cat([pair[index] for pair in pairs]) for index in (0, 1))
            if self.training:
                logits, replaced = logits[logits.isfinite()], replaced[logits.isfinite()]
            metrics.update(detection_metrics(prefix, logits, replaced))
        return metrics

    def nonfinite_losses(self) -> list[str]:
        """Names of the losses that were not a number in some batch since the last :meth:`reset`."""
        return [name for name, batches in self._losses.items() if not torch.stack(batches).isfinite().all()]

    def reset(self) -> None:
        """Forget everything gathered."""
        self._losses.clear()
        self._sums.clear()
        self._detections.clear()
