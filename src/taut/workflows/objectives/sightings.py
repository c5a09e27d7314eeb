"""What of objectives somebody should look at, in words and numbers that a person can follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taut.lifecycle.objectives import Burn, Standing
from taut.trust.findings import Sighting

BURN: Final = "slo.burn"
BUDGET: Final = "slo.budget"
KINDS: Final = (BURN, BUDGET)
_WINDOWS: Final = {"fast": "hour", "slow": "6 hours", "steady": "3 days"}
_DAY_S: Final = 86_400.0


def sightings_of(standing: Standing) -> Iterator[Sighting]:
    """Yield at most one sighting of a budget that burns too fast, and one of a budget that is spent."""
    if standing.worst is not None:
        yield _burn(standing, standing.worst)
    if standing.budget.spent:
        yield _spent(standing)


def _burn(standing: Standing, burn: Burn) -> Sighting:
    objective, budget = standing.objective, standing.budget
    left = budget.remaining if budget.remaining is not None else 1.0
    return Sighting(
        kind=BURN, group=objective.name, resource=f"endpoint:{objective.endpoint}", score=round(burn.rate, 2), severity=burn.severity,
        summary=(
            f"the budget of {objective.name} at {objective.endpoint} burns {burn.rate:.3g} times as fast as it may: {burn.bad:,} of "
            f"{burn.events:,} events of the last {_WINDOWS[burn.rule]} were bad, where {objective.allowed:.3g} of them may be "
            f"({objective.words}); {max(left, 0.0):.0%} of the budget is left"
        ),
        evidence={
            "rule": burn.rule, "burn": round(burn.rate, 3), "burn_now": round(burn.short_rate, 3), "limit": round(burn.limit, 3),
            "bad": burn.bad, "events": burn.events, "evidence": round(burn.evidence, 2), "remaining": round(left, 4),
        },
        closes=f"less than {burn.limit:.3g} times as fast within the shorter of the rule's two windows",
    )  # fmt: skip


def _spent(standing: Standing) -> Sighting:
    objective, budget = standing.objective, standing.budget
    waits = "; releases wait until it is not, or a person says otherwise" if objective.freeze else ""
    return Sighting(
        kind=BUDGET, group=objective.name, resource=f"endpoint:{objective.endpoint}", severity="warning",
        score=round(budget.bad / max(1.0, objective.allowed * budget.events), 3),
        summary=(
            f"the budget of {objective.name} at {objective.endpoint} is spent: {budget.bad:,} of {budget.events:,} events of the last "
            f"{objective.window_s / _DAY_S:.3g} days were bad, where {objective.allowed * budget.events:,.0f} may be ({objective.words}){waits}"
        ),
        evidence={
            "bad": budget.bad, "events": budget.events, "remaining": round(budget.remaining or 0.0, 4),
            "evidence": round(budget.evidence, 2), "freezes": objective.freeze,
        },
        closes="so many good events, or so much time, that no more are bad than may be",
    )  # fmt: skip
