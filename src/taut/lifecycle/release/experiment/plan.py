"""What an experiment compares and by what, fixed before its first request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.schema import ModelSignature
from taut.core.units import parse_duration
from taut.lifecycle.release.canary import CanaryPlan
from taut.lifecycle.release.guardrails import Phase, detectable
from taut.project.manifest import EndpointSpec

Kind = Literal["ab", "bandit"]
Metric = Literal["right", "reward", "error"]
ARMS_MOST: Final = 8
GUARDRAILS: Final = ("errors", "latency")
"""Of each arm beside the control. Predictions that differ are what an experiment is for."""


class ExperimentPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as it was declared; in the ledger before it begins, and never changed.

    arms: versions, the control, which is live, first. weights: of the arms at the beginning, they sum to 1. metric: what becomes
    true of an answer: whether it was `right`, the `reward` that it brought, within low and high, or by how much it was off, its
    `error`, at most high. alpha: how likely any arm at all is called better or worse than the control while it is not; and how
    likely guardrails stop any arm that does no harm. guardrails, roll_back: as of a canary. least: outcomes that an arm must have.
    outcomes, base: how many are planned, and the rate that is expected of the control, by which is said before the start what
    can be found. winner: whether an arm that is surely better takes over without a person (A/B alone).
    Of a bandit, every_s: how often weights follow what was learned. floor: the least weight of an arm. memory_s: after which time
    an outcome counts half, 0 forgets nothing.
    mature_s: how old an answer must be for its outcome to count: where good news come sooner than bad, as late as the latest.
    again_s: after which time another outcome of the same unit counts, 0 never.
    """

    kind: Kind
    arms: tuple[str, ...]
    weights: tuple[float, ...]
    metric: Metric
    low: float = 0.0
    high: float = 1.0
    alpha: float = 0.05
    guardrails: tuple[str, ...] = GUARDRAILS
    roll_back: float = 1.2
    least: int = 100
    outcomes: int = 10_000
    base: float = 0.1
    winner: bool = False
    every_s: float = 600.0
    floor: float = 0.05
    memory_s: float = 0.0
    mature_s: float = 0.0
    again_s: float = 0.0

    @property
    def rivals(self) -> int:
        return len(self.arms) - 1

    @property
    def each(self) -> float:
        """Return the alpha of one arm: Bonferroni over the arms beside the control, so that none errs with 1 − alpha."""
        return self.alpha / self.rivals

    @property
    def gains(self) -> bool:
        """Return whether what is counted is gained; of right answers and errors it is what was lost, being rarer."""
        return self.metric == "reward"

    def guarded(self, weight: float) -> CanaryPlan:
        """Return by what one arm is guarded that has this part of its own units and the control's together."""
        return CanaryPlan(
            steps=(weight,), guardrails=self.guardrails, alpha=self.each, roll_back=self.roll_back
        )


def declared_plan(
    endpoint: EndpointSpec, kind: str, arms: Sequence[str], signature: ModelSignature
) -> ExperimentPlan:
    """Return by what versions of an endpoint are compared, as the project declares it.

    arms: the control first. signature: of the control. Raises InvalidInput for what could not be judged.
    """
    told = endpoint.experiment
    if told is None or told.kind != kind:
        raise InvalidInput(
            f"endpoint {endpoint.name} declares no experiment of this kind: give it experiment=taut.AB(metric=...) or "
            "taut.Bandit(metric=...), and apply the project"
        )
    if not 2 <= len(arms) <= ARMS_MOST or len(set(arms)) != len(arms):
        raise InvalidInput(
            f"an experiment compares 2 to {ARMS_MOST} different versions, the live one among them, and this has "
            f"{', '.join(arms)}: name others to compare {arms[0]} with"
        )
    control = told.control or 1.0 / len(arms)
    alone = endpoint.runtime == "worker" and endpoint.workers == 1
    plan = ExperimentPlan(
        kind=told.kind, arms=tuple(arms), weights=(control, *[(1.0 - control) / (len(arms) - 1)] * (len(arms) - 1)),
        metric=told.metric, low=told.low, high=told.high, guardrails=told.guardrails or GUARDRAILS,
        roll_back=1.5 if alone else 1.2, least=told.least, outcomes=told.outcomes, base=told.base, winner=told.winner,
        every_s=_seconds(told.every), floor=told.floor, memory_s=_seconds(told.memory), mature_s=_seconds(told.mature),
        again_s=_seconds(told.again),
    )  # fmt: skip
    if endpoint.audit == "off":
        raise InvalidInput(
            f'endpoint {endpoint.name} keeps no prediction log (audit="off"), so that no outcome finds its answer: keep one'
        )
    _check_metric(plan, signature)
    return checked_plan(plan)


def _seconds(duration: str | None) -> float:
    return 0.0 if duration is None else parse_duration(duration).total_seconds()


def _check_metric(plan: ExperimentPlan, signature: ModelSignature) -> None:
    """Raise InvalidInput where outcomes of such answers cannot be what the metric counts."""
    classes = signature.output != "value"
    if plan.metric == "right" and not classes:
        raise InvalidInput(
            f'metric "right" is of classes, and {plan.arms[0]} gives values: declare "error" or "reward"'
        )
    if plan.metric == "error" and classes:
        raise InvalidInput(
            f'metric "error" is of values, and {plan.arms[0]} gives classes: declare "right" or "reward"'
        )
    if plan.metric == "reward" and any(isinstance(one, str) for one in signature.classes):
        raise InvalidInput(
            f'metric "reward" counts numbers, and outcomes of {plan.arms[0]} are texts: declare "right"'
        )


def checked_plan(plan: ExperimentPlan) -> ExperimentPlan:
    """Return the plan. Raises InvalidInput for one that could not be carried out, or not be judged."""
    for name in plan.guardrails:
        if name not in GUARDRAILS:
            raise InvalidInput(
                f"guardrail {name!r} is none of an experiment's: choose of {', '.join(GUARDRAILS)}"
            )
    if not plan.guardrails or len(set(plan.guardrails)) != len(plan.guardrails):
        raise InvalidInput(f"guardrails are {plan.guardrails}: name at least one, and each once")
    if (
        len(plan.weights) != len(plan.arms)
        or min(plan.weights) <= 0
        or not math.isclose(sum(plan.weights), 1)
    ):
        raise InvalidInput(f"weights are {plan.weights}: one above 0 for each arm is wanted, 1 in all")
    if plan.low >= plan.high or (plan.metric == "error" and plan.high <= 0):
        raise InvalidInput(f"a payoff from {plan.low:g} to {plan.high:g} has no room: declare low below high")
    if plan.kind == "bandit" and not 0.01 <= plan.floor <= 1.0 / len(plan.arms):
        raise InvalidInput(
            f"floor is {plan.floor:g}: 0.01 to {1 / len(plan.arms):.2g} can be kept for each of {len(plan.arms)} arms"
        )
    if not 0.0 < plan.base < 1.0:
        raise InvalidInput(f"base is {plan.base:g}: a rate between 0 and 1 is wanted")
    return plan


def payoff_of(plan: ExperimentPlan, label: Scalar, said: Scalar) -> float | None:
    """Return what an answer was worth, 0 to 1, the more the better; None for an outcome that is none of the metric's.

    label: what became true. said: the answer. What lies beyond the declared bounds counts as they do.
    """
    if plan.metric == "right":
        return float(label == said)
    if not isinstance(label, bool | int | float) or not math.isfinite(label):
        return None
    if plan.metric == "reward":
        return (min(max(float(label), plan.low), plan.high) - plan.low) / (plan.high - plan.low)
    if not isinstance(said, int | float) or not math.isfinite(said):
        return None
    return 1.0 - min(abs(float(label) - said), plan.high) / plan.high


def detectable_ratio(plan: ExperimentPlan) -> float | None:
    """Return the smallest ratio of an arm's rate to the control's that the planned outcomes find about every second time.

    Of rates of what is gained, above 1; of what is lost, below it. None where they find none of the scale.
    """
    pair = plan.weights[0] + plan.weights[1]
    phases = (Phase(weight=plan.weights[1] / pair, units=plan.outcomes * pair),)
    harm: Literal["up", "down"] = "up" if plan.gains else "down"
    return detectable(phases, rate=plan.base, alpha=plan.each / 2, harm=harm)
