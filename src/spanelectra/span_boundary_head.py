"""The head that knows a span only by its two neighbours: what SBGO and SBPO have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gather_positions(hidden_states: Tensor, positions: Tensor) -> Tensor:
    """(batch, length, hidden) at (batch, count) int64 positions -> (batch, count, hidden)."""
    index = positions.unsqueeze(-1).expand(-1, -1, hidden_states.shape[-1])
    return hidden_states.gather(1, index)


class SpanBoundaryHead(nn.Module):
    """Represents a token of a span by the span's boundaries and the token's position in it.

    SpanBERT (Joshi et al. 2020, section 3.2): h0 = [x_left; x_right; p_position], then twice a linear layer, GeLU and
    layer normalisation. The boundaries are the nearest tokens *outside* the span, so the head never reads the token
    that it is asked about.

    Args:
        hidden_size: width of the encoder.
        output_size: width of what comes out.
        max_span_length: number of position embeddings.
        position_size: width of the position embeddings.
        initializer_range: standard deviation of the initial weights.
    """

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        max_span_length: int,
        position_size: int,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(max_span_length, position_size)
        self.boundary_dense = nn.Linear(2 * hidden_size + position_size, hidden_size)
        self.boundary_norm = nn.LayerNorm(hidden_size)
        self.output_dense = nn.Linear(hidden_size, output_size)
        self.output_norm = nn.LayerNorm(output_size)
        self.activation = nn.GELU()
        for module in (self.position_embeddings, self.boundary_dense, self.output_dense):
            nn.init.normal_(module.weight, std=initializer_range)
        nn.init.zeros_(self.boundary_dense.bias)
        nn.init.zeros_(self.output_dense.bias)

    def forward(
        self, hidden_states: Tensor, left_boundaries: Tensor, right_boundaries: Tensor, span_positions: Tensor
    ) -> Tensor:
        """Represent tokens of spans.

        Args:
            hidden_states: (batch, length, hidden) float, from the encoder.
            left_boundaries: (batch, count) int64, position of the token just before the span of each scored token.
            right_boundaries: (batch, count) int64, position of the token just after it.
            span_positions: (batch, count) int64, 0-based place of the scored token in its span.

        Returns:
            (batch, count, output) float.
        """
        features = torch.cat(
            [
                gather_positions(hidden_states, left_boundaries),
                gather_positions(hidden_states, right_boundaries),
                self.position_embeddings(span_positions),
            ],
            dim=-1,
        )
        features = self.boundary_norm(self.activation(self.boundary_dense(features)))
        return self.output_norm(self.activation(self.output_dense(features)))
