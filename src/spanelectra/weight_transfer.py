"""Starting from weights that exist: a discriminator from its generator, a run from a Hugging Face encoder.

Nothing is matched by luck. Each policy states which parameters it fills; one that does not fit is an error that names
it, and what a source holds beyond that is listed in the report.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from spanelectra.checkpointing import MODEL_DIRECTORY, list_checkpoints, model_type
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.console import silent_transformers
from spanelectra.data.text_files import did_you_mean_path
from spanelectra.encoder_families import encoder_family, encoder_of, prediction_head_of
from spanelectra.errors import UserError, reason_of
from spanelectra.hub import check_model_name, out_of_reach
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_generator import SpanElectraGenerator
from spanelectra.shared_embeddings import materialise

WARM_STARTS = ("full", "embeddings", "grow")

# Projections that stack several matrices of the hidden size on their first axis; they grow block by block.
_STACKED_BLOCKS = {"attn.Wqkv": 3, "mlp.Wi": 2}
_LAYER_NUMBER = re.compile(r"(?<=layer\.)\d+|(?<=layers\.)\d+")


@dataclass
class TransferReport:
    """What was filled from where.

    Attributes:
        source: where the weights came from, in words.
        filled: names of the parameters that were filled.
        fresh: names of the parameters that keep their fresh initial weights.
        unused: names in the source that nothing took.
    """

    source: str
    filled: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.source}: {len(self.filled)} tensors filled"]
        for label, names in (("fresh", self.fresh), ("not used", self.unused)):
            if names:
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                parts.append(f"{label}: {shown}")
        return "; ".join(parts)


def warm_start(
    discriminator: SpanElectraDiscriminator, generator: SpanElectraGenerator, policy: str = "full"
) -> TransferReport:
    """Start a discriminator from a trained generator (the second of the two stages).

    Heads stay fresh, but for the correction head, which scores the vocabulary as the generator's MLM head does.

    Args:
        policy: ``full`` copies every encoder parameter of a generator of the same shape, and its MLM head into the
            correction head, where there is one; ``embeddings`` copies those of the embedding module; ``grow`` expands
            a smaller generator: every parameter goes into the leading block of its larger counterpart (each of the
            stacked matrices of a fused projection for itself), the rest of which keeps its fresh weights, and layer
            ``i`` of ``n`` takes layer ``floor(i * m / n)`` of the generator's ``m``. ModernBERT's first layer has no
            norm before its attention: a later layer that takes it keeps a fresh one.

    Raises:
        UserError: naming the first parameter that the policy promises and cannot fill.
    """
    language_model = materialise(generator.language_model)
    source = encoder_of(language_model).state_dict()
    target = encoder_of(discriminator.detector).state_dict()
    head = prediction_head_of(discriminator.corrector) if discriminator.corrector is not None else {}
    if head:
        target, source = target | head, source | prediction_head_of(language_model)
    if policy not in WARM_STARTS:
        raise UserError(f"warm_start: '{policy}' is not one of {', '.join(WARM_STARTS)}.")
    promised = {
        "full": list(target),
        "embeddings": [name for name in target if name.startswith("embeddings.")],
        "grow": [name for name in target if name not in head],
    }[policy]
    layers = (generator.config.num_hidden_layers, discriminator.config.num_hidden_layers)
    report = TransferReport(f"discriminator from generator ({policy})")
    used = set()
    for name in promised:
        source_name = _source_layer(name, *layers) if policy == "grow" else name
        tensor = source.get(source_name)
        if tensor is None and policy == "grow" and source_name == "layers.0.attn_norm.weight":
            continue
        fits = tensor is not None and (
            _is_smaller(tensor, target[name]) if policy == "grow" else tensor.shape == target[name].shape
        )
        if tensor is None or not fits:
            shape = "no such parameter" if tensor is None else f"shape {tuple(tensor.shape)}"
            others = [other for other in WARM_STARTS if other != policy]
            raise UserError(
                f"warm_start '{policy}' cannot fill {name} {tuple(target[name].shape)} from the generator ({shape}). "
                f"Train a generator of full size, or choose another --warm_start ({', '.join(others)})."
            )
        _copy_leading_block(name, tensor, target[name])
        report.filled.append(name)
        used.add(source_name)
    report.fresh = [name for name in target if name not in report.filled]
    report.unused = [name for name in source if name not in used]
    return report


def _source_layer(name: str, source_layers: int, target_layers: int) -> str:
    """The generator's name of a parameter for a discriminator of another depth."""
    return _LAYER_NUMBER.sub(lambda match: str(int(match.group()) * source_layers // target_layers), name)


def _is_smaller(source: Tensor, target: Tensor) -> bool:
    return source.dim() == target.dim() and all(s <= t for s, t in zip(source.shape, target.shape, strict=True))


@torch.no_grad()
def _copy_leading_block(name: str, source: Tensor, target: Tensor) -> None:
    """Write ``source`` into the leading corner of ``target``, block by block for stacked projections."""
    blocks = next((count for part, count in _STACKED_BLOCKS.items() if part in name), 1)
    for source_block, target_block in zip(source.chunk(blocks), target.chunk(blocks), strict=True):
        target_block[tuple(slice(size) for size in source_block.shape)] = source_block


def read_encoder_config(directory: str | Path, flag: str = "--init_from") -> PreTrainedConfig:
    """The configuration of a Hugging Face encoder (directory or hub name), of a family that we can train.

    Args:
        directory: directory or name.
        flag: that named it, for the error message.

    Raises:
        UserError: where there is none, or its family is not supported.
    """
    try:
        check_model_name(str(directory), "config.json")
        config = AutoConfig.from_pretrained(str(directory), trust_remote_code=False)
    except Exception as error:  # the Hub, the network and the configuration classes raise what they like
        inside = [Path(directory) / part for part in ("discriminator", "generator", MODEL_DIRECTORY)]
        kinds = {part: model_type(part) for part in (Path(directory), *inside, *list_checkpoints(directory)[-1:])}
        if SpanElectraConfig.model_type in kinds.values():
            raise UserError(
                f"{flag} {directory} is a run: `spanelectra export` writes its encoders as Hugging Face models; give "
                "one of those."
            ) from error
        if not Path(directory).is_dir() and (sentence := out_of_reach(str(directory), error)):
            raise UserError(f"{flag}: {sentence}{did_you_mean_path(Path(directory))}") from error
        found = next((part for part, kind in kinds.items() if kind is not None), None)
        hint = f" Did you mean '{found}'?" if found not in (None, Path(directory)) else ""
        raise UserError(f"{flag} {directory}: no Hugging Face model there ({reason_of(error)}).{hint}") from error
    encoder_family(config.model_type)
    # where it lay is nobody's business who gets the new model
    config.name_or_path = ""
    return config


def _load_stock(auto_class: type, directory: str | Path) -> tuple[nn.Module, set[str]]:
    """Open a stock model; returns it with the names that its checkpoint lacked."""
    try:
        with silent_transformers():
            model, info = auto_class.from_pretrained(  # type: ignore[attr-defined]
                str(directory), output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{directory}: the weights cannot be read ({str(error).splitlines()[0]})") from error
    return model, set(info["missing_keys"])


def initialise_discriminator(discriminator: SpanElectraDiscriminator, directory: str | Path) -> TransferReport:
    """Fill a discriminator's encoder from a Hugging Face checkpoint of the same shape; its heads stay fresh.

    Raises:
        UserError: where the checkpoint lacks a parameter of the encoder, naming it.
    """
    source, missing = _load_stock(AutoModel, directory)
    report = TransferReport(f"discriminator from {directory}")
    return _fill(encoder_of(discriminator.detector), source, missing, report)


def initialise_generator(generator: SpanElectraGenerator, directory: str | Path) -> TransferReport:
    """Fill a generator from a Hugging Face checkpoint of the same width: its lower layers, where it is shallower.

    The prediction head is taken too where the checkpoint has one, and stays fresh where it has none.
    """
    source, missing = _load_stock(AutoModelForMaskedLM, directory)
    missing_encoder = {name for name in missing if name.startswith(f"{generator.language_model.base_model_prefix}.")}
    report = TransferReport(f"generator from {directory}")
    filled = _fill(generator.language_model, source, missing_encoder, report)
    filled.fresh = sorted((missing - missing_encoder) & set(filled.filled))
    filled.filled = [name for name in filled.filled if name not in missing]
    return filled


@torch.no_grad()
def _fill(target: nn.Module, source: nn.Module, missing: set[str], report: TransferReport) -> TransferReport:
    target_state, source_state = target.state_dict(), source.state_dict()
    for name, tensor in target_state.items():
        if name in missing or name not in source_state or source_state[name].shape != tensor.shape:
            raise UserError(
                f"{report.source}: cannot fill {name} {tuple(tensor.shape)}; the checkpoint has no such tensor."
            )
        tensor.copy_(source_state[name])
        report.filled.append(name)
    report.unused = [name for name in source_state if name not in target_state]
    return report
