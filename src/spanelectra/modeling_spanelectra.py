"""SpanElectraForPreTraining: generator, sampling, discriminator and losses, called in this order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig

from spanelectra.configuration_spanelectra import SAMPLED_HEADS, SpanElectraConfig
from spanelectra.encoder_families import embedding_size, encoder_of, set_encoder_of
from spanelectra.errors import UserError, reason_of
from spanelectra.losses import IGNORE_INDEX, replaced_token_loss, vocabulary_loss
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_generator import SpanElectraGenerator
from spanelectra.replacement import replace_tokens, sample_tokens, sampling_logits
from spanelectra.shared_embeddings import DisentangledEmbedding, ProjectedEmbedding, tie_masked_language_model

WEIGHTS_NAME = "model.safetensors"


@dataclass
class SpanElectraOutput:
    """What one forward pass gives.

    Attributes:
        loss: scalar float32, the weighted sum of ``losses``.
        losses: objective -> scalar float32, unweighted; they and ``loss`` carry the gradient, the rest is detached.
        mlm_logits, sbgo_logits: (batch, count, vocabulary) at masked positions, or ``None``.
        corrupted_ids: (batch, length) int64 that the discriminator read, or ``None``.
        replaced: (batch, length) bool labels of ATO, or ``None``.
        ato_logits: (batch, length), or ``None``.
        sbpo_logits, sbpo_replaced, sbpo_scored: (batch, masked count + decoy count) logits, bool labels and bool
            whether scored; masked spans first, then decoys; or ``None``.
        correction_logits: (batch, count, vocabulary) at masked positions, or ``None``.
    """

    loss: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    mlm_logits: Tensor | None = None
    sbgo_logits: Tensor | None = None
    corrupted_ids: Tensor | None = None
    replaced: Tensor | None = None
    ato_logits: Tensor | None = None
    sbpo_logits: Tensor | None = None
    sbpo_replaced: Tensor | None = None
    sbpo_scored: Tensor | None = None
    correction_logits: Tensor | None = None


class SpanElectraForPreTraining(nn.Module):
    """The joint model, or only its generator or its discriminator, as the configuration's objectives need.

    Fresh weights are drawn from torch's global generator; seed it before.

    Args:
        config: checked with :meth:`SpanElectraConfig.check`.
    """

    def __init__(self, config: SpanElectraConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        boundary = {"max_span_length": config.max_span_length, "span_position_size": config.span_position_size}
        self.generator: SpanElectraGenerator | None = None
        self.discriminator: SpanElectraDiscriminator | None = None
        if isinstance(config.generator_config, PreTrainedConfig):
            # a frozen generator keeps the heads that sampling reads
            sbgo = config.sampling_source != "mlm" if config.freeze_generator else "sbgo" in (config.objectives or ())
            self.generator = SpanElectraGenerator(config.generator_config, span_boundary=sbgo, **boundary)
        if isinstance(config.discriminator_config, PreTrainedConfig):
            sbpo = "sbpo" in (config.objectives or ())
            self.discriminator = SpanElectraDiscriminator(config.discriminator_config, span_boundary=sbpo, **boundary)
        if self.generator is not None and self.discriminator is not None:
            share_weights(self.generator, self.discriminator, config.sharing)
        if self.discriminator is not None and "correction" in (config.objectives or ()):
            self.discriminator.add_corrector()
        if self.generator is not None and config.freeze_generator:
            self.generator.requires_grad_(False)

    def train(self, mode: bool = True) -> SpanElectraForPreTraining:
        """Set training mode; a frozen generator stays in evaluation mode, so that its samples carry no dropout."""
        super().train(mode)
        if self.generator is not None and self.config.freeze_generator:
            self.generator.eval()
        return self

    def forward(
        self,
        original_ids: Tensor,
        input_ids: Tensor | None = None,
        masked_positions: Tensor | None = None,
        labels: Tensor | None = None,
        left_boundaries: Tensor | None = None,
        right_boundaries: Tensor | None = None,
        span_positions: Tensor | None = None,
        replacement_noise: Tensor | None = None,
        decoy_positions: Tensor | None = None,
        decoy_left_boundaries: Tensor | None = None,
        decoy_right_boundaries: Tensor | None = None,
        decoy_span_positions: Tensor | None = None,
        decoy_scored: Tensor | None = None,
        corrupted_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        loss_weights: Mapping[str, float] | None = None,
        sampling_temperature: float | None = None,
    ) -> SpanElectraOutput:
        """One pass over a micro-batch.

        Args:
            original_ids: (batch, length) int64, the text.
            input_ids: (batch, length) int64, the text with masked tokens replaced: what the generator reads.
            masked_positions … decoy_scored: as :class:`~spanelectra.data.data_collator.DataCollatorForSpanElectra`
                lays them out.
            corrupted_ids: (batch, length) int64; where given, the discriminator reads these and no generator runs.
            attention_mask: (batch, length), 1 for real tokens; ``None`` where rows are full.
            loss_weights: objective -> weight, 1.0 where missing. An objective of weight 0 is not computed, and without
                any discriminator objective the discriminator does not run (generator head start) and nothing is
                sampled for it.
            sampling_temperature: of this pass; by default the configuration's.
        """
        weights = {name: (loss_weights or {}).get(name, 1.0) for name in self.config.objectives or ()}
        output = SpanElectraOutput(loss=torch.zeros((), device=original_ids.device))
        spans = (left_boundaries, right_boundaries, span_positions)
        runs_discriminator = any(weights.get(name) for name in self.config.discriminator_objectives)

        if corrupted_ids is None:
            assert input_ids is not None and masked_positions is not None and labels is not None
            sources = SAMPLED_HEADS[self.config.sampling_source] if runs_discriminator else set()
            self._generate(output, input_ids, masked_positions, labels, spans, attention_mask, weights, sources)
            if runs_discriminator:
                assert replacement_noise is not None
                self.replace(output, original_ids, masked_positions, labels, replacement_noise, sampling_temperature)
        else:
            output.corrupted_ids, output.replaced = corrupted_ids, corrupted_ids != original_ids
        if runs_discriminator:
            decoys = (decoy_left_boundaries, decoy_right_boundaries, decoy_span_positions)
            self._discriminate(
                output, masked_positions, labels, spans, decoy_positions, decoys, decoy_scored, attention_mask, weights
            )
        for name, loss in output.losses.items():
            output.loss = output.loss + weights[name] * loss
        return output

    def replace(
        self,
        output: SpanElectraOutput,
        original_ids: Tensor,
        masked_positions: Tensor,
        labels: Tensor,
        replacement_noise: Tensor,
        temperature: float | None = None,
    ) -> None:
        """Sample replacements from the generator's logits in ``output`` and fill in its corrupted ids and labels."""
        logits = sampling_logits(output.mlm_logits, output.sbgo_logits, self.config.sampling_source)
        temperature = self.config.sampling_temperature if temperature is None else temperature
        sampled = sample_tokens(logits, replacement_noise, temperature)
        output.corrupted_ids, output.replaced = replace_tokens(original_ids, masked_positions, labels, sampled)

    @torch.no_grad()
    def draw_replacements(self, batch: Mapping[str, Tensor]) -> SpanElectraOutput:
        """Run the generator alone on a collated batch: its logits, the corrupted ids and what was replaced."""
        output = SpanElectraOutput(loss=torch.zeros((), device=batch["original_ids"].device))
        spans = (batch["left_boundaries"], batch["right_boundaries"], batch["span_positions"])
        positions, labels = batch["masked_positions"], batch["labels"]
        sources = SAMPLED_HEADS[self.config.sampling_source]
        self._generate(output, batch["input_ids"], positions, labels, spans, None, {}, sources)
        self.replace(output, batch["original_ids"], positions, labels, batch["replacement_noise"])
        return output

    def _generate(
        self,
        output: SpanElectraOutput,
        input_ids: Tensor,
        masked_positions: Tensor,
        labels: Tensor,
        spans: tuple[Tensor | None, Tensor | None, Tensor | None],
        attention_mask: Tensor | None,
        weights: Mapping[str, float],
        sources: Set[str],
    ) -> None:
        """Run the generator's heads that have a loss or are sampled from (``sources``), and its losses."""
        assert self.generator is not None
        frozen = self.config.freeze_generator
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            generated = self.generator(
                input_ids,
                masked_positions,
                *spans,
                attention_mask=attention_mask,
                mlm="mlm" in sources or bool(weights.get("mlm")),
                sbgo="sbgo" in sources or bool(weights.get("sbgo")),
            )
        for name, logits in (("mlm", generated.mlm_logits), ("sbgo", generated.sbgo_logits)):
            if logits is not None and weights.get(name):
                output.losses[name] = vocabulary_loss(logits, labels)
        # detached: what hangs on a graph in an output would look used to DistributedDataParallel, whatever its loss
        output.mlm_logits = generated.mlm_logits.detach() if generated.mlm_logits is not None else None
        output.sbgo_logits = generated.sbgo_logits.detach() if generated.sbgo_logits is not None else None

    def _discriminate(
        self,
        output: SpanElectraOutput,
        masked_positions: Tensor | None,
        labels: Tensor | None,
        spans: tuple[Tensor | None, Tensor | None, Tensor | None],
        decoy_positions: Tensor | None,
        decoys: tuple[Tensor | None, Tensor | None, Tensor | None],
        decoy_scored: Tensor | None,
        attention_mask: Tensor | None,
        weights: Mapping[str, float],
    ) -> None:
        """Run the discriminator and its losses on the corrupted ids."""
        assert self.discriminator is not None and output.corrupted_ids is not None and output.replaced is not None
        hidden_states = self.discriminator.encode(output.corrupted_ids, attention_mask)
        if weights.get("ato"):
            logits = self.discriminator.all_token_logits(hidden_states)
            scored = torch.ones_like(output.replaced) if attention_mask is None else attention_mask.bool()
            output.losses["ato"] = replaced_token_loss(logits, output.replaced, scored)
            output.ato_logits = logits.detach()
        if weights.get("sbpo"):
            assert masked_positions is not None and labels is not None
            positions, scored, boundaries = masked_positions, labels != IGNORE_INDEX, spans
            if decoy_positions is not None and decoy_scored is not None:
                positions = torch.cat([positions, decoy_positions], dim=1)
                scored = torch.cat([scored, decoy_scored], dim=1)
                boundaries = tuple(torch.cat([span, decoy], dim=1) for span, decoy in zip(spans, decoys, strict=True))  # type: ignore[list-item, assignment]
            logits = self.discriminator.span_boundary_logits(hidden_states, *boundaries)  # type: ignore[arg-type]
            output.sbpo_replaced, output.sbpo_scored = output.replaced.gather(1, positions), scored
            output.losses["sbpo"] = replaced_token_loss(logits, output.sbpo_replaced, scored)
            output.sbpo_logits = logits.detach()
        if weights.get("correction"):
            assert masked_positions is not None and labels is not None
            logits = self.discriminator.correction_logits(hidden_states, masked_positions)
            # a token that was restored is no error to correct
            is_replaced = output.replaced.gather(1, masked_positions)
            output.losses["correction"] = vocabulary_loss(logits, labels.where(is_replaced, IGNORE_INDEX))
            output.correction_logits = logits.detach()

    def save_pretrained(self, directory: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` (each shared tensor once)."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(directory)
        # not safetensors' save_model: it names the aliases in the file in random order, and equal models should be
        # equal files
        tensors: dict[tuple[int, torch.Size], tuple[str, Tensor]] = {}
        for name, tensor in self.state_dict().items():
            tensors.setdefault((tensor.data_ptr(), tensor.shape), (name, tensor.contiguous()))
        save_file(dict(tensors.values()), directory / WEIGHTS_NAME, metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> SpanElectraForPreTraining:
        """Open what :meth:`save_pretrained` wrote.

        Raises:
            UserError: where the directory holds no such model, or its weights do not fit it, naming the keys.
        """
        directory = Path(directory)
        config_file, weights_file = directory / "config.json", directory / WEIGHTS_NAME
        if not config_file.is_file() or not weights_file.is_file():
            raise UserError(f"{directory} holds no SpanElectra model: config.json and {WEIGHTS_NAME} are needed.")
        try:
            model_type = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError) as error:
            raise UserError(f"{config_file} is not a model's configuration ({error}).") from error
        if model_type != SpanElectraConfig.model_type:
            raise UserError(
                f"{config_file}: model_type is '{model_type}', not '{SpanElectraConfig.model_type}'. A plain Hugging "
                "Face encoder starts a run with --init_from."
            )
        try:
            config = SpanElectraConfig.from_pretrained(directory)
            config.check_size(weights_file.stat().st_size)
            model = cls(config)
        except Exception as error:  # configurations and encoders raise what they like
            reason = reason_of(error)
            raise UserError(f"{config_file} does not describe the model of {WEIGHTS_NAME} ({reason}).") from error
        model.load_weights(weights_file)
        return model

    def load_weights(self, weights_file: str | Path) -> None:
        """Load a ``model.safetensors`` strictly; raises :class:`UserError` naming keys that do not match."""
        try:
            load_model(self, str(weights_file), strict=True)
        except RuntimeError as error:
            raise UserError(f"{weights_file} does not fit this model: {error}") from error
        except SafetensorError as error:
            raise UserError(f"{weights_file} is damaged: {error}") from error


def share_weights(generator: SpanElectraGenerator, discriminator: SpanElectraDiscriminator, sharing: str) -> None:
    """Make the two hold the same tensors, as :class:`SpanElectraConfig` describes ``sharing``."""
    if sharing == "none":
        return
    language_model, detector = generator.language_model, discriminator.detector
    if sharing == "encoder":
        set_encoder_of(detector, encoder_of(language_model))
        discriminator.tie_corrector()
        return
    table = detector.get_input_embeddings()
    if embedding_size(generator.config) == embedding_size(discriminator.config):
        tie_masked_language_model(language_model, table)
        if sharing == "embeddings":
            for name in discriminator.family.positional_embeddings:
                setattr(encoder_of(language_model).embeddings, name, getattr(encoder_of(detector).embeddings, name))
    else:
        tie_masked_language_model(language_model, ProjectedEmbedding(table, embedding_size(generator.config)))
    if sharing == "gradient_disentangled":
        detector.set_input_embeddings(DisentangledEmbedding(table))
        discriminator.tie_corrector()
