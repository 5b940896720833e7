"""A run that waits for other work says so, once; one that does not says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from small_runs import small_run
from spanelectra import busy_machine
from spanelectra.busy_machine import THREADS, processor_seconds, sentence_about_waiting
from spanelectra.pretraining import pretrain

needs_linux = pytest.mark.skipif(not THREADS.is_dir(), reason="only Linux tells how long a thread has waited")

# works for half a second of processor time on one processor, alone or beside a process that wants the same one
WORK = """
import os, subprocess, sys, time
from spanelectra.busy_machine import processor_seconds
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(int(sys.argv[1]))]
ran, waited = processor_seconds()
while time.process_time() < ran + 0.5:
    pass
for rival in rivals:
    rival.kill()
print(processor_seconds()[0] - ran, processor_seconds()[1] - waited)
"""


@needs_linux
def test_what_a_process_has_run_and_waited_is_what_the_system_says() -> None:
    words = subprocess.check_output([sys.executable, "-c", WORK, "2"], text=True).split()
    ran, waited = map(float, words)
    assert 0.4 < ran < 1.5
    # of three that want one processor, each waits twice as long as it runs
    assert waited > 0.5 * ran


def test_a_system_that_does_not_say_is_not_asked_further(tmp_path: Path) -> None:
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
    sentence = sentence_about_waiting(10.0, 10.0, threads=2)
    assert sentence is not None and "one 50% of its time" in sentence and "OMP_NUM_THREADS=1" in sentence
    # one thread waits for no other
    alone = sentence_about_waiting(10.0, 10.0, threads=1)
    assert alone is not None and "OMP_NUM_THREADS" not in alone


@pytest.mark.parametrize(("waited", "times"), [(0.0, 0), (30.0, 1)])
def test_a_run_says_it_once(
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    waited: float,
    times: int,
) -> None:
    answers = iter([(1.0, 0.5), (11.0, 0.5 + waited)])
    monkeypatch.setattr(busy_machine, "processor_seconds", lambda: next(answers))
    monkeypatch.setattr(busy_machine, "SECONDS_WATCHED", 0.0)
    pretrain(small_run(rows, tmp_path / "run", quiet=False))
    assert capsys.readouterr().err.count("other work keeps the processors busy") == times


def test_a_run_that_is_over_soon_is_not_judged(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(busy_machine, "processor_seconds", lambda: (0.0, float(os.times().elapsed)))
    pretrain(small_run(rows, tmp_path / "run", quiet=False))
    assert "other work" not in capsys.readouterr().err
