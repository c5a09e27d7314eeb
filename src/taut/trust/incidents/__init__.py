"""What happened as one story: alerts that belong together, who answers for them, and until when."""

from taut.trust.incidents.incidents import Incidents
from taut.trust.incidents.tables import metadata
from taut.trust.incidents.values import STATUSES, Incident, Joined, Status

__all__ = ["STATUSES", "Incident", "Incidents", "Joined", "Status", "metadata"]
