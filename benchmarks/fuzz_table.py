"""What benchmarks/fuzz.py has counted, as docs/fuzz.json and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COUNTS = ("cases", "taken", "refused", "defects")


def read_tally(file: Path) -> dict[str, float]:
    return json.loads(file.read_text()) if file.is_file() else {}


def slug(name: str) -> str:
    """A target's name as a directory can be called."""
    return name.replace("/", "-")


def write_results(work: Path, file: Path, promised: list[str]) -> None:
    """Sum up the tallies, as JSON and as a table.

    Args:
        work: where tallies and crashes are.
        file: of the JSON.
        promised: every target there is, tried or not.
    """
    from spanelectra.environment import library_versions

    results: dict[str, Any] = {}
    for tally_file in sorted((work / "tallies").glob("*.json")):
        name, engine = tally_file.stem.rsplit(".", 1)
        tally = read_tally(tally_file)
        total = results.setdefault(name, {**dict.fromkeys((*COUNTS, "seconds"), 0), "processor_seconds": {}})
        for key in (*COUNTS, "seconds"):
            total[key] += int(tally.get(key, 0))
        total["processor_seconds"][engine] = round(tally.get("processor_seconds", 0.0), 1)
    for name, total in results.items():
        kept = sorted(path for path in (work / "crashes" / name).glob("*"))
        total["mended"] = sorted(path.stem for path in kept if path.suffix == ".mended")
        total["open"] = sorted(path.name for path in kept if path.suffix not in (".mended", ".txt"))
        total["open"] += sorted(path.stem for path in kept if path.name.startswith("process-ended"))
    seconds = sum(sum(total["processor_seconds"].values()) for total in results.values())
    summary = {key: sum(total[key] for total in results.values()) for key in (*COUNTS, "seconds")}
    summary["processor_seconds"] = round(seconds, 1)
    content = {"versions": library_versions(), "total": summary, "promised": sorted(map(slug, promised))}
    file.write_text(json.dumps({**content, "readers": results}, indent=2) + "\n")
    print("| reader | cases | taken | refused in a sentence | defects found, mended | open | minutes |")
    print("|---|---|---|---|---|---|---|")
    for name, total in results.items():
        minutes = sum(total["processor_seconds"].values()) / 60
        print(
            f"| {name} | {total['cases']:,} | {total['taken']:,} | {total['refused']:,} | {len(total['mended'])} | "
            f"{len(total['open'])} | {minutes:.1f} |"
        )
    print(
        f"{len(results)} of {len(promised)} readers, {summary['cases']:,} cases in {seconds / 60:.1f} minutes of "
        f"processor time ({summary['seconds'] / 60:.0f} by the clock, both engines)"
    )
