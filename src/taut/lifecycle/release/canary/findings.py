"""What a guardrail says; and those that compare means, and those that know a limit of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from taut.lifecycle.release.canary.amounts import TIME_NS, Amounts, mean_of, scales_of
from taut.lifecycle.release.canary.counts import Pair, Tally
from taut.lifecycle.release.canary.plan import CanaryPlan
from taut.lifecycle.release.guardrails import PayoffState, Stage, absolute_log_e, label_log_e, two_sided_log_e
from taut.lifecycle.release.guardrails.label import log_mean_exp
from taut.project.manifest import LimitSpec

MEANS: Final = ("outcome", "cost")
LIMIT: Final = "absolute:"
_UNEVEN: Final = 100.0
Decision = Literal["admit", "hold", "reject"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one guardrail says. canary, baseline: what is counted against each arm. evidence: for harm beyond what is borne,
    against `bar`. low, high: between them the ratio of the rates lies surely; None where it is not bounded, or nobody asked.
    says: the same in words, where somebody asked. pages: whether people are to be told at once.
    """

    guardrail: str
    decision: Decision
    canary: int
    baseline: int
    evidence: float
    bar: float
    low: float | None = None
    high: float | None = None
    says: str = ""
    pages: bool = False


def means_found(plan: CanaryPlan, tallies: Sequence[Tally], name: str, *, tell: bool = False) -> Finding:
    """Compare the means of what answers brought or cost: each stage by itself, the mean of the evidence counts, as of drift."""
    of = [tally.amounts.get(name, Amounts()) for tally in tallies]
    rest = [0.0] * (len(plan.steps) - len(tallies))

    def evidence(which: Callable[[Amounts], PayoffState]) -> float:
        return exp(log_mean_exp([which(one).log_e for one in of] + rest))

    held, ended = evidence(lambda one: one.held), evidence(lambda one: one.ended)
    decision: Decision = "reject" if ended >= plan.bar else "hold" if held >= plan.bar else "admit"
    counts = sum(sum(one.canary) for one in of), sum(sum(one.baseline) for one in of)
    return Finding(
        guardrail=name, decision=decision, canary=counts[0], baseline=counts[1], bar=plan.bar,
        evidence=ended if decision == "reject" else held, says=_means_said(plan, name, of, counts) if tell else "",
    )  # fmt: skip


def _means_said(plan: CanaryPlan, name: str, of: Sequence[Amounts], counts: Pair) -> str:
    scale = scales_of(plan, len(TIME_NS)).get(name)
    if scale is None or not all(counts):
        return "nothing to compare yet"
    means = [
        mean_of(scale.amounts, [sum(column) for column in zip(*(one for one in arm if one), strict=True)])
        for arm in ([one.canary for one in of], [one.baseline for one in of])
    ]
    what = "outcomes were worth" if name == "outcome" else "answers cost"
    return (
        f"{counts[0]} {what} {means[0]:.3g} each on the canary, {counts[1]} {means[1]:.3g} on the live version; {scale.hold:g} times "
        f"that holds, {scale.end:g} ends"
    )


def limits_found(plan: CanaryPlan, tallies: Sequence[Tally]) -> list[Finding]:
    """Judge each limit of a plan, in order."""
    return [_limit(plan, limit, tallies) for limit in plan.limits]


def _limit(plan: CanaryPlan, limit: LimitSpec, tallies: Sequence[Tally]) -> Finding:
    """Judge a limit by the canary's own requests. Where it is to end the canary, it has to be worse than the live version too."""
    counts = [_beyond(limit, tally) for tally in tallies]
    bad, total = sum(one[0][0] for one in counts), sum(one[1][0] for one in counts)
    evidence = exp(absolute_log_e(bad, total, limit=limit.most))
    beyond = evidence >= plan.bar
    stages = [Stage(tally.weight, *one[0]) for tally, one in zip(tallies, counts, strict=True)]
    worse = label_log_e(stages, ratio=plan.hold, restarts=len(plan.steps)) >= math.log(plan.bar)
    decision: Decision = "admit"
    if beyond and limit.act != "page":
        decision = "reject" if limit.act == "roll_back" and worse else "hold"
    what = "failed" if limit.metric == "errors" else f"took longer than {limit.over_ms:g} ms"
    says = f"{bad} of the canary's {total} requests {what}, {limit.most:.3g} of them is the limit"
    if beyond and not worse:
        says += "; the live version is not surely better, so that both may suffer from the same"
    return Finding(
        guardrail=f"{LIMIT}{limit.metric}", decision=decision, canary=bad, baseline=sum(one[0][1] for one in counts),
        evidence=evidence, bar=plan.bar, says=says, pages=beyond and limit.act == "page",
    )  # fmt: skip


def _beyond(limit: LimitSpec, tally: Tally) -> tuple[Pair, Pair]:
    """Return the requests beyond a limit, and all, of both arms. Of times those count whose whole bucket lies beyond it."""
    if limit.metric == "errors":
        bad = tally.broken
        return bad, (tally.answers[0] + bad[0], tally.answers[1] + bad[1])
    first = 1 + next((at for at, bound in enumerate(TIME_NS) if bound >= limit.over_ms * 1e6), len(TIME_NS))
    return (sum(tally.times[0][first:]), sum(tally.times[1][first:])), (
        sum(tally.times[0]),
        sum(tally.times[1]),
    )


def told_unevenly(plan: CanaryPlan, tallies: Sequence[Tally]) -> frozenset[str]:
    """Return the guardrails whose outcomes did not come as the weights say: who tells of one version's answers alone proves nothing of it."""
    found = set()
    for name in {"quality", "outcome"} & set(plan.guardrails):
        each = [two_sided_log_e((_told_of(name, tally),)) for tally in tallies]
        if exp(log_mean_exp(each + [0.0] * (len(plan.steps) - len(each)))) >= _UNEVEN:
            found.add(name)
    return frozenset(found)


def _told_of(name: str, tally: Tally) -> Stage:
    """Return how many outcomes came of each arm. A caller has one payoff a step, but a word on quality each minute: those count as so many as
    there are callers, who were drawn, and not their words."""
    told = tally.amounts.get(name, Amounts())
    canary, baseline = sum(told.canary), sum(told.baseline)
    by = min(1.0, sum(tally.units) / max(1, canary + baseline)) if name == "quality" else 1.0
    return Stage(tally.weight, canary * by, baseline * by)


def exp(log: float) -> float:
    return math.exp(min(log, 700.0))
