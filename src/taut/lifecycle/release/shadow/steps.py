"""A shadow's way: it gets ready, is compared, is held, or has passed. A pure function of what was counted and of the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary import Finding
from taut.lifecycle.release.canary.counts import reference_of
from taut.lifecycle.release.shadow.counts import Counts, PairCounts, PairReport, PairTally, add_pairs
from taut.lifecycle.release.shadow.judging import explain_pairs, judge_pairs
from taut.lifecycle.release.shadow.plan import ShadowPlan

_FEW_CALLERS: Final = 3
_COMPARES: Final = 1000
"""Pairs that, every second one timed, say what is slow: who asks for fewer is content without a comparison of times."""
_TIMED_LEAST: Final = 100
"""Of timed pairs, beyond those that the reference took: with fewer, a slow shadow would pass unseen."""
_PASSED: Final = "it is ready: `taut release promote` switches to it"


class ShadowState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shadow stands: one row, written anew when something changed. ready: gateway processes in which it is in memory; lacking: those
    in which it is not, and why. reference, since: see `judge_pairs`. held: why it does not pass until a person says so. waived: guardrails
    that a person does not want it to be held by any more. passed: nothing speaks against it. waits: why it has not passed yet. over: whether a
    canary has followed it. kept_until_us: until when the version that it replaced stays in memory; 0 before the switch.
    """

    since_us: int
    tally: PairTally = PairTally()
    ready: tuple[str, ...] = ()
    lacking: Mapping[str, str] = {}
    reference: Counts = ()
    since: PairCounts = PairCounts()
    held: str = ""
    waived: tuple[str, ...] = ()
    passed: bool = False
    waits: str = ""
    over: bool = False
    kept_until_us: int = 0


class ShadowMove(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now; nothing that it says changes traffic but `canary`, which begins one."""

    kind: Literal["stay", "hold", "pass", "canary"]
    state: ShadowState
    findings: tuple[Finding, ...]
    reason: str = ""


def begun_shadow(now_us: int) -> ShadowState:
    return ShadowState(since_us=now_us)


def resumed_shadow(plan: ShadowPlan, state: ShadowState) -> ShadowState:
    """Return the state after a person said that it may go on: what holds it now holds it no more."""
    found = judge_pairs(plan, state.tally.counts, state.since, state.reference)
    holding = {one.guardrail for one in found if one.decision == "hold"}
    return structs.replace(state, held="", waived=tuple(sorted({*state.waived, *holding})))


def advance_shadow(
    plan: ShadowPlan, state: ShadowState, reports: Sequence[PairReport], *, now_us: int, frozen: str = ""
) -> ShadowMove:
    """Take what gateways told, one report of each that is connected, and say what follows. frozen: why no canary may begin now."""
    state = _told(state, reports)
    counts, since, reference = state.tally.counts, state.since, state.reference
    findings = judge_pairs(plan, counts, since, reference) if plan.share else ()
    holds = [one for one in findings if one.decision == "hold" and one.guardrail not in state.waived]
    if holds and not state.held:
        told = explain_pairs(plan, counts, since, reference)
        names = {one.guardrail for one in holds}
        said = "; ".join(f"{one.guardrail}: {one.says}" for one in told if one.guardrail in names)
        held = structs.replace(state, held=said, passed=False, waits=said)
        return ShadowMove(kind="hold", state=held, findings=told, reason=said)
    waits = state.held or _waits(plan, state, now_us) or (frozen if plan.canary is not None else "")
    if waits or state.passed:
        state = structs.replace(state, waits=waits or _PASSED)
        return ShadowMove(kind="stay", state=state, findings=findings, reason=state.waits)
    told = explain_pairs(plan, counts, since, reference) if plan.share else ()
    if plan.canary is not None:
        over = structs.replace(state, passed=True, over=True, waits="")
        return ShadowMove(kind="canary", state=over, findings=told, reason="the shadow passed")
    passed = structs.replace(state, passed=True, waits=_PASSED)
    return ShadowMove(kind="pass", state=passed, findings=told, reason=_PASSED)


def _told(state: ShadowState, reports: Sequence[PairReport]) -> ShadowState:
    tally = add_pairs(state.tally, reports)
    reference, since = state.reference, state.since
    if not reference:
        reference = reference_of(tally.counts.times)
        since = tally.counts if reference else since
    return structs.replace(
        state, tally=tally, reference=reference, since=since,
        ready=tuple(sorted(one.process for one in reports if not one.why)),
        lacking={one.process: one.why for one in sorted(reports, key=lambda one: one.process) if one.why},
    )  # fmt: skip


def _waits(plan: ShadowPlan, state: ShadowState, now_us: int) -> str:
    if state.lacking:
        process, why = next(iter(state.lacking.items()))
        return f"it is not ready at {process.partition('#')[0]}: {why}"
    if not state.ready:
        return "no gateway is connected: nothing is known of it"
    counts = state.tally.counts
    if plan.share and counts.answered < plan.least:
        dropped = f", and {counts.dropped} were dropped for want of time or room" if counts.dropped else ""
        return f"{counts.answered} pairs were answered by both versions, of {plan.least} that are needed{dropped}"
    if plan.share and len(state.tally.callers) < _FEW_CALLERS:
        return f"{len(state.tally.callers)} callers asked so far: what they show may be theirs alone"
    timed = sum(counts.times)  # none of a graph, or where every answer is cached
    judged = timed - sum(state.since.times) if state.reference else 0
    compares = plan.share and plan.least >= _COMPARES and timed and "latency" not in state.waived
    if compares and judged < _TIMED_LEAST:
        return f"too few timed pairs: {judged} of the {_TIMED_LEAST} that are needed, beyond those by which it is known what is slow"
    left_s = plan.every_s - (now_us - state.since_us) / 1e6
    return f"it lasts {plan.every_s:g} s, {left_s:.0f} s are left" if left_s > 0 else ""
