"""The command ``spanelectra export_onnx``: a stock model -> ONNX, which runs without torch.

Nothing is believed: onnxruntime opens what was written, and its outputs are compared with torch's for other numbers of
sentences and other lengths than the exporter saw, before the directory appears under its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.atomic_files import MANIFEST_NAME, find_damage, write_directory, write_text
from spanelectra.console import make_console, say
from spanelectra.data.output_directory import check_output_directory
from spanelectra.data.tokenization import FILES as TOKENIZER_FILES
from spanelectra.data.tokenization import load_tokenizer
from spanelectra.environment import library_versions
from spanelectra.errors import UserError, reason_of
from spanelectra.export import save_tokenizer
from spanelectra.onnx_graph import (
    GRAPH_NAME,
    WEIGHTS_NAME,
    check_onnx_packages,
    compared_shapes,
    largest_difference,
    longest_input,
    open_session,
    save_graph,
    silence,
    trace,
)

# Largest difference between onnxruntime's outputs and torch's, as a fraction of the largest output. Other kernels add
# in another order: 1e-6 for short inputs, 1e-5 for 512 tokens.
TOLERANCE = 1e-4
_OWN_FILES = (GRAPH_NAME, WEIGHTS_NAME, "config.json", "README.md", *TOKENIZER_FILES)
_EXPORT_FIRST = "A run of `spanelectra pretrain` becomes models of transformers by `spanelectra export`."

_CARD = """\
---
library_name: onnx
tags:
- onnx
- spanelectra
---

# {name} (ONNX)

`model.onnx` is a `{name}` as a graph that runs without torch; `config.json` and the tokenizer are the model's own.
Any number of sentences of up to {longest:,} tokens goes in.

| | name | shape |
|---|---|---|
{signature}

Put the directory that holds this file in place of `PATH`.

```python
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("PATH")
session = onnxruntime.InferenceSession("PATH/model.onnx", providers=["CPUExecutionProvider"])

inputs = tokenizer(["A sentence.", "Another, longer sentence."], padding=True, truncation=True, return_tensors="np")
outputs = session.run(None, {{spec.name: inputs[spec.name] for spec in session.get_inputs()}})
```

Compared with torch on the CPU, on batches of {compared} (sentences x tokens): the outputs differ by at most
{difference:.1e} of the largest. Made with {versions}; opset {opset}.
"""


def export_onnx(model: str, out_dir: str, overwrite: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Write a model as ``out_dir/model.onnx``, its tokenizer, its ``config.json`` and a page about them beside it.

    The graph takes what the tokenizer gives: int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where
    the tokenizer has them, each of shape (batch_size, sequence_length), both free. Its outputs are float32 and named as
    transformers names them: ``logits``, or for question answering ``start_logits`` and ``end_logits``.

    Args:
        model: directory of a stock Hugging Face model: `discriminator` or `generator` of an export, or the `model` of
            a fine-tuning. It is opened by the class that its config.json names.
        out_dir: directory to write; it appears complete or not at all.
        overwrite: replace an earlier ONNX export in out_dir.
        quiet: print nothing.

    Returns:
        ``model``, ``out_dir``, ``class``, ``inputs`` and ``outputs`` (name -> shape), ``bytes`` of graph and weights,
        ``opset``, and ``difference``: see :func:`~spanelectra.onnx_graph.largest_difference`.

    Raises:
        UserError: for missing packages, a model that does not open or that transformers cannot export, or an out_dir
            in use.
        RuntimeError: where onnxruntime computes something else than torch; out_dir is untouched then.
    """
    console = make_console(quiet)
    check_onnx_packages()
    target = check_output_directory(out_dir, _OWN_FILES, overwrite=overwrite)
    with silence(), write_directory(target, replace=overwrite) as partial:
        stock, tokenizer = open_stock_model(model)
        name, longest = type(stock).__name__, longest_input(stock, tokenizer)
        say(console, f"{model}: tracing {name}, which takes a while")
        graph = trace(stock, tokenizer)
        save_graph(graph, partial)
        session = open_session(partial / GRAPH_NAME)
        difference = largest_difference(session, stock, tokenizer)
        # written so that a difference that is not a number is refused, too
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"{model} was not exported: onnxruntime's outputs differ from torch's by {difference:.1e} of their "
                f"scale, more than {TOLERANCE:.0e}."
            )
        stock.config.name_or_path = ""  # where the model lay on this machine
        stock.config.save_pretrained(partial)
        save_tokenizer(tokenizer, partial, longest)
        size = sum(file.stat().st_size for file in partial.glob(f"{GRAPH_NAME}*"))
        summary: dict[str, Any] = {
            "model": str(model),
            "out_dir": str(out_dir),
            "class": name,
            "inputs": {spec.name: spec.shape for spec in session.get_inputs()},
            "outputs": {spec.name: spec.shape for spec in session.get_outputs()},
            "bytes": size,
            "opset": graph.opset_imports[""],
            "difference": difference,
        }
        write_text(partial / "README.md", _card(summary, longest))
    say(
        console,
        f"{out_dir}: {name}, {size / 1e6:.1f} MB; opened with onnxruntime, its outputs differ from torch's by "
        f"{difference:.1e} of their scale",
    )
    return summary


def open_stock_model(directory: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a model by the class that its ``config.json`` names, float32 and in evaluation mode, and its tokenizer.

    Raises:
        UserError: where there is none, it is damaged, or its weights do not fill it.
    """
    path = Path(directory).expanduser()
    if not (path / "config.json").is_file():
        inside = sorted(file.parent for file in path.glob("*/config.json") if hasattr(transformers, _class_name(file)))
        hint = f"Did you mean '{inside[0]}'?" if inside else _EXPORT_FIRST
        if not path.exists():
            raise UserError(f"{directory} does not exist. {hint}")
        raise UserError(f"{directory} holds no Hugging Face model: {path / 'config.json'} is missing. {hint}")
    damage = find_damage(path) if (path / MANIFEST_NAME).is_file() else None
    if damage is not None:
        raise UserError(f"{directory} is damaged: {damage}.")
    class_name = _class_name(path / "config.json")
    if not hasattr(transformers, class_name):
        raise UserError(f"{path / 'config.json'} names no class of transformers ('{class_name}'). {_EXPORT_FIRST}")
    stock_class = getattr(transformers, class_name)
    try:
        stock, info = stock_class.from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    except Exception as error:  # the configuration and the weights raise what they like
        reason = reason_of(error)
        raise UserError(f"{directory} does not open as a {class_name} ({reason})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{directory}: the weights do not fill {class_name}; {len(missing)} tensors are missing, {missing[0]} is "
            "the first."
        )
    return stock.eval(), load_tokenizer(path)


def _class_name(config: Path) -> str:
    """The class that a ``config.json`` names; empty where it names none or cannot be read."""
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _card(summary: dict[str, Any], longest: int) -> str:
    """The page that goes with the graph."""
    rows = [(kind, *row) for kind in ("input", "output") for row in summary[f"{kind}s"].items()]
    versions = library_versions()
    return _CARD.format(
        name=summary["class"],
        longest=longest,
        signature="\n".join(f"| {kind} | `{name}` | ({', '.join(map(str, shape))}) |" for kind, name, shape in rows),
        compared=", ".join(f"{sentences} x {length}" for sentences, length in compared_shapes(longest)),
        difference=summary["difference"],
        versions=", ".join(f"{package} {versions[package]}" for package in ("spanelectra", "transformers", "torch")),
        opset=summary["opset"],
    )
