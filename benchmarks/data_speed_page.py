"""What `data_speed.py` measured as a section of `docs/throughput.md`, each figure beside its target."""

from __future__ import annotations

from typing import Any

from checked_out import at
from results_page import table
from rounds import shown

# million tokens/s on a core; part of the fastest step; times `encode_batch_fast`; seconds; seconds
TARGETS = {"collating": 3.0, "share": 0.03, "prepare": 0.9, "first step": 10.0, "help": 0.5}


def verdict(value: float, target: float, form: str, *, at_least: bool) -> str:
    """``0.93, target at least 0.90: met``."""
    met = value >= target if at_least else value <= target
    bound = "at least" if at_least else "at most"
    return f"{value:{form}}, target {bound} {target:{form}}: {'met' if met else 'missed'}"


def section(result: dict[str, Any]) -> str:
    """The Markdown of what was measured."""
    environment, versions = result["environment"], result["environment"]["versions"]
    lines = [
        f"## Data, {environment['processor']}, {environment['cores']} cores",
        "",
        "Written by `python benchmarks/data_speed.py --page`; every figure is in [data-speed.json](data-speed.json). "
        f"Medians of rounds (middle half), {at(result['checked_out'])}. torch {versions['torch']}, tokenizers "
        f"{versions['tokenizers']}, Python {versions['python']}; load of the machine before: {result['load']:.1f}.",
    ]
    if "collating" in result:
        lines += collating_lines(result["collating"])
    if "prepare" in result:
        lines += preparing_lines(result["prepare"], result["text"])
    if "start" in result:
        lines += start_lines(result["start"])
    return "\n".join(lines)


def millions(measured: dict[str, Any]) -> str:
    """Median and middle half of tokens/s, in millions."""
    return shown(
        {"median": measured["median"] / 1e6, "quartiles": [value / 1e6 for value in measured["quartiles"]]}, ".2f"
    )


def collating_lines(found: dict[str, Any]) -> list[str]:
    """The lines about masking and collating."""
    roads = ("masking", "data set and collator", "loader")
    rows = [
        [str(row["batch"]), *(millions(row[road]) for road in roads), f"{row['share']['median']:.2%}"]
        for row in found["rows"]
    ]
    step = found["step"]
    same = next(row for row in found["rows"] if row["batch"] == step["rows"])
    loader = same["loader"]["median"] / 1e6
    return [
        "",
        f"### Masking and collating, million tokens/s on one core, rows of {found['length']}",
        "",
        table(["rows a batch", "masking", "data set and collator", "the trainer's loader", "part of the step"], rows),
        "",
        f"The step is the fastest of the tiny shape ({step['name']}; {step['threads']} threads, {step['rows']} rows): "
        f"{step['median']:,.0f} tokens/s. The part of it is the loader's time for as many tokens. "
        f"{found['megabytes_of_rows']:,.0f} MB of rows, more than most processors' caches hold. The step is this "
        "processor's: that data would not wait for a GPU's, which is many times as fast, is not shown here.",
        "",
        f"- the trainer's loader at {step['rows']} rows, million tokens/s: "
        f"{verdict(loader, TARGETS['collating'], '.1f', at_least=True)}",
        f"- part of that step: {verdict(same['share']['median'], TARGETS['share'], '.2%', at_least=False)}",
    ]


def preparing_lines(found: list[dict[str, Any]], text: str) -> list[str]:
    """The lines about `prepare`."""
    rows = []
    for row in found:
        ours, bare = (row["seconds"][name]["median"] for name in ("prepare", "encode_batch"))
        rates = [row["tokens"] / ours / 1e6, row["megabytes"] / ours, row["tokens"] / bare / 1e6]
        ratios = [shown(row["ratio"][name]) for name in ("encode_batch", "encode_batch_fast")]
        rows.append([f"{row['tokenizer']}, {row['cores']}", *(f"{rate:.2f}" for rate in rates), *ratios])
    slow, fast = (min(row["ratio"][name]["median"] for row in found) for name in ("encode_batch", "encode_batch_fast"))
    headings = ["tokenizer, cores", "million tokens/s", "MB/s", "`encode_batch`, million tokens/s", "ratio to it"]
    return [
        "",
        "### `prepare` against the bare tokenizer",
        "",
        f"{found[0]['megabytes']:.1f} MB, {found[0]['texts']:,} texts ({text}).",
        "",
        table([*headings, "ratio to `encode_batch_fast`"], rows),
        "",
        f"- the least ratio to `encode_batch_fast`, which `prepare` calls: "
        f"{verdict(fast, TARGETS['prepare'], '.2f', at_least=True)}",
        f"- the least ratio to `encode_batch`, no target: {slow:.2f}",
    ]


def start_lines(found: dict[str, Any]) -> list[str]:
    """The lines about start-up."""
    pairs = (("first step", f"to the first step of `pretrain --recipe {found['recipe']}`"), ("help", "`--help`"))
    return [
        "",
        "### Start, seconds, files in the system's cache",
        "",
        *(
            f"- {words}: {shown(found[name])}; {verdict(found[name]['median'], TARGETS[name], '.2f', at_least=False)}"
            for name, words in pairs
        ),
        f"- processor seconds to that step: {shown(found['processor seconds to it'])}",
    ]
