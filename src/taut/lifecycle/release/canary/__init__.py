"""A version that takes over step by step, as long as what is counted of it beside the live one allows."""

from taut.lifecycle.release.canary.counts import Report, Tally, add_reports
from taut.lifecycle.release.canary.judging import Finding, explain, judge
from taut.lifecycle.release.canary.plan import GUARDRAILS, CanaryPlan, checked_plan, declared_plan
from taut.lifecycle.release.canary.steps import CanaryState, Move, advance, begun, resumed

__all__ = [
    "GUARDRAILS",
    "CanaryPlan",
    "CanaryState",
    "Finding",
    "Move",
    "Report",
    "Tally",
    "add_reports",
    "advance",
    "begun",
    "checked_plan",
    "declared_plan",
    "explain",
    "judge",
    "resumed",
]
