"""Runs that the tests of the report share."""

from __future__ import annotations

from intrinsic_runs import joint_run  # noqa: F401 - fixture
from report_runs import finished_run  # noqa: F401 - fixture
