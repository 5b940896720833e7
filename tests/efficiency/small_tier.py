"""A small tier, and lines of results as its units would leave them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from efficiency.plan import Unit, plan
from efficiency.tiers import Tier

FOLDER = Path(__file__).parent.parent.parent / "benchmarks" / "efficiency"
TIERS, TIER_1 = sorted(FOLDER.glob("*.yaml")), FOLDER / "tier1.yaml"
SMALL = f"""
extends: {TIER_1}
name: small
goals: true
common: {{hidden_size: 32, num_hidden_layers: 2, intermediate_size: 48, embedding_size: 32}}
budgets:
  - {{flops: 1.0e+10, seeds: [1, 2, 3]}}
  - {{flops: 4.0e+10, seeds: [1, 2]}}
learning_rate_multiples: [0.5, 1.0]
fine_tuning_seeds: 1
tasks:
  sst2: {{files: {{train: train.tsv, dev: dev.tsv, test: test.tsv}}, settings: {{preset: sst2}}, minutes: 1.0}}
  conll2003: {{files: {{train: train.tsv, dev: dev.tsv}}, settings: {{preset: conll2003}}, minutes: 1.0}}
"""


def write_tier(directory: Path, text: str = SMALL) -> Path:
    """A tier's file."""
    file = directory / "small.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def make_line(unit: Unit, dev: float, test: float | None = None, **changes: Any) -> dict[str, Any]:
    """A line of results with the same score on both tasks."""
    scores = {"metric": "m", "dev": dev, "test": dev if test is None else test, "collapsed": [], "made_with": "t"}
    return {
        "tier": "small",
        "purpose": unit.purpose,
        "method": unit.method,
        "budget": unit.budget,
        "seed": unit.seed,
        "multiple": unit.multiple,
        "tokens": 1e6,
        "wall_seconds": unit.budget / 1e7,
        "processor_seconds": None,
        "tasks": {"sst2": dict(scores), "conll2003": dict(scores)},
        "probe": {},
        "stages": [{"held_out": {"mlm_loss": 4.5}, "curve": [[1e9, {"mlm_loss": 5.0}], [1e10, {"mlm_loss": 4.5}]]}],
        "made_with": "p",
        "environment": {
            "processor": "a",
            "devices": [],
            "versions": {"torch": "2", "transformers": "5"},
            "threads": 1,
            "workers": 2,
        },
        "commit": "abc",
        "clean": True,
        **changes,
    }


def make_line_tasks(dev: float) -> dict[str, Any]:
    """The part of a line with its scores."""
    return make_line(Unit("evaluation", "bert", 1e10, 1, 1.0), dev)["tasks"]


def run_all(tier: Tier, score: Any) -> list[dict[str, Any]]:
    """Run what is ready, one after the other, until nothing is; the lines in the order in which they were made."""
    lines: list[dict[str, Any]] = []
    while ready := [entry.unit for entry in plan(tier, lines) if entry.state == "ready"]:
        lines.append(make_line(ready[0], score(ready[0])))
    return lines
