"""Feeds every reader of files with broken and hostile ones, for hours if asked to.

    pip install atheris
    python benchmarks/fuzz.py --work_dir WORK --seconds 3600 [--only yaml squad]

The targets are those of tests/fuzz_targets.py. Half of a target's time goes to random changes of honest files, half to
atheris, which follows the coverage of the Python code that it reaches; without atheris all of it goes to the first. A
file that makes a reader raise anything but a clear error, write outside its directory, take more memory than
`--memory` or longer than ten seconds is kept in `WORK/crashes`. Each target runs in processes of its own; targets that
are done are not done again. Writes `docs/fuzz.json` and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SECONDS_A_CASE = 10
PACKAGE = str(ROOT / "src")


def make_inputs(work: Path) -> dict[str, Path]:
    """Honest rows, corrupted rows and a run, made once."""
    from small_runs import SMALL
    from spanelectra.corruption import corrupt
    from spanelectra.data.packing import prepare
    from spanelectra.data.tokenization import vocab
    from spanelectra.pretraining import pretrain
    from spanelectra.quickstart import python_prose
    from spanelectra.training_args import PretrainingArguments

    text, tokenizer, rows, run, corrupted = (work / name for name in ("text", "tokenizer", "rows", "run", "corrupted"))
    if not (corrupted / "features.json").is_file():
        text.mkdir(parents=True, exist_ok=True)
        for number, (_, content) in zip(range(12), python_prose(), strict=False):
            (text / f"{number:03}.txt").write_text(content, encoding="utf-8")
        options: dict[str, Any] = {"overwrite": True, "quiet": True}
        vocab(str(text), str(tokenizer), vocab_size=600, **options)
        prepare(str(text), str(tokenizer), str(rows), max_seq_length=32, validation_fraction=0.1, **options)
        settings = {**SMALL, "max_steps": 2, "stage": "generator", "data": str(rows), "out_dir": str(run)}
        pretrain(PretrainingArguments(**settings, overwrite=True))
        corrupt(str(run), str(rows), str(corrupted), **options)
    return {"rows": rows, "corrupted": corrupted, "run": run}


def targets(work: Path) -> dict[str, Any]:
    """All targets by name."""
    from fuzz_targets import directory_targets, text_targets

    return {**text_targets(), **directory_targets(**make_inputs(work))}


class Cases:
    """Counts cases, and keeps those that are no clear error; each kind of defect once."""

    def __init__(self, target: Any, place: Path, crashes: Path) -> None:
        self.target, self.place, self.crashes = target, place, crashes
        self.count: Counter[str] = Counter()
        self.seen: set[str] = set()

    def try_one(self, content: bytes) -> None:
        from fuzz_targets import check

        self.count["cases"] += 1
        signal.alarm(SECONDS_A_CASE)
        try:
            self.count["taken" if check(self.target, content, self.place / "x") else "refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            signal.alarm(0)
            self._keep(content, error)
        finally:
            signal.alarm(0)

    def _keep(self, content: bytes, error: BaseException) -> None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
        place = f"{Path(frames[-1].filename).stem}:{frames[-1].lineno}" if frames else "elsewhere"
        kind = f"{type(error).__name__} at {place}"
        self.count["defects"] += 1
        if kind not in self.seen:
            self.seen.add(kind)
            self.crashes.mkdir(parents=True, exist_ok=True)
            name = kind.replace(" ", "-").replace(":", "-")
            (self.crashes / name).write_bytes(content)
            (self.crashes / f"{name}.txt").write_text("".join(traceback.format_exception(error))[-4000:])


def too_slow(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS_A_CASE} s")


def run_one(name: str, work: Path, engine: str, seconds: float, memory: int) -> None:
    """Fuzz one target in this process; the tally goes to a file."""
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["spanelectra"]):
            target = targets(work)[name]
    else:
        target = targets(work)[name]
    directory = name.replace("/", "-")
    cases = Cases(target, work / "place" / directory / engine, work / "crashes" / directory)
    cases.place.mkdir(parents=True, exist_ok=True)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGALRM, too_slow)
    file, deadline = work / "tallies" / f"{directory}.{engine}.json", time.monotonic() + seconds
    file.parent.mkdir(exist_ok=True)

    def write(done: bool) -> None:
        tally = {**cases.count, "kinds": sorted(cases.seen), "seconds": seconds, "done": done}
        file.write_text(json.dumps(tally))

    if engine == "random":
        from fuzz_targets import mutations

        for content in mutations(target, random.Random(f"{name} {seconds}")):
            cases.try_one(content)
            if time.monotonic() > deadline:
                break
        write(done=True)
        return
    corpus = work / "corpus" / directory
    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(target.samples):
        (corpus / f"sample-{number}").write_bytes(sample)

    def one(content: bytes) -> None:
        cases.try_one(content)
        # atheris ends the process without returning
        if cases.count["cases"] % 100 == 0:
            write(done=True)

    write(done=False)
    dictionary = work / "corpus" / f"{directory}.dict"
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words if len(word) < 64]
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    options = ["-max_len=65536", "-rss_limit_mb=0", "-timeout=0", f"-dict={dictionary}"]
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={int(seconds)}", *options], one)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="of all targets together")
    parser.add_argument("--only", nargs="*", help="targets")
    parser.add_argument("--memory", type=int, default=4 << 30, help="bytes of address space")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "fuzz.json")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work_dir.resolve()
    if arguments.one:
        name, engine, seconds = arguments.one
        run_one(name, work, engine, float(seconds), arguments.memory)
        return
    engines = ["random", "atheris"] if importlib.util.find_spec("atheris") else ["random"]
    names = arguments.only or list(targets(work))
    share = arguments.seconds / len(names) / len(engines)
    results: dict[str, Any] = {}
    for name in names:
        for engine in engines:
            file = work / "tallies" / f"{name.replace('/', '-')}.{engine}.json"
            done = json.loads(file.read_text()) if file.is_file() else {}
            if not done.get("done") or done["seconds"] < share:
                command = [sys.executable, __file__, "--work_dir", str(work), "--memory", str(arguments.memory)]
                subprocess.run([*command, "--one", name, engine, str(share)], stderr=subprocess.DEVNULL, check=False)
            tally = json.loads(file.read_text()) if file.is_file() else {"kinds": ["the process died"], "seconds": 0}
            total = results.setdefault(name, {"cases": 0, "taken": 0, "refused": 0, "seconds": 0.0, "kinds": []})
            for key in ("cases", "taken", "refused", "seconds"):
                total[key] += tally.get(key, 0)
            total["kinds"] = sorted({*total["kinds"], *tally["kinds"]})
        print(name, results[name], flush=True)
    arguments.results.write_text(json.dumps(results, indent=2) + "\n")
    print("| reader | cases | taken | refused in a sentence | defects | minutes |")
    print("|---|---|---|---|---|---|")
    for name, total in results.items():
        print(
            f"| {name} | {total['cases']:,} | {total['taken']:,} | {total['refused']:,} | {len(total['kinds'])} | "
            f"{total['seconds'] / 60:.1f} |"
        )


if __name__ == "__main__":
    main()
