"""Features -> logits, without gradients, in large batches of similar lengths."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.finetuning.task import Feature, Logits


def model_inputs(model: PreTrainedModel) -> set[str]:
    """Names of what the model's ``forward`` takes."""
    return set(inspect.signature(model.forward).parameters)


def length_batches(
    tokenizer: PreTrainedTokenizerBase, features: Sequence[Feature], names: Sequence[str], batch_size: int
) -> Iterator[tuple[list[int], BatchEncoding]]:
    """Padded batches of features sorted by length, the longest first, so that a batch holds little padding.

    With long features a batch shrinks: it holds as many tokens as ``batch_size`` features of 128 tokens.

    Args:
        tokenizer: pads.
        features: in any order.
        names: keys that the batch is made of.
        batch_size: features at once, at 128 tokens or less.

    Yields:
        Indices of the features, and the batch.
    """
    order = sorted(range(len(features)), key=lambda index: -len(features[index]["input_ids"]))
    first = 0
    while first < len(order):
        longest = len(features[order[first]]["input_ids"])
        chosen = order[first : first + max(1, batch_size * 128 // max(128, longest))]
        first += len(chosen)
        inputs = [{name: features[index][name] for name in names if name in features[index]} for index in chosen]
        yield chosen, tokenizer.pad(inputs, padding_side="right", return_tensors="pt")


@torch.inference_mode()
def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    features: Sequence[Feature],
    batch_size: int,
    *,
    bf16: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Logits]:
    """Logits of every feature, in their order.

    Args:
        model: a stock task model; it is left in evaluation mode.
        tokenizer: pads.
        features: labels and other keys are ignored.
        batch_size: see :func:`length_batches`.
        bf16: bfloat16 autocast.
        on_progress: told how many features are done, and how many there are.

    Returns:
        Float32 arrays without padding: (labels,) for a sequence classifier, (length, labels) for tokens, (length, 2)
        for question answering.
    """
    model.eval()
    names = sorted(model_inputs(model) & {"input_ids", "attention_mask", "token_type_ids"})
    results: list[Logits | None] = [None] * len(features)
    done = 0
    for chosen, batch in length_batches(tokenizer, features, names, batch_size):
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            output = model(**batch.to(model.device))
        if "start_logits" in output:
            logits = torch.stack([output.start_logits, output.end_logits], dim=-1)
        else:
            logits = output.logits
        for index, values in zip(chosen, logits.float().cpu().numpy(), strict=True):
            # a copy, for a view would keep the whole batch
            length = len(features[index]["input_ids"])
            results[index] = np.array(values[:length] if values.ndim == 2 else values)
        done += len(chosen)
        if on_progress is not None:
            on_progress(done, len(features))
    # every feature was in a batch
    return [result for result in results if result is not None]
