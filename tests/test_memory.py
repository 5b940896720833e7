"""Peak memory, in MiB, on every system; one function for the commands on data and for training."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from spanelectra import memory
from spanelectra.memory import peak_memory_mib


def test_peak_memory_is_in_mebibytes() -> None:
    code = (
        "from spanelectra.memory import peak_memory_mib; before = peak_memory_mib(); block = b'x' * (300 << 20); "
        "print(before, peak_memory_mib())"
    )
    before, after = map(float, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert 250 < after - before < 350


def test_where_linux_does_not_say_the_peak_getrusage_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = peak_memory_mib()
    monkeypatch.setattr(memory, "open", lambda *_, **__: (tmp_path / "nowhere").open(), raising=False)
    assert peak_memory_mib() >= 0.9 * expected > 5


def test_asking_does_not_load_torch() -> None:
    code = "import sys; import spanelectra.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# a step's worth of large blocks, made and freed again and again; prints the pages that the system had to hand out
CHURN = """
import resource
import numpy as np
from spanelectra.memory import keep_freed_memory
kept = {keep}
for step in range(12):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(size << 20, np.uint8) for size in (3, 40, 8)]
    del blocks
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_kept() -> None:
    faults = {}
    for keep in ("keep_freed_memory()", "False"):
        words = subprocess.check_output([sys.executable, "-c", CHURN.format(keep=keep)], text=True).split()
        faults[words[0]] = int(words[1])
    assert 5 * faults["True"] < faults["False"]


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_user_who_tunes_malloc_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert memory.keep_freed_memory() is False
