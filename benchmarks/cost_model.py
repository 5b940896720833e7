"""What pre-training costs: a model of time and memory, checked against measured points, for runs to be planned.

    python benchmarks/cost_model.py --work_dir WORK

A step takes FLOPs / (peak x share of it that large products reach) + bytes kept for the backward pass x seconds a byte
+ parameters x seconds a parameter (the optimiser). The three constants are fitted to the processor seconds of some
model shapes on one thread, leaving out the one that is to be predicted. Memory is 16 bytes a parameter with AdamW, and
what the backward pass keeps (counted, not estimated: it is nearly the same on every device) times a fitted constant for
its own tensors.
Every point runs in a process of its own; finished ones are not done again. Writes `docs/cost_model.json` and the tables
of `docs/scaling.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import torch

from spanelectra.configuration_spanelectra import SpanElectraConfig
from spanelectra.encoder_families import make_encoder_config, scale_encoder_config
from spanelectra.environment import describe_environment
from spanelectra.flops import count_parameters, row_training_flops
from spanelectra.memory import keep_freed_memory, peak_memory_mib
from spanelectra.modeling_spanelectra import SpanElectraForPreTraining
from spanelectra.optimization import build_optimizer
from spanelectra.recipe_files import load_recipe

ROOT = Path(__file__).parent.parent
TOKEN_IDS = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}

# What to predict: recipe, rows a step, steps, where, bfloat16 FLOP/s of a device, devices, share of them that is used.
# No GPU was measured here: the shares are assumptions, usual for encoders of this size.
PLANS: list[tuple[str, int, int, str, float, int, float]] = [
    ("tiny-modern", 16, 8_000, "one core of this machine", 0.0, 1, 0.0),
    ("small-electra", 128, 1_000_000, "one A100", 312e12, 1, 0.3),
    ("small-modern", 128, 250_000, "one H100", 989e12, 1, 0.2),
    ("base-electra", 256, 766_000, "8 A100", 312e12, 8, 0.4),
    ("base-electra", 256, 766_000, "8 H100", 989e12, 8, 0.35),
    ("base-modern", 256, 766_000, "8 H100", 989e12, 8, 0.35),
]

# Shapes that one core trains in seconds: encoder, width, layers, heads, MLP, vocabulary, rows, length.
POINTS: list[tuple[str, int, int, int, int, int, int, int]] = [
    ("modernbert", 128, 4, 2, 256, 10_000, 16, 128),  # the tiny recipe
    ("electra", 128, 4, 2, 512, 10_000, 16, 128),
    ("modernbert", 128, 4, 2, 256, 10_000, 32, 128),
    ("modernbert", 128, 12, 2, 256, 10_000, 16, 128),
    ("modernbert", 256, 4, 4, 512, 10_000, 16, 128),
    ("electra", 256, 6, 4, 1024, 10_000, 8, 128),
    ("modernbert", 256, 4, 4, 512, 30_000, 8, 256),
    ("electra", 256, 12, 4, 1024, 30_000, 8, 128),  # ELECTRA-Small's shape
    ("modernbert", 384, 6, 6, 768, 10_000, 8, 128),
    ("electra", 512, 4, 8, 2048, 10_000, 4, 256),
    ("modernbert", 512, 8, 8, 1024, 10_000, 4, 128),
]


def make_model(
    encoder: str, hidden: int, layers: int, heads: int, inner: int, vocabulary: int, length: int, **settings: Any
) -> SpanElectraForPreTraining:
    """A joint model with the generator half as wide."""
    discriminator = make_encoder_config(
        encoder,
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        embedding_size=settings.get("embedding_size"),
        max_position_embeddings=max(length, settings.get("max_position_embeddings", 512)),
        dropout=settings.get("dropout", 0.0),
        token_ids=TOKEN_IDS,
    )
    generator = scale_encoder_config(discriminator, settings.get("generator_size", 0.5), 1.0)
    return SpanElectraForPreTraining(SpanElectraConfig(generator_config=generator, discriminator_config=discriminator))


def masked_count(length: int) -> int:
    """Scored positions a row at 15%."""
    return round(0.15 * (length - 2))


def make_batch(rows: int, length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """A batch of the shapes that the collator makes; single masked tokens, decoys between them."""
    count = masked_count(length)
    ids = torch.randint(5, vocabulary, (rows, length))
    places = 1 + torch.arange(count).mul(6).expand(rows, -1)
    batch = {"original_ids": ids, "input_ids": ids.clone(), "masked_positions": places}
    batch |= {"labels": ids.gather(1, places), "replacement_noise": torch.rand(rows, count)}
    batch |= {"left_boundaries": places - 1, "right_boundaries": places + 1, "span_positions": places * 0}
    decoys = places + 3
    batch |= {"decoy_positions": decoys, "decoy_left_boundaries": decoys - 1, "decoy_right_boundaries": decoys + 1}
    return {**batch, "decoy_span_positions": decoys * 0, "decoy_scored": torch.ones_like(decoys, dtype=torch.bool)}


def kept_bytes(model: SpanElectraForPreTraining, rows: int, length: int, vocabulary: int) -> int:
    """Bytes that the forward pass keeps for the backward pass, parameters aside; each memory counted once."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**make_batch(rows, length, vocabulary)).loss
    del loss
    return sum(storages.values())


def measure(point: int, steps: int = 8) -> dict[str, Any]:
    """One shape in this process: processor seconds a step, peak memory, and what the model predicts from."""
    # as `pretrain` does
    keep_freed_memory()
    encoder, hidden, layers, heads, inner, vocabulary, rows, length = POINTS[point]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    before = psutil.Process().memory_info().rss / (1 << 20)
    model = make_model(encoder, hidden, layers, heads, inner, vocabulary, length)
    optimizer = build_optimizer(
        model, optimizer="adamw", learning_rate=1e-4, muon_learning_rate=1e-3, weight_decay=0.01, betas=(0.9, 0.98),
        eps=1e-6,
    )  # fmt: skip
    seconds = []
    for _ in range(steps):
        batch = make_batch(rows, length, vocabulary)
        start = time.process_time()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
    # the least of several, for other work on the machine slows down a step
    measured = {"seconds": min(seconds), "memory_mib": peak_memory_mib() - before}
    flops = rows * row_training_flops(model, length, masked_count(length))
    kept = kept_bytes(model, rows, length, vocabulary)
    return {"point": POINTS[point], **measured, "flops": flops, "kept": kept, "parameters": count_parameters(model)}


def measure_peak(size: int = 2048, repeats: int = 12) -> dict[str, float]:
    """FLOPs a processor second of a large matrix product on one thread."""
    torch.set_num_threads(1)
    left, right, seconds = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(repeats):
        start = time.process_time()
        torch.mm(left, right)
        seconds.append(time.process_time() - start)
    return {"peak": 2 * size**3 / min(seconds)}


def features(points: list[dict[str, Any]], peak: float) -> np.ndarray:
    """(points, 3): seconds at the peak, gigabytes kept, parameters in billions."""
    return np.array([[p["flops"] / peak, p["kept"] / 1e9, p["parameters"] / 1e9] for p in points])


def fit(points: list[dict[str, Any]], peak: float) -> np.ndarray:
    """Constants of the model of time that make relative errors least, none below 0."""
    from scipy.optimize import nnls

    seconds = np.array([p["seconds"] for p in points])
    return nnls(features(points, peak) / seconds[:, None], np.ones(len(points)))[0]


def fit_memory(points: list[dict[str, Any]]) -> float:
    """What a kept byte costs at the peak, beside the state of the parameters."""
    extra = [(p["memory_mib"] * (1 << 20) - 16 * p["parameters"]) / p["kept"] for p in points]
    return float(np.median(extra))


def predicted_memory_mib(parameters: int, kept: float, a_kept_byte: float) -> float:
    """Weights, gradients and AdamW's two moments in float32, and the backward pass."""
    return (16 * parameters + a_kept_byte * kept) / (1 << 20)


def predict_recipe(name: str, vocabulary: int) -> dict[str, Any]:
    """Parameters, FLOPs a token, and memory of a shipped recipe; a forward pass of one row counts what is kept."""
    recipe = load_recipe(name)
    length = 512 if name.startswith("base") else 128
    shape = (recipe["hidden_size"], recipe["num_hidden_layers"], recipe["num_attention_heads"])
    extra = {key: recipe[key] for key in ("embedding_size", "dropout", "max_position_embeddings") if key in recipe}
    generator_size = 1 / 3 if name.startswith("base") else 0.5
    settings = {**extra, "generator_size": generator_size}
    model = make_model(recipe["encoder"], *shape, recipe["intermediate_size"], vocabulary, length, **settings)
    one, two = (kept_bytes(model, rows, length, vocabulary) for rows in (1, 2))
    return {
        "recipe": name,
        "length": length,
        "generator_size": generator_size,
        "parameters": count_parameters(model),
        "discriminator_parameters": count_parameters(model.discriminator),
        "flops_a_token": row_training_flops(model, length, masked_count(length)) / length,
        "kept_bytes_a_row": two - one,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point is not None:
        print(json.dumps(measure(arguments.point)))
        return
    if arguments.peak:
        print(json.dumps(measure_peak()))
        return
    if arguments.recipe:
        print(json.dumps(predict_recipe(arguments.recipe, 30_522)))
        return
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    points = [run_once(arguments.work_dir, "--point", str(number)) for number in range(len(POINTS))]
    names = ("tiny-modern", "small-electra", "small-modern", "base-electra", "base-modern")
    recipes = [run_once(arguments.work_dir, "--recipe", name) for name in names]
    peak = run_once(arguments.work_dir, "--peak")["peak"]
    for number, point in enumerate(points):
        others = points[:number] + points[number + 1 :]
        point["predicted_seconds"] = float(features([point], peak)[0] @ fit(others, peak))
        point["predicted_memory_mib"] = predicted_memory_mib(point["parameters"], point["kept"], fit_memory(others))
    slowness, a_gigabyte, a_billion = map(float, fit(points, peak))
    constants = {
        "peak": peak,
        "share_of_peak": 1 / slowness,
        "seconds_a_gigabyte": a_gigabyte,
        "seconds_a_billion": a_billion,
        "memory_a_kept_byte": fit_memory(points),
    }
    content = {"environment": describe_environment(), "constants": constants, "points": points, "recipes": recipes}
    (ROOT / "docs" / "cost_model.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_tables(points, recipes, constants)


def run_once(work: Path, *words: str) -> dict[str, Any]:
    """The JSON that a process of its own prints, kept for the next time."""
    file = work / f"{'-'.join(words).strip('-')}.json"
    if not file.is_file():
        finished = subprocess.run(
            [sys.executable, __file__, "--work_dir", str(work), *words], check=True, stdout=subprocess.PIPE, text=True
        )
        file.write_text(finished.stdout.splitlines()[-1])
    return json.loads(file.read_text())


def write_tables(points: list[dict[str, Any]], recipes: list[dict[str, Any]], constants: dict[str, float]) -> None:
    """Put the tables between their marks in docs/scaling.md."""
    checked = [
        "| encoder, width x layers, vocabulary, rows x length | parameters | GFLOP a step | s a step measured | "
        "predicted | MiB measured | predicted |",
        "|---|---|---|---|---|---|---|",
    ]
    for point in points:
        encoder, hidden, layers, _, _, vocabulary, rows, length = point["point"]
        shape = f"{encoder}, {hidden} x {layers}, {vocabulary:,}, {rows} x {length}"
        checked.append(
            f"| {shape} | {point['parameters'] / 1e6:.1f} M | {point['flops'] / 1e9:.0f} | {point['seconds']:.2f} | "
            f"{point['predicted_seconds']:.2f} | {point['memory_mib']:.0f} | {point['predicted_memory_mib']:.0f} |"
        )
    errors = [abs(point["predicted_seconds"] / point["seconds"] - 1) for point in points]
    memory = [abs(point["predicted_memory_mib"] / point["memory_mib"] - 1) for point in points]
    checked += [
        "",
        f"Each predicted from the other points. Time is off by {np.median(errors):.0%} in the median and "
        f"{max(errors):.0%} at most, memory by {np.median(memory):.0%} and {max(memory):.0%}. Constants: matrix "
        f"products reach {constants['share_of_peak']:.0%} of the peak ({constants['peak'] / 1e9:.0f} GFLOP/s on one "
        f"thread), a gigabyte kept costs {constants['seconds_a_gigabyte']:.2f} s, a billion parameters "
        f"{constants['seconds_a_billion']:.1f} s in the optimiser; the peak of memory is the parameters' state and "
        f"{constants['memory_a_kept_byte']:.2f} times what is kept.",
    ]
    table = [
        "| recipe | parameters, together (kept encoder) | row | GFLOP a token | state, GiB | kept a row, MiB (fp32) | "
        "checkpoint, GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        together, encoder = recipe["parameters"], recipe["discriminator_parameters"]
        table.append(
            f"| {recipe['recipe']} | {together / 1e6:.1f} M ({encoder / 1e6:.1f} M) | {recipe['length']} | "
            f"{recipe['flops_a_token'] / 1e9:.3f} | {16 * together / 2**30:.2f} | "
            f"{recipe['kept_bytes_a_row'] / 2**20:.0f} | {12 * together / 2**30:.2f} |"
        )
    plans = ["| run | tokens | FLOPs | on | assumed share of its peak | hours |", "|---|---|---|---|---|---|"]
    for name, rows, steps, place, peak, devices, share in PLANS:
        recipe = next(recipe for recipe in recipes if recipe["recipe"] == name)
        tokens = rows * steps * recipe["length"]
        flops = tokens * recipe["flops_a_token"]
        if peak:
            seconds, assumed = flops / (peak * devices * share), f"{share:.0%}"
        else:
            step = {
                "flops": flops / steps,
                "kept": rows * recipe["kept_bytes_a_row"],
                "parameters": recipe["parameters"],
            }
            weights = (1 / constants["share_of_peak"], constants["seconds_a_gigabyte"], constants["seconds_a_billion"])
            seconds, assumed = steps * float(features([step], constants["peak"])[0] @ weights), "as fitted"
        plans.append(
            f"| {name}, {steps:,} steps of {rows} rows | {tokens / 1e9:.3g} G | {flops:.2g} | {place} | {assumed} | "
            f"{seconds / 3600:.2g} |"
        )
    page = ROOT / "docs" / "scaling.md"
    text = page.read_text(encoding="utf-8")
    for name, lines in (("checked", checked), ("recipes", table), ("plans", plans)):
        before, _, rest = text.partition(f"<!-- begin {name} -->")
        after = rest.partition(f"<!-- end {name} -->")[2]
        text = "\n".join([f"{before}<!-- begin {name} -->", *lines, f"<!-- end {name} -->"]) + after
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
