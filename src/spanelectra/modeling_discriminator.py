"""The discriminator, the encoder people keep: was each token replaced (ATO, SBPO), and what was it (correction)?"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from spanelectra.encoder_families import (
    build_detector,
    build_masked_language_model,
    encoder_family,
    encoder_of,
    set_encoder_of,
)
from spanelectra.shared_embeddings import tie_masked_language_model
from spanelectra.span_boundary_head import SpanBoundaryHead, gather_positions


class SpanElectraDiscriminator(nn.Module):
    """A stock replaced-token detector and, on the same encoder, heads for SBPO and correction where they are wanted.

    Correction's is a stock masked language model, ``corrector``, around the detector's own encoder, whose vocabulary
    projection is tied to the detector's own embeddings.

    Args:
        config: stock configuration of the encoder.
        span_boundary: whether to build the boundary head.
        max_span_length: longest span in tokens.
        span_position_size: width of the boundary head's position embeddings.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        *,
        span_boundary: bool,
        max_span_length: int,
        span_position_size: int,
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
        self.corrector: PreTrainedModel | None = None

    def add_corrector(self) -> None:
        """Build the head of correction; after all else is drawn, so that no other fresh weight depends on it."""
        self.corrector = build_masked_language_model(self.config)
        self.tie_corrector()

    def tie_corrector(self) -> None:
        """Put the corrector, where there is one, around the detector's encoder and embeddings as they are now."""
        if self.corrector is not None:
            set_encoder_of(self.corrector, encoder_of(self.detector))
            tie_masked_language_model(self.corrector, self.detector.get_input_embeddings())

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

    def correction_logits(self, hidden_states: Tensor, positions: Tensor) -> Tensor:
        """Which token stood there in the original text (Meng et al. 2021, COCO-LM)?

        Args:
            hidden_states: (batch, length, hidden), of the corrupted text.
            positions: (batch, count) int64, the positions to score.

        Returns:
            (batch, count, vocabulary).
        """
        assert self.corrector is not None
        states = gather_positions(hidden_states, positions)
        return self.corrector.get_output_embeddings()(self.family.prediction_transform(self.corrector, states))
