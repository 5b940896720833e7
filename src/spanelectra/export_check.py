"""Is a model that was written the one that it was written from? Opened as others will, and compared by its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.encoder_families import VERDICT_LABELS
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_generator import SpanElectraGenerator

Part: TypeAlias = SpanElectraGenerator | SpanElectraDiscriminator

# Largest difference between exported and own logits, as a fraction of the largest own logit. Multiplying embeddings out
# reorders float32 additions, which costs about 1e-6.
TOLERANCE = 1e-5


def own_model(part: Part) -> PreTrainedModel:
    """The model of Hugging Face's class inside a part, whose embeddings may still be shared."""
    return part.language_model if isinstance(part, SpanElectraGenerator) else part.detector


def check_export(
    directory: Path,
    part: Part,
    stock_class: type[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
) -> float:
    """Open an exported model as others will, and compare it with the run's own module.

    Returns:
        The largest difference, see :func:`largest_difference`.

    Raises:
        RuntimeError: for weights that are missing or left over, other logits, or another tokenizer.
    """
    reopened, info = stock_class.from_pretrained(directory, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(problem):
            raise RuntimeError(f"{directory.name} was not exported: it opens with {problem} {sorted(info[problem])}.")
    if reopened.config.architectures != [stock_class.__name__]:
        raise RuntimeError(f"{directory.name} was not exported: its config names {reopened.config.architectures}.")
    if tokenizer_fingerprint(load_tokenizer(directory)) != tokenizer_fingerprint(tokenizer):
        raise RuntimeError(f"{directory.name} was not exported: its tokenizer opens as another one.")
    difference = largest_difference(part, reopened.eval())
    # written so that a difference that is not a number is refused, too
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{directory.name} was not exported: its outputs differ from the run's by {difference:.1e} of their scale, "
            f"more than {TOLERANCE:.0e}."
        )
    return difference


@torch.no_grad()
def largest_difference(part: Part, stock: PreTrainedModel) -> float:
    """Compare every row of the embedding table, and logits on random rows of which one is padded.

    Both must be in evaluation mode. A detector with two labels is compared by the logit of *replaced* against
    *original*, which is what was trained.

    Returns:
        The largest absolute difference as a fraction of the largest absolute value of the run's own.
    """
    input_ids, attention_mask = _probe_rows(stock.config)
    vocabulary = torch.arange(stock.config.vocab_size)
    own_embedding = own_model(part).get_input_embeddings()
    if isinstance(part, SpanElectraGenerator):
        positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        own = part(input_ids, positions, attention_mask=attention_mask, sbgo=False).mlm_logits
    else:
        own = part.all_token_logits(part.encode(input_ids, attention_mask))
    logits = stock(input_ids, attention_mask=attention_mask).logits
    if not isinstance(part, SpanElectraGenerator) and logits.dim() == 3:
        assert logits.shape[-1] == len(VERDICT_LABELS)
        logits = logits[..., 1] - logits[..., 0]
    read = attention_mask.bool()
    pairs = ((own_embedding(vocabulary), stock.get_input_embeddings()(vocabulary)), (own[read], logits[read]))
    # torch's maximum, unlike Python's, keeps a difference that is not a number
    return torch.stack([_relative_difference(expected, found) for expected, found in pairs]).max().item()


def _relative_difference(expected: Tensor, found: Tensor) -> Tensor:
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return (expected - found).abs().max() / scale


def _probe_rows(config: PreTrainedConfig, rows: int = 4, length: int = 64) -> tuple[Tensor, Tensor]:
    """(rows, length) int64 random token ids, the last row half padding, and their attention mask."""
    length = min(length, config.max_position_embeddings)
    input_ids = torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, length // 2 :] = 0
    return input_ids, attention_mask
