"""Fine-tunes encoders of several widths at several peak rates, and writes what each makes to `docs/results.md`.

    python benchmarks/fine_tuning_rates.py --tasks TASKS --work_dir WORK --encoder "128 x 4=RUN" \\
        --encoder "192 x 6=RUN" [--rates 3e-4,1e-3,2e-3] [--only conll2003,sst2] [--seeds 2]

``TASKS`` is the folder of `fine_tuning_proof.py`, whose tasks and settings these are but for the rate; shown is dev, by
which a default is chosen. Runs that are finished are not run again. Writes `docs/fine-tuning-rates.json`, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fine_tuning_proof import ROOT, cell, fine_tune, without_paths
from results_page import replace_section, table


def section(found: dict[str, dict[str, dict[str, Any]]], rates: list[str]) -> str:
    """The section of the results page.

    Args:
        found: "task, encoder" -> rate -> ``metrics.json``.
        rates: columns.
    """
    first = next(iter(next(iter(found.values())).values()))
    rows = [
        [name, *(cell(of_rate[rate], "dev", of_rate[rate]["metric"]) if rate in of_rate else "-" for rate in rates)]
        for name, of_rate in found.items()
    ]
    versions = first["environment"]["versions"]
    return "\n".join(
        [
            "## The peak rate of fine-tuning",
            "",
            "Written by `python benchmarks/fine_tuning_rates.py`; each run is in "
            "[fine-tuning-rates.json](fine-tuning-rates.json). Dev, mean ± sample standard deviation (seeds of",
            "fine-tuning; one pre-training run each). The rate falls by a tenth from layer to layer.",
            "",
            f"Machine: {first['environment']['processor']}, one thread a run; torch {versions['torch']}, transformers "
            f"{versions['transformers']}.",
            "",
            table(["", *rates], rows),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--encoder", action="append", required=True, metavar="NAME=DIR", help="may be given again")
    parser.add_argument("--rates", default="3e-4,1e-3,2e-3")
    parser.add_argument("--only", default="conll2003,sst2")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--page_only", action="store_true", help="write the page from what is finished")
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    rates, found = arguments.rates.split(","), {}
    for task in arguments.only.split(","):
        for name, encoder in (pair.split("=", 1) for pair in arguments.encoder):
            for rate in rates:
                place = f"{name.replace(' ', '')}-{rate}"
                results = fine_tune(place, encoder, task, arguments, learning_rate=rate)
                if results is not None:
                    for part in (results["summary"], results["baseline"], results["words_alone"], *results["runs"]):
                        part.pop("test", None)  # a default is chosen by dev
                    found.setdefault(f"{task}, {name}", {})[rate] = without_paths(results)
    if not found:
        raise SystemExit("nothing is finished yet")
    text = section(found, rates)
    (ROOT / "docs/fine-tuning-rates.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    replace_section(ROOT / "docs/results.md", "fine-tuning-rates", text)


if __name__ == "__main__":
    main()
