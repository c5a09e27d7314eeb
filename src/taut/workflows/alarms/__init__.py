"""What control makes of what gateways count: alerts, who is told of them, and who is contained because of them."""

from taut.workflows.alarms.costs import CostSentry
from taut.workflows.alarms.counts import CallerCounts
from taut.workflows.alarms.sentry import KINDS, SHARE, Sentry, scaled

__all__ = ["KINDS", "SHARE", "CallerCounts", "CostSentry", "Sentry", "scaled"]
