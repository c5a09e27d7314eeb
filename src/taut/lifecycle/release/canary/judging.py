"""What the counts say of each guardrail: at once whether it holds or ends a canary, and when asked, why, in numbers and words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary.amounts import Amounts
from taut.lifecycle.release.canary.counts import Pair, Tally
from taut.lifecycle.release.canary.findings import (
    LIMIT,
    MEANS,
    Decision,
    Finding,
    exp,
    limits_found,
    means_found,
    told_unevenly,
)
from taut.lifecycle.release.canary.plan import QUALITY, CanaryPlan
from taut.lifecycle.release.guardrails import (
    Stage,
    distance_at_least,
    latency_log_e,
    ratio_bounds,
    two_sided_log_e,
)
from taut.lifecycle.release.guardrails.label import log_mean_exp

_FATAL_ALPHA: Final = 0.01
_SPLIT_ALPHA: Final = 0.01
_UNEVENLY: Final = "; outcomes do not come of both versions as the weights say, so that they prove nothing"
_FEW_UNITS: Final = 3
"""Who are fewer may be the ones who always fail: what they show holds a canary, and does not end it."""

Lanes = Sequence[Sequence[Stage]]
"""What a guardrail counts, by stage: as one process, or as several whose mean is taken."""


class _Rail(msgspec.Struct, frozen=True, kw_only=True):
    """A guardrail of the label process. end_at: the ratio beyond which it ends the canary."""

    name: str
    lanes: Lanes
    bar: float
    hold_at: float
    end_at: float
    restarts: int

    def evidence(self, ratio: float, lanes: Lanes | None = None) -> float:
        return exp(latency_log_e(lanes or self.lanes, ratio=ratio, restarts=self.restarts))


def judge(plan: CanaryPlan, tallies: Sequence[Tally], *, trusted: bool | None = None) -> tuple[Finding, ...]:
    """Judge a canary by all that was counted of its stages, in order: each declared guardrail, and two that every one has.

    `prediction_drift` never ends it: that a version predicts otherwise may be why it was made.

    `fatal`: answers that may not be given, request by request. `split`: whether callers fell to the arms as the weight says;
    where they did not, no other finding means anything, and none ends the canary. Where an arm has fewer than three callers,
    only `fatal` ends it. Outcomes that do not come of both arms as the weights say hold it, whatever they say.

    trusted: whether callers fell as the weights say, by a test of the caller's own; None for that of `split`.
    """
    split = _split(plan, tallies)
    broken = split.decision != "admit" if trusted is None else not trusted
    few = min(sum(tally.units[arm] for tally in tallies) for arm in (0, 1)) < _FEW_UNITS
    found = [split]
    if "prediction_drift" in plan.guardrails:
        found.append(_drift(plan, tallies))
    found += limits_found(plan, tallies) + [
        means_found(plan, tallies, name) for name in MEANS if name in plan.guardrails
    ]
    found += map(_judged, _rails(plan, tallies))
    untold = told_unevenly(plan, tallies)
    return tuple(
        structs.replace(one, decision="hold")
        if one.guardrail in untold
        or (one.decision == "reject" and (broken or (few and one.guardrail != "fatal")))
        else one
        for one in found
    )


def explain(
    plan: CanaryPlan, tallies: Sequence[Tally], *, trusted: bool | None = None
) -> tuple[Finding, ...]:
    """Judge, and say of each finding how sure it is and what would have changed it; some milliseconds of work."""
    rails = {rail.name: rail for rail in _rails(plan, tallies)}
    untold = told_unevenly(plan, tallies)
    found = (
        _explained(one, rails[one.guardrail]) if one.guardrail in rails else _told(plan, one, tallies)
        for one in judge(plan, tallies, trusted=trusted)
    )
    return tuple(
        structs.replace(one, says=f"{one.says}{_UNEVENLY}") if one.guardrail in untold else one
        for one in found
    )


def error_ratio_at_most(plan: CanaryPlan, tallies: Sequence[Tally]) -> float:
    """Return what the ratio of the error rates is surely not above, by the plan's alpha; inf where it is not bounded."""
    stages = [Stage(tally.weight, *tally.failed) for tally in tallies]
    return ratio_bounds(stages, alpha=plan.alpha)[1]


def _rails(plan: CanaryPlan, tallies: Sequence[Tally]) -> list[_Rail]:
    def lane(count: Callable[[Tally], Pair]) -> list[Stage]:
        return [Stage(tally.weight, *count(tally)) for tally in tallies]

    def slow(at: int) -> list[Stage]:
        return lane(lambda tally: tally.slow[at])

    def wrong(tally: Tally) -> Pair:
        told = tally.amounts.get("quality", Amounts())
        return sum(told.canary[1:]), sum(told.baseline[1:])

    lanes: dict[str, Callable[[], Lanes]] = {
        "errors": lambda: (lane(lambda tally: tally.failed),),
        "quality": lambda: (lane(wrong),),
        "latency": lambda: [slow(at) for at in range(len(tallies[0].slow))],
    }
    restarts = len(plan.steps)
    fatal = _Rail(
        name="fatal", lanes=(lane(lambda tally: tally.fatal),), bar=1 / _FATAL_ALPHA, hold_at=plan.hold,
        end_at=plan.hold, restarts=restarts,
    )  # fmt: skip
    return [fatal] + [
        _Rail(
            name=name, lanes=lanes[name](), bar=plan.bar, restarts=restarts,
            hold_at=QUALITY[0] if name == "quality" else plan.hold, end_at=QUALITY[1] if name == "quality" else plan.roll_back,
        )
        for name in plan.guardrails
        if name in lanes
    ]  # fmt: skip


def _judged(rail: _Rail) -> Finding:
    held, ended = rail.evidence(rail.hold_at), rail.evidence(rail.end_at)
    decision: Decision = "reject" if ended >= rail.bar else "hold" if held >= rail.bar else "admit"
    canary, baseline = _sum((int(stage.canary), int(stage.baseline)) for stage in rail.lanes[-1])
    return Finding(
        guardrail=rail.name, decision=decision, canary=canary, baseline=baseline, bar=rail.bar,
        evidence=ended if decision == "reject" else held,
    )  # fmt: skip


def _split(plan: CanaryPlan, tallies: Sequence[Tally]) -> Finding:
    """Each stage by itself: whoever was drawn in one is drawn alike in the next. The mean of them is evidence too, of those to come as well:
    else what one stage showed would weigh less, or more, once the next begins."""
    each = [two_sided_log_e((Stage(tally.weight, *tally.units),)) for tally in tallies]
    evidence = exp(log_mean_exp(each + [0.0] * (len(plan.steps) - len(tallies))))
    canary, baseline = _sum(tally.units for tally in tallies)
    return Finding(
        guardrail="split", decision="hold" if evidence >= 1 / _SPLIT_ALPHA else "admit", canary=canary,
        baseline=baseline, evidence=evidence, bar=1 / _SPLIT_ALPHA,
    )  # fmt: skip


def _drift(plan: CanaryPlan, tallies: Sequence[Tally]) -> Finding:
    """Each stage by itself, as of the split. It holds where the difference is sure, and surely larger than is borne."""
    logs = [tally.scores.log_e for tally in tallies] + [0.0] * (len(plan.steps) - len(tallies))
    evidence = exp(log_mean_exp(logs))
    differs = evidence >= plan.bar and _distance(plan, tallies) > plan.drift
    canary, baseline = _sum((sum(one.scores.canary), sum(one.scores.baseline)) for one in tallies)
    return Finding(
        guardrail="prediction_drift", decision="hold" if differs else "admit", canary=canary, baseline=baseline,
        evidence=evidence, bar=plan.bar,
    )  # fmt: skip


def _distance(plan: CanaryPlan, tallies: Sequence[Tally]) -> float:
    alpha = 1 / plan.bar / len(plan.steps)
    return max(distance_at_least(tally.scores, alpha=alpha) for tally in tallies)


def _told(plan: CanaryPlan, finding: Finding, tallies: Sequence[Tally]) -> Finding:
    if finding.guardrail in MEANS:
        return structs.replace(finding, says=means_found(plan, tallies, finding.guardrail, tell=True).says)
    if finding.guardrail.startswith(LIMIT):
        return finding  # said already
    if finding.guardrail == "prediction_drift":
        said = f"first predictions of {finding.canary} and {finding.baseline} callers lie at least {_distance(plan, tallies):.2f} apart"
        return structs.replace(finding, says=f"{said}, {plan.drift:g} is borne")
    weights = ", ".join(f"{tally.weight:.1%}" for tally in tallies)
    says = f"{finding.canary} of {finding.canary + finding.baseline} sampled callers fell to the canary, weights {weights}"
    if finding.decision != "admit":
        says += ": that is no chance, so nothing else that was counted can be believed"
    return structs.replace(finding, says=says)


_WHAT: Final = {
    "fatal": "answers that may not be given",
    "errors": "callers who failed, each once a minute,",
    "latency": "answers slower than the live version's slowest hundredth",
    "quality": "answers that turned out wrong, of each caller one a minute,",
}


def _explained(finding: Finding, rail: _Rail) -> Finding:
    stages = rail.lanes[-1]
    known = finding.canary + finding.baseline
    low, high = ratio_bounds(stages, alpha=1 / rail.bar) if known else (0.0, math.inf)
    says = f"{finding.canary} {_WHAT[rail.name]} on the canary, {finding.baseline} on the live version"
    says += f": its rate is {_range(low, high)} times the other's" if known else ""
    if finding.evidence >= rail.bar and len(rail.lanes) == 1:
        ratio = rail.end_at if rail.evidence(rail.end_at) >= rail.bar else rail.hold_at
        fewer = _fewer(stages, lambda of: rail.evidence(ratio, (of,)) < rail.bar)
        says += f"; with {fewer} fewer it would not {'end' if finding.decision == 'reject' else 'hold'}"
    return structs.replace(finding, low=low or None, high=None if math.isinf(high) else high, says=says)


def _fewer(stages: Sequence[Stage], enough: Callable[[Sequence[Stage]], bool]) -> int:
    """Return how many fewer events on the canary would have changed the verdict, taken from the newest first."""
    low, high = 0, int(sum(stage.canary for stage in stages))
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(_without(stages, middle)) else (middle + 1, high)
    return low


def _without(stages: Sequence[Stage], count: int) -> list[Stage]:
    found = list(stages)
    for at in range(len(found) - 1, -1, -1):
        taken = min(count, int(found[at].canary))
        found[at], count = found[at].plus(-taken, 0), count - taken
    return found


def _range(low: float, high: float) -> str:
    return f"at least {low:.2g}" if math.isinf(high) else f"{low:.2g} to {high:.2g}"


def _sum(pairs: Iterable[Pair]) -> Pair:
    canary = baseline = 0
    for one, other in pairs:
        canary, baseline = canary + one, baseline + other
    return canary, baseline
