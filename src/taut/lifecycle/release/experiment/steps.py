"""An experiment's way: arms that do harm are stopped, weights follow what was learned. A pure function of what was counted and of the time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary import Finding, Report, Tally, add_reports, explain, judge
from taut.lifecycle.release.canary.counts import reference_of
from taut.lifecycle.release.experiment.plan import ExperimentPlan
from taut.lifecycle.release.experiment.standing import PayoffSum, Standing, standings
from taut.lifecycle.release.experiment.thompson import shares_of
from taut.lifecycle.release.guardrails import Stage, two_sided_log_e

_MINUTE_US: Final = 60_000_000
_SPLIT_ALPHA: Final = 0.01
_READ_S: Final = 10.0
_LEAST_MOVE: Final = 0.015
"""No caller is moved for a hundredth."""


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways counted of one arm beside the control. closed: of stages before the last two, those of one weight together.

    reference: see `Tally.slow`.
    """

    now: Tally
    before: Tally | None = None
    closed: tuple[Tally, ...] = ()
    reference: tuple[int, ...] = ()

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return (*self.closed, *(() if self.before is None else (self.before,)), self.now)


class ArmFindings(msgspec.Struct, frozen=True, kw_only=True):
    """What the guardrails say of one arm beside the control."""

    version: str
    findings: tuple[Finding, ...]


class ExperimentState(msgspec.Struct, frozen=True, kw_only=True):
    """Where an experiment stands: one row, written anew when something changed.

    weights: of the arms now, 0 for one that was stopped. stage: how often they changed. lanes: of the arms beside the control.
    stopped: by arm, why. weighed_us, read_us: when weights, and outcomes, were looked at last. held, paused, waits: as of a canary; waived: whether a person said
    that a split that is not as it should be holds it no more. standings: as they were at the last look.
    """

    since_us: int
    weighed_us: int
    read_us: int
    weights: tuple[float, ...]
    lanes: tuple[Lane, ...]
    stopped: tuple[str, ...]
    stage: int = 0
    held: str = ""
    paused: str = ""
    waived: bool = False
    waits: str = ""
    standings: tuple[Standing, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now. kind: `stay` and `hold` change no traffic; `weigh` and `stop` do; with `promote` `version` takes over, with
    `end` the control stays."""

    kind: Literal["stay", "hold", "weigh", "stop", "promote", "end"]
    state: ExperimentState
    findings: tuple[ArmFindings, ...]
    reason: str = ""
    version: str = ""


def begun(plan: ExperimentPlan, now_us: int) -> ExperimentState:
    lanes = tuple(Lane(now=Tally(weight=_pair(plan.weights, arm))) for arm in range(1, len(plan.arms)))
    return ExperimentState(
        since_us=now_us,
        weighed_us=now_us,
        read_us=0,
        weights=plan.weights,
        lanes=lanes,
        stopped=("",) * len(plan.arms),
    )


def is_due(plan: ExperimentPlan, state: ExperimentState, now_us: int) -> bool:
    """Return whether outcomes are to be looked at again: guardrails act each second, and outcomes are summed less often."""
    every_s = min(_READ_S, plan.every_s) if plan.kind == "bandit" else _READ_S
    return now_us - state.read_us >= every_s * 1e6


def resumed(state: ExperimentState) -> ExperimentState:
    """Return the state after a person said that it may go on; a split that held it holds it no more."""
    return structs.replace(state, held="", paused="", waits="", waived=state.waived or bool(state.held))


def advance(
    plan: ExperimentPlan,
    state: ExperimentState,
    reports: Mapping[str, Sequence[Report]],
    sums: Sequence[PayoffSum] | None,
    *,
    now_us: int,
    frozen: str = "",
) -> Step:
    """Take what gateways told of each version, and what became true of answers, and say what follows.

    sums: None where `is_due` says that outcomes need not be looked at; what was known of them stays. frozen: why nothing may win callers
    now, as in a declared time; harm stops an arm all the same.
    """
    lanes = tuple(
        lane if state.stopped[arm] else _told(lane, state.stage, reports.get(plan.arms[arm], ()), now_us)
        for arm, lane in enumerate(state.lanes, start=1)
    )
    state = structs.replace(state, lanes=lanes)
    found = _judged(plan, state)
    findings = tuple(ArmFindings(version=plan.arms[arm], findings=found[arm]) for arm in sorted(found))
    ends = {arm: _reason(plan, state, arm) for arm, of in found.items() if any(_rejects(one) for one in of)}
    if ends:
        return _stop(plan, state, findings, ends, sums, now_us)
    state = _stood(plan, state, sums, now_us)
    broken = [
        one.says for of in found.values() for one in of if one.guardrail == "split" and one.decision == "hold"
    ]
    if broken and not state.held and not state.waived:
        held = structs.replace(state, held=broken[0], waits=broken[0])
        return Step(kind="hold", state=held, findings=findings, reason=held.held)
    waits = state.held or state.paused or frozen
    if waits:
        state = structs.replace(state, waits=waits)
        return Step(kind="stay", state=state, findings=findings, reason=state.waits)
    doubtful = {arm for arm, of in found.items() if any(one.decision == "hold" for one in of)}
    return _learned(plan, state, findings, doubtful, now_us)


def _learned(
    plan: ExperimentPlan,
    state: ExperimentState,
    findings: tuple[ArmFindings, ...],
    doubtful: set[int],
    now_us: int,
) -> Step:
    """Go where outcomes lead. doubtful: arms of which guardrails suspect harm: they win nothing, and get no more than the least."""
    waits = _waits(plan, state)
    state = structs.replace(state, waits=waits)
    if plan.kind == "ab":
        better = [
            one for arm, one in enumerate(state.standings) if one.verdict == "better" and arm not in doubtful
        ]
        if plan.winner and better and not waits:
            best = min(
                better, key=lambda one: (one.high or math.inf) if not plan.gains else -(one.low or 0.0)
            )
            return Step(
                kind="promote", state=state, findings=findings, version=best.version, reason=best.says
            )
        return Step(kind="stay", state=state, findings=findings, reason=waits)
    if state.read_us != now_us or now_us - state.weighed_us < plan.every_s * 1e6 or _few(plan, state):
        return Step(kind="stay", state=state, findings=findings, reason=waits)
    able = [not why for why in state.stopped]
    chances = [0.0 if arm in doubtful else one.best or 0.0 for arm, one in enumerate(state.standings)]
    whole = sum(chances)
    chances = [one / whole for one in chances] if whole else [1.0] + [0.0] * plan.rivals
    weights = shares_of(chances, able, floor=plan.floor)
    state = structs.replace(state, weighed_us=now_us)
    if max(abs(new - old) for new, old in zip(weights, state.weights, strict=True)) < _LEAST_MOVE:
        return Step(kind="stay", state=state, findings=findings, reason=waits)
    reason = ", ".join(f"{version} {weight:.0%}" for version, weight in zip(plan.arms, weights, strict=True))
    return Step(kind="weigh", state=_with_weights(state, weights), findings=findings, reason=reason)


def _stop(
    plan: ExperimentPlan, state: ExperimentState, findings: tuple[ArmFindings, ...], ends: Mapping[int, str],
    sums: Sequence[PayoffSum] | None, now_us: int,
) -> Step:  # fmt: skip
    """Give the callers of arms that do harm to the others, whose weights keep their ratios; where none is left, to the control."""
    stopped = tuple(ends.get(arm, why) for arm, why in enumerate(state.stopped))
    reason = "; ".join(f"{plan.arms[arm]} stopped: {why}" for arm, why in ends.items())
    if all(stopped[1:]):
        state = _stood(plan, structs.replace(state, stopped=stopped, waits=reason), sums, now_us)
        return Step(kind="end", state=state, findings=findings, reason=f"no arm is left: {reason}")
    left = sum(weight for arm, weight in enumerate(state.weights) if not stopped[arm])
    weights = tuple(0.0 if stopped[arm] else weight / left for arm, weight in enumerate(state.weights))
    state = _with_weights(structs.replace(state, stopped=stopped), weights)
    return Step(kind="stop", state=_stood(plan, state, sums, now_us), findings=findings, reason=reason)


def _stood(
    plan: ExperimentPlan, state: ExperimentState, sums: Sequence[PayoffSum] | None, now_us: int
) -> ExperimentState:
    if sums is None:
        return state
    stood = standings(plan, state.weights, state.stopped, sums, now_us=now_us)
    return structs.replace(state, standings=stood, read_us=now_us)


def _with_weights(state: ExperimentState, weights: tuple[float, ...]) -> ExperimentState:
    lanes = tuple(
        lane if not weights[arm] else _rolled(lane, _pair(weights, arm))
        for arm, lane in enumerate(state.lanes, start=1)
    )
    return structs.replace(state, weights=weights, stage=state.stage + 1, lanes=lanes)


def _pair(weights: Sequence[float], arm: int) -> float:
    """Return the arm's part of its own units and the control's."""
    return round(weights[arm] / (weights[arm] + weights[0]), 9)


def _rolled(lane: Lane, weight: float) -> Lane:
    """Begin a stage. What is closed keeps its units no more: whoever was drawn once is drawn alike again."""
    closed = {one.weight: one for one in lane.closed}
    if lane.before is not None:
        done = structs.replace(lane.before.closed(), units=(0, 0))
        closed[done.weight] = _merged(closed.get(done.weight), done)
    prior = () if lane.reference else lane.now.prior  # weights may change sooner than the reference is known
    now = Tally(weight=weight, prior=prior)
    return structs.replace(lane, now=now, before=lane.now, closed=tuple(closed.values()))


def _merged(one: Tally | None, other: Tally) -> Tally:
    """Return two stages of one weight as one: the label process gives the same for both."""
    if one is None:
        return other
    return structs.replace(
        one, failed=_plus(one.failed, other.failed), fatal=_plus(one.fatal, other.fatal),
        answers=_plus(one.answers, other.answers), slow=tuple(map(_plus, one.slow, other.slow)),
    )  # fmt: skip


def _plus(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]


def _told(lane: Lane, stage: int, reports: Sequence[Report], now_us: int) -> Lane:
    """Put what was told into its stage: this one, or the one before, whose last words come late."""
    minute = now_us // _MINUTE_US
    now, before = lane.now, lane.before
    of = [one for one in reports if one.stage == stage]
    if of:
        now = add_reports(now, of, reference=lane.reference, minute=minute)
    late = [one for one in reports if one.stage == stage - 1]
    if before is not None and late:
        before = add_reports(before, late, reference=lane.reference, minute=minute)
    return structs.replace(lane, now=now, before=before, reference=lane.reference or reference_of(now.prior))


def _judged(plan: ExperimentPlan, state: ExperimentState) -> dict[int, tuple[Finding, ...]]:
    """Judge each arm that is not stopped beside the control, as a canary is judged beside the live version.

    The split is judged stage by stage, the j-th at alpha / (j (j + 1)): alpha in all, however often weights change.
    """
    found = {}
    for arm, lane in enumerate(state.lanes, start=1):
        if not state.stopped[arm]:
            guarded = plan.guarded(lane.now.weight)
            split = _split(plan, state, lane)
            rest = judge(guarded, lane.tallies, trusted=_trusted(state, split))
            found[arm] = (split, *(one for one in rest if one.guardrail != "split"))
    return found


def _split(plan: ExperimentPlan, state: ExperimentState, lane: Lane) -> Finding:
    stages = [(state.stage + 1, lane.now), *(() if lane.before is None else ((state.stage, lane.before),))]
    logs = [
        two_sided_log_e((Stage(tally.weight, *tally.units),)) - math.log(number * (number + 1))
        for number, tally in stages
    ]
    evidence, bar = math.exp(min(max(logs), 700.0)), plan.rivals / _SPLIT_ALPHA
    canary, baseline = lane.now.units
    says = f"{canary} of {canary + baseline} sampled units fell to it, beside the control, where {lane.now.weight:.1%} should"
    return Finding(
        guardrail="split", decision="hold" if evidence >= bar else "admit", canary=canary, baseline=baseline,
        evidence=evidence, bar=bar, says=says,
    )  # fmt: skip


def _trusted(state: ExperimentState, split: Finding) -> bool:
    """Tell whether what was counted of both arms may be compared: units fell as the weights say, or a person says that it is well."""
    return state.waived or split.decision == "admit"


def _rejects(finding: Finding) -> bool:
    return finding.decision == "reject"


def _reason(plan: ExperimentPlan, state: ExperimentState, arm: int) -> str:
    lane = state.lanes[arm - 1]
    trusted = _trusted(state, _split(plan, state, lane))
    told = explain(plan.guarded(lane.now.weight), lane.tallies, trusted=trusted)
    return "; ".join(f"{one.guardrail}: {one.says}" for one in told if _rejects(one))


def _few(plan: ExperimentPlan, state: ExperimentState) -> str:
    few = [
        f"{one.version} {one.outcomes}"
        for one, why in zip(state.standings, state.stopped, strict=True)
        if not why and one.outcomes < plan.least
    ]
    return f"each arm needs {plan.least} outcomes: {', '.join(few)}" if few else ""


def _waits(plan: ExperimentPlan, state: ExperimentState) -> str:
    told = sum(one.outcomes for one in state.standings)
    if not told:
        return "no outcome was told yet: `taut feedback` or POST /v1/feedback"
    few = _few(plan, state)
    if few or plan.kind == "bandit":
        return few
    if any(one.verdict == "better" for one in state.standings):
        return "" if plan.winner else "an arm is surely better: `taut release promote` lets it take over"
    if told >= plan.outcomes:
        return f"{told} outcomes are told, {plan.outcomes} were planned, and none is surely better: a person decides"
    return f"{told} outcomes of the {plan.outcomes} that are planned, and none is surely better yet"
