"""What a canary will be judged by, fixed before its first request."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project.guarding import unmeasured
from taut.project.manifest import EndpointSpec, LimitSpec

GUARDRAILS: Final = ("errors", "latency", "prediction_drift", "quality", "outcome", "cost")
"""What is counted of both arms, by gateways or by outcomes that people tell of, and so what a release can be judged by."""

QUALITY: Final = (1.1, 1.5)
"""By how many times as often answers may be wrong before a canary is held, and ended."""


class CanaryPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A canary as it was declared; in the ledger before it begins, and never changed.

    steps: growing parts of the callers, each 0 < step < 1; after the last one all. every_s: how long a step lasts at least.
    least: answers of the canary that a step needs at least. guardrails: by their names, each once. alpha: how likely a healthy
    canary is rolled back by any of them at most. hold, roll_back: the ratio to the live version's rate up to which a guardrail
    lets the canary grow, and beyond which it ends it. most: where set, only a canary whose error rate is surely below this
    many times the live one's is promoted without a person. drift: how far apart the versions' predictions may be
    (Kolmogorov distance) before `prediction_drift` holds the canary. limits: see `taut.absolute`. payoff_most: the largest amount that
    an outcome counts as. price: in dollars, of an answer and of a second that models take.
    """

    steps: tuple[float, ...]
    every_s: float = 600.0
    least: int = 100
    guardrails: tuple[str, ...] = ("errors",)
    alpha: float = 0.05
    hold: float = 1.0
    roll_back: float = 1.2
    most: float | None = None
    drift: float = 0.05
    limits: tuple[LimitSpec, ...] = ()
    payoff_most: float = 1.0
    price: tuple[float, float] = (0.0, 0.0)

    @property
    def bar(self) -> float:
        """Return the evidence at which a guardrail acts: all of them together, limits too, err with at most alpha."""
        return (len(self.guardrails) + len(self.limits)) / self.alpha


def by_outcomes(plan: CanaryPlan) -> bool:
    """Tell whether a canary is judged by what people tell of its answers."""
    return bool({"quality", "outcome"} & set(plan.guardrails))


_STEPS: Final = (0.01, 0.05, 0.25, 0.5)
_ALONE: Final = 1.5
"""What is borne of a canary with a single worker process of its own: its noise is that of one process."""


def declared_plan(endpoint: EndpointSpec) -> CanaryPlan:
    """Return by what canaries of an endpoint are judged, as the project declares it. Raises as `checked_plan`."""
    told, price = endpoint.release, endpoint.price
    if why := unmeasured(endpoint):
        raise InvalidInput(why)
    alone = endpoint.runtime == "worker" and endpoint.workers == 1
    return checked_plan(
        CanaryPlan(
            steps=tuple(step for step in told.steps if step < 1.0) or _STEPS,
            every_s=parse_duration(told.every).total_seconds(),
            least=told.least,
            guardrails=told.guardrails or ("errors", "latency"),
            roll_back=_ALONE if alone else 1.2,
            most=told.most,
            limits=told.limits,
            payoff_most=told.payoff_most,
            price=(0.0, 0.0) if price is None else (price.per_request, price.per_model_second),
        )
    )


def checked_plan(plan: CanaryPlan) -> CanaryPlan:
    """Return the plan. Raises InvalidInput for one that could not be carried out, or not be judged."""
    if not plan.guardrails:
        raise InvalidInput(
            f"a canary without guardrails is judged by nothing: declare some of {', '.join(GUARDRAILS)}"
        )
    for name in plan.guardrails:
        if name not in GUARDRAILS:
            raise InvalidInput(
                f"guardrail {name!r} watches what nobody counts: choose of {', '.join(GUARDRAILS)}"
            )
    if len(set(plan.guardrails)) != len(plan.guardrails):
        raise InvalidInput(f"guardrails are {', '.join(plan.guardrails)}: name each once")
    if (
        not plan.steps
        or not all(0.0 < step < 1.0 for step in plan.steps)
        or list(plan.steps) != sorted(set(plan.steps))
    ):
        raise InvalidInput(f"steps are {plan.steps}: growing parts between 0 and 1 are wanted")
    if plan.every_s < 0 or plan.least < 1 or not 0 < plan.alpha < 1 or not 1.0 <= plan.hold <= plan.roll_back:
        raise InvalidInput(
            "a canary needs a time for its steps that is not negative, at least one answer, an alpha between 0 and 1, and "
            "1 <= hold <= roll_back"
        )
    return plan
