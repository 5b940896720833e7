"""Writes the table of docs/reliability.md: what is promised, which test shows it, and what was measured.

    python benchmarks/reliability.py           # the table, from the figures that are there
    python benchmarks/reliability.py --run     # run every test of it first that has no result yet (--again: all)

Results of tests, and what they measured by the way, are kept in `docs/reliability.json` after each test, so that a call
that is stopped goes on. Kills come from `docs/kill_storm.json` (benchmarks/kill_storm.py), fuzzing from
`docs/fuzz.json` (benchmarks/fuzz.py). What is promised is in benchmarks/promises.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from promises import PROMISES, RESULTS, ROOT, Figures, read_json

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- begin table -->\n", "<!-- end table -->"


def named_tests() -> list[str]:
    """Every test of the table, once, in its order."""
    return list(dict.fromkeys(test for promises in PROMISES.values() for promise in promises for test in promise.tests))


def run_test(test: str) -> dict[str, Any]:
    """Run a test in all its cases; how many passed, failed and were left out, seconds, and what they measured."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"tests/{test}",
            "-q",
            "-m",
            "slow or not slow",
            "-p",
            "no:cacheprovider",
        ]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, env=environment, check=False)
        cases = list(ElementTree.parse(report).iter("testcase"))
    result: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0, "measured": {}}
    for case in cases:
        failed, skipped = case.find("failure") is not None or case.find("error") is not None, case.find("skipped")
        result["failed" if failed else "passed" if skipped is None else "skipped"] += 1
        result["seconds"] += float(case.get("time", 0))
        for entry in case.iter("property"):
            result["measured"].setdefault(entry.get("name"), []).append(float(entry.get("value", "nan")))
    result["seconds"] = round(result["seconds"], 1)
    return result


def run_tests(again: bool, only: str) -> None:
    """Run the tests that have no result, or did not pass."""
    from spanelectra.environment import library_versions

    results = {} if again else read_json(RESULTS).get("tests", {})
    for test in named_tests():
        earlier = results.get(test)
        if only in test and (earlier is None or earlier["failed"] or not earlier["passed"]):
            results[test] = run_test(test)
            content = {"versions": library_versions(), "tests": results}
            RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            print(test, results[test], flush=True)


def table(figures: Figures) -> str:
    """The whole table in Markdown, a part for every heading."""
    parts = []
    for heading, promises in PROMISES.items():
        lines = [f"### {heading}", "", "| promise | test | cases | figure |", "|---|---|---|---|"]
        for promise in promises:
            tests = "<br>".join(f"`{test}`" for test in promise.tests)
            cases = [_cases(figures.tests.get(test)) for test in promise.tests]
            lines.append(f"| {promise.text} | {tests} | {'<br>'.join(cases)} | {promise.figure(figures)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cases(result: dict[str, Any] | None) -> str:
    if result is None:
        return "not run here"
    words = [f"{result[key]} {key}" for key in ("passed", "failed", "skipped") if result[key]]
    return ", ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run tests that have no result yet")
    parser.add_argument("--again", action="store_true", help="with --run: all of them")
    parser.add_argument("--only", default="", help="with --run: those with this in their names")
    arguments = parser.parse_args()
    if arguments.run:
        run_tests(arguments.again, arguments.only)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}{table(Figures())}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
