"""Opens the encoder that is to be fine-tuned: a run, an export, a Hugging Face directory or a name on the Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from spanelectra.checkpointing import MODEL_DIRECTORY, holds_run, model_type
from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.console import silent_transformers
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.encoder_families import encoder_of
from spanelectra.errors import UserError, reason_of
from spanelectra.export import PARTS, longest_input, open_run, stock_model


@dataclass(frozen=True)
class EncoderSource:
    """An encoder without a head, float32, and its tokenizer.

    Attributes:
        name: what it is, in words; of a directory its last names, not where on this machine it lies.
        encoder: the model that ``AutoModel`` would open.
        tokenizer: a fast tokenizer that pads on the right; ``model_max_length`` is at most what the encoder can take.
    """

    name: str
    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def fingerprint(self, *, weights: bool) -> str:
        """SHA-256 in hexadecimal of the tokenizer and the encoder.

        Args:
            weights: whether they count, or the encoder's shape only.
        """
        digest = hashlib.sha256(tokenizer_fingerprint(self.tokenizer).encode())
        for name, tensor in self.encoder.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            if weights:
                digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()


def open_encoder(model: str, *, fresh: bool = False) -> EncoderSource:
    """Open the discriminator (for want of one the generator) of a run or an export, or any Hugging Face encoder.

    The encoder of a fine-tuned model, or of the run that holds it, opens like any other; its head is left behind.

    Args:
        model: directory, or name on the Hub.
        fresh: the caller wants the shape only, so that a Hugging Face directory needs no weights.

    Raises:
        UserError: where nothing opens, it is no encoder, or the weights do not fill it: random weights are never taken
            for trained ones.
    """
    path = Path(model).expanduser()
    own_type = SpanElectraConfig.model_type
    if model_type(path) == own_type or (holds_run(path) and model_type(path / MODEL_DIRECTORY) in (None, own_type)):
        source = _open_own(path)
    else:
        places = (path, *(path / part for part in PARTS), path / MODEL_DIRECTORY)
        place = next((place for place in places if (place / "config.json").is_file()), None)
        source = _open_stock(model if place is None else str(place), fresh)
    # what reads logits takes a text's tokens for the first ones of a row
    source.tokenizer.padding_side = "right"
    return source


def _short_name(path: Path) -> str:
    """The last name of a path; of a part of a run or an export also the name before."""
    path = path.resolve()
    is_part = path.name in (*PARTS, MODEL_DIRECTORY) or path.name.startswith("checkpoint")
    return f"{path.parent.name}/{path.name}" if is_part else path.name


def _open_own(path: Path) -> EncoderSource:
    own, tokenizer, _ = open_run(path)
    part, name = (own.discriminator, "discriminator") if own.discriminator is not None else (own.generator, "generator")
    assert part is not None
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest_input(own))
    return EncoderSource(f"{name} of {_short_name(path)}", encoder_of(stock_model(part)), tokenizer)


def _open_stock(model: str, fresh: bool) -> EncoderSource:
    # also where the name is unknown, this says so
    tokenizer = load_tokenizer(model, "model")
    try:
        with silent_transformers():
            encoder, unfilled = _read_encoder(model, fresh)
    except Exception as error:  # the Hub, the network, the configuration and the weights raise what they like
        reason = reason_of(error)
        raise UserError(f"--model {model}: no encoder that opens ({reason})") from error
    if any(getattr(encoder.config, role, False) for role in ("is_encoder_decoder", "is_decoder")):
        raise UserError(f"--model {model}: '{encoder.config.model_type}' has a decoder; give an encoder such as BERT.")
    poolers = [name for name in unfilled if name.startswith("pooler.")]
    if poolers:
        # a head that many checkpoints leave out: what was drawn for it here is no weight of theirs
        encoder.pooler = None
    missing = [name for name in unfilled if name not in poolers]
    if missing:
        raise UserError(
            f"--model {model}: the weights do not fill the encoder; {len(missing)} tensors are missing or of another "
            f"shape, {missing[0]} is the first. For fresh weights of that shape pass --random_weights."
        )
    if encoder.config.vocab_size < len(tokenizer):
        raise UserError(
            f"--model {model}: its tokenizer has {len(tokenizer)} entries, its vocabulary {encoder.config.vocab_size}; "
            "they do not belong together."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, _positions(encoder))
    name = _short_name(Path(model)) if Path(model).is_dir() else model
    return EncoderSource(name, encoder, tokenizer)


def _read_encoder(model: str, fresh: bool) -> tuple[PreTrainedModel, list[str]]:
    """The encoder, and the names of its tensors that no weight fills."""
    if fresh:
        return AutoModel.from_config(AutoConfig.from_pretrained(model), dtype=torch.float32), []
    info: dict[str, Any]
    encoder, info = AutoModel.from_pretrained(
        model, output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    return encoder, sorted([*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])])


def _positions(encoder: PreTrainedModel) -> int:
    """The most tokens that an encoder can take."""
    positions = getattr(encoder.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return VERY_LARGE_INTEGER
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin count positions from the padding id on
    padding = getattr(table, "padding_idx", None)
    return positions if padding is None else positions - padding - 1
