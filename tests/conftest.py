"""Fixtures for every test."""

from __future__ import annotations

import pytest
from torch import Tensor

from factories import make_batch
from prepared_rows import other_rows, rhyme_rows, rows  # noqa: F401 - fixtures
from small_runs import generator_run  # noqa: F401 - fixture


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three rows with masked and decoy spans, see :func:`factories.make_batch`."""
    return make_batch()
