"""Declaring by what several versions of an endpoint are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.comparing import ExperimentSpec
from taut.project.rules import Guardrail
from taut.project.words import worded

METRICS: Final = ("right", "reward", "error")
_HUGE: Final = 1e300


@worded("AB")
def AB(  # noqa: N802 - a value's name
    *,
    metric: str,
    low: float = 0.0,
    high: float = 1.0,
    control: float | None = None,
    guardrails: Sequence[Guardrail] = (),
    least: int = 100,
    outcomes: int = 10_000,
    base: float = 0.1,
    promote: str = "person",
    mature: str | None = None,
) -> ExperimentSpec:
    """Fixed parts of the callers for two to eight versions, each compared with the live one by what became true of its answers.

    metric: whether an answer was `right`, the `reward` that it brought (an outcome within low and high), or its `error`, at most high.
    control: the live version's part; without it all have the same. guardrails: errors and latency without any; what does harm is
    stopped. least: outcomes that an arm must have. outcomes, base: how many are planned, and the rate to be expected of what is
    counted, by which is said before the start what can be found. promote: whether a `person` lets a version take over, or the `winner` does so as
    soon as it is surely better. mature: how old an answer must be for its outcome to count.
    """
    what = "AB"
    kept = words.one_of(promote, ("person", "winner"), f"{what}: promote")
    return ExperimentSpec(
        kind="ab",
        **_common(what, metric, low, high, guardrails, least, mature),
        control=words.optional_number(control, f"{what}: control", low=0.01, high=0.99),
        outcomes=words.whole(outcomes, f"{what}: outcomes", low=1, high=1_000_000_000),
        base=float(words.number(base, f"{what}: base", low=1e-6, high=0.999999)),
        winner=kept == "winner",
    )


@worded("Bandit")
def Bandit(  # noqa: N802 - a value's name
    *,
    metric: str,
    low: float = 0.0,
    high: float = 1.0,
    every: str = "10m",
    floor: float = 0.05,
    memory: str | None = None,
    again: str | None = "1h",
    guardrails: Sequence[Guardrail] = (),
    least: int = 50,
    mature: str | None = None,
) -> ExperimentSpec:
    """Parts of the callers that follow what is learned of two to eight versions: each as likely it is the best, and `floor` at least.

    metric, low, high, guardrails, least, mature: as of `taut.AB`. every: how often parts are changed. memory: after which time an
    outcome counts half, where what is best changes; without it nothing is forgotten. again: after which time another outcome of the
    same caller counts, None never.
    """
    what = "Bandit"
    return ExperimentSpec(
        kind="bandit",
        **_common(what, metric, low, high, guardrails, least, mature),
        every=words.duration(every, f"{what}: every"),
        floor=float(words.number(floor, f"{what}: floor", low=0.01, high=0.5)),
        memory=words.optional_duration(memory, f"{what}: memory"),
        again=words.optional_duration(again, f"{what}: again"),
    )


def _common(
    what: str, metric: str, low: float, high: float, guardrails: Sequence[Guardrail], least: int, mature: str | None
) -> dict[str, Any]:  # fmt: skip
    kept = words.one_of(metric, METRICS, f"{what}: metric")
    bounds = [
        float(words.number(value, f"{what}: {name}", low=-_HUGE, high=_HUGE))
        for name, value in (("low", low), ("high", high))
    ]
    if bounds[0] >= bounds[1] or (kept == "error" and bounds[1] <= 0):
        raise InvalidInput(f"{what}: a payoff from {low:g} to {high:g} has no room: write low below high")
    rails = words.instances(
        guardrails, Guardrail, f"{what}: guardrails", "write taut.errors(), taut.latency()"
    )
    return {
        "metric": kept, "low": bounds[0], "high": bounds[1], "guardrails": tuple(rail.name for rail in rails),
        "least": words.whole(least, f"{what}: least", low=1, high=1_000_000_000),
        "mature": words.optional_duration(mature, f"{what}: mature"),
    }  # fmt: skip
