"""What a run ran on: versions, processor, devices and their peak memory. Saved beside every result."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_PACKAGES = ("spanelectra", "torch", "transformers", "tokenizers", "datasets", "accelerate", "safetensors", "numpy")


def library_versions() -> dict[str, str]:
    """Package -> installed version, Python included."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe_environment() -> dict[str, Any]:
    """Versions, operating system, processor, threads and accelerators, as JSON-ready values."""
    return {
        "versions": library_versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": process_count(),
        "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def has_bfloat16_units() -> bool:
    """Whether this machine multiplies bfloat16 matrices in units of their own: a GPU's, or AMX in a processor."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_processor_capabilities().get("amx_bf16", False))


def has_bfloat16_instructions() -> bool:
    """Whether the processor multiplies bfloat16 numbers itself: in AMX, or in vectors (AVX-512's or Arm's)."""
    capabilities = _processor_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _processor_capabilities() -> dict[str, Any]:
    # torch 2.9 does not tell yet
    return getattr(torch.cpu, "get_capabilities", dict)()


def process_rank() -> int:
    """Number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def peak_device_memory_mib() -> float | None:
    """Largest amount of memory that tensors of this process have held on its GPU so far, in MiB; else ``None``."""
    return torch.cuda.max_memory_allocated() / (1 << 20) if torch.cuda.is_available() else None
