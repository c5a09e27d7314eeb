"""Who takes far more of the traffic than is his, told from growth: load anomalies by share, whatever the fleet does meanwhile."""

from taut.trust.shares.baseline import Baseline, hour_of_week
from taut.trust.shares.capacity import CapacityWatch
from taut.trust.shares.margin import FleetState, Margins
from taut.trust.shares.watch import NEWCOMERS, Finding, ShareWatch

__all__ = [
    "NEWCOMERS",
    "Baseline",
    "CapacityWatch",
    "Finding",
    "FleetState",
    "Margins",
    "ShareWatch",
    "hour_of_week",
]
