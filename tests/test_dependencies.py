"""The supply chain: everything that the package needs is pinned, and free to use."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    """benchmarks/licences.py as a module."""
    specification = importlib.util.spec_from_file_location("licences", ROOT / "benchmarks" / "licences.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_dependency_is_pinned_to_one_version(licences: ModuleType) -> None:
    pins, needed = licences.pins(), licences.needed()
    assert {"torch", "transformers", "numpy", "huggingface-hub", "jinja2"} <= set(needed)
    # what pip itself brings is not among what it freezes
    assert set(needed) - set(pins) <= {"setuptools"}
    assert {name for name, versions in pins.items() if len(versions) != 1} == set()


def test_every_licence_is_known_and_permissive(licences: ModuleType) -> None:
    stated = {name: licences.licence(package) for name, package in licences.needed().items()}
    assert {name: text for name, text in stated.items() if not licences.PERMISSIVE.search(text)} == {}
    assert {name: text for name, text in stated.items() if licences.COPYLEFT.search(text)} == {}


def test_nothing_in_the_source_opens_pickles_or_foreign_code() -> None:
    """Every call that could is made in its safe form, and no module that cannot is imported."""
    for file in (ROOT / "src").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for call in re.findall(r"torch\.load\([^\n]*|np\.load\([^\n]*|yaml\.load\([^\n]*", text):
            assert "weights_only=True" in call or "allow_pickle=False" in call, f"{file}: {call}"
        assert not re.search(r"^\s*import (marshal|shelve|dill|joblib)\b|pickle\.loads?\(", text, flags=re.MULTILINE), (
            file
        )
        assert not re.search(r"trust_remote_code\s*=\s*True|(?<![.\w])(eval|exec)\(", text), file
