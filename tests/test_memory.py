"""Peak memory, in MiB, on every system; one function for the commands on data and for training."""

from __future__ import annotations

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
