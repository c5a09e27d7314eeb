"""What is made of incidents: their timeline from the ledger, and the draft of a post-mortem."""

from taut.workflows.incidents.postmortem import draft
from taut.workflows.incidents.timeline import Moment, timeline

__all__ = ["Moment", "draft", "timeline"]
