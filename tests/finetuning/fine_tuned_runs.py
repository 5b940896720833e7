"""What a finished fine-tuning run of a tiny task holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spanelectra.finetuning.seed_summary import rank

ENDINGS = {"classification": "tsv", "token": "conll", "qa": "json"}
# the encoder that learns it
FAMILIES = {"classification": "modernbert", "token": "modernbert", "qa": "electra"}


def files_of(tiny: Path, kind: str, *names: str) -> dict[str, str]:
    return {name: str(tiny / kind / f"{name}.{ENDINGS[kind]}") for name in names or ("train", "dev", "test")}


def metrics_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def predictions_of(run: Path, split: str) -> list[dict[str, Any]]:
    """Of the seed whose model was kept."""
    metrics = metrics_of(run)
    best = max(metrics["runs"], key=lambda result: rank(result, metrics["metric"]))
    lines = (run / f"seed-{best['seed']}" / f"predictions-{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
