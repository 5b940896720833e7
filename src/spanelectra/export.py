"""The command ``spanelectra export``: a run's model -> plain Hugging Face models that open without this package.

Nothing is believed: what was written is opened again with the stock classes, and its logits are compared with those of
the run's own modules before the directory appears under its name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from spanelectra.atomic_files import MANIFEST_NAME, find_damage, write_directory, write_json, write_text
from spanelectra.checkpointing import METRICS_NAME, TOKENIZER_DIRECTORY, find_model
from spanelectra.console import make_console
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.tokenization import load_tokenizer, tokenizer_fingerprint
from spanelectra.encoder_families import VERDICT_LABELS
from spanelectra.errors import UserError
from spanelectra.flops import count_parameters
from spanelectra.model_card import model_card
from spanelectra.modeling_discriminator import SpanElectraDiscriminator
from spanelectra.modeling_generator import SpanElectraGenerator
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.shared_embeddings import materialise

Part: TypeAlias = SpanElectraGenerator | SpanElectraDiscriminator

PARTS = ("discriminator", "generator")
CHECKPOINT_DIRECTORY = "checkpoint"
# Largest difference between exported and own logits, as a fraction of the largest own logit. Multiplying embeddings out
# reorders float32 additions, which costs about 1e-6.
TOLERANCE = 1e-5
FINE_TUNING_DROPOUT = 0.1

_BERT_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_DROPOUT_FIELDS = {
    "electra": (*_BERT_DROPOUT, "summary_last_dropout"),
    "bert": _BERT_DROPOUT,
    "modernbert": ("attention_dropout", "mlp_dropout", "embedding_dropout", "classifier_dropout"),
}


def export(
    run: str,
    out_dir: str,
    dropout: float | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write a run's encoders as ordinary Hugging Face models.

    ``out_dir/discriminator`` is an ``ElectraForPreTraining``, or for the families that have no such class a token
    classifier with the labels *original* and *replaced*; ``out_dir/generator`` a ``…ForMaskedLM``. Each comes with its
    tokenizer and a model card. ``out_dir/checkpoint`` is the full model, span-boundary heads included, as this package
    opens it. A run without a discriminator, or without a generator, leaves that directory out.

    Args:
        run: directory of a `spanelectra pretrain` run, one of its checkpoints, or an exported `checkpoint`.
        out_dir: directory to write; it appears complete or not at all.
        dropout: dropout probability in the exported configurations. Our recipes pre-train without dropout, while
            fine-tuning wants some and reads it from there: by default 0.1, as the released checkpoints of BERT and
            ELECTRA have it; ModernBERT's, which fine-tunes without, is left as it was. The weights do not depend on it.
        overwrite: replace an earlier export in out_dir.
        quiet: print nothing.

    Returns:
        ``run``, ``out_dir``, ``checkpoint``, and for ``discriminator`` and ``generator`` what was written
        (``directory``, ``class``, ``parameters``, ``difference``: see :func:`largest_difference`) or ``None``.

    Raises:
        UserError: for a run without a model, a damaged one, or an out_dir in use.
        RuntimeError: where a written model does not open, or differs from the run's own; out_dir is untouched then.
    """
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"dropout is a probability from 0 to below 1, got {dropout}.")
    console = make_console(quiet)
    target = check_output_directory(out_dir, (*PARTS, CHECKPOINT_DIRECTORY), overwrite=overwrite)
    model, tokenizer, source = open_run(run)
    metrics = _read_metrics(Path(run) / METRICS_NAME)
    summary: dict[str, Any] = {"run": str(run), "out_dir": str(out_dir), "checkpoint": f"{out_dir}/checkpoint"}
    with write_directory(target, replace=overwrite) as partial, silent_transformers():
        for name in PARTS:
            part = getattr(model, name)
            summary[name] = None
            if part is None:
                console.print(f"no {name}: this run has none (objectives {', '.join(model.config.objectives or ())})")
                continue
            stock = stock_model(part, dropout)
            stock.save_pretrained(partial / name)
            save_tokenizer(tokenizer, partial / name, stock.config.max_position_embeddings)
            write_text(partial / name / "README.md", model_card(name, stock, model.config, metrics))
            difference = check_export(partial / name, part, type(stock), tokenizer)
            summary[name] = {
                "directory": f"{out_dir}/{name}",
                "class": type(stock).__name__,
                "parameters": count_parameters(stock),
                "difference": difference,
            }
        for part in (model.generator, model.discriminator):
            if part is not None:
                part.config.name_or_path = ""  # where --init_from found it, on the machine that trained
        model.save_pretrained(partial / CHECKPOINT_DIRECTORY)
        save_tokenizer(tokenizer, partial / CHECKPOINT_DIRECTORY / TOKENIZER_DIRECTORY, longest_input(model))
        if metrics:
            write_json(partial / CHECKPOINT_DIRECTORY / METRICS_NAME, metrics)
    console.print(f"{source}: exported", highlight=False, markup=False)
    for name in PARTS:
        if summary[name]:
            console.print(
                f"  {summary[name]['directory']}: {summary[name]['class']}, "
                f"{summary[name]['parameters'] / 1e6:.2f} M parameters; opened again, its logits differ from the run's "
                f"by {summary[name]['difference']:.1e} of their scale",
                highlight=False,
                markup=False,
            )
    console.print(f"  {summary['checkpoint']}: the full model with its boundary heads", highlight=False, markup=False)
    return summary


def open_run(run: str | Path) -> tuple[SpanElectraForPreTraining, PreTrainedTokenizerBase, Path]:
    """Open the model of a run and its tokenizer.

    Returns:
        The model in evaluation mode, the tokenizer, and the directory that the model was in.

    Raises:
        UserError: where there is no model, it is damaged, or model and tokenizer do not belong together.
    """
    source = find_model(run)
    damage = find_damage(source) if (source / MANIFEST_NAME).is_file() else None
    if damage is not None:
        raise UserError(f"{source} is damaged: {damage}. Train again, or give one of the run's checkpoints.")
    try:
        model = SpanElectraForPreTraining.from_pretrained(source).eval()
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"{source} is damaged: {error}. Train again, or give one of the run's checkpoints.") from error
    # a model or a checkpoint that is given by itself has it one level up
    directories = (Path(run) / TOKENIZER_DIRECTORY, source.parent / TOKENIZER_DIRECTORY, source)
    directory = next((path for path in directories if (path / "tokenizer.json").is_file()), None)
    if directory is None:
        raise UserError(f"{run} holds no tokenizer: {directories[0] / 'tokenizer.json'} is missing.")
    tokenizer = load_tokenizer(directory)
    for part in (model.generator, model.discriminator):
        if part is not None and part.config.vocab_size < len(tokenizer):
            raise UserError(
                f"{run}: its tokenizer has {len(tokenizer)} entries, its model {part.config.vocab_size}; "
                "they are not of one run."
            )
    return model, tokenizer, source


def longest_input(model: SpanElectraForPreTraining) -> int:
    """The most tokens that every encoder of the model can take."""
    parts = [part for part in (model.generator, model.discriminator) if part is not None]
    return min(part.config.max_position_embeddings for part in parts)


def own_model(part: Part) -> PreTrainedModel:
    """The model of Hugging Face's class inside a part, whose embeddings may still be shared."""
    return part.language_model if isinstance(part, SpanElectraGenerator) else part.detector


def stock_model(part: Part, dropout: float | None = None) -> PreTrainedModel:
    """A copy of a part's own model, its embeddings made ordinary and its configuration ready for others.

    Args:
        dropout: see :func:`export`.
    """
    stock = materialise(own_model(part))
    config = stock.config
    if dropout is None and config.model_type != "modernbert":
        dropout = FINE_TUNING_DROPOUT
    if dropout is not None:
        for field in _DROPOUT_FIELDS[config.model_type]:
            setattr(config, field, dropout)
    if set(getattr(config, "layer_types", None) or ()) == {"full_attention"}:
        # transformers 4 does not know layer_types and would put a sliding window into two layers of three
        config.global_attn_every_n_layers = 1
    return stock


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path, max_length: int) -> None:
    """Write a tokenizer beside its model, so that older releases open it too and it knows the longest input."""
    # truncation that an earlier call asked for would be saved, and cut other people's texts
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(directory)
    configuration_path = directory / "tokenizer_config.json"
    configuration = json.loads(configuration_path.read_text(encoding="utf-8"))
    # transformers 5 writes a class name that transformers 4 does not know; this one opens in both
    if configuration.get("tokenizer_class") == "TokenizersBackend":
        configuration["tokenizer_class"] = "PreTrainedTokenizerFast"
    configuration["model_max_length"] = min(tokenizer.model_max_length, max_length)
    # without it transformers 4 adds token types, which the model may not take
    configuration["model_input_names"] = list(tokenizer.model_input_names)
    for loading_detail in ("is_local", "local_files_only", "name_or_path"):
        configuration.pop(loading_detail, None)
    write_json(configuration_path, configuration)


def check_export(
    directory: Path,
    part: Part,
    stock_class: type[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
) -> float:
    """Open an exported model as others will, and compare it with the run's own module.

    Returns:
        The largest difference, see :func:`largest_difference`.

    Raises:
        RuntimeError: for weights that are missing or left over, other logits, or another tokenizer.
    """
    reopened, info = stock_class.from_pretrained(directory, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(problem):
            raise RuntimeError(f"{directory.name} was not exported: it opens with {problem} {sorted(info[problem])}.")
    if reopened.config.architectures != [stock_class.__name__]:
        raise RuntimeError(f"{directory.name} was not exported: its config names {reopened.config.architectures}.")
    if tokenizer_fingerprint(load_tokenizer(directory)) != tokenizer_fingerprint(tokenizer):
        raise RuntimeError(f"{directory.name} was not exported: its tokenizer opens as another one.")
    difference = largest_difference(part, reopened.eval())
    # written so that a difference that is not a number is refused, too
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{directory.name} was not exported: its outputs differ from the run's by {difference:.1e} of their scale, "
            f"more than {TOLERANCE:.0e}."
        )
    return difference


@torch.no_grad()
def largest_difference(part: Part, stock: PreTrainedModel) -> float:
    """Compare every row of the embedding table, and logits on random rows of which one is padded.

    Both must be in evaluation mode. A detector with two labels is compared by the logit of *replaced* against
    *original*, which is what was trained.

    Returns:
        The largest absolute difference as a fraction of the largest absolute value of the run's own.
    """
    input_ids, attention_mask = _probe_rows(stock.config)
    vocabulary = torch.arange(stock.config.vocab_size)
    own_embedding = own_model(part).get_input_embeddings()
    if isinstance(part, SpanElectraGenerator):
        positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        own = part(input_ids, positions, attention_mask=attention_mask, sbgo=False).mlm_logits
    else:
        own = part.all_token_logits(part.encode(input_ids, attention_mask))
    logits = stock(input_ids, attention_mask=attention_mask).logits
    if not isinstance(part, SpanElectraGenerator) and logits.dim() == 3:
        assert logits.shape[-1] == len(VERDICT_LABELS)
        logits = logits[..., 1] - logits[..., 0]
    read = attention_mask.bool()
    pairs = ((own_embedding(vocabulary), stock.get_input_embeddings()(vocabulary)), (own[read], logits[read]))
    # torch's maximum, unlike Python's, keeps a difference that is not a number
    return torch.stack([_relative_difference(expected, found) for expected, found in pairs]).max().item()


def _relative_difference(expected: Tensor, found: Tensor) -> Tensor:
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return (expected - found).abs().max() / scale


def _probe_rows(config: PreTrainedConfig, rows: int = 4, length: int = 64) -> tuple[Tensor, Tensor]:
    """(rows, length) int64 random token ids, the last row half padding, and their attention mask."""
    length = min(length, config.max_position_embeddings)
    input_ids = torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[-1, length // 2 :] = 0
    return input_ids, attention_mask


def _read_metrics(file: Path) -> dict[str, Any]:
    """Content of a run's ``metrics.json``; empty for a run that is not finished, or where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(metrics, dict):
            return metrics
    return {}


@contextlib.contextmanager
def silent_transformers() -> Iterator[None]:
    """Without transformers' own progress bars and remarks; the export says what matters."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
