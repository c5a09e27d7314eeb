"""From the prediction log to figures of drift, faults and quality, and alerts of those beyond what is tolerated."""

from __future__ import annotations

from taut.workflows.monitor.following import Follower
from taut.workflows.monitor.monitor import KINDS, Monitor
from taut.workflows.monitor.references import reference_of
from taut.workflows.monitor.sightings import sightings_of

__all__ = ["KINDS", "Follower", "Monitor", "reference_of", "sightings_of"]
