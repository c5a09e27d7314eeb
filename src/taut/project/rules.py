"""Declaring rules: splits, gates, approvals, resources, release strategies, objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.metrics import GREATER_IS_BETTER
from taut.core.units import parse_duration, parse_size
from taut.project import words
from taut.project.manifest import (
    CacheSpec,
    FallbackSpec,
    GateSpec,
    LimitSpec,
    MonitorSpec,
    ResourcesSpec,
    ShadowSpec,
    SLOSpec,
    SplitSpec,
    StrategySpec,
)
from taut.project.words import worded

_HUGE: Final = 1e300
_SLACK: Final = 1e-6
_MAX_TTL_S: Final = 86_400.0


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """How many people must approve a version."""

    count: int


class Guardrail(msgspec.Struct, frozen=True, kw_only=True):
    """A measure that a release is watched by. limit: of an absolute one. payoff_most: of an `outcome`."""

    name: str
    limit: LimitSpec | None = None
    payoff_most: float | None = None


@worded("by_time")
def by_time(*, test: str = "30d", gap: str = "0s") -> SplitSpec:
    """Hold out the last `test`, drop `gap` before it; rows whose label was not known at the split are embargoed."""
    held_out = words.duration(test, "by_time: test")
    if not parse_duration(held_out):
        raise InvalidInput(
            f"by_time: test is {held_out!r}: nothing would be held out, write for example '30d'"
        )
    return SplitSpec(test=held_out, gap=words.duration(gap, "by_time: gap"))


@worded("metric")
def metric(name: str, *, minimum: float | None = None, maximum: float | None = None) -> GateSpec:
    """The metric on the held-out data must lie within these bounds, both inclusive."""
    what = f"metric {words.one_of(name, tuple(GREATER_IS_BETTER), 'metric: name')!r}"
    low = words.optional_number(minimum, f"{what}: minimum", low=-_HUGE, high=_HUGE)
    high = words.optional_number(maximum, f"{what}: maximum", low=-_HUGE, high=_HUGE)
    if low is None and high is None:
        raise InvalidInput(f"{what} has no bound: write minimum= or maximum=")
    if low is not None and high is not None and low > high:
        raise InvalidInput(f"{what}: minimum {low:g} is above maximum {high:g}: no value could pass")
    return GateSpec(
        kind="metric", metric=name, minimum=low, maximum=high, greater_is_better=GREATER_IS_BETTER[name]
    )


@worded("no_regression")
def no_regression(name: str, *, tolerance: float = 0.0) -> GateSpec:
    """The metric must not be worse than the live version's by more than `tolerance`, both on the candidate's holdout."""
    what = f"no_regression {words.one_of(name, tuple(GREATER_IS_BETTER), 'no_regression: name')!r}"
    allowed = words.number(tolerance, f"{what}: tolerance", low=0, high=_HUGE)
    return GateSpec(
        kind="no_regression", metric=name, tolerance=allowed, greater_is_better=GREATER_IS_BETTER[name]
    )


@worded("parity")
def parity(*, tolerance: float) -> GateSpec:
    """How far predictions through the real runtime may lie from those that training saw. Every model has this gate;
    write it only to choose the tolerance.
    """
    return GateSpec(kind="parity", tolerance=words.number(tolerance, "parity: tolerance", low=0, high=_HUGE))


@worded("approval")
def approval(count: int = 1) -> Approval:
    """So many people other than the one who trained must approve."""
    return Approval(count=words.whole(count, "approval: count", low=0, high=20))


@worded("Resources")
def Resources(*, cpu: float = 1.0, memory: str = "4GiB", timeout: str = "30m") -> ResourcesSpec:  # noqa: N802 - a value's name
    """What a training run may use: cores, memory of its whole process tree, wall-clock time."""
    return ResourcesSpec(
        cpu=words.number(cpu, "Resources: cpu", low=0.1, high=1024),
        memory=words.size(memory, "Resources: memory"),
        timeout=words.duration(timeout, "Resources: timeout"),
    )


@worded("Direct")
def Direct() -> StrategySpec:  # noqa: N802 - a value's name
    """All traffic at once. Not for high risk in production."""
    return StrategySpec(kind="direct")


@worded("Canary")
def Canary(  # noqa: N802 - a value's name
    *,
    steps: Sequence[float] = (0.01, 0.05, 0.25, 0.5),
    guardrails: Sequence[Guardrail] = (),
    every: str = "10m",
    least: int = 100,
    most: float | None = None,
    shadow: StrategySpec | None = None,
) -> StrategySpec:
    """A growing part of the callers, each of whom stays with his version; judged by guardrails that are fixed before the start.

    guardrails: errors and latency without any. every: how long a step lasts at least. least: answers that the canary must
    have given in it. most: only a canary whose error rate is surely below this many times the live version's takes over
    without a person. shadow: `taut.Shadow(...)`, which it must pass before its first step.
    """
    shares = words.instances(
        steps, (int, float), "Canary: steps", "write parts of the traffic, (0.01, 0.1, 0.5)"
    )
    if not shares or not all(0 < share <= 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise InvalidInput(
            f"Canary: steps is {shares}: write growing parts of the traffic, each above 0 and at most 1"
        )
    rails = words.instances(
        guardrails, Guardrail, "Canary: guardrails", "write taut.errors(), taut.latency()"
    )
    return StrategySpec(
        kind="canary",
        steps=tuple(float(share) for share in shares),
        guardrails=tuple(rail.name for rail in rails if rail.limit is None),
        limits=tuple(rail.limit for rail in rails if rail.limit is not None),
        payoff_most=next((rail.payoff_most for rail in rails if rail.payoff_most is not None), 1.0),
        every=words.duration(every, "Canary: every"),
        least=words.whole(least, "Canary: least", low=1, high=1_000_000_000),
        most=words.optional_number(most, "Canary: most", low=1.0, high=_HUGE),
        shadow=_shadow(shadow, "Canary: shadow"),
    )


@worded("Shadow")
def Shadow(  # noqa: N802 - a value's name
    *, share: float = 0.1, every: str = "10m", least: int = 1000, differ: float = 0.05
) -> StrategySpec:
    """A version that is asked what the live one has just answered, and answers nobody; a person lets it take over.

    share: the part of the requests. every: how long it lasts at least. least: pairs that both versions must have answered. differ: the part of
    the decisions that may be others.
    """
    return StrategySpec(
        kind="shadow",
        shadow=ShadowSpec(
            share=words.number(share, "Shadow: share", low=0.0, high=1.0),
            every=words.duration(every, "Shadow: every"),
            least=words.whole(least, "Shadow: least", low=1, high=1_000_000_000),
            differ=words.number(differ, "Shadow: differ", low=0.0, high=1.0),
        ),
    )


@worded("BlueGreen")
def BlueGreen(  # noqa: N802 - a value's name
    *, keep: str = "1h", shadow: StrategySpec | None = None
) -> StrategySpec:
    """A version that lies ready in every gateway until a person switches to it, for everybody at once.

    keep: how long what it replaces stays in memory, so that the way back takes no load. shadow: `taut.Shadow(...)`, by which it is judged before.
    """
    return StrategySpec(
        kind="blue-green",
        keep=words.duration(keep, "BlueGreen: keep"),
        shadow=_shadow(shadow, "BlueGreen: shadow"),
    )


def _shadow(value: object, what: str) -> ShadowSpec | None:
    if value is None:
        return None
    if not isinstance(value, StrategySpec) or value.kind != "shadow":
        raise InvalidInput(f"{what} is no shadow: write taut.Shadow(share=0.1)")
    return value.shadow


@worded("errors")
def errors() -> Guardrail:
    """The rate of failed answers beside the baseline's."""
    return Guardrail(name="errors")


@worded("latency")
def latency() -> Guardrail:
    """The time to answer beside the baseline's."""
    return Guardrail(name="latency")


@worded("prediction_drift")
def prediction_drift() -> Guardrail:
    """The distribution of predictions beside the baseline's."""
    return Guardrail(name="prediction_drift")


@worded("SLO")
def SLO(  # noqa: N802 - a value's name
    *,
    availability: float | None = None,
    latency_p95_ms: float | None = None,
    latency_p99_ms: float | None = None,
    live: float | None = None,
    quality: float | None = None,
    drift: float | None = None,
    freshness: str | None = None,
    window: str = "28d",
    freeze: bool = False,
) -> SLOSpec:
    """What an endpoint promises over `window`: shares of events that have to be good. What may be bad beside them is its budget.

    availability: of requests, those that were answered. latency_p95_ms, latency_p99_ms: 95% and 99% of answers take no longer. live: of answers, those of
    the live version, and of nothing that stands in for it. quality: of outcomes that people told of, those that say that the
    answer was right. drift: of minutes, those in which no column is farther from training than `taut.Monitor` tolerates. freshness: the newest row that the model learned from is not older. freeze: releases wait while a budget is spent.
    """
    kept = words.duration(window, "SLO: window")
    if not 7 <= parse_duration(kept).total_seconds() / 86_400 <= 90:
        raise InvalidInput(f"SLO: window is {kept!r}: write from 7d to 90d, for example '28d'")
    shares = {
        name: words.optional_number(value, f"SLO: {name}", low=0.01, high=0.99999)
        for name, value in (
            ("availability", availability),
            ("live", live),
            ("quality", quality),
            ("drift", drift),
        )
    }
    fresh = words.optional_duration(freshness, "SLO: freshness")
    if fresh is not None and parse_duration(fresh).total_seconds() < 60:
        raise InvalidInput(f"SLO: freshness is {fresh!r}: it is looked at once a minute, write 1m or more")
    frozen = words.optional_flag(freeze, "SLO: freeze")
    found = SLOSpec(
        latency_p95_ms=words.optional_number(latency_p95_ms, "SLO: latency_p95_ms", low=0.001, high=1e9),
        latency_p99_ms=words.optional_number(latency_p99_ms, "SLO: latency_p99_ms", low=0.001, high=1e9),
        freshness=fresh, window=kept, freeze=bool(frozen), **shares,
    )  # fmt: skip
    if found == SLOSpec(window=kept, freeze=bool(frozen)):
        raise InvalidInput("SLO: nothing is promised: write for example availability=0.999")
    return found


def slo_faults(spec: SLOSpec) -> Iterator[str]:
    """Yield what could not have been declared so: a manifest may come from anywhere."""
    try:
        SLO(**msgspec.structs.asdict(spec))
    except InvalidInput as error:
        yield error.message


class SloFile(msgspec.Struct, frozen=True):
    """Service levels in a file; read when the project loads. path: relative to the project's folder."""

    path: str


@worded("openslo")
def openslo(path: str) -> SloFile:
    """What a file of OpenSLO v1 says about the endpoint, its service: see `taut slo export`. path: relative to the project's folder."""
    return SloFile(path=words.text(str(path), "openslo: path"))


@worded("previous_version")
def previous_version() -> FallbackSpec:
    """The version that was live before answers when this one cannot."""
    return FallbackSpec(kind="previous_version")


@worded("cached_answer")
def cached_answer(*, max_stale: str = "10m") -> FallbackSpec:
    """The last answer to the same request, by the same version, where it is not older than `max_stale`."""
    kept = words.duration(max_stale, "cached_answer: max_stale")
    if not parse_duration(kept):
        raise InvalidInput(
            f"cached_answer: max_stale is {kept!r}: nothing would be answered, write for example '10m'"
        )
    return FallbackSpec(kind="cached_answer", max_stale=kept)


@worded("default_answer")
def default_answer(
    *, value: float | None = None, probabilities: Mapping[str | int | bool, float] | None = None
) -> FallbackSpec:
    """The same answer for every row: the `value` of a regressor, or a probability for each class of a classifier."""
    what = "default_answer"
    if (value is None) == (probabilities is None):
        raise InvalidInput(f"{what}: give value= for a regressor, or probabilities= for a classifier")
    if probabilities is None:
        return FallbackSpec(
            kind="default_answer",
            value=words.optional_number(value, f"{what}: value", low=-_HUGE, high=_HUGE),
        )
    if not hasattr(probabilities, "items") or len(probabilities) < 2:
        raise InvalidInput(f"{what}: probabilities is {probabilities!r}: write {{True: 0.2, False: 0.8}}")
    shares = []
    for label, share in probabilities.items():
        if not isinstance(label, str | int):
            raise InvalidInput(f"{what}: {label!r} is no class: write a text, a whole number, True or False")
        shares.append((label, float(words.number(share, f"{what}: probability of {label!r}", low=0, high=1))))
    if abs(sum(share for _, share in shares) - 1.0) > _SLACK:
        raise InvalidInput(
            f"{what}: the probabilities sum to {sum(share for _, share in shares):g}, not to 1"
        )
    return FallbackSpec(kind="default_answer", probabilities=tuple(shares))


@worded("Cache")
def Cache(*, ttl: str = "60s", memory: str = "32MiB", shared: bool = True) -> CacheSpec:  # noqa: N802 - a value's name
    """Keep answers for `ttl` in `memory` of each gateway. shared: callers of the same rights share them."""
    kept = words.duration(ttl, "Cache: ttl")
    if not 0 < parse_duration(kept).total_seconds() <= _MAX_TTL_S:
        raise InvalidInput(f"Cache: ttl is {kept!r}: write from 1ms to 1d, for example '60s'")
    room = words.size(memory, "Cache: memory")
    if not 2**16 <= parse_size(room) <= 2**36:
        raise InvalidInput(f"Cache: memory is {room!r}: write from 64KiB to 64GiB, for example '32MiB'")
    if not isinstance(shared, bool):
        raise InvalidInput(f"Cache: shared is {shared!r}: write True or False")
    return CacheSpec(ttl=kept, memory=room, shared=shared)


@worded("Monitor")
def Monitor(  # noqa: N802 - a value's name
    *, shift: float = 0.1, faults: float = 0.02, risk: float = 0.05, window: str = "24h"
) -> MonitorSpec:
    """What is put up with before an alert: how far a column may be from training, by how much more often a value may be null, not
    finite or unseen, and by how much more often answers may be wrong. window: over which traffic is compared."""
    kept = words.duration(window, "Monitor: window")
    if not 48 <= parse_duration(kept).total_seconds() <= 31 * 86_400:
        raise InvalidInput(f"Monitor: window is {kept!r}: write from 48s to 31d, for example '24h'")
    shares = [
        float(words.number(value, f"Monitor: {name}", low=0.001, high=0.999))
        for name, value in (("shift", shift), ("faults", faults), ("risk", risk))
    ]
    return MonitorSpec(shift=shares[0], faults=shares[1], risk=shares[2], window=kept)
