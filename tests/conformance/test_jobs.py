"""Every Jobs adapter against the port's conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.adapters.jobs import ProcessJobs
from taut.ports.jobs import Jobs
from taut.testing.conformance.jobs import JobsConformance


class TestProcessJobs(JobsConformance):
    @pytest.fixture
    def jobs(self, tmp_path: Path) -> Jobs:  # type: ignore[override]  # fixtures ask for what they need
        return ProcessJobs(tmp_path / "scratch")
