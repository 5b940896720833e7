"""Token embeddings that generator and discriminator hold in common, and how they become ordinary ones on export.

The table is as wide as the discriminator's embeddings. A generator of another width reads it through a projection
(ELECTRA, section 3.2); a discriminator with gradient-disentangled sharing adds a difference of its own to it
(DeBERTaV3, section 3.3). :func:`materialise` multiplies or adds them out, so that an exported model is a stock one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel


class ProjectedEmbedding(nn.Module):
    """A narrower or wider view of a shared table: ``table[ids] @ projection``.

    Args:
        table: the shared embedding, (vocabulary, table width).
        embedding_dim: width of the view.
    """

    def __init__(self, table: nn.Embedding, embedding_dim: int) -> None:
        super().__init__()
        self.table = table
        self.embedding_dim = embedding_dim
        self.projection = nn.Parameter(torch.empty(table.embedding_dim, embedding_dim))
        # keeps the scale of the table's entries
        nn.init.normal_(self.projection, std=table.embedding_dim**-0.5)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(…) int64 token ids -> (…, embedding_dim)."""
        return self.table(input_ids) @ self.projection

    def logits(self, hidden_states: Tensor, bias: Tensor | None) -> Tensor:
        """(…, embedding_dim) -> (…, vocabulary); multiplies through the narrow side first."""
        return F.linear(hidden_states @ self.projection.T, self.table.weight, bias)

    def materialise(self) -> Tensor:
        """(vocabulary, embedding_dim): the table that a stock embedding needs to give the same vectors."""
        return self.table.weight.detach() @ self.projection.detach()


class DisentangledEmbedding(nn.Module):
    """The generator's table, without a gradient into it, plus a difference that starts at zero."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.table = table
        self.embedding_dim = table.embedding_dim
        self.difference = nn.Embedding(table.num_embeddings, table.embedding_dim)
        nn.init.zeros_(self.difference.weight)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(…) int64 token ids -> (…, embedding_dim)."""
        return self.table(input_ids).detach() + self.difference(input_ids)

    def logits(self, hidden_states: Tensor, bias: Tensor | None) -> Tensor:
        """(…, embedding_dim) -> (…, vocabulary); like the vectors, they move the difference alone."""
        return F.linear(hidden_states, self.table.weight.detach() + self.difference.weight, bias)

    def materialise(self) -> Tensor:
        """(vocabulary, embedding_dim): table + difference."""
        return self.table.weight.detach() + self.difference.weight.detach()


class TiedDecoder(nn.Module):
    """The vocabulary projection tied to one of these embeddings: no second matrix of vocabulary size."""

    def __init__(self, embedding: ProjectedEmbedding | DisentangledEmbedding, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.embedding = embedding
        self.bias = bias

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, embedding_dim) -> (…, vocabulary) logits."""
        return self.embedding.logits(hidden_states, self.bias)


def tie_masked_language_model(
    model: PreTrainedModel, embedding: nn.Embedding | ProjectedEmbedding | DisentangledEmbedding
) -> None:
    """Give a stock masked language model this input embedding, and tie its vocabulary projection to it."""
    decoder = model.get_output_embeddings()
    model.set_input_embeddings(embedding)
    if isinstance(embedding, (ProjectedEmbedding, DisentangledEmbedding)):
        model.set_output_embeddings(TiedDecoder(embedding, decoder.bias))
    else:
        decoder.weight = embedding.weight


def materialise(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a stock model whose shared, projected or disentangled embeddings are ordinary ones.

    Equal to the original to the last bit that the order of float additions allows.
    """
    copied = copy.deepcopy(model)
    embedding = copied.get_input_embeddings()
    if isinstance(embedding, (ProjectedEmbedding, DisentangledEmbedding)):
        weight = embedding.materialise()
        plain = nn.Embedding(weight.shape[0], weight.shape[1], padding_idx=copied.config.pad_token_id)
        plain.weight = nn.Parameter(weight)
        copied.set_input_embeddings(plain)
        decoder = copied.get_output_embeddings()
        if isinstance(decoder, TiedDecoder):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=decoder.bias is not None)
            linear.weight = plain.weight
            if decoder.bias is not None:
                linear.bias = decoder.bias
            copied.set_output_embeddings(linear)
    return copied
