"""The stock Hugging Face encoders we train, and the few places where their classes differ.

A generator is a stock ``…ForMaskedLM`` and a discriminator a stock ``ElectraForPreTraining`` or
``…ForTokenClassification``; both are used as they are, so what we export is what everybody's ``from_pretrained`` reads.
This file only says which module of such a class does what, so that heads can be applied to the positions they score
and not to the whole row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    ElectraConfig,
    ElectraForPreTraining,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from spanelectra.errors import UserError, did_you_mean

VERDICT_LABELS = {0: "original", 1: "replaced"}


@dataclass(frozen=True)
class EncoderFamily:
    """How one family of Hugging Face encoders names what we need.

    Attributes:
        prediction_transform: (stock masked language model, hidden states (…, hidden)) -> (…, embedding), the input of
            the vocabulary projection.
        detection_logits: (stock detector, hidden states (…, hidden)) -> (…) logit of 'replaced'.
        size_fields: the configuration's fields that a narrower generator scales.
        positional_embeddings: names inside the embeddings module that are shared with the token embeddings when
            generator and discriminator share them (ELECTRA shares token *and* positional embeddings).
    """

    prediction_transform: Callable[[Any, Tensor], Tensor]
    detection_logits: Callable[[Any, Tensor], Tensor]
    size_fields: tuple[str, ...] = ("hidden_size", "intermediate_size", "num_attention_heads")
    positional_embeddings: tuple[str, ...] = ("position_embeddings", "token_type_embeddings")


def _two_label_logit(logits: Tensor) -> Tensor:
    """(…, 2) logits of original and replaced -> (…) the one logit whose sigmoid is the softmax of 'replaced'."""
    return logits[..., 1] - logits[..., 0]


_BERT = EncoderFamily(
    prediction_transform=lambda model, hidden: model.cls.predictions.transform(hidden),
    detection_logits=lambda model, hidden: _two_label_logit(model.classifier(model.dropout(hidden))),
)

ENCODER_FAMILIES: dict[str, EncoderFamily] = {
    "electra": EncoderFamily(
        prediction_transform=lambda model, hidden: model.generator_predictions(hidden),
        detection_logits=lambda model, hidden: model.discriminator_predictions(hidden),
    ),
    "modernbert": EncoderFamily(
        prediction_transform=lambda model, hidden: model.head(hidden),
        detection_logits=lambda model, hidden: _two_label_logit(model.classifier(model.drop(model.head(hidden)))),
        positional_embeddings=(),
    ),
    "bert": _BERT,
}


def encoder_family(model_type: str) -> EncoderFamily:
    """Return the family of a configuration's ``model_type``; raises :class:`UserError` for one we do not know."""
    if model_type not in ENCODER_FAMILIES:
        raise UserError(
            f"encoder '{model_type}' is not supported; use one of {', '.join(sorted(ENCODER_FAMILIES))}."
            f"{did_you_mean(model_type, ENCODER_FAMILIES)}"
        )
    return ENCODER_FAMILIES[model_type]


def build_masked_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """A stock masked language model with fresh weights (drawn from torch's global generator)."""
    encoder_family(config.model_type)
    return AutoModelForMaskedLM.from_config(config)


def build_detector(config: PreTrainedConfig) -> PreTrainedModel:
    """A stock replaced-token detector with fresh weights.

    ELECTRA has a class of its own; other families have none, so a token classifier with the labels *original* and
    *replaced* takes its place and ``pipeline("token-classification")`` shows its verdict.
    """
    encoder_family(config.model_type)
    if config.model_type == "electra":
        return ElectraForPreTraining(config)
    config.id2label, config.label2id = dict(VERDICT_LABELS), {label: index for index, label in VERDICT_LABELS.items()}
    return AutoModelForTokenClassification.from_config(config)


def encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The headless encoder inside a stock model: the part that ``AutoModel`` would open."""
    return getattr(model, model.base_model_prefix)


def set_encoder_of(model: PreTrainedModel, encoder: nn.Module) -> None:
    """Put another headless encoder in its place."""
    setattr(model, model.base_model_prefix, encoder)


def prediction_head_of(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """What a stock masked language model has beside its encoder: the transform and the bias, by their names."""
    encoder = set(encoder_of(model).parameters())
    return {name: parameter for name, parameter in model.named_parameters() if parameter not in encoder}


def embedding_size(config: PreTrainedConfig) -> int:
    """Width of the token embeddings: ELECTRA's may differ from the hidden size, the others' may not."""
    return getattr(config, "embedding_size", config.hidden_size)


def make_encoder_config(
    family: str,
    *,
    vocab_size: int,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
    embedding_size: int | None,
    max_position_embeddings: int,
    dropout: float,
    token_ids: dict[str, int],
) -> PreTrainedConfig:
    """Build the stock configuration of an ``electra`` or ``modernbert`` encoder from one set of shape arguments.

    Args:
        embedding_size: width of the token embeddings (ELECTRA only; ``None`` for the hidden size).
        dropout: applied wherever the family has dropout.
        token_ids: ``pad_token_id``, ``cls_token_id``, ``sep_token_id`` of the tokenizer.

    Raises:
        UserError: for an unknown family, a size below 1, heads that do not divide the width, an odd width per head
            for rotary positions, or a factorised embedding for a family that has none.
    """
    encoder_family(family)
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": intermediate_size,
        "embedding_size": hidden_size if embedding_size is None else embedding_size,
    }
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name} must be at least 1, got {size}.")
    if hidden_size % num_attention_heads:
        raise UserError(
            f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}; change either."
        )
    if family == "electra":
        return ElectraConfig(
            vocab_size=vocab_size,
            embedding_size=embedding_size or hidden_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_position_embeddings,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            summary_last_dropout=dropout,
            pad_token_id=token_ids["pad_token_id"],
            use_cache=False,
        )
    if family == "modernbert":
        if hidden_size // num_attention_heads % 2:
            raise UserError(
                f"ModernBERT's rotary positions need an even width per head: hidden_size {hidden_size} over "
                f"num_attention_heads {num_attention_heads} is {hidden_size // num_attention_heads}; change either."
            )
        if embedding_size not in (None, hidden_size):
            raise UserError(
                f"ModernBERT ties embedding and hidden size: embedding_size {embedding_size} against hidden_size "
                f"{hidden_size}. Leave embedding_size out, or use the electra encoder."
            )
        return ModernBertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_position_embeddings,
            # rows are short, so a sliding window would only cost a mask
            layer_types=["full_attention"] * num_hidden_layers,
            attention_dropout=dropout,
            mlp_dropout=dropout,
            embedding_dropout=dropout,
            classifier_dropout=dropout,
            pad_token_id=token_ids["pad_token_id"],
            cls_token_id=token_ids["cls_token_id"],
            sep_token_id=token_ids["sep_token_id"],
            bos_token_id=token_ids["cls_token_id"],
            eos_token_id=token_ids["sep_token_id"],
        )
    raise UserError(f"encoder '{family}' can only be continued with --init_from; choose electra or modernbert.")


def scale_encoder_config(config: PreTrainedConfig, size: float, depth: float) -> PreTrainedConfig:
    """A generator's configuration: ``size`` times the width, ``depth`` times the layers of the discriminator's.

    ELECTRA (section 3.2) finds a quarter to a half of the width best. Heads keep their own width, so that the number
    of heads shrinks with the hidden size.

    Raises:
        UserError: where the fraction leaves no whole head.
    """
    if not (0 < size <= 1 and 0 < depth <= 1):
        raise UserError(f"generator_size and generator_depth must be in (0, 1], got {size} and {depth}.")
    # a third cannot be written as a decimal number
    simple = Fraction(size).limit_denominator(16)
    fraction = simple if abs(simple - size) < 1e-3 else Fraction(size).limit_denominator(1000)
    fields = config.to_dict()
    for field in encoder_family(config.model_type).size_fields:
        scaled = fields[field] * fraction
        if scaled < 1 or scaled.denominator != 1:
            raise UserError(
                f"generator_size {size} of {field} {fields[field]} is {float(scaled):g}: choose a whole fraction."
            )
        fields[field] = int(scaled)
    fields["num_hidden_layers"] = max(1, round(fields["num_hidden_layers"] * depth))
    if "layer_types" in fields:
        fields["layer_types"] = fields["layer_types"][: fields["num_hidden_layers"]]
    return type(config).from_dict(fields)
