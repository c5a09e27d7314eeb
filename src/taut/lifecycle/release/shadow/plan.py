"""What a shadow will be judged by, and what follows, fixed before it lies ready."""

from __future__ import annotations

from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.lifecycle.release.canary import CanaryPlan, declared_plan
from taut.project.manifest import EndpointSpec, ShadowSpec

PAIR_GUARDRAILS: Final = ("errors", "latency", "disagreement", "prediction_drift")


class ShadowPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shadow as it was declared; in the ledger before it begins, and never changed.

    share: the part of the requests that it is asked too, 0 for none: then only its readiness counts. every_s: how long it lasts at least. least: pairs that
    both versions must have answered. alpha: how likely one that is as good is held at most. ratio: of pairs in which one version
    alone failed, or alone was slow, how many times more often the shadow may be that one. differ: the part of the decisions that
    may be others. drift: how far apart the predictions may be (Kolmogorov distance). canary: what follows by itself once it has
    passed; None waits for a person. keep_s: how long the version that it replaces stays in memory after the switch.
    """

    share: float = 0.1
    every_s: float = 600.0
    least: int = 1000
    alpha: float = 0.05
    ratio: float = 1.1
    differ: float = 0.05
    drift: float = 0.05
    canary: CanaryPlan | None = None
    keep_s: float = 0.0

    @property
    def bar(self) -> float:
        """Return the evidence at which a guardrail acts: all of them together err with at most alpha."""
        return len(PAIR_GUARDRAILS) / self.alpha


_KEEP_S: Final = 3600.0


def declared_shadow(endpoint: EndpointSpec, strategy: str) -> ShadowPlan | None:
    """Return by what a release is judged before it answers anybody, as the project declares it; None where nothing comes before.

    Raises InvalidInput for a plan that could not be carried out.
    """
    told = endpoint.release
    declared = told.shadow if told.kind == strategy else None
    match strategy:
        case "shadow":
            return _plan(declared or ShadowSpec())
        case "blue-green":
            keep_s = parse_duration(told.keep).total_seconds() if told.kind == strategy else _KEEP_S
            return _plan(declared or ShadowSpec(share=0.0, every="0s"), keep_s=keep_s)
        case "canary" if declared is not None:
            return _plan(declared, canary=declared_plan(endpoint))
    return None


def _plan(spec: ShadowSpec, *, keep_s: float = 0.0, canary: CanaryPlan | None = None) -> ShadowPlan:
    return checked_shadow(
        ShadowPlan(
            share=spec.share, every_s=parse_duration(spec.every).total_seconds(), least=spec.least, differ=spec.differ,
            keep_s=keep_s, canary=canary,
        )
    )  # fmt: skip


def checked_shadow(plan: ShadowPlan) -> ShadowPlan:
    """Return the plan. Raises InvalidInput for one that could not be carried out, or not be judged."""
    if not 0.0 <= plan.share <= 1.0:
        raise InvalidInput(f"a shadow's share is {plan.share}: write a part of the requests, 0 to 1")
    if plan.every_s < 0 or plan.keep_s < 0 or plan.least < 1:
        raise InvalidInput("a shadow needs times that are not negative, and at least one pair")
    if not 0 < plan.alpha < 1 or not 0 < plan.differ < 1 or not 0 <= plan.drift < 1 or not plan.ratio >= 1.0:
        raise InvalidInput(
            "a shadow needs an alpha and a part of decisions that may differ between 0 and 1, a drift from 0 to below 1, "
            "and a ratio of at least 1"
        )
    return plan
