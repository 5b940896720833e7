"""What a run ran on is complete, true and JSON."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from spanelectra import environment
from spanelectra.environment import (
    describe_environment,
    has_bfloat16_instructions,
    has_bfloat16_units,
    library_versions,
    peak_device_memory_mib,
    process_count,
    process_rank,
)


def test_versions_are_those_installed() -> None:
    versions = library_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == version("torch") and versions["spanelectra"] == version("spanelectra")
    assert {"transformers", "tokenizers", "datasets", "accelerate", "safetensors", "numpy"} <= set(versions)


def test_a_package_that_is_missing_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(environment, "version", missing)
    assert library_versions()["datasets"] == "not installed"


def test_the_description_is_json_and_of_this_machine() -> None:
    described = describe_environment()
    assert json.loads(json.dumps(described)) == described
    assert described["cores"] == os.cpu_count() and described["threads"] == torch.get_num_threads()
    assert described["processor"] and platform.machine() in described["platform"]
    assert described["processes"] == 1 and len(described["devices"]) == torch.cuda.device_count()


def test_a_processor_that_linux_does_not_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor: 0\nBogoMIPS: 243.75\n")
    for file in (tmp_path / "cpuinfo", tmp_path / "nowhere"):
        monkeypatch.setattr(environment, "open", lambda *_, file=file, **__: file.open(), raising=False)
        assert describe_environment()["processor"] == (platform.processor() or platform.machine())


def test_processes_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (process_rank(), process_count()) == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (process_rank(), process_count(), describe_environment()["processes"]) == (3, 4, 4)


def test_peak_device_memory_is_in_mebibytes_and_none_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_device_memory_mib() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 20)
    assert peak_device_memory_mib() == 3.0


@pytest.mark.parametrize("has_units", [True, False])
def test_a_gpu_that_only_emulates_bfloat16_has_no_units_for_it(
    has_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation or has_units

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert has_bfloat16_units() is has_units


@pytest.mark.parametrize(
    ("capabilities", "has_units", "has_instructions"),
    [
        ({"amx_bf16": True}, True, True),
        ({"amx_bf16": False, "avx512_bf16": True}, False, True),
        ({"neon": True, "bf16": True}, False, True),
        ({"avx2": True}, False, False),
        (None, False, False),
    ],
)
def test_bfloat16_of_a_processor(
    capabilities: dict[str, bool] | None, has_units: bool, has_instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if capabilities is None:
        # an earlier torch
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16_units() is has_units
    assert has_bfloat16_instructions() is has_instructions
