"""The README.md of an exported model: what it is, how it was trained, how to open it, what not to expect of it."""

from __future__ import annotations

import math
from typing import Any

from transformers import PreTrainedModel

from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.flops import count_parameters

_OBJECTIVES = {
    "mlm": "MLM, masked language modelling: the generator predicts masked tokens from their own hidden states",
    "sbgo": "SBGO, span-boundary generative objective: it predicts them from the two tokens beside the span",
    "ato": "ATO, all-token objective: the discriminator tells of every token whether a generator replaced it",
    "sbpo": "SBPO, span-boundary predictive objective: it tells so from the two tokens beside the span",
    "correction": "Correction: the discriminator predicts, where a token was replaced, which one stood there",
}

_PURPOSE = {
    "discriminator": "This is the discriminator, an encoder to fine-tune. Its head tells, for each token, whether it "
    "was replaced by a generator's guess.",
    "generator": "This is the generator, a masked language model that fills in [MASK], and an encoder to fine-tune.",
}
_COMPARE = " The {other} trained with it is one, too: which is better depends on size and compute, so compare both."

_OPEN_VERDICTS = """\
`pipeline("token-classification")` has no class for ELECTRA's head; its verdicts are one logit a token:

```python
import torch
from transformers import AutoTokenizer, ElectraForPreTraining

tokenizer, model = AutoTokenizer.from_pretrained("PATH"), ElectraForPreTraining.from_pretrained("PATH")
inputs = tokenizer("The cat sat on the table.", return_tensors="pt")
replaced = torch.sigmoid(model(**inputs).logits)  # (1, tokens) probability of 'replaced'
```
"""

_OPEN_LABELS = """\
The verdicts are the labels *original* and *replaced*:

```python
from transformers import pipeline

verdicts = pipeline("token-classification", "PATH", ignore_labels=[])("The cat sat on the table.")
```
"""

_OPEN_FILLS = """\
```python
from transformers import pipeline

fill = pipeline("fill-mask", "PATH")
fills = fill(f"The cat sat on the {fill.tokenizer.mask_token}.")
```
"""

_OPEN_ENCODER = """\
As an encoder:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer, model = AutoTokenizer.from_pretrained("PATH"), AutoModel.from_pretrained("PATH")
states = model(**tokenizer("The cat sat on the table.", return_tensors="pt")).last_hidden_state
```
"""


def model_card(part: str, stock: PreTrainedModel, config: SpanElectraConfig, metrics: dict[str, Any]) -> str:
    """Markdown with the front matter that the Hugging Face Hub reads.

    Args:
        part: ``discriminator`` or ``generator``.
        stock: the model as exported.
        config: of the whole pre-training model.
        metrics: content of the run's ``metrics.json``; may be empty.
    """
    family, class_name = stock.config.model_type, type(stock).__name__
    if part == "generator":
        task, opening = "fill-mask", _OPEN_FILLS
    elif family == "electra":
        task, opening = None, _OPEN_VERDICTS
    else:
        task, opening = "token-classification", _OPEN_LABELS
    sections = [
        "\n".join(_front_matter(family, task)),
        f"# SpanElectra {part} ({class_name})",
        f"{_PURPOSE[part]}{_compare(part, config)} It is an ordinary `{class_name}`: transformers opens it without any "
        "other package.",
        _shape(stock),
        "## How to open it",
        "Put the directory that holds this file in place of `PATH`.",
        opening.rstrip(),
        _OPEN_ENCODER.rstrip(),
        "## How it was trained",
        _method(config, metrics),
        *_held_out(metrics),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(part, stock, config)),
    ]
    return "\n\n".join(sections) + "\n"


def _compare(part: str, config: SpanElectraConfig) -> str:
    """What is said of the run's other encoder; nothing where there is none."""
    if config.generator_config is None or config.discriminator_config is None:
        return ""
    return _COMPARE.format(other="generator" if part == "discriminator" else "discriminator")


def _front_matter(family: str, task: str | None) -> list[str]:
    lines = ["---", "library_name: transformers"]
    if task is not None:
        lines.append(f"pipeline_tag: {task}")
    return [*lines, "tags:", "- spanelectra", f"- {family}", "- pre-training", "---"]


def _shape(stock: PreTrainedModel) -> str:
    shape = stock.config
    rows = {
        "parameters": f"{count_parameters(stock):,}",
        "encoder": f"{shape.model_type}, {shape.num_hidden_layers} layers of width {shape.hidden_size}, "
        f"{shape.num_attention_heads} heads",
        "vocabulary": f"{shape.vocab_size:,} tokens",
        "longest input": f"{shape.max_position_embeddings:,} tokens",
    }
    return _table("", "", rows)


def _method(config: SpanElectraConfig, metrics: dict[str, Any]) -> str:
    """The objectives, and the run's numbers where it has left some."""
    objectives = config.objectives or []
    lines = ["Spans of whole words were masked, and what takes their place was judged, by these objectives:"]
    if not {"sbgo", "sbpo"} & set(objectives):
        lines = ["It was trained by these objectives:"]
    lines += ["", *(f"- {text}" for name, text in _OBJECTIVES.items() if name in objectives)]
    if config.freeze_generator:
        lines += ["", "The generator had been trained before, and was frozen while the discriminator was."]
    elif config.generator_config is not None and config.discriminator_config is not None:
        lines += ["", f"Generator and discriminator were trained together and shared: {config.sharing}."]
    versions = metrics.get("versions") or {}
    # a method without a discriminator has one stage, which has no name
    is_alone = config.discriminator_config is None and metrics.get("stage") == "joint"
    rows = {
        "method": metrics.get("method"),
        "stage": None if is_alone else metrics.get("stage"),
        "tokens in a row": _count(metrics.get("max_seq_length")),
        "optimiser steps": _count(metrics.get("steps")),
        "tokens": _count(metrics.get("tokens")),
        "seed": metrics.get("seed"),
        "made with": ", ".join(
            f"{name} {versions[name]}" for name in ("spanelectra", "transformers", "torch") if name in versions
        ),
    }
    rows = {name: value for name, value in rows.items() if value not in (None, "")}
    lines += ["", _table("", "", rows)] if rows else []
    return "\n".join(lines)


def _held_out(metrics: dict[str, Any]) -> list[str]:
    """Held-out metrics beside their baselines; nothing where the run evaluated nothing."""
    rows = {
        f"`{name}`": f"{value:.4g}"
        for name, value in (metrics.get("held_out") or {}).items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
    if not rows:
        return []
    baseline = metrics.get("unigram_cross_entropy")
    if isinstance(baseline, (int, float)) and "mlm_loss" in metrics["held_out"]:
        rows["baseline: guessing tokens by frequency, nats (compare `mlm_loss`)"] = f"{baseline:.4g}"
    note = (
        "On held-out text, masked in one fixed way. Losses are in nats; `…_majority_accuracy` is what always giving "
        "the commoner answer would score; an AUC of 0.5 is chance."
    )
    return [note, _table("held-out metric", "value", rows)]


def _limits(part: str, stock: PreTrainedModel, config: SpanElectraConfig) -> list[str]:
    limits = ["It knows what its training text held, its biases included, and was not examined for them."]
    objectives = config.objectives or []
    if part == "discriminator":
        limits.append(
            "It recognises this generator's replacements. It is no detector of errors or of machine-written text."
        )
        if "ato" not in objectives:
            limits.append("Its token head was not trained (ATO is not among the objectives): use the encoder only.")
    elif "mlm" not in objectives and not config.freeze_generator:
        limits.append("Its [MASK] head was not trained (MLM is not among the objectives): use the encoder only.")
    left_out = ["the span-boundary heads"] if {"sbgo", "sbpo"} & set(objectives) else []
    left_out += ["the head that corrects"] if part == "discriminator" and "correction" in objectives else []
    if left_out:
        limits.append(
            f"It comes without {' and '.join(left_out)}; the full model is in `checkpoint`, beside this directory."
        )
    if stock.config.model_type == "bert":
        limits.append("It has no trained pooler: use `last_hidden_state`, not `pooler_output`.")
    return limits


def _table(first: str, second: str, rows: dict[str, Any]) -> str:
    return "\n".join(
        [f"| {first} | {second} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def _count(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None
