"""What gets a small generator off the plateau of word frequencies: generator runs that differ in one thing.

    python benchmarks/plateau.py --data ROWS --work_dir WORK [--steps 600]

Each run is a command of the package on one thread; finished runs are not done again, interrupted ones go on. Writes
`docs/plateau.json` and prints a Markdown table: held-out MLM loss at the end, on single-word masks all of which are
[MASK], beside the cross-entropy of guessing by frequency.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Everything else is the tiny recipe; spans of one word throughout, so that the last column is comparable.
COMMON = {"max_span_words": "1", "sbgo_weight": "0"}
VARIANTS: dict[str, dict[str, str]] = {
    "tiny recipe: Muon, 15% of the masked words kept": {},
    "nothing kept: always [MASK]": {"mask_token_ratio": "1.0"},
    "80/10/10 as BERT": {"mask_token_ratio": "0.8", "random_token_ratio": "0.1"},
    "AdamW": {"optimizer": "adamw"},
    "AdamW, nothing kept": {"optimizer": "adamw", "mask_token_ratio": "1.0"},
    "ELECTRA encoder (tiny-electra)": {"recipe": "tiny-electra"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--steps", default="600")
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    results = {}
    for number, (name, settings) in enumerate(VARIANTS.items()):
        run = arguments.work_dir / f"variant-{number}"
        words = ["--stage", "generator", "--data", arguments.data, "--out_dir", str(run)]
        words += ["--max_steps", arguments.steps, "--seed", arguments.seed, "--eval_steps", "100"]
        words += [
            word for pair in {"recipe": "tiny", **COMMON, **settings}.items() for word in (f"--{pair[0]}", pair[1])
        ]
        if (run / "config.yaml").is_file():
            words = ["--resume", str(run)]
        command = [sys.executable, "-m", "spanelectra.cli", "pretrain", *words]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        history = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        unigram = metrics["unigram_cross_entropy"]
        below = [line["step"] for line in history if line.get("eval_mlm_loss", unigram) < unigram - 0.25]
        results[name] = {
            "held_out_mlm_loss": metrics["held_out"]["mlm_loss"],
            "first_step_a_quarter_nat_below_unigram": below[0] if below else None,
            "unigram_cross_entropy": unigram,
            "steps": metrics["steps"],
            "tokens": metrics["tokens"],
            "training_flops": metrics["training_flops"],
            "seed": metrics["seed"],
            "versions": metrics["versions"],
        }
    (ROOT / "docs" / "plateau.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"guessing by frequency: {unigram:.2f} nats")
    print("| generator stage | held-out MLM loss | first evaluation 0.25 nats below frequency | training FLOPs |")
    print("|---|---|---|---|")
    for name, result in results.items():
        step = result["first_step_a_quarter_nat_below_unigram"]
        print(
            f"| {name} | {result['held_out_mlm_loss']:.2f} | {f'step {step}' if step else 'never'} | "
            f"{result['training_flops']:.2g} |"
        )


if __name__ == "__main__":
    main()
