"""What pairs say of a shadow: which of two versions, given the same request, failed, was slower, or decided otherwise.

Of pairs in which one version alone is bad, each side is as likely as the other where both are equally good, whatever the traffic is: so
the label process holds with the weight 1/2, and a shock that both share is no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec import structs

from taut.lifecycle.release.canary import Finding
from taut.lifecycle.release.guardrails import (
    Stage,
    absolute_log_e,
    paired_log_e,
    ratio_bounds,
    two_sided_log_e,
)
from taut.lifecycle.release.guardrails.label import log_mean_exp
from taut.lifecycle.release.shadow.counts import Counts, PairCounts
from taut.lifecycle.release.shadow.plan import ShadowPlan

_LOG_MOST: Final = 700.0


def judge_pairs(
    plan: ShadowPlan, counts: PairCounts, since: PairCounts, reference: Counts
) -> tuple[Finding, ...]:
    """Judge a shadow by the pairs. It may be held, and is never ended: it answers nobody.

    since: what was counted when the reference was frozen; answers beyond it are told apart from then on. reference: buckets of
    times beyond which an answer is slow; none while too few are known.
    """
    return (
        _finding(plan, "errors", counts.failed, paired_log_e(*counts.failed, ratio=plan.ratio)),
        _latency(plan, counts, since, reference),
        _disagreement(plan, counts),
        _drift(plan, counts),
    )


def explain_pairs(
    plan: ShadowPlan, counts: PairCounts, since: PairCounts, reference: Counts
) -> tuple[Finding, ...]:
    """Judge, and say of each finding what was seen, how sure it is and what would have changed it."""
    found = judge_pairs(plan, counts, since, reference)
    says = (
        _sided(plan, found[0], "failed"),
        _sided(plan, found[1], "was slower than the live version's slowest hundredth")
        if reference
        else "too few pairs in which both were timed",
        _says_differ(plan, counts, found[2]),
        f"predictions lie at least {_distance(plan, counts):.2f} apart, {plan.drift:g} is borne",
    )
    return tuple(structs.replace(one, says=text) for one, text in zip(found, says, strict=True))


def _finding(plan: ShadowPlan, name: str, sides: tuple[int, int], log_e: float) -> Finding:
    evidence = math.exp(min(log_e, _LOG_MOST))
    return Finding(
        guardrail=name, decision="hold" if evidence >= plan.bar else "admit", canary=sides[0], baseline=sides[1],
        evidence=evidence, bar=plan.bar,
    )  # fmt: skip


def _latency(plan: ShadowPlan, counts: PairCounts, since: PairCounts, reference: Counts) -> Finding:
    """The mean over the reference times, which are frozen: each by itself is a process."""
    new = counts.minus(since).slower
    sides = [(new[0][at], new[1][at]) for at in reference if at < len(new[0])]
    log_e = log_mean_exp([paired_log_e(*one, ratio=plan.ratio) for one in sides])
    return _finding(plan, "latency", sides[-1] if sides else (0, 0), log_e)


def _disagreement(plan: ShadowPlan, counts: PairCounts) -> Finding:
    log_e = absolute_log_e(counts.differ, counts.answered, limit=plan.differ) if counts.answered else 0.0
    return _finding(plan, "disagreement", (counts.differ, counts.answered - counts.differ), log_e)


def _drift(plan: ShadowPlan, counts: PairCounts) -> Finding:
    """The mean over the edges of the bins. It holds where the shift is sure, and surely larger than is borne."""
    edges = list(zip(*counts.moved, strict=True))
    log_e = log_mean_exp([two_sided_log_e((Stage(0.5, up, down),)) for up, down in edges])
    widest = max(edges, key=lambda edge: abs(edge[0] - edge[1]), default=(0, 0))
    found = _finding(plan, "prediction_drift", widest, log_e)
    sure = found.decision == "hold" and _distance(plan, counts) > plan.drift
    return structs.replace(found, decision="hold" if sure else "admit")


def _distance(plan: ShadowPlan, counts: PairCounts) -> float:
    """Return how far apart the distributions of both versions' predictions surely lie, at the edge where they do most.

    Given the pairs, the difference at an edge is the part that crosses it, times by how much one direction prevails: both are bounded, at
    all times at once, and at all edges together.
    """
    edges = [edge for edge in zip(*counts.moved, strict=True) if edge[0] != edge[1]]
    if not edges or not counts.answered:
        return 0.0
    up, down = max(edges, key=lambda edge: abs(edge[0] - edge[1]))
    alpha = 1 / plan.bar / len(counts.moved[0]) / 2
    low, high = ratio_bounds((Stage(0.5, up, down),), alpha=alpha)
    prevails = max((low - 1) / (low + 1), (1 - high) / (1 + high) if math.isfinite(high) else 0.0, 0.0)
    return _rate_at_least(up + down, counts.answered, alpha=alpha) * prevails


def _rate_at_least(bad: int, total: int, *, alpha: float) -> float:
    """Return the rate that is surely reached: the highest against which there is evidence of 1/alpha."""
    low, high = 0.0, bad / total
    for _ in range(30):
        middle = (low + high) / 2
        sure = 0.0 < middle < 1.0 and absolute_log_e(bad, total, limit=middle) >= -math.log(alpha)
        low, high = (middle, high) if sure else (low, middle)
    return low


def _sided(plan: ShadowPlan, finding: Finding, what: str) -> str:
    shadow, live = finding.canary, finding.baseline
    says = f"of {shadow + live} pairs in which one version alone {what}, it was the shadow in {shadow}"
    if not shadow + live:
        return f"in no pair one version alone {what}"
    low, high = ratio_bounds((Stage(0.5, shadow, live),), alpha=1 / plan.bar)
    says += (
        f": {low:.2g} to {high:.2g} times the other"
        if math.isfinite(high)
        else f": at least {low:.2g} times the other"
    )
    if finding.decision == "hold" and finding.guardrail == "errors":
        fewer = _fewer(shadow, lambda left: paired_log_e(left, live, ratio=plan.ratio) < math.log(plan.bar))
        says += f"; with {fewer} fewer it would not hold"
    return says


def _says_differ(plan: ShadowPlan, counts: PairCounts, finding: Finding) -> str:
    if not counts.answered:
        return "no pair yet"
    says = f"{counts.differ} of {counts.answered} decisions are others, {plan.differ:.1%} is borne"
    if finding.decision == "hold":
        bar, total = math.log(plan.bar), counts.answered
        fewer = _fewer(counts.differ, lambda left: absolute_log_e(left, total, limit=plan.differ) < bar)
        says += f"; with {fewer} fewer it would not hold"
    return says


def _fewer(count: int, enough: Callable[[int], bool]) -> int:
    """Return how many fewer would have changed the verdict."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(count - middle) else (middle + 1, high)
    return low
