"""The command ``spanelectra export``: a run's model -> plain Hugging Face models that open without this package.

Nothing is believed: what was written is opened again with the stock classes, and its logits are compared with those of
the run's own modules before the directory appears under its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.atomic_files import MANIFEST_NAME, find_damage, write_directory, write_json, write_text
from spanelectra.checkpointing import (
    CHECKPOINT_DIRECTORY,
    CONFIG_NAME,
    METRICS_NAME,
    MODEL_DIRECTORY,
    TOKENIZER_DIRECTORY,
    find_model,
    list_checkpoints,
)
from spanelectra.console import make_console, say, silent_transformers
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.errors import UserError
from spanelectra.export_check import Part, check_export, own_model
from spanelectra.flops import count_parameters
from spanelectra.model_card import model_card
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.recipe_files import as_yaml, load_recipe
from spanelectra.shared_embeddings import materialise
from spanelectra.training_args import PretrainingArguments

PARTS = ("discriminator", "generator")
FINE_TUNING_DROPOUT = 0.1

# Settings that say where something lay on the machine that trained.
_PLACES = {"data", "out_dir", "resume", "generator", "init_from", "init_generator_from", "recipe", "probe_tasks"}

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
    opens it, with the run's settings (its masking, for one) but for places on this machine. A run without a
    discriminator, or without a generator, leaves that directory out.

    Args:
        run: directory of a `spanelectra pretrain` run, one of its checkpoints, or an export.
        out_dir: directory to write; it appears complete or not at all.
        dropout: dropout probability in the exported configurations. Our recipes pre-train without dropout, while
            fine-tuning wants some and reads it from there: by default 0.1, as the released checkpoints of BERT and
            ELECTRA have it; ModernBERT's, which fine-tunes without, is left as it was. The weights do not depend on it.
        overwrite: replace an earlier export in out_dir.
        quiet: print nothing.

    Returns:
        ``run``, ``out_dir``, ``checkpoint``, and for ``discriminator`` and ``generator`` what was written
        (``directory``, ``class``, ``parameters``, ``difference``: of the logits, see ``export_check.py``) or ``None``.

    Raises:
        UserError: for a run without a model, a damaged one, or an out_dir in use.
        RuntimeError: where a written model does not open, or differs from the run's own; out_dir is untouched then.
    """
    if dropout is not None and not 0 <= dropout < 1:
        raise UserError(f"dropout is a probability from 0 to below 1, got {dropout}.")
    console = make_console(quiet)
    target = check_output_directory(out_dir, (*PARTS, CHECKPOINT_DIRECTORY), overwrite=overwrite)
    model, tokenizer, source = open_run(run)
    metrics = _read_metrics(Path(run) / METRICS_NAME) or _read_metrics(source / METRICS_NAME)
    settings = _published_settings(run)
    summary: dict[str, Any] = {"run": str(run), "out_dir": str(out_dir), "checkpoint": f"{out_dir}/checkpoint"}
    with write_directory(target, replace=overwrite) as partial, silent_transformers():
        for name in PARTS:
            part = getattr(model, name)
            summary[name] = None
            if part is None:
                say(console, f"no {name}: this run has none (objectives {', '.join(model.config.objectives or ())})")
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
        if settings is not None:
            write_text(partial / CHECKPOINT_DIRECTORY / CONFIG_NAME, as_yaml(settings))
    say(console, f"{source}: exported")
    for name in PARTS:
        if summary[name]:
            say(
                console,
                f"  {summary[name]['directory']}: {summary[name]['class']}, "
                f"{summary[name]['parameters'] / 1e6:.2f} M parameters; opened again, its logits differ from the run's "
                f"by {summary[name]['difference']:.1e} of their scale",
            )
    say(console, f"  {summary['checkpoint']}: the full model with all its heads")
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
    beside = (Path(run), source, source.parent)
    directories = [*(directory / TOKENIZER_DIRECTORY for directory in beside), source]
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


def _read_metrics(file: Path) -> dict[str, Any]:
    """Content of a run's ``metrics.json``; empty for a run that is not finished, or where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(metrics, dict):
            return metrics
    return {}


def run_settings(run: str | Path) -> PretrainingArguments | None:
    """The resolved settings of a run, of the run around its model or checkpoint, or of an export or a part of one.

    Returns:
        ``None`` where there are none.

    Raises:
        UserError: where they are there and cannot be read.
    """
    directory = Path(run).expanduser().resolve()
    places = [directory, directory / CHECKPOINT_DIRECTORY]
    # of any other directory the one around it is nobody's run
    if directory.name == MODEL_DIRECTORY or directory in list_checkpoints(directory.parent):
        places.append(directory.parent)
    elif directory.name in PARTS:
        places.append(directory.parent / CHECKPOINT_DIRECTORY)
    for place in places:
        if (place / CONFIG_NAME).is_file():
            return PretrainingArguments(**load_recipe(str(place / CONFIG_NAME))).resolved()
    return None


def _published_settings(run: str | Path) -> PretrainingArguments | None:
    """A run's settings without places on this machine; ``None`` also where they cannot be read."""
    with contextlib.suppress(UserError):
        if (settings := run_settings(run)) is not None:
            blank: dict[str, Any] = {name: getattr(PretrainingArguments(), name) for name in _PLACES}
            return dataclasses.replace(settings, **blank)
    return None
