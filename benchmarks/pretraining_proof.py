"""Pre-training on a real corpus, end to end: vocabulary, rows, joint and two-stage training, export.

    python benchmarks/pretraining_proof.py --corpus TEXT --work_dir WORK [--steps 5000]

Every step is a command of the package in a process of its own, on one thread. What is finished is not done again and
what was interrupted goes on, so the script may be stopped and started at any time. It writes `docs/pretraining.json`,
`docs/pretraining.png` and from them `docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from results_page import replace_section, table

ROOT = Path(__file__).parent.parent
SMALL_CORPUS_BYTES = 10_000_000

# Run in a clean environment: transformers and torch, but not this package.
OPEN_WITHOUT_US = """
import importlib.util, json, sys
assert importlib.util.find_spec("spanelectra") is None
from transformers import AutoModel, AutoTokenizer, pipeline
directory, filled, judged = sys.argv[1:]
model = AutoModel.from_pretrained(directory + "/discriminator")
tokenizer = AutoTokenizer.from_pretrained(directory + "/discriminator")
states = model(**tokenizer("The heart pumps blood through the body.", return_tensors="pt")).last_hidden_state
fills = pipeline("fill-mask", directory + "/generator")(filled, top_k=5)
detect = pipeline("token-classification", directory + "/discriminator")
verdicts = detect(judged)
print(json.dumps({
    "class": type(model).__name__,
    "shape": list(states.shape),
    "fills": [[fill["token_str"], round(fill["score"], 3)] for fill in fills],
    "verdicts": [[v["word"], v["entity"], round(float(v["score"]), 3)] for v in verdicts],
}))
"""


# to fill, and to judge
FILLED = "The heart pumps [MASK] through the body."
JUDGED = "The heart pumps government through the body."


def command(*words: str) -> subprocess.Popen[bytes]:
    """Start a command of the package on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "spanelectra.cli", *words], env=environment)


def wait(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        if process.wait() != 0:
            sys.exit(f"failed with exit code {process.returncode}: {process.args}")


def run(directory: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start, or go on with, a run."""
    if (directory / "config.yaml").is_file():
        return command("pretrain", "--resume", str(directory))
    return command("pretrain", *words, "--out_dir", str(directory))


def prepare(text: Path, tokenizer: Path, out_dir: Path) -> dict[str, Any]:
    """Prepare rows in a process of its own, whose peak memory is theirs alone; returns its summary."""
    summary = out_dir.with_suffix(".json")
    if not summary.is_file():
        code = "import json, sys; from spanelectra.data.packing import prepare; "
        code += "s = prepare(sys.argv[1], sys.argv[2], sys.argv[3], max_seq_length=128, overwrite=True); "
        code += "open(sys.argv[4], 'w').write(json.dumps(s, default=str))"
        words = [str(text), str(tokenizer), str(out_dir), str(summary)]
        subprocess.run([sys.executable, "-c", code, *words], check=True)
    content = json.loads(summary.read_text(encoding="utf-8"))
    # where the text lies is nobody's business
    content.pop("sources", None)
    return content


def small_corpus(corpus: Path, target: Path) -> Path:
    """The first 10 MB of the corpus' text files."""
    target.mkdir(exist_ok=True)
    left = SMALL_CORPUS_BYTES
    for file in sorted(corpus.rglob("*.txt")):
        content = file.read_bytes()[:left].decode("utf-8", errors="ignore")
        (target / file.name).write_text(content, encoding="utf-8")
        left -= len(content.encode())
        if left <= 0:
            break
    return target


def write_results(results: dict[str, Any]) -> str:
    """The section of the results page."""
    environment, runs = results["environment"], results["runs"]
    names = sorted({name for metrics in runs.values() for name in metrics["held_out"]})
    numbers = [
        [name, *(f"{m['held_out'][name]:.3f}" if name in m["held_out"] else "" for m in runs.values())]
        for name in names
    ]
    costs = [
        ["million tokens", *(f"{m['tokens'] / 1e6:.1f}" for m in runs.values())],
        ["minutes", *(f"{m['wall_seconds'] / 60:.0f}" for m in runs.values())],
        ["tokens/s (median)", *(f"{m['tokens_per_second']:,.0f}" for m in runs.values())],
        ["training FLOPs", *(f"{m['training_flops']:.2g}" for m in runs.values())],
        ["peak memory, MiB", *(f"{m['peak_memory_mib']:,.0f}" for m in runs.values())],
        ["alarms", *(str(len(m["alarms"])) for m in runs.values())],
    ]
    prepared = [
        [
            size,
            f"{p['splits']['train']['tokens']:,}",
            f"{p['splits']['train']['rows']:,}",
            f"{p['splits']['validation']['rows']:,}",
            f"{p['megabytes_per_second']:.1f}",
            f"{p['peak_memory_mib']:,.0f}",
        ]
        for size, p in results["prepare"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    unigram = runs["joint"]["unigram_cross_entropy"]
    opened = results["exports"].get("joint")
    return f"""## Pre-training: the road works

Written by `python benchmarks/pretraining_proof.py --corpus TEXT --work_dir WORK`; the numbers are in
[pretraining.json](pretraining.json). One seed each ({runs["joint"]["seed"]}): this shows that the road works, not which
method is better.

Machine: {environment["processor"]}, {environment["cores"]} cores, one thread a run, two runs side by side **while other
work ran on the same cores**, so rates are lower bounds. {versions}.

### Preparing text

Byte-level BPE of 10,000 tokens, rows of 128, 76 MB of textbooks, reviews, news and speeches. Memory stays flat as the
text grows.

{table(["text", "training tokens", "training rows", "held-out rows", "MB/s", "peak memory, MiB"], prepared)}

### Joint and two-stage pre-training

The tiny recipe (ModernBERT, 128 wide, 4 layers). Guessing held-out tokens by frequency costs {unigram:.3f} nats each.
The discriminator stage starts from the generator of the middle column, which stays frozen and draws its fakes.

![held-out losses, AUC and rate over tokens](pretraining.png)

{table(["", *runs], costs)}

Held-out metrics at the end (spans of up to five words, all of them [MASK]; `_masked` over masked tokens, else over all
tokens or over masked and decoy spans). The two discriminators judge different generators' fakes, so their columns are
not a comparison.

{table(["held-out", *runs], numbers)}

### The exported encoder without this package

{opened_table(opened) if opened else "Not run: pass --clean_python."}
"""


def opened_table(opened: dict[str, Any]) -> str:
    """What an environment that has transformers and not this package made of the joint run's export."""
    fills = ", ".join(f"`{token}` {probability:.3f}" for token, probability in opened["fills"])
    # the byte-level alphabet's letter for a space
    verdicts = [[f"`{token}`".replace("\u0120", " "), label, f"{p:.3f}"] for token, label, p in opened["verdicts"]]
    states = " x ".join(map(str, opened["shape"]))
    return f"""The joint run's export, opened in an environment that has transformers and not this package: a
`{opened["class"]}` whose hidden states are {states}. Its generator fills "{FILLED}"
with {fills}. Of every token of
"{JUDGED}" its discriminator says, with a probability:

{table(["token", "verdict", "probability"], verdicts)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--steps", default=None, help="of every stage; the recipe's by default")
    parser.add_argument(
        "--discriminator_steps", default=None, help="of the discriminator stage; as the others by default"
    )
    parser.add_argument("--clean_python", help="python of an environment with transformers but without this package")
    arguments = parser.parse_args()
    work = arguments.work_dir
    work.mkdir(parents=True, exist_ok=True)

    if not (work / "tokenizer").is_dir():
        words = ("--tokenizer_type", "BPE", "--vocab_size", "10000", "--min_frequency", "2")
        wait(command("vocab", "--data_dir", str(arguments.corpus), "--out_dir", str(work / "tokenizer"), *words))
    prepared = {
        "10 MB": prepare(small_corpus(arguments.corpus, work / "text_10mb"), work / "tokenizer", work / "rows_10mb"),
        "all": prepare(arguments.corpus, work / "tokenizer", work / "rows"),
    }
    common = ["--recipe", arguments.recipe, "--data", str(work / "rows"), "--seed", arguments.seed]
    common += ["--max_steps", arguments.steps] if arguments.steps else []
    joint, generator, discriminator = work / "joint", work / "generator", work / "discriminator"
    wait(
        run(joint, *common, "--stage", "joint"),
        run(generator, *common, "--stage", "generator"),
    )
    if arguments.discriminator_steps:
        common += ["--max_steps", arguments.discriminator_steps]
    wait(run(discriminator, *common, "--stage", "discriminator", "--generator", str(generator)))
    results: dict[str, Any] = {"prepare": prepared, "runs": {}, "exports": {}}
    for directory in (joint, generator, discriminator):
        exported = work / f"{directory.name}_export"
        wait(command("export", str(directory), "--out_dir", str(exported), "--overwrite"))
        results["runs"][directory.name] = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        results["environment"] = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
    if arguments.clean_python:
        words = [arguments.clean_python, "-c", OPEN_WITHOUT_US, str(work / "joint_export"), FILLED, JUDGED]
        opened = subprocess.run(words, check=True, capture_output=True, text=True, cwd=work)
        results["exports"]["joint"] = json.loads(opened.stdout.splitlines()[-1])
    docs = ROOT / "docs"
    (docs / "pretraining.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    replace_section(docs / "results.md", "pre-training", write_results(results))
    plot = [sys.executable, str(ROOT / "benchmarks" / "plot_curves.py"), str(joint), str(generator), str(discriminator)]
    subprocess.run([*plot, "--out", str(docs / "pretraining.png")], check=True)
    for name, metrics in results["runs"].items():
        held_out = {key: round(value, 3) for key, value in metrics["held_out"].items()}
        print(name, f"{metrics['tokens_per_second']:,.0f} tokens/s, {metrics['peak_memory_mib']:,.0f} MiB", held_out)


if __name__ == "__main__":
    main()
