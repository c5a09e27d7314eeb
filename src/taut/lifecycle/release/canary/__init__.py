"""A version that takes over step by step, as long as what is counted of it beside the live one allows."""

from taut.lifecycle.release.canary.amounts import payoff_bin
from taut.lifecycle.release.canary.counts import OUTCOMES, Report, Tally, add_reports
from taut.lifecycle.release.canary.findings import Finding
from taut.lifecycle.release.canary.foresight import Traffic, calibrated, foreseen
from taut.lifecycle.release.canary.judging import explain, judge
from taut.lifecycle.release.canary.plan import (
    GUARDRAILS,
    CanaryPlan,
    by_outcomes,
    checked_plan,
    declared_plan,
)
from taut.lifecycle.release.canary.steps import CanaryState, Move, advance, begun, resumed

__all__ = [
    "GUARDRAILS",
    "OUTCOMES",
    "CanaryPlan",
    "CanaryState",
    "Finding",
    "Move",
    "Report",
    "Tally",
    "Traffic",
    "add_reports",
    "advance",
    "begun",
    "by_outcomes",
    "calibrated",
    "checked_plan",
    "declared_plan",
    "explain",
    "foreseen",
    "judge",
    "payoff_bin",
    "resumed",
]
