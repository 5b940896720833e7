"""Learning curves of runs as one small picture: held-out losses, and what the discriminator can tell.

python benchmarks/plot_curves.py RUN [RUN …] --out curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {
    "held-out loss of the generator (nats)": ("eval_mlm_loss", "eval_sbgo_loss"),
    "held-out AUC of replaced or original": ("eval_ato_auc", "eval_ato_masked_auc", "eval_sbpo_auc"),
    "tokens per second": ("tokens_per_second",),
}


def read(run: Path) -> list[dict[str, Any]]:
    """The run's history."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.6), constrained_layout=True)
    for colour, run in enumerate(arguments.runs):
        history = read(run)
        unigram = json.loads((run / "metrics.json").read_text(encoding="utf-8")).get("unigram_cross_entropy")
        for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("million tokens")
            for name, style in zip(names, ("-", "--", ":"), strict=False):
                points = [(line["tokens"] / 1e6, line[name]) for line in history if name in line]
                if points:
                    label = f"{run.name} {name.removeprefix('eval_')}"
                    axis.plot(*zip(*points, strict=True), style, color=f"C{colour}", label=label, linewidth=1.3)
        if unigram is not None:
            axes[0].axhline(unigram, color="grey", linewidth=0.8)
            place = {"xycoords": axes[0].get_yaxis_transform(), "fontsize": 7, "color": "grey", "va": "bottom"}
            axes[0].annotate("word frequencies", (0.5, unigram), **place)
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    axes[1].axhline(0.5, color="grey", linewidth=0.8)
    figure.savefig(arguments.out, dpi=80)


if __name__ == "__main__":
    main()
