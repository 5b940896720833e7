"""SpanElectraConfig: two ordinary encoder configurations, the objectives that train them, and what they share."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from spanelectra.argument_groups import DISCRIMINATOR_OBJECTIVES, GENERATOR_OBJECTIVES, OBJECTIVES
from spanelectra.errors import UserError, did_you_mean

# correction is asked for by name
DEFAULT_OBJECTIVES = ("mlm", "sbgo", "ato", "sbpo")
SHARING = ("embeddings", "gradient_disentangled", "encoder", "none")
# what replacements are drawn from -> the generator's heads that this takes
SAMPLED_HEADS = {"mlm": {"mlm"}, "sbgo": {"sbgo"}, "mixed": {"mlm", "sbgo"}}
SAMPLING_SOURCES = tuple(SAMPLED_HEADS)


class SpanElectraConfig(PreTrainedConfig):
    """Describes a :class:`~spanelectra.modeling_spanelectra.SpanElectraForPreTraining`.

    Args:
        generator_config: configuration (or its dictionary) of the generator's encoder; ``None`` without a generator.
        discriminator_config: the same for the discriminator's encoder.
        objectives: subset of ``mlm`` (masked language modelling), ``sbgo`` (span-boundary generative objective),
            ``ato`` (all-token objective, replaced-token detection), ``sbpo`` (span-boundary predictive objective) and
            ``correction`` (the original of each replaced token, from the discriminator; COCO-LM); by
            default all but the last.
        sharing: what generator and discriminator have in common: ``embeddings`` (ELECTRA, section 3.2),
            ``gradient_disentangled`` embeddings (DeBERTaV3, section 3.3), the whole ``encoder`` (one encoder, two
            sets of heads) or ``none``.
        sampling_source: the logits that replacements are drawn from: ``mlm``, ``sbgo`` or ``mixed`` (their mean).
        sampling_temperature: divides those logits; 1.0 is the generator's own distribution. Training may pass others
            to the model's forward pass.
        max_span_length: longest span in tokens; the number of position embeddings of the boundary heads.
        span_position_size: width of those position embeddings (200 in SpanBERT).
        freeze_generator: the discriminator stage; the generator only draws samples.

    Raises:
        UserError: from :meth:`check`, where two settings contradict each other.
    """

    model_type = "spanelectra"

    generator_config: dict[str, Any] | PreTrainedConfig | None = None
    discriminator_config: dict[str, Any] | PreTrainedConfig | None = None
    objectives: list[str] | None = None
    sharing: str = "embeddings"
    sampling_source: str = "mlm"
    sampling_temperature: float | int = 1.0
    max_span_length: int = 20
    span_position_size: int = 64
    freeze_generator: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.objectives is None:
            self.objectives = list(DEFAULT_OBJECTIVES)
        # not left to the base class, which would put an encoder of its own defaults where there is to be none
        for name in ("generator_config", "discriminator_config"):
            encoder = getattr(self, name)
            if isinstance(encoder, dict):
                if "model_type" not in encoder:
                    raise UserError(f"{name} names no model_type, such as electra or modernbert.")
                setattr(self, name, AutoConfig.for_model(**encoder))
        super().__post_init__(**kwargs)

    @property
    def generator_objectives(self) -> tuple[str, ...]:
        """The objectives that train the generator, in their fixed order."""
        return tuple(name for name in GENERATOR_OBJECTIVES if name in (self.objectives or ()))

    @property
    def discriminator_objectives(self) -> tuple[str, ...]:
        """The objectives that train the discriminator, in their fixed order."""
        return tuple(name for name in DISCRIMINATOR_OBJECTIVES if name in (self.objectives or ()))

    @property
    def uses_span_boundaries(self) -> bool:
        """Whether any head predicts from span boundaries, so that the masking must be by spans."""
        return bool({"sbgo", "sbpo"} & set(self.objectives or ()))

    def check(self) -> None:
        """Raise :class:`UserError` for objectives, sharing and shapes that cannot go together."""
        for objective in self.objectives or ():
            if objective not in OBJECTIVES:
                hint = did_you_mean(objective, OBJECTIVES)
                raise UserError(f"objectives: '{objective}' is not one of {', '.join(OBJECTIVES)}.{hint}")
        if not self.objectives:
            raise UserError(f"objectives: name at least one of {', '.join(OBJECTIVES)}.")
        for field, value, choices in (
            ("sharing", self.sharing, SHARING),
            ("sampling_source", self.sampling_source, SAMPLING_SOURCES),
        ):
            if value not in choices:
                raise UserError(f"{field}: '{value}' is not one of {', '.join(choices)}.{did_you_mean(value, choices)}")
        if self.sampling_temperature <= 0:
            raise UserError(f"sampling_temperature must be above 0, got {self.sampling_temperature}.")
        if self.generator_objectives and self.generator_config is None:
            raise UserError(f"objectives {', '.join(self.generator_objectives)} need a generator.")
        if self.discriminator_objectives and self.discriminator_config is None:
            raise UserError(f"objectives {', '.join(self.discriminator_objectives)} need a discriminator.")
        self._check_pair()

    def check_size(self, weights_bytes: int) -> None:
        """Raise :class:`UserError` for a far larger model than its weights are of, before memory is asked for."""
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "max_position_embeddings")
        for encoder in filter(None, (self.generator_config, self.discriminator_config)):
            hidden, inner, layers, vocabulary, positions = numbers = [getattr(encoder, name, 0) for name in names]
            least = hidden * layers * (hidden + inner) + (vocabulary + positions) * min(hidden, 64)
            if not 0 < least < 4 * weights_bytes:
                listed = ", ".join(f"{name} {number}" for name, number in zip(names, numbers, strict=True))
                raise UserError(f"a model of {listed} has other weights")

    def _check_pair(self) -> None:
        """Check what only a generator and a discriminator together can get wrong."""
        generator, discriminator = self.generator_config, self.discriminator_config
        if generator is None or discriminator is None:
            return
        assert isinstance(generator, PreTrainedConfig) and isinstance(discriminator, PreTrainedConfig)
        if generator.vocab_size != discriminator.vocab_size:
            raise UserError(
                f"generator and discriminator must share a vocabulary: {generator.vocab_size} against "
                f"{discriminator.vocab_size} entries. Train both with the same tokenizer."
            )
        heads = set(self.generator_objectives) if not self.freeze_generator else {"mlm", "sbgo"}
        needed = SAMPLED_HEADS[self.sampling_source]
        if not needed <= heads:
            raise UserError(
                f"sampling_source '{self.sampling_source}' needs the objective(s) {', '.join(sorted(needed - heads))}; "
                f"add them to objectives or sample from another head."
            )
        if self.freeze_generator and self.sharing != "none":
            raise UserError(f"a frozen generator shares nothing: set sharing to none, not {self.sharing}.")
        shape = (
            "model_type",
            "hidden_size",
            "embedding_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
        )
        if self.sharing == "encoder" and any(
            getattr(generator, field, None) != getattr(discriminator, field, None) for field in shape
        ):
            raise UserError(
                "sharing 'encoder' needs a generator of the discriminator's own shape: set generator_size and "
                "generator_depth to 1.0, or share embeddings only."
            )
