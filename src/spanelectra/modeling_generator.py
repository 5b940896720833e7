"""The generator: a small masked language model that also fills a span from its boundaries (MLM and SBGO)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedConfig

from spanelectra.encoder_families import build_masked_language_model, embedding_size, encoder_family, encoder_of
from spanelectra.span_boundary_head import SpanBoundaryHead, gather_positions


@dataclass
class GeneratorOutput:
    """Logits over the vocabulary, (batch, count, vocabulary), at masked positions only; ``None`` if not asked for."""

    mlm_logits: Tensor | None
    sbgo_logits: Tensor | None


class SpanElectraGenerator(nn.Module):
    """A stock masked language model and, for SBGO, a span-boundary head on the same encoder.

    Both heads end in the model's own vocabulary projection, tied to its token embeddings.

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
        self.language_model = build_masked_language_model(config)
        self.span_boundary_head = (
            SpanBoundaryHead(
                config.hidden_size,
                embedding_size(config),
                max_span_length,
                span_position_size,
                config.initializer_range,
            )
            if span_boundary
            else None
        )

    def forward(
        self,
        input_ids: Tensor,
        masked_positions: Tensor,
        left_boundaries: Tensor | None = None,
        right_boundaries: Tensor | None = None,
        span_positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        mlm: bool = True,
        sbgo: bool = True,
    ) -> GeneratorOutput:
        """Score the vocabulary at masked positions.

        Args:
            input_ids: (batch, length) int64, with masked tokens replaced.
            masked_positions: (batch, count) int64, the positions to score (padding scores position 0).
            left_boundaries, right_boundaries, span_positions: (batch, count) int64, see :class:`SpanBoundaryHead`.
            attention_mask: (batch, length), 1 for real tokens; ``None`` where rows are full.
            mlm, sbgo: which heads to run.
        """
        hidden_states = encoder_of(self.language_model)(input_ids, attention_mask=attention_mask).last_hidden_state
        decoder = self.language_model.get_output_embeddings()
        mlm_logits = sbgo_logits = None
        if mlm:
            masked_states = gather_positions(hidden_states, masked_positions)
            mlm_logits = decoder(self.family.prediction_transform(self.language_model, masked_states))
        if sbgo and self.span_boundary_head is not None:
            sbgo_logits = decoder(
                self.span_boundary_head(hidden_states, left_boundaries, right_boundaries, span_positions)
            )
        return GeneratorOutput(mlm_logits, sbgo_logits)
