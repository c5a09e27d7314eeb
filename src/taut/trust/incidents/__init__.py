"""What happened as one story: alerts that belong together, who answers for them, and until when; and drills of it."""

from taut.trust.incidents.drills import Drills, Fault, Planted
from taut.trust.incidents.incidents import Incidents
from taut.trust.incidents.tables import metadata
from taut.trust.incidents.values import STATUSES, Act, Incident, Joined, Outcome, Status

__all__ = [
    "STATUSES",
    "Act",
    "Drills",
    "Fault",
    "Incident",
    "Incidents",
    "Joined",
    "Outcome",
    "Planted",
    "Status",
    "metadata",
]
