"""A version that lies ready beside the live one, and may be asked what it would answer, before it answers anybody."""

from taut.lifecycle.release.shadow.counts import PairCounts, PairReport, PairTally, add_pairs
from taut.lifecycle.release.shadow.judging import explain_pairs, judge_pairs
from taut.lifecycle.release.shadow.plan import (
    PAIR_GUARDRAILS,
    ShadowPlan,
    checked_shadow,
    declared_shadow,
)
from taut.lifecycle.release.shadow.steps import (
    ShadowMove,
    ShadowState,
    advance_shadow,
    begun_shadow,
    resumed_shadow,
)

__all__ = [
    "PAIR_GUARDRAILS",
    "PairCounts",
    "PairReport",
    "PairTally",
    "ShadowMove",
    "ShadowPlan",
    "ShadowState",
    "add_pairs",
    "advance_shadow",
    "begun_shadow",
    "checked_shadow",
    "declared_shadow",
    "explain_pairs",
    "judge_pairs",
    "resumed_shadow",
]
