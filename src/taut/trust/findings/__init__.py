"""What the watches of the platform hold against somebody: kept, renewed while it lasts, dismissed by people, lapsed by time."""

from taut.trust.findings.findings import Finding, Findings, Sighting
from taut.trust.findings.tables import metadata

__all__ = ["Finding", "Findings", "Sighting", "metadata"]
