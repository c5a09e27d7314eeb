"""Jobs as processes of this machine, confined as far as its kernel permits."""

from __future__ import annotations

from taut.adapters.jobs.process import ProcessJobs

__all__ = ["ProcessJobs"]
