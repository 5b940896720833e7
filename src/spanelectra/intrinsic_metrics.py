"""What every head makes of held-out text, token by token, and how that depends on a token's place in its span.

SpanBERT trains on spans because the middle of a span is hard to fill, and the boundary objectives see a span only from
outside: means over all tokens do not show either. Every number here is a mean (or an AUC) over the tokens of a bucket,
and the buckets of a breakdown share out the tokens of the total.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from spanelectra.data.row_dataset import unigram_cross_entropy
from spanelectra.data.span_placement import find_words
from spanelectra.data.tokenization import WordStartTable
from spanelectra.losses import IGNORE_INDEX, replaced_token_loss
from spanelectra.metrics import detection_metrics
from spanelectra.modeling_spanelectra import SpanElectraOutput

Columns: TypeAlias = dict[str, Tensor]

# What places a token in its span -> what that is, in words.
BREAKDOWNS = {
    "position": "token of the span, from the left",
    "boundary_distance": "tokens to the nearer boundary",
    "span_tokens": "length of the span in tokens",
    "span_words": "length of the span in words",
}
# Longer spans are few: the last bucket holds this and everything above.
LARGEST_BUCKET = 10
OUTSIDE = "outside"
HEADS = ("mlm", "sbgo", "restoration", "ato", "sbpo", "correction")


class IntrinsicMetrics:
    """Gathers what the heads say of every token they score, batch by batch.

    Args:
        word_starts: the tokenizer's table, which tells words.
        max_span_length: of the masking; a longer word counts as several, as it does there.
        token_counts: (vocabulary,) int64 of the text that the unigram baseline knows; ``None`` for no baseline.
    """

    def __init__(
        self, word_starts: WordStartTable, max_span_length: int, token_counts: NDArray[np.int64] | None
    ) -> None:
        self._word_starts = word_starts
        self._max_span_length = max_span_length
        self._token_counts = token_counts
        self._parts: defaultdict[str, list[Columns]] = defaultdict(list)

    @torch.no_grad()
    def update(self, output: SpanElectraOutput, batch: Mapping[str, Tensor]) -> None:
        """Remember one batch.

        Args:
            output: of the model.
            batch: what the collator made of the rows, on the same device.
        """
        places, decoy_places = self._places(batch)
        labels, positions = batch["labels"], batch["masked_positions"]
        scored = labels != IGNORE_INDEX
        guesses = [("mlm", output.mlm_logits, scored), ("sbgo", output.sbgo_logits, scored)]
        if output.replaced is not None:
            # a token that was restored is no error to correct
            guesses.append(("correction", output.correction_logits, scored & output.replaced.gather(1, positions)))
        for name, logits, guessed in guesses:
            if logits is not None:
                chosen, wanted = logits[guessed], labels[guessed]
                loss = cross_entropy(chosen.float(), wanted, reduction="none")
                self._add(name, places, guessed, label=wanted, loss=loss, right=chosen.argmax(-1) == wanted)
        if output.replaced is not None:
            self._add("restoration", places, scored, restored=~output.replaced.gather(1, positions)[scored])
            if output.ato_logits is not None:
                self._add_all_tokens(output.ato_logits, output.replaced, positions, scored, places)
        if output.sbpo_logits is not None and output.sbpo_replaced is not None and output.sbpo_scored is not None:
            every = output.sbpo_scored
            is_masked = torch.zeros_like(every)
            is_masked[:, : positions.shape[1]] = True
            if every.shape[1] > positions.shape[1]:
                places = {name: torch.cat([places[name], decoy_places[name]], dim=1) for name in places}
            self._add_verdicts("sbpo", places, every, output.sbpo_logits, output.sbpo_replaced, is_masked)

    def compute(self) -> dict[str, Any]:
        """Everything gathered, in numbers.

        Returns:
            :data:`HEADS`, each ``None`` or a dictionary: ``total`` over all tokens that the head scores, for ``ato``
            and ``sbpo`` also ``masked`` over those that were masked, and ``by``, for each of :data:`BREAKDOWNS` a list
            of buckets in rising order. A bucket is named by its ``bucket``: ``"1"`` to ``"9"``, ``"10+"``, or for ATO
            ``"outside"`` (of masked spans). Without spans, where single tokens are masked, ``by`` is empty.

            Of ``mlm``, ``sbgo`` and ``correction`` (of tokens that were replaced): ``tokens`` (their number), ``loss``
            (nats a token), ``perplexity``, ``accuracy`` (share of best guesses that are right), ``unigram_loss`` and
            ``unigram_perplexity`` (what guessing the same tokens by frequency costs). Of ``restoration``: ``tokens``,
            ``restored``, and ``rate``, the share of masked tokens of which the sample is the original. Of ``ato`` and
            ``sbpo``: ``tokens``, ``replaced``, ``loss``, ``accuracy``, ``majority_accuracy`` (of always giving the
            commoner verdict), ``precision``, ``recall`` and ``auc``; in buckets also ``auc_against_all_originals``, of
            the bucket's replaced tokens against every original one that the head scores, since a bucket may have hardly
            any. What is not defined is ``None``: a mean of no tokens, an AUC where one class is missing, a number that
            is not finite.
        """
        results: dict[str, Any] = dict.fromkeys(HEADS)
        for name, parts in self._parts.items():
            columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            if name in ("mlm", "sbgo", "correction"):
                results[name] = _with_breakdowns(columns, self._summarise_guesses)
            elif name == "restoration":
                results[name] = _with_breakdowns(columns, _summarise_restoration)
            else:
                originals = columns["logit"][~columns["replaced"]]
                masked = {key: column[columns["masked"]] for key, column in columns.items()}
                results[name] = {
                    "total": _summarise_verdicts(columns),
                    "masked": _summarise_verdicts(masked),
                    "by": _breakdowns(columns, partial(_summarise_verdicts, originals=originals)),
                }
        return results

    def _places(self, batch: Mapping[str, Tensor]) -> tuple[Columns, Columns]:
        """Places of masked and of decoy tokens, (batch, count) int64 each."""
        ids = batch["original_ids"]
        rows = ids.cpu().numpy()
        special = self._word_starts.special_ids[rows]
        words = find_words(self._word_starts.word_starts(rows), special, self._max_span_length)
        words_before = torch.from_numpy(words.words_before.reshape(rows.shape)).to(ids.device)
        masked = _places_in_spans(batch, "", words_before)
        return masked, _places_in_spans(batch, "decoy_", words_before) if "decoy_positions" in batch else {}

    def _add(self, name: str, places: Columns, scored: Tensor, **columns: Tensor) -> None:
        """Remember columns of the scored tokens, and their places cut to buckets."""
        buckets = {key: place[scored].clamp(max=LARGEST_BUCKET).to(torch.uint8) for key, place in places.items()}
        self._parts[name].append({key: column.cpu() for key, column in {**columns, **buckets}.items()})

    def _add_verdicts(
        self, name: str, places: Columns, scored: Tensor, logits: Tensor, replaced: Tensor, masked: Tensor
    ) -> None:
        logit, label = logits[scored].float(), replaced[scored]
        loss = torch.vmap(replaced_token_loss)(logit, label, torch.ones_like(label))
        self._add(name, places, scored, logit=logit, replaced=label, loss=loss, masked=masked[scored])

    def _add_all_tokens(
        self, logits: Tensor, replaced: Tensor, positions: Tensor, scored: Tensor, places: Columns
    ) -> None:
        """ATO: every token of the rows, of which those outside masked spans have the place 0."""
        zeros = torch.zeros_like(logits, dtype=torch.int64)
        # padding points at [CLS], which is never masked, and writes a 0 there
        every = {key: zeros.scatter(1, positions, place * scored) for key, place in places.items()}
        masked = zeros.scatter(1, positions, scored.long()).bool()
        self._add_verdicts("ato", every, torch.ones_like(replaced), logits, replaced, masked)

    def _summarise_guesses(self, columns: Columns) -> dict[str, Any]:
        loss, unigram_loss = _mean(columns["loss"]), None
        if self._token_counts is not None and len(columns["label"]):
            labels = columns["label"].numpy()
            unigram_loss = unigram_cross_entropy(self._token_counts, labels, self._word_starts.special_ids)
        return {
            "tokens": len(columns["loss"]),
            "loss": loss,
            "perplexity": _perplexity(loss),
            "accuracy": _mean(columns["right"]),
            "unigram_loss": unigram_loss,
            "unigram_perplexity": _perplexity(unigram_loss),
        }


def _places_in_spans(batch: Mapping[str, Tensor], prefix: str, words_before: Tensor) -> Columns:
    """:data:`BREAKDOWNS` -> (batch, count) int64 for the masked tokens or (``decoy_``) those of decoys.

    They count from 1; all are 0 for a token without a span, which a masked single token is.
    """
    left, right = batch[f"{prefix}left_boundaries"], batch[f"{prefix}right_boundaries"]
    position, length = batch[f"{prefix}span_positions"] + 1, right - left - 1
    places = {
        "position": position,
        "boundary_distance": torch.minimum(position, length - position + 1),
        "span_tokens": length,
        "span_words": words_before.gather(1, right) - words_before.gather(1, left + 1),
    }
    return {name: place * (right > left) for name, place in places.items()}


def _with_breakdowns(columns: Columns, summarise: Callable[[Columns], dict[str, Any]]) -> dict[str, Any]:
    return {"total": summarise(columns), "by": _breakdowns(columns, summarise)}


def _breakdowns(columns: Columns, summarise: Callable[[Columns], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Breakdown -> one summary for each bucket that has tokens; ATO's tokens outside of spans come last."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in BREAKDOWNS:
        places = columns[name]
        if bool(places.any()):
            present = sorted(places.unique().tolist(), key=lambda place: place or LARGEST_BUCKET + 1)
            found[name] = [
                {"bucket": _bucket_name(place)}
                | summarise({key: column[places == place] for key, column in columns.items()})
                for place in present
            ]
    return found


def _bucket_name(place: int) -> str:
    return OUTSIDE if place == 0 else f"{place}+" if place == LARGEST_BUCKET else str(place)


def _summarise_restoration(columns: Columns) -> dict[str, Any]:
    restored = columns["restored"]
    return {"tokens": len(restored), "restored": int(restored.sum()), "rate": _mean(restored)}


def _summarise_verdicts(columns: Columns, originals: Tensor | None = None) -> dict[str, Any]:
    logits, replaced = columns["logit"], columns["replaced"]
    metrics = detection_metrics("head", logits, replaced)
    summary: dict[str, Any] = {
        "tokens": len(replaced),
        "replaced": int(replaced.sum()),
        "loss": _mean(columns["loss"]),
    }
    for name in ("accuracy", "majority_accuracy", "precision", "recall", "auc"):
        summary[name] = _finite(metrics.get(f"head_{name}"))
    if originals is not None:
        found = logits[replaced]
        labels = torch.cat([torch.ones_like(found), torch.zeros_like(originals)]).bool()
        against_all = detection_metrics("head", torch.cat([found, originals]), labels)
        summary["auc_against_all_originals"] = _finite(against_all.get("head_auc"))
    return summary


def _mean(values: Tensor) -> float | None:
    return _finite(values.double().mean().item())


def _perplexity(loss: float | None) -> float | None:
    """exp of a loss in nats; ``None`` where it is no number, or too great for one."""
    return None if loss is None or loss > math.log(1e300) else math.exp(loss)


def _finite(value: float | None) -> float | None:
    """The value, or ``None`` where it is not finite: JSON has no such number."""
    return value if value is not None and math.isfinite(value) else None
