"""What the watches of the platform hold against somebody: kept, renewed while it lasts, dismissed by people, lapsed by time."""

from taut.trust.findings.findings import (
    SEVERITIES,
    Change,
    Finding,
    Findings,
    Hear,
    Severity,
    Sighting,
    at_least,
)
from taut.trust.findings.tables import metadata

__all__ = [
    "SEVERITIES",
    "Change",
    "Finding",
    "Findings",
    "Hear",
    "Severity",
    "Sighting",
    "at_least",
    "metadata",
]
