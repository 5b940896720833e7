"""A run that waits for other work says so, once; one that does not says nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from small_runs import small_run
from spanelectra import busy_machine
from spanelectra.busy_machine import processor_seconds, sentence_about_waiting
from spanelectra.pretraining import pretrain

needs_linux = pytest.mark.skipif(processor_seconds() is None, reason="only Linux tells how long a thread has waited")

# works for half a second of processor time on one processor, beside processes that want the same one
WORK = """
import os, subprocess, sys, time
from spanelectra.busy_machine import processor_seconds
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
rival = "import time; end = time.monotonic() + 20\\nwhile time.monotonic() < end: pass"
rivals = [subprocess.Popen([sys.executable, "-c", rival]) for _ in range(2)]
try:
    (ran, waited), end = processor_seconds(), time.process_time() + 0.5
    while time.process_time() < end:
        pass
    print(processor_seconds()[0] - ran, processor_seconds()[1] - waited)
finally:
    for rival in rivals:
        rival.kill()
"""


@needs_linux
def test_what_a_process_has_run_and_waited_is_what_the_system_says() -> None:
    words = subprocess.check_output([sys.executable, "-c", WORK], text=True).split()
    ran, waited = map(float, words)
    assert 0.3 < ran < 1.5
    # of three that want one processor, each waits twice as long as it runs
    assert waited > 0.5 * ran


def test_a_system_that_does_not_say_gives_nothing(tmp_path: Path) -> None:
    assert processor_seconds(tmp_path) is None
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "schedstat").write_text("")
    assert processor_seconds(tmp_path) is None
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "schedstat").write_text("2000000000 500000000 7\n")
    assert processor_seconds(tmp_path) == (2.0, 0.5)


def test_only_much_waiting_is_worth_a_sentence() -> None:
    assert sentence_about_waiting(10.0, 1.0, threads=2) is None
    assert sentence_about_waiting(0.0, 0.0, threads=2) is None
    assert sentence_about_waiting(10.0, -1.0, threads=2) is None
    sentence = sentence_about_waiting(10.0, 10.0, threads=2)
    assert sentence is not None and "for 50% of its time" in sentence and "OMP_NUM_THREADS=1" in sentence
    # one thread waits for no other
    alone = sentence_about_waiting(10.0, 10.0, threads=1)
    assert alone is not None and "OMP_NUM_THREADS" not in alone


def waiting_run(
    rows: Path, run: Path, answers: list[tuple[float, float] | None], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> int:
    """Train six steps, a line of the log each; returns how often it was asked how long the process has waited."""
    asked = iter([*answers, *[answers[-1]] * 20])
    count = 0

    def processor_seconds() -> tuple[float, float] | None:
        nonlocal count
        count += 1
        return next(asked)

    monkeypatch.setattr(busy_machine, "processor_seconds", processor_seconds)
    monkeypatch.setattr(busy_machine, "SECONDS_WATCHED", seconds)
    pretrain(small_run(rows, run, quiet=False, logging_steps=1))
    return count


BUSY = "the processors are busy"
needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU processors are not what a run waits for")


@needs_no_gpu
@pytest.mark.parametrize(("later", "times"), [((11.0, 0.5), 0), ((11.0, 30.5), 1)])
def test_a_run_that_waits_says_so_once_whenever_it_begins_to(
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    later: tuple[float, float],
    times: int,
) -> None:
    # the first look sees no waiting, the second one may
    waiting_run(
        rows, tmp_path / "run", [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), later, (0.0, 0.0), (1.0, 9.0)], monkeypatch, 0
    )
    assert capsys.readouterr().err.count(BUSY) == max(times, 1)
    waiting_run(rows, tmp_path / "other", [(1.0, 0.5), (2.0, 0.5), (3.0, 0.5), later], monkeypatch, 0)
    assert capsys.readouterr().err.count(BUSY) == times


@needs_no_gpu
def test_a_run_that_is_over_soon_is_not_judged(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert waiting_run(rows, tmp_path / "run", [(0.0, 0.0), (0.0, 9.0)], monkeypatch, 1e6) == 1
    assert BUSY not in capsys.readouterr().err


@needs_no_gpu
def test_a_system_that_does_not_say_is_asked_once(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waiting_run(rows, tmp_path / "run", [None], monkeypatch, 0) == 1
