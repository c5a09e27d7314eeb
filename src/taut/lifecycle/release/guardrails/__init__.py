"""Evidence about a canary that may be looked at any time: pure functions of counts, with a bound on false alarms."""

from taut.core.rates import absolute_log_e
from taut.lifecycle.release.guardrails.ahead import Phase, detectable
from taut.lifecycle.release.guardrails.drift import BinState, add_bins, distance_at_least, empty_bins
from taut.lifecycle.release.guardrails.label import (
    Harm,
    Stage,
    label_log_e,
    latency_log_e,
    paired_log_e,
    ratio_bounds,
    two_sided_log_e,
)
from taut.lifecycle.release.guardrails.payoff import PayoffState, add_amounts, add_payoffs

__all__ = [
    "BinState",
    "Harm",
    "PayoffState",
    "Phase",
    "Stage",
    "absolute_log_e",
    "add_amounts",
    "add_bins",
    "add_payoffs",
    "detectable",
    "distance_at_least",
    "empty_bins",
    "label_log_e",
    "latency_log_e",
    "paired_log_e",
    "ratio_bounds",
    "two_sided_log_e",
]
