"""What a canary's guardrails can find with the traffic that there is: said before it starts, since what cannot be seen protects nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from taut.lifecycle.release.canary.counts import Tally
from taut.lifecycle.release.canary.judging import judge
from taut.lifecycle.release.canary.plan import QUALITY, CanaryPlan
from taut.lifecycle.release.guardrails import Phase, detectable

_SLOW: Final = 0.01
"""The share of answers beyond the last reference time."""
_COUNTED: Final = {"errors": "failing callers", "latency": "slow answers", "quality": "wrong answers"}


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint was asked lately. per_s: requests a second. failing: the share of them; wrong: of answers, None where nobody told."""

    per_s: float
    failing: float = 0.0
    wrong: float | None = None


def foreseen(plan: CanaryPlan, traffic: Traffic) -> Iterator[str]:
    """Say for each guardrail of rates which harm is found about every second time, with as many failures as there were.

    Requests are taken for callers of their own; where few callers ask often, less is found. Where nothing failed, one in ten thousand is
    taken.
    """
    if traffic.per_s <= 0:
        yield "no traffic was seen: nothing can be said of what this canary would find, and without any it does not grow"
        return
    phases = [Phase(step, max(plan.every_s * traffic.per_s, plan.least / step)) for step in plan.steps]
    asked = sum(phase.units for phase in phases)
    yield (
        f"{traffic.per_s:,.3g} requests a second were seen, {traffic.failing:.2%} failed: about {asked:,.0f} requests until the last step is over, "
        f"{sum(phase.units * phase.weight for phase in phases):,.0f} of the canary"
    )
    rates = {"errors": max(traffic.failing, 1e-4), "latency": _SLOW, "quality": traffic.wrong}
    for name in plan.guardrails:
        rate = rates.get(name)
        if rate is not None:
            yield f"{name}: {_found(plan, phases, name, rate)}"
    unknown = [name for name in plan.guardrails if rates.get(name) is None]
    if unknown:
        yield f"{', '.join(unknown)}: what is usual is not known yet"


def calibrated(plan: CanaryPlan, tallies: Sequence[Tally]) -> str:
    """Return what a canary of the live version itself says: each finding is a false alarm, of the machines' and callers' own noise."""
    found = [one.guardrail for one in judge(plan, tallies) if one.decision != "admit"]
    answers = sum(tally.answers[0] for tally in tallies)
    if found:
        return (
            f"a calibration: two equal versions differ by {', '.join(found)} after {answers:,} answers: the noise of machines or callers is "
            "larger than these guardrails bear, so that what they say of others is doubtful too"
        )
    return f"a calibration: two equal versions look alike after {answers:,} answers"


def _found(plan: CanaryPlan, phases: list[Phase], name: str, rate: float) -> str:
    margins = QUALITY if name == "quality" else (plan.hold, plan.roll_back)
    held, ended = (
        detectable(phases, rate=rate, alpha=1 / plan.bar, ratio=ratio, restarts=len(phases))
        for ratio in margins
    )
    what = _COUNTED[name]
    if held is None:
        return f"no number of {what} up to 20 times as many as now would be noticed in this traffic: let steps last longer"
    said = f"{held:g} times as many {what} hold it"
    return (
        f"{said}, {ended:g} times as many end it"
        if ended is not None
        else f"{said}, none up to 20 times end it"
    )
