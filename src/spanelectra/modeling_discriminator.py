"""The discriminator, the encoder people keep: was each token replaced (ATO), and is it so seen from outside (SBPO)?"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedConfig

from spanelectra.encoder_families import build_detector, encoder_family, encoder_of
from spanelectra.span_boundary_head import SpanBoundaryHead


class SpanElectraDiscriminator(nn.Module):
    """A stock replaced-token detector and, for SBPO, a span-boundary head on the same encoder.

    Args:
        config: stock configuration of the encoder.
        span_boundary: whether to build the boundary head.
        max_span_length: longest span in tokens.
        span_position_size: width of the boundary head's position embeddings.
    """

    def __init__(
        self, config: PreTrainedConfig, *, span_boundary: bool, max_span_length: int, span_position_size: int
    ) -> None:
        super().__init__()
        self.config = config
        self.family = encoder_family(config.model_type)
        self.detector = build_detector(config)
        self.span_boundary_head: SpanBoundaryHead | None = None
        if span_boundary:
            self.span_boundary_head = SpanBoundaryHead(
                config.hidden_size, config.hidden_size, max_span_length, span_position_size, config.initializer_range
            )
            self.span_boundary_classifier = nn.Linear(config.hidden_size, 1)
            nn.init.normal_(self.span_boundary_classifier.weight, std=config.initializer_range)
            nn.init.zeros_(self.span_boundary_classifier.bias)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(batch, length) int64 corrupted ids -> (batch, length, hidden)."""
        return encoder_of(self.detector)(input_ids, attention_mask=attention_mask).last_hidden_state

    def all_token_logits(self, hidden_states: Tensor) -> Tensor:
        """(batch, length, hidden) -> (batch, length) logits of 'replaced' (ELECTRA, section 3.1)."""
        return self.family.detection_logits(self.detector, hidden_states)

    def span_boundary_logits(
        self, hidden_states: Tensor, left_boundaries: Tensor, right_boundaries: Tensor, span_positions: Tensor
    ) -> Tensor:
        """Logits of 'replaced' for tokens of spans, from the spans' boundaries and the position alone.

        Args:
            hidden_states: (batch, length, hidden).
            left_boundaries, right_boundaries, span_positions: (batch, count) int64.

        Returns:
            (batch, count).
        """
        assert self.span_boundary_head is not None
        features = self.span_boundary_head(hidden_states, left_boundaries, right_boundaries, span_positions)
        return self.span_boundary_classifier(features).squeeze(-1)
