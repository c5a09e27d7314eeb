"""The canary's way: it waits, grows, is held, ends or takes over. A pure function of what was counted and of the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary.amounts import Amounts, scales_of
from taut.lifecycle.release.canary.counts import OUTCOMES, Report, Tally, add_reports, reference_of
from taut.lifecycle.release.canary.findings import Finding
from taut.lifecycle.release.canary.judging import error_ratio_at_most, explain, judge
from taut.lifecycle.release.canary.plan import CanaryPlan

_MINUTE_US = 60_000_000


class CanaryState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a canary stands: one row, written anew when something changed. since_us: when its step began. tallies: by stage, which are its
    steps. reference: see `Tally.slow`. usual: see `scales_of`. held: why it grows no further until a person says so. paused: the same by a person.
    waived: guardrails that a person does not want to be held by any more; they can still end it. waits: why it does not grow now.
    """

    since_us: int
    tallies: tuple[Tally, ...]
    reference: tuple[int, ...] = ()
    usual: int = -1
    held: str = ""
    paused: str = ""
    waived: tuple[str, ...] = ()
    waits: str = ""

    @property
    def step(self) -> int:
        return len(self.tallies) - 1

    @property
    def weight(self) -> float:
        return self.tallies[-1].weight


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now. kind: `stay` changes no traffic; `hold` neither, and says so once."""

    kind: Literal["stay", "hold", "grow", "promote", "roll_back"]
    state: CanaryState
    findings: tuple[Finding, ...]
    reason: str = ""


def begun(plan: CanaryPlan, now_us: int) -> CanaryState:
    return CanaryState(since_us=now_us, tallies=(Tally(weight=plan.steps[0]),))


def resumed(plan: CanaryPlan, state: CanaryState) -> CanaryState:
    """Return the state after a person said that it may go on: what held it then holds it no more."""
    holding = {one.guardrail for one in judge(plan, state.tallies) if one.decision == "hold"}
    waived = tuple(sorted({*state.waived, *(holding if state.held else ())}))
    return structs.replace(state, held="", paused="", waived=waived)


def advance(
    plan: CanaryPlan, state: CanaryState, reports: Sequence[Report], *, now_us: int, frozen: str = ""
) -> Move:
    """Take what gateways told and say what follows. frozen: why nothing may grow now, as in a declared time; harm ends it all the same."""
    state = _told(plan, state, reports, now_us)
    findings = judge(plan, state.tallies)
    ends = [one for one in findings if one.decision == "reject"]
    if ends:
        told = explain(plan, state.tallies)
        return Move(kind="roll_back", state=state, findings=told, reason=_said(told, ends))
    holds = [one for one in findings if one.decision == "hold" and one.guardrail not in state.waived]
    if holds and not state.held:
        told = explain(plan, state.tallies)
        held = structs.replace(state, held=_said(told, holds), waits="")
        return Move(kind="hold", state=held, findings=told, reason=held.held)
    waits = state.held or state.paused or frozen or _waits(plan, state, now_us)
    state = structs.replace(state, waits=waits)
    if waits:
        return Move(kind="stay", state=state, findings=findings, reason=waits)
    if state.step + 1 == len(plan.steps):
        return Move(
            kind="promote", state=state, findings=explain(plan, state.tallies), reason="every step was passed"
        )
    weight = plan.steps[state.step + 1]
    tallies = (*(one.closed() for one in state.tallies[:-1]), state.tallies[-1], Tally(weight=weight))
    grown = structs.replace(state, since_us=now_us, tallies=tallies)
    findings = explain(plan, state.tallies)
    return Move(kind="grow", state=grown, findings=findings, reason=f"to {weight:.1%} of the callers")


def _told(plan: CanaryPlan, state: CanaryState, reports: Sequence[Report], now_us: int) -> CanaryState:
    """Put what was told into its stage: the last one, or the one before, whose last words come late; outcomes come later still."""
    tallies, scales = list(state.tallies), scales_of(plan, state.usual)
    if "cost" not in plan.guardrails:
        reports = [structs.replace(one, worked=((), ())) for one in reports]
    for stage in range(len(tallies)):
        late = stage < len(tallies) - 2
        of = [one for one in reports if one.stage == stage and (one.process == OUTCOMES or not late)]
        if of:
            tallies[stage] = add_reports(
                tallies[stage], of, reference=state.reference, minute=now_us // _MINUTE_US, scales=scales
            )
    reference = state.reference or reference_of(tallies[-1].prior)
    usual = state.usual if state.usual >= 0 else max(reference_of(tallies[-1].work), default=-1)
    return structs.replace(state, tallies=tuple(tallies), reference=reference, usual=usual)


def _waits(plan: CanaryPlan, state: CanaryState, now_us: int) -> str:
    now = state.tallies[-1]
    if not sum(now.answers):
        return "no traffic: nothing is known of either version, so it neither grows nor ends"
    if not now.answers[0] and not now.failed[0]:
        return "no caller fell to the canary yet: few ask, and each always gets the same version"
    if now.answers[0] < plan.least:
        return f"the canary gave {now.answers[0]} answers in this step, of {plan.least} that it needs"
    left_s = plan.every_s - (now_us - state.since_us) / 1e6
    if left_s > 0:
        return f"the step lasts {plan.every_s:g} s, {left_s:.0f} s are left"
    if "latency" in plan.guardrails and not state.reference:
        return "too few answers of the live version to know how long they take"
    return _nothing_told(plan, state) or _unsure(plan, state)


def _nothing_told(plan: CanaryPlan, state: CanaryState) -> str:
    """Return which guardrail of outcomes or cost knows nothing of this step: it would pass unseen."""
    for name in ("quality", "outcome", "cost"):
        told = state.tallies[-1].amounts.get(name, Amounts())
        if (
            name in plan.guardrails
            and name not in state.waived
            and not (any(told.canary) and any(told.baseline))
        ):
            return f"{name}: nothing to compare yet in this step"
    return ""


def _unsure(plan: CanaryPlan, state: CanaryState) -> str:
    if plan.most is None or state.step + 1 < len(plan.steps):
        return ""
    high = error_ratio_at_most(plan, state.tallies)
    if high <= plan.most:
        return ""
    known = "is not bounded yet" if math.isinf(high) else f"may be up to {high:.2g} times the live version's"
    return (
        f"its error rate {known}, {plan.most:g} is declared: `taut release promote` where that is good enough"
    )


def _said(told: Sequence[Finding], which: Sequence[Finding]) -> str:
    names = {one.guardrail for one in which}
    return "; ".join(f"{one.guardrail}: {one.says}" for one in told if one.guardrail in names)
