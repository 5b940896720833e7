"""Results of tiers -> the reference curves that the package ships, and which runs of the grid lag behind them.

    python benchmarks/reference_curves.py --unigram_cross_entropy 7.2317

The runs are those of ``efficiency/results-*.jsonl`` at the smallest budget, at the rates that were chosen for them. The
cross-entropy of guessing by frequency is that of their rows: ``unigram_cross_entropy`` in the ``metrics.json`` of any
run on them. Grid runs have made no curve; that those with too high rates lag is what a reference is for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from efficiency.results_file import read_lines, results_path
from efficiency.tiers import Tier, read_tier
from spanelectra.atomic_files import write_json
from spanelectra.reference_curves import FILE, LEAST_GAINS, MATCHED, ReferenceCurve, gain_of, standing

TIERS = ("tier1", "tier3", "candidates")
POINTS = 12

# tokens -> gain over guessing, of one run
Gains = tuple[list[float], list[float]]


def curves_of(
    tier: Tier, line: dict[str, Any], unigram_cross_entropy: float
) -> Iterator[tuple[str, str, dict[str, Any], Gains]]:
    """For every stage and metric of a line of results: stage, metric, settings that are matched, and gains."""
    method, before = tier.methods[line["method"]], 0.0
    for stage, measured in zip(method.stages, line["stages"], strict=True):
        arguments = stage.arguments()
        settings = {name: getattr(arguments, name) for name in MATCHED}
        each = measured["tokens"] / measured["training_flops"]
        for metric in LEAST_GAINS:
            known = [(flops, values[metric]) for flops, values in measured["curve"] if metric in values]
            # the curve of a generator that is frozen says nothing
            if known and not (metric == "mlm_loss" and settings["stage"] == "discriminator"):
                tokens = [(flops - before) * each for flops, _ in known]
                gains = [gain_of(metric, value, unigram_cross_entropy) for _, value in known]
                yield stage.name, metric, settings, (tokens, [gain for gain in gains if gain is not None])
        before += measured["training_flops"]


def envelope(found: list[Gains]) -> dict[str, list[float]]:
    """Worst and best of several runs at as many tokens as all of them have read."""
    tokens = np.linspace(max(t[0] for t, _ in found), min(t[-1] for t, _ in found), POINTS)
    gains = np.stack([np.interp(tokens, *run) for run in found])
    columns = {"tokens": tokens.round(), "lowest": gains.min(axis=0).round(4), "highest": gains.max(axis=0).round(4)}
    return {name: column.tolist() for name, column in columns.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unigram_cross_entropy", type=float, required=True)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    groups: defaultdict[str, list[Gains]] = defaultdict(list)
    tuned: list[tuple[str, str, Gains]] = []
    for name in TIERS:
        tier = read_tier(Path(__file__).parent / "efficiency" / f"{name}.yaml")
        for line in read_lines(results_path(name)):
            # what was reused from another tier is a run of that one, and counted there
            if line["budget"] != tier.budgets[0].flops or "reused_from" in line:
                continue
            title = f"{line['method']} at {line['multiple']:g} of the rates"
            for stage, metric, settings, gains in curves_of(tier, line, arguments.unigram_cross_entropy):
                key = json.dumps({"settings": settings, "metric": metric})
                if line["purpose"] == "tuning":
                    tuned.append((f"{title}, {stage}, {metric}", key, gains))
                else:
                    groups[key].append(gains)
    curves = {key: {**json.loads(key), "runs": len(found), **envelope(found)} for key, found in groups.items()}
    write_json(arguments.out, {"made_by": "benchmarks/reference_curves.py", "curves": list(curves.values())})
    print(f"{arguments.out}: {len(curves)} curves of {sum(map(len, groups.values()))} stages")
    for title, key, gains in tuned:
        if key in curves:
            print(f"{title}: {_verdict(curves[key], gains)}")


def _verdict(entry: dict[str, Any], gains: Gains) -> str:
    """How a run of the grid stands beside the reference of its own kind, evaluation by evaluation."""
    points = {name: tuple(entry[name]) for name in ("tokens", "lowest", "highest")}
    curve, last = ReferenceCurve(entry["metric"], entry["runs"], **points), gains[0][-1]
    lags = []
    for tokens, gain in zip(*gains, strict=True):
        value = 0.5 + gain if curve.metric == "ato_auc" else -gain
        found = standing(curve, {"tokens": tokens, curve.metric: value}, round(tokens), round(last), 0.0)
        lags += [] if found is None else [found.lags]
    return f"lags in {sum(lags)} of {len(lags)} evaluations"


if __name__ == "__main__":
    main()
