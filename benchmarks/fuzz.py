"""Feeds every reader of files with broken and hostile ones, for hours if asked to.

    pip install atheris
    python benchmarks/fuzz.py --work_dir WORK --seconds 3600 [--only yaml squad]

The targets are those of tests/fuzz_targets.py. Two engines run side by side: random changes of honest files, and
atheris, which follows the coverage of the Python code that it reaches; without atheris the first one has all the time.
Seconds are of processor time, all targets and engines together. A file that makes a reader raise anything but a clear
error, write outside its directory, take more memory than `--memory` or longer than ten seconds is kept in
`WORK/crashes`; each later run tries it again and says whether it is still a defect.

Every target gets slices in turn, in a process of its own; what is stopped loses seconds, and a later call goes on.
Writes `docs/fuzz.json` and prints a Markdown table.
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

from fuzz_table import read_tally, slug, write_results

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

SECONDS_A_CASE = 10
SECONDS_A_SLICE = 40
PACKAGE = str(ROOT / "src")


def make_inputs(work: Path) -> dict[str, Path]:
    """Honest rows, corrupted rows and a run, made once."""
    text, tokenizer, rows, run, corrupted = (work / name for name in ("text", "tokenizer", "rows", "run", "corrupted"))
    found = {"rows": rows, "corrupted": corrupted, "run": run}
    if (corrupted / "features.json").is_file():
        return found
    from small_runs import SMALL
    from spanelectra.corruption import corrupt
    from spanelectra.data.packing import prepare
    from spanelectra.data.tokenization import vocab
    from spanelectra.pretraining import pretrain
    from spanelectra.quickstart import python_prose
    from spanelectra.training_args import PretrainingArguments

    text.mkdir(parents=True, exist_ok=True)
    for number, (_, content) in zip(range(12), python_prose(), strict=False):
        (text / f"{number:03}.txt").write_text(content, encoding="utf-8")
    options: dict[str, Any] = {"overwrite": True, "quiet": True}
    vocab(str(text), str(tokenizer), vocab_size=600, **options)
    prepare(str(text), str(tokenizer), str(rows), max_seq_length=32, validation_fraction=0.1, **options)
    settings = {**SMALL, "max_steps": 2, "stage": "generator", "data": str(rows), "out_dir": str(run)}
    pretrain(PretrainingArguments(**settings, overwrite=True))
    corrupt(str(run), str(rows), str(corrupted), **options)
    return found


def targets(work: Path) -> dict[str, Any]:
    """All targets by name."""
    from fuzz_targets import directory_targets, text_targets

    return {**text_targets(), **directory_targets(**make_inputs(work))}


class Cases:
    """Counts the cases of a target and an engine, and keeps those that are no clear error; each kind of defect once.

    Args:
        target: a ``Target`` of fuzz_targets.py.
        name: of the target, as a directory can be called.
        engine: ``random`` or ``atheris``.
        work: where tallies and crashes are.
    """

    def __init__(self, target: Any, name: str, engine: str, work: Path) -> None:
        self.target, self.place = target, work / "place" / name / engine
        self.crashes, self.file = work / "crashes" / name, work / "tallies" / f"{name}.{engine}.json"
        for directory in (self.place, self.file.parent):
            directory.mkdir(parents=True, exist_ok=True)
        self.tally: Counter[str] = Counter(read_tally(self.file))
        self._since, self._since_by_the_clock = time.process_time(), time.monotonic()

    def try_one(self, content: bytes) -> None:
        """Count a case; a defect is kept."""
        self.tally["cases"] += 1
        error, taken = outcome(self.target, content, self.place / "x")
        if error is None:
            self.tally["taken" if taken else "refused"] += 1
        else:
            self.tally["defects"] += 1
            self._keep(content, error)
        if time.process_time() - self._since > 1:
            self.write()

    def write(self) -> None:
        """Save the tally, so that little is lost whenever the process ends."""
        now, by_the_clock = time.process_time(), time.monotonic()
        self.tally["processor_seconds"] += now - self._since  # type: ignore[assignment]
        self.tally["seconds"] += by_the_clock - self._since_by_the_clock  # type: ignore[assignment]
        self._since, self._since_by_the_clock = now, by_the_clock
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.tally))
        partial.replace(self.file)

    def _keep(self, content: bytes, error: BaseException) -> None:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
        place = f"{Path(frames[-1].filename).stem}-{frames[-1].name}" if frames else "elsewhere"
        file = self.crashes / f"{type(error).__name__}-{place}"
        if not file.exists():
            self.crashes.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.with_name(f"{file.name}.txt").write_text("".join(traceback.format_exception(error))[-4000:])


def outcome(target: Any, content: bytes, place: Path) -> tuple[BaseException | None, bool]:
    """The defect that a case shows, if any, and whether the reader took it."""
    from fuzz_targets import check

    # of processor time: a busy machine makes no reader slow
    signal.setitimer(signal.ITIMER_PROF, SECONDS_A_CASE)
    try:
        return None, check(target, content, place)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error, False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def too_slow(*_: Any) -> None:
    raise TimeoutError(f"longer than {SECONDS_A_CASE} s")


def in_child(function: Any, *arguments: Any) -> int:
    """Call a function in a forked process; returns its exit code, a negative one for a signal."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        function(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGPROF, too_slow)


def fuzz(engine: str, target: Any, name: str, work: Path, seconds: float, memory: int) -> None:
    """A slice."""
    limit(memory)
    cases = Cases(target, name, engine, work)
    if engine == "atheris":
        follow_coverage(cases, work / "corpus" / name, seconds)
    else:
        change_at_random(cases, name, seconds)


def change_at_random(cases: Cases, name: str, seconds: float) -> None:
    """Random changes of honest files."""
    from fuzz_targets import mutations

    end = time.process_time() + seconds
    for content in mutations(cases.target, random.Random(f"{name} {cases.tally['cases']}")):
        cases.try_one(content)
        if time.process_time() > end:
            break
    cases.write()


def follow_coverage(cases: Cases, corpus: Path, seconds: float) -> None:
    """Let atheris go on from the corpus that it has found; ends the process."""
    import atheris

    corpus.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(cases.target.samples):
        (corpus / f"sample-{number}").write_bytes(sample)
    dictionary = corpus.with_name(f"{corpus.name}.dict")
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in cases.target.words if len(word) < 64]
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    end = time.process_time() + seconds

    def one(content: bytes) -> None:
        cases.try_one(content)
        if time.process_time() > end:
            # atheris would end the process without returning
            cases.write()
            os._exit(0)

    options = ["-max_len=65536", "-rss_limit_mb=0", "-timeout=999999", f"-dict={dictionary}"]
    # libFuzzer reports there without end
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


def run_engine(engine: str, work: Path, names: list[str] | None, seconds: float, memory: int) -> None:
    """Give every target slices in turn until it has had its share."""
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["spanelectra"]):
            found = targets(work)
    else:
        found = targets(work)
    names = names or list(found)
    share = seconds / len(names)
    print(f"{engine}: {len(names)} targets, {share:.0f} s each", flush=True)
    if engine == "random":
        in_child(retry, work, found, memory)
    while True:
        left = []
        for name in names:
            spent = read_tally(work / "tallies" / f"{slug(name)}.{engine}.json").get("processor_seconds", 0.0)
            if spent < share:
                left.append((spent, name))
        if not left:
            return
        spent, name = min(left)
        code = in_child(fuzz, engine, found[name], slug(name), work, min(SECONDS_A_SLICE, share - spent), memory)
        tally = read_tally(work / "tallies" / f"{slug(name)}.{engine}.json")
        print(f"{engine}: {name} {dict(tally)}{f' ended with {code}' if code else ''}", flush=True)
        if code:
            (work / "crashes" / slug(name)).mkdir(parents=True, exist_ok=True)
            (work / "crashes" / slug(name) / f"process-ended-{code}-{engine}.txt").touch()
            # so that a target that always ends so does not go on for ever
            tally["processor_seconds"] = tally.get("processor_seconds", 0.0) + SECONDS_A_SLICE
            (work / "tallies" / f"{slug(name)}.{engine}.json").write_text(json.dumps(tally))


def retry(work: Path, found: dict[str, Any], memory: int) -> None:
    """Try every kept crash again; what is a defect no more is renamed."""
    limit(memory)
    for name, target in found.items():
        for file in sorted((work / "crashes" / slug(name)).glob("*")):
            if file.suffix in (".txt", ".mended"):
                continue
            error, _ = outcome(target, file.read_bytes(), work / "place" / slug(name) / "retry" / "x")
            print(f"{file.parent.name}/{file.name}: {'mended' if error is None else repr(error)[:200]}", flush=True)
            if error is None:
                file.rename(file.with_name(f"{file.name}.mended"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3600, help="of processor time, all targets together")
    parser.add_argument("--only", nargs="*", help="targets")
    parser.add_argument("--memory", type=int, default=8 << 30, help="bytes of address space")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "fuzz.json")
    parser.add_argument("--only_sum_up", action="store_true", help="write what there is so far")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work_dir.resolve()
    if arguments.engine:
        run_engine(arguments.engine, work, arguments.only, arguments.seconds, arguments.memory)
        return
    promised = list(targets(work))
    if arguments.only_sum_up:
        write_results(work, arguments.results, promised)
        return
    engines = ["random", "atheris"] if importlib.util.find_spec("atheris") else ["random"]
    command = [sys.executable, __file__, *sys.argv[1:], "--seconds", str(arguments.seconds / len(engines)), "--engine"]
    processes = [subprocess.Popen([*command, engine]) for engine in engines]
    codes = [process.wait() for process in processes]
    write_results(work, arguments.results, promised)
    if any(codes):
        raise SystemExit(f"engines ended with {codes}")


if __name__ == "__main__":
    main()
