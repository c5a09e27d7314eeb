"""Objectives, watched: what gateways count and what people told becomes budgets, alerts and frozen releases."""

from taut.workflows.objectives.counting import Events, GatewayCounts, OutcomeCounts, Traffic
from taut.workflows.objectives.objectives import Objectives
from taut.workflows.objectives.sightings import BUDGET, BURN, KINDS, sightings_of

__all__ = [
    "BUDGET",
    "BURN",
    "KINDS",
    "Events",
    "GatewayCounts",
    "Objectives",
    "OutcomeCounts",
    "Traffic",
    "sightings_of",
]
