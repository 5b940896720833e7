"""Fine-tunes several encoders on several tasks with several seeds, and writes the table of `docs/results.md`.

    python benchmarks/fine_tuning_proof.py --tasks TASKS --work_dir WORK --encoder pre-trained=RUN \\
        --encoder fresh=random:RUN --encoder minilm=DIR [--only conll2003,sst2] [--seeds 3]

``TASKS`` is a folder with conll2003, sst2, cola, mrpc, subjqa and xquad, each as its authors publish it. ``random:DIR``
takes an encoder's shape with fresh weights. Every encoder is fine-tuned with the same settings (the table's); seeds
that are finished are not run again, so an interrupted run goes on. Writes `docs/fine-tuning.json` and its section of
`docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from results_page import replace_section, table

ROOT = Path(__file__).parent.parent
# task -> (files, settings). MRPC comes without a dev file, so a tenth of its training file is held out.
TASKS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "sst2": (
        {"train": "sst2/train.tsv", "dev": "sst2/dev.tsv", "test": "sst2/test.tsv"},
        {"preset": "sst2", "epochs": "3"},
    ),
    # few examples, where what was learned before should count for most; the same 500 for every seed
    "sst2-500": (
        {"train": "sst2/train.tsv", "dev": "sst2/dev.tsv", "test": "sst2/test.tsv"},
        {"preset": "sst2", "epochs": "12", "max_train_examples": "500"},
    ),
    "conll2003": (
        {"train": "conll2003/eng.train", "dev": "conll2003/eng.testa", "test": "conll2003/eng.testb"},
        {"preset": "conll2003", "epochs": "2"},
    ),
    "cola": (
        {"train": "cola/in_domain_train.tsv", "dev": "cola/in_domain_dev.tsv", "test": "cola/out_of_domain_dev.tsv"},
        {"preset": "cola", "epochs": "3"},
    ),
    "mrpc": (
        {"train": "mrpc/msr_paraphrase_train.txt", "test": "mrpc/msr_paraphrase_test.txt"},
        {"preset": "mrpc", "epochs": "3", "dev": "0.1"},
    ),
    # XQuAD is another data set than SubjQA: how far what was learned from reviews carries
    "subjqa": (
        {"train": "subjqa/train.json", "dev": "subjqa/dev.json", "test": "xquad/xquad.en.json"},
        {"preset": "squad2", "epochs": "2", "max_length": "256", "max_train_examples": "1000"},
    ),
}


def fine_tune(
    name: str, encoder: str, task: str, arguments: argparse.Namespace, **chosen: str
) -> dict[str, Any] | None:
    """Run `spanelectra finetune`, or take what it has left already; returns its ``metrics.json``.

    With ``--page_only`` nothing is run, and what is not finished is ``None``. ``chosen`` settings win over the task's.
    """
    files, settings = TASKS[task]
    settings = {**settings, **chosen}
    out_dir = arguments.work_dir / f"{name}-{task}"
    words = ["--model", encoder.removeprefix("random:"), "--out_dir", str(out_dir), "--seeds", str(arguments.seeds)]
    if encoder.startswith("random:"):
        words.append("--random_weights")
    for split, file in files.items():
        words += [f"--{split}", str(arguments.tasks / file)]
    for setting, value in settings.items():
        words += [f"--{setting}", value]
    metrics = out_dir / "metrics.json"
    finished = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {"runs": []}
    if len(finished["runs"]) < arguments.seeds:
        if arguments.page_only:
            return None
        command = [sys.executable, "-m", "spanelectra.cli", "finetune", *words, "--resume"]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(metrics.read_text(encoding="utf-8"))


def cell(results: dict[str, Any], split: str, metric: str) -> str:
    """``85.31 ± 0.42 (3)``: mean, sample standard deviation and number of seeds; collapsed ones are named."""
    summary = results["summary"][split].get(metric)
    if summary is None:
        return "-"
    spread = "" if summary["std"] is None else f" ± {summary['std']:.2f}"
    collapsed = f", {len(results['collapsed'])} collapsed" if results["collapsed"] else ""
    return f"{summary['mean']:.2f}{spread} ({len(summary['values'])}{collapsed})"


def words_alone(encoders: dict[str, dict[str, Any]], split: str, metric: str) -> str:
    """What the words alone tell, of the first run that has it: all have the same files."""
    for results in encoders.values():
        if found := (results.get("words_alone") or {}).get(split):
            return f"{found['scores'][metric]:.2f}"
    return "-"


def standard_errors(ours: dict[str, Any], other: dict[str, Any], metric: str) -> str:
    """Difference of the means on dev in standard errors (Welch)."""
    a, b = (results["summary"]["dev"][metric] for results in (ours, other))
    if a["std"] is None or b["std"] is None:
        return "-"
    error = math.sqrt(a["std"] ** 2 / len(a["values"]) + b["std"] ** 2 / len(b["values"]))
    difference = a["mean"] - b["mean"]
    return f"{difference:+.2f}" + (f" ({difference / error:+.1f} s.e.)" if error else "")


def section(found: dict[str, dict[str, dict[str, Any]]], compared: tuple[str, str], about: dict[str, str]) -> str:
    """The section of the results page.

    Args:
        found: task -> encoder -> ``metrics.json``.
        compared: two encoders whose difference is shown.
        about: encoder -> a line about it.
    """
    any_results = next(iter(next(iter(found.values())).values()))
    names = list(dict.fromkeys(name for encoders in found.values() for name in encoders))
    rows = []
    for task, encoders in found.items():
        first = next(iter(encoders.values()))
        metric = first["metric"]
        for split in ("dev", "test"):
            label = "xquad" if (task, split) == ("subjqa", "test") else f"{task} {split}"
            metrics = [metric, "accuracy"] if task == "mrpc" else [metric]
            for shown in metrics:
                baseline = first["baseline"][split]["scores"].get(shown)
                cells = [cell(encoders[name], split, shown) if name in encoders else "-" for name in names]
                gap = "-"
                if split == "dev" and shown == metric and all(name in encoders for name in compared):
                    gap = standard_errors(encoders[compared[0]], encoders[compared[1]], metric)
                words = words_alone(encoders, split, shown)
                rows.append([f"{label} {shown}", f"{baseline:.2f}", words, *cells, gap])
    settings = table(
        ["task", "training examples", "epochs", "longest input", "learning rates"],
        [
            [
                task,
                f"{first['data']['train']['examples']:,}",
                f"{first['config']['epochs']:g}",
                str(first["config"]["max_length"]),
                ", ".join(f"{name} {results['runs'][0]['learning_rate']:g}" for name, results in encoders.items()),
            ]
            for task, encoders in found.items()
            for first in [next(iter(encoders.values()))]
        ],
    )
    sizes = {name: encoders[name]["parameters"] for encoders in found.values() for name in encoders}
    versions = any_results["environment"]["versions"]
    return "\n".join(
        [
            "## Fine-tuning",
            "",
            "Written by `python benchmarks/fine_tuning_proof.py`; each run is in [fine-tuning.json](fine-tuning.json).",
            "Mean ± sample standard deviation (number of seeds); seeds change the head's weights, order and dropout,",
            "not the pre-training. The weights of the evaluation that is best on dev are kept; test is scored once.",
            "",
            *(
                f"- {name}: {size / 1e6:.1f} M parameters{'; ' if name in about else ''}{about.get(name, '')}"
                for name, size in sizes.items()
            ),
            "",
            f"Machine: {any_results['environment']['processor']}, one thread a run; torch {versions['torch']}, "
            f"transformers {versions['transformers']}.",
            "",
            table(["", "commonest answer", "words alone", *names, f"{compared[0]} against {compared[1]}"], rows),
            "",
            settings,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--encoder", action="append", required=True, metavar="NAME=DIR", help="may be given again")
    parser.add_argument("--about", action="append", default=[], metavar="NAME=TEXT", help="a line about an encoder")
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--compare", default="pre-trained,fresh", help="two encoders whose difference is shown")
    parser.add_argument("--no_page", action="store_true", help="fine-tune only")
    parser.add_argument("--page_only", action="store_true", help="write the page from what is finished")
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    encoders = dict(pair.split("=", 1) for pair in arguments.encoder)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in arguments.only.split(","):
        for name, encoder in encoders.items():
            results = fine_tune(name, encoder, task, arguments)
            if results is not None:
                found.setdefault(task, {})[name] = results
    if arguments.no_page:
        return
    first, second = arguments.compare.split(",")
    public = {task: {name: without_paths(r) for name, r in results.items()} for task, results in found.items()}
    (ROOT / "docs/fine-tuning.json").write_text(json.dumps(public, indent=1) + "\n", encoding="utf-8")
    replace_section(
        ROOT / "docs/results.md",
        "fine-tuning",
        section(found, (first, second), dict(pair.split("=", 1) for pair in arguments.about)),
    )


def without_paths(results: dict[str, Any]) -> dict[str, Any]:
    """The results without names of this machine's directories."""
    config = {name: Path(v).name if name in ("model", "train", "dev", "test", "out_dir") and v else v
              for name, v in results["config"].items()}  # fmt: skip
    return {**results, "config": config, "model": Path(results["model"]).name, "remarks": []}


if __name__ == "__main__":
    main()
