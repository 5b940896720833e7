"""Writes the table of docs/reliability.md: what is promised, which test shows it, and what was measured.

    python benchmarks/reliability.py           # the table, from the figures that are there
    python benchmarks/reliability.py --run     # run every test of it first that has no result yet

Results of tests, what they measured by the way, and the commit that they ran at are kept in `docs/reliability.json`
after each test, so that a call that is stopped goes on; `--again` repeats those of another commit. Kills come from
`docs/kill_storm.json` (benchmarks/kill_storm.py), fuzzing from `docs/fuzz.json` (benchmarks/fuzz.py). What is promised
is in benchmarks/promises.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from checked_out import at, checked_out
from promises import PROMISES, RESULTS, ROOT, Figures, read_json

PAGE = ROOT / "docs" / "reliability.md"
# a changed page changes no result
DEPENDS_ON = ("src", "tests", "pyproject.toml", "constraints.txt")
BEGIN, END = "<!-- begin table -->\n", "<!-- end table -->"


def named_tests() -> list[str]:
    """Every test of the table, once, in its order."""
    return list(dict.fromkeys(test for promises in PROMISES.values() for promise in promises for test in promise.tests))


def run_test(test: str, timeout: float) -> dict[str, Any]:
    """Run a test in all its cases; how many passed, failed and were left out, seconds, and what they measured.

    A pytest that ends before it writes its report, or does not end in time, counts as one failure.
    """
    state = checked_out(*DEPENDS_ON)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        words = ("-q", "-m", "slow or not slow", "-p", "no:cacheprovider", f"--junitxml={report}")
        command = [sys.executable, "-m", "pytest", f"tests/{test}", *words]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            ending = f"pytest ended with {process.wait(timeout)} and without a report"
        except subprocess.TimeoutExpired:
            ending = f"took longer than {timeout:.0f} s"
        finally:
            _end_group(process)
        try:
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError):
            return {"passed": 0, "failed": 1, "skipped": 0, "why": [ending], "measured": {}, **state}
    return {**_count(cases), **state}


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever a test has left running, so that it takes no time from the next one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _count(cases: list[ElementTree.Element]) -> dict[str, Any]:
    result: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0, "why": [], "measured": {}}
    for case in cases:
        failed, skipped = case.find("failure") is not None or case.find("error") is not None, case.find("skipped")
        result["failed" if failed else "passed" if skipped is None else "skipped"] += 1
        result["seconds"] += float(case.get("time", 0))
        if skipped is not None and skipped.get("message") not in result["why"]:
            result["why"].append(skipped.get("message", ""))
        for entry in case.iter("property"):
            result["measured"].setdefault(entry.get("name"), []).append(float(entry.get("value", "nan")))
    result["seconds"] = round(result["seconds"], 1)
    return result


def run_tests(again: bool, only: str, timeout: float) -> None:
    """Run the tests that have no result, or did not pass; with `again` those of another commit or a changed tree."""
    from spanelectra.environment import library_versions

    results = read_json(RESULTS).get("tests", {})
    state = checked_out(*DEPENDS_ON)
    for test in named_tests():
        earlier = results.get(test)
        unfinished = earlier is None or earlier["failed"] or not earlier["passed"]
        elsewhere = not state["clean"] or any(earlier.get(key) != state[key] for key in state) if earlier else False
        if only in test and (unfinished or (again and elsewhere)):
            results[test] = run_test(test, timeout)
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
    """What became of a test's cases, and of which commit they were."""
    if result is None:
        return "not run here"
    counts = [f"{result[key]} {key}" for key in ("passed", "failed", "skipped") if result[key]]
    if not counts:
        return "no such test"
    why = f" ({'; '.join(result['why'])})" if result["why"] else ""
    return f"{', '.join(counts)}{why} {at(result)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run tests that have no result yet")
    parser.add_argument(
        "--again", action="store_true", help="with --run: those of another commit or a changed tree, too"
    )
    parser.add_argument("--only", default="", help="with --run: those with this in their names")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds that a test may take, all its cases")
    arguments = parser.parse_args()
    if arguments.run:
        run_tests(arguments.again, arguments.only, arguments.timeout)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}{table(Figures())}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
