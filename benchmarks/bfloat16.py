"""Does bfloat16 on a processor train as well as float32, and how much faster? Pairs of runs that differ in it alone.

    python benchmarks/bfloat16.py --data ROWS --tasks TASKS --work_dir WORK --page

Every run is a command of the package on one thread, the two of a seed one after the other; each encoder is fine-tuned
on CoNLL-2003 with one seed (in float32, both). Finished runs are not done again, interrupted ones go on. Rates are
comparable within a pair alone, where nothing else changes its use of the machine. Writes `docs/bfloat16.json`, and with
--page a section of docs/throughput.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from checked_out import at, checked_out
from results_page import replace_section, table

ROOT = Path(__file__).parent.parent
ARITHMETIC = {"float32": "false", "bfloat16": "true"}
# what is compared, how it is written, and whether as a ratio
FIGURES = (("held_out_mlm_loss", ".3f", False), ("conll2003_dev_f1", ".2f", False), ("tokens_per_second", ",.0f", True))


def spanelectra(*words: str) -> None:
    """Run a command of the package on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "spanelectra.cli", *words], check=True, env=environment)


def measure(arguments: argparse.Namespace, seed: int, bf16: str) -> dict[str, Any]:
    """Pre-train and fine-tune once, or read what an earlier call has left."""
    run = arguments.work_dir / f"{Path(arguments.recipe).stem}-{arguments.steps}-bf16-{bf16}-seed-{seed}"
    scores = run.with_name(f"{run.name}-conll2003")
    if (run / "config.yaml").is_file():
        spanelectra("pretrain", "--resume", str(run))
    else:
        words = ["--recipe", arguments.recipe, "--data", arguments.data, "--out_dir", str(run), "--bf16", bf16]
        words += ["--seed", str(seed), "--max_steps", arguments.steps, "--eval_steps", "0", "--report", "false"]
        spanelectra("pretrain", *words)
    if not (scores / "metrics.json").is_file():
        files = arguments.tasks / "conll2003"
        words = ["--train", str(files / "eng.train"), "--dev", str(files / "eng.testa"), "--preset", "conll2003"]
        words += ["--model", str(run), "--out_dir", str(scores), "--epochs", "2", "--bf16", "false", "--resume", "true"]
        spanelectra("finetune", *words, "--seed", str(10 * seed), "--seeds", "1")
    metrics, fine_tuned = (json.loads((made / "metrics.json").read_text(encoding="utf-8")) for made in (run, scores))
    return {
        "seed": seed,
        "held_out_mlm_loss": metrics["held_out"]["mlm_loss"],
        "conll2003_dev_f1": fine_tuned["runs"][0]["dev"]["f1"],
        "tokens_per_second": metrics["tokens_per_second"],
        "tokens": metrics["tokens"],
    }


def section(result: dict[str, Any]) -> str:
    """The section of docs/throughput.md."""
    rows, seeds = [], len(result["runs"]["float32"])
    for name, form, is_ratio in FIGURES:
        values = {arithmetic: [run[name] for run in runs] for arithmetic, runs in result["runs"].items()}
        pairs = zip(values["bfloat16"], values["float32"], strict=True)
        compared = [new / old if is_ratio else new - old for new, old in pairs]
        how = ".2f" if is_ratio else form
        spread = f"{statistics.stdev(compared):{how}}" if seeds > 1 else "?"
        mean = f"times {statistics.fmean(compared):{how}}" if is_ratio else f"{statistics.fmean(compared):+{how}}"
        means = [f"{statistics.fmean(values[arithmetic]):{form}}" for arithmetic in ARITHMETIC]
        rows.append([name.replace("_", " "), *means, f"{mean} ± {spread}"])
    return "\n".join(
        [
            f"## bfloat16 on a processor: does it train as well? {result['processor']}, one thread a run",
            "",
            "Written by `python benchmarks/bfloat16.py --page`; every run is in [bfloat16.json](bfloat16.json). Recipe "
            f"`{result['recipe']}`, {result['runs']['float32'][0]['tokens'] / 1e6:.1f} M tokens, {seeds} seeds; the "
            "last column is the mean and standard deviation over pairs of the same seed. "
            f"torch {result['versions']['torch']}, {at(result['checked_out'])}, load of the machine before: "
            f"{result['load']:.1f}.",
            "",
            table(["", *ARITHMETIC, "bfloat16 against float32"], rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny-generator")
    parser.add_argument("--steps", default="600")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--page", action="store_true", help="write its section of docs/throughput.md")
    arguments = parser.parse_args()
    from spanelectra.environment import describe_environment

    load = os.getloadavg()[0]
    runs: dict[str, list[dict[str, Any]]] = {arithmetic: [] for arithmetic in ARITHMETIC}
    for seed in map(int, arguments.seeds.split(",")):
        for arithmetic, bf16 in ARITHMETIC.items():
            runs[arithmetic].append(measure(arguments, seed, bf16))
    environment = describe_environment()
    result = {
        "recipe": arguments.recipe,
        "runs": runs,
        "processor": environment["processor"],
        "versions": environment["versions"],
        "load": load,
        "checked_out": checked_out("src/spanelectra"),
    }
    (ROOT / "docs/bfloat16.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(section(result))
    if arguments.page:
        replace_section(ROOT / "docs/throughput.md", f"bfloat16, {environment['processor']}", section(result))


if __name__ == "__main__":
    main()
