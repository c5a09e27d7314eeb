"""Driving an endpoint open-loop: requests go out when the schedule says so, and a late answer counts from then."""

from __future__ import annotations

from taut.entrypoints.load.bodies import from_instances, from_metadata, from_recorded, rendered
from taut.entrypoints.load.driver import Address, Driver, Measured
from taut.entrypoints.load.histogram import Histogram
from taut.entrypoints.load.profile import Profile, Stage, read_profile
from taut.entrypoints.load.report import report

__all__ = [
    "Address",
    "Driver",
    "Histogram",
    "Measured",
    "Profile",
    "Stage",
    "from_instances",
    "from_metadata",
    "from_recorded",
    "read_profile",
    "rendered",
    "report",
]
