"""Exports models to ONNX and compares onnxruntime with torch: outputs, size on disk, and speed on one thread.

    python benchmarks/onnx_equality.py --export OUT --bert DIR --work_dir WORK

The two parts of an export, a BERT encoder from elsewhere, and for each family every head with random weights (4 layers
of width 128) are exported by `spanelectra.onnx_export`. Writes `docs/onnx.json` and prints the tables of
`docs/onnx.md`. Finished models are not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
import transformers
from transformers import BertConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from spanelectra.data.tokenization import load_tokenizer
from spanelectra.encoder_families import make_encoder_config
from spanelectra.environment import describe_environment
from spanelectra.export import save_tokenizer
from spanelectra.onnx_export import export_onnx, open_stock_model
from spanelectra.onnx_graph import make_inputs, open_session

ROOT = Path(__file__).parent.parent
FAMILIES = ("modernbert", "electra", "bert")
HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
# rows and tokens; the graph was traced on none of these
COMPARED = [(1, 1), (1, 2), (2, 1), (2, 7), (1, 100), (8, 32), (4, 128), (2, 511), (2, 512)]
TIMED = [(1, 16), (1, 128), (8, 32), (8, 128)]
ROUNDS = 30


def encoder_config(family: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Four layers of width 128, as in the tiny recipe."""
    if family == "bert":
        sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 256}
        return BertConfig(vocab_size=len(tokenizer), **sizes)
    return make_encoder_config(
        family,
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=256,
        embedding_size=64 if family == "electra" else None,
        max_position_embeddings=512,
        dropout=0.0,
        token_ids={name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")},
    )


@torch.no_grad()
def write_random_model(directory: Path, family: str, head: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """A model whose biases and gains are random, too: at their initial values they would hide mistakes."""
    config = encoder_config(family, tokenizer)
    if head in ("SequenceClassification", "TokenClassification"):
        config.num_labels = 5
    if family == "modernbert":
        config.classifier_pooling = "mean"
    torch.manual_seed(1)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(directory)
    save_tokenizer(tokenizer, directory, config.max_position_embeddings)


@torch.no_grad()
def compare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, session: onnxruntime.InferenceSession
) -> dict[str, float]:
    """Largest absolute difference of any output where there is no padding, and the largest output beside it."""
    difference, largest = 0.0, 0.0
    for rows, length in COMPARED:
        inputs = make_inputs(model, tokenizer, rows, length)
        read = inputs["attention_mask"].bool()
        found = session.run(None, {spec.name: inputs[spec.name].numpy() for spec in session.get_inputs()})
        for own, array in zip(model(**inputs).to_tuple(), found, strict=True):
            other = torch.from_numpy(array)
            assert own.shape == other.shape
            if own.shape[:2] == read.shape:
                own, other = own[read], other[read]
            assert own.isfinite().all() and other.isfinite().all()
            difference = max(difference, (own - other).abs().max().item())
            largest = max(largest, own.abs().max().item())
    return {"difference": difference, "largest_output": largest}


@torch.inference_mode()
def measure_speed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, session: onnxruntime.InferenceSession
) -> dict[str, dict[str, float]]:
    """Least processor time of some rounds, in milliseconds.

    On one thread that is the time the work takes, where other work on the machine would add waiting to the clock's; the
    two take turns, so that what is left of its influence meets both.
    """
    results = {}
    for rows, length in TIMED:
        inputs = make_inputs(model, tokenizer, rows, length)
        arrays = {spec.name: inputs[spec.name].numpy() for spec in session.get_inputs()}
        seconds: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
        for _ in range(ROUNDS):
            start = time.process_time()
            model(**inputs)
            middle = time.process_time()
            session.run(None, arrays)
            seconds["torch"].append(middle - start)
            seconds["onnxruntime"].append(time.process_time() - middle)
        results[f"{rows} x {length}"] = {name: 1000 * min(values) for name, values in seconds.items()}
    return results


def examine(directory: Path, place: Path, *, timed: bool = False) -> dict[str, Any]:
    """Export one model to ``place`` and compare; what was found is kept beside it."""
    kept = place.with_suffix(".json")
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    start = time.process_time()
    summary = export_onnx(str(directory), str(place), overwrite=True)
    result: dict[str, Any] = {"class": summary["class"], "inputs": list(summary["inputs"]), "opset": summary["opset"]}
    result["export_cpu_seconds"] = time.process_time() - start
    result["megabytes"] = summary["bytes"] / 1e6
    result["safetensors_megabytes"] = (directory / "model.safetensors").stat().st_size / 1e6
    model, tokenizer = open_stock_model(directory)
    session = open_session(place / "model.onnx")
    result |= compare(model, tokenizer, session)
    if timed:
        result["milliseconds"] = measure_speed(model, tokenizer, session)
    kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def print_tables(results: dict[str, Any]) -> None:
    print("| model | class | inputs | largest output | largest difference | `.onnx`, MB | `.safetensors`, MB |")
    print("|---|---|---|---|---|---|---|")
    for name, result in results.items():
        print(
            f"| {name} | `{result['class']}` | {len(result['inputs'])} | {result['largest_output']:.2f} | "
            f"{result['difference']:.1e} | {result['megabytes']:.1f} | {result['safetensors_megabytes']:.1f} |"
        )
    print(
        "\n| processor milliseconds, sentences x tokens |",
        " | ".join(f"{rows} x {length}" for rows, length in TIMED),
        "|",
    )
    print("|---" * (1 + len(TIMED)) + "|")
    for name, result in results.items():
        for runtime in ("torch", "onnxruntime") if "milliseconds" in result else ():
            times = [f"{times[runtime]:.1f}" for times in result["milliseconds"].values()]
            print(f"| {name}, {runtime} |", " | ".join(times), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--export", "--bert", "--work_dir"):
        parser.add_argument(name, type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work_dir = arguments.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    discriminator = arguments.export / "discriminator"
    given = {"discriminator": discriminator, "generator": arguments.export / "generator", "bert": arguments.bert}
    results = {name: examine(directory, work_dir / f"{name}-onnx", timed=True) for name, directory in given.items()}
    for family in FAMILIES:
        tokenizer = load_tokenizer(arguments.bert if family == "bert" else discriminator)
        for head in ("PreTraining", *HEADS) if family == "electra" else HEADS:
            directory = work_dir / f"random-{family}-{head}"
            write_random_model(directory, family, head, tokenizer)
            results[f"random {family} {head}"] = examine(directory, work_dir / f"{directory.name}-onnx")
    packages = {name: version(name) for name in ("onnx", "onnxruntime", "onnxscript")}
    content = {"models": results, "packages": packages, "environment": describe_environment()}
    (ROOT / "docs" / "onnx.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print_tables(results)


if __name__ == "__main__":
    main()
