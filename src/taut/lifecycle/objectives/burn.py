"""How fast a budget burns, and when that is surely too fast: several windows at several rates, each behind a gate.

Rates and windows: Google, The Site Reliability Workbook, chapter 5, "Alerting on SLOs" (6: multiwindow, multi-burn-rate
alerts). The gate is taut's own: a rate is believed where the evidence against it being lower is strong enough and not of a few
events alone, so that a single error at night, which is 100% of a quiet hour, pages nobody.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from taut.core.rates import absolute_log_e
from taut.lifecycle.objectives.tally import Count, Tally
from taut.lifecycle.objectives.values import Objective

EVIDENCE: Final = 20.0
"""Under a rate that is no higher than the limit, evidence as strong as this comes with a chance of 1 in 20 at most."""
LEAST_BAD: Final = 5
"""So many bad events at least: the only request of a quiet hour, and a caller who tries it again, are no outage."""
_MOST: Final = 0.75
"""A share of bad events beyond which any objective burns too fast: a budget of 10% cannot burn at 14 times its rate."""

State = Literal["met", "at risk", "burning", "spent", "too few events"]
Severity = Literal["warning", "critical"]


class Rule(msgspec.Struct, frozen=True):
    """Alert when the budget burns `burn` times as fast as would use it up by the window's end, in both windows."""

    name: str
    burn: float
    long_s: float
    short_s: float
    severity: Severity


RULES: Final = (
    Rule("fast", 14.4, 3600.0, 300.0, "critical"),
    Rule("slow", 6.0, 21_600.0, 1800.0, "critical"),
    Rule("steady", 1.0, 259_200.0, 21_600.0, "warning"),
)
LONGEST_S: Final = max(rule.long_s for rule in RULES)


class Burn(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it stands. rate: how fast the budget burns in the long window, short_rate: in the short one. limit: from which rate on it
    alerts. evidence: that it is really above it, as an e-value; 0 where it is not above it as counted. few: there were so few events that none of them bad would have proved nothing:
    silence says nothing."""

    rule: str
    severity: Severity
    limit: float
    rate: float
    short_rate: float
    events: int
    bad: int
    evidence: float
    firing: bool
    few: bool


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be bad in the window. remaining: share of it that is left, below 0 where it is overdrawn; None before the first event.
    evidence: that more is bad than may be, as an e-value. spent: it is used up, and surely not by chance. lasts_s: for how long it
    lasts at the rate of the last hour; None where nothing burns."""

    events: int
    bad: int
    remaining: float | None
    evidence: float
    spent: bool
    few: bool
    lasts_s: float | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An objective as it stands now.

    state: `burning`, an alert of a page fires; `spent`; `too few events` to say that it is met; `at risk`, the budget is used up as
    counted, or burns steadily; `met`.
    """

    objective: Objective
    state: State
    budget: Budget
    burns: tuple[Burn, ...]

    @property
    def worst(self) -> Burn | None:
        """Return the gravest rule that fires, the fastest of them; None where none does."""
        return next((one for one in self.burns if one.firing), None)


def judge(objective: Objective, tally: Tally, now_s: float) -> Standing:
    """Say how an objective stands at a time, in seconds since 1970.

    Guarantees, of events whose chance to be bad, given all before them, is at most a rule's limit: at any one look its page fires with
    a chance of at most 1/20; in fact far less often, since both windows must agree. Where the objective is just met it fires about never: the figures of
    the simulation stand in docs/how-to/set-slos.md. Not guaranteed: the same for failures that draw others after them, such as a caller who
    tries again, which count each time.
    """
    burns = tuple(_burn(objective, rule, tally, now_s) for rule in RULES)
    hour = tally.window(now_s, RULES[0].long_s)
    budget = _budget(objective, tally.window(now_s, objective.window_s), hour)
    firing = [one for one in burns if one.firing]
    state: State = "met"
    if any(one.severity == "critical" for one in firing):
        state = "burning"
    elif budget.spent:
        state = "spent"
    elif budget.few:
        state = "too few events"
    elif firing or (budget.remaining or 0.0) <= 0.0:
        state = "at risk"
    return Standing(objective=objective, state=state, budget=budget, burns=burns)


def _burn(objective: Objective, rule: Rule, tally: Tally, now_s: float) -> Burn:
    share = min(rule.burn * objective.allowed, max(_MOST, objective.allowed))
    long, short = tally.window(now_s, rule.long_s), tally.window(now_s, rule.short_s)
    fast = long.bad >= LEAST_BAD and long.share >= share and short.share >= share and bool(short.total)
    evidence = _evidence(rule, tally, now_s, share) if fast else 0.0
    return Burn(
        rule=rule.name, severity=rule.severity, limit=share / objective.allowed, rate=long.share / objective.allowed,
        short_rate=short.share / objective.allowed, events=long.total, bad=long.bad, evidence=evidence,
        firing=evidence >= EVIDENCE, few=too_few(long, share),
    )  # fmt: skip


def _budget(objective: Objective, count: Count, hour: Count) -> Budget:
    may = objective.allowed * count.total
    remaining = 1.0 - count.bad / may if count.total else None
    evidence = evidence_of(count, objective.allowed) if count.bad else 0.0
    rate = hour.share / objective.allowed
    return Budget(
        events=count.total, bad=count.bad, remaining=remaining, evidence=evidence, few=too_few(count, objective.allowed),
        spent=remaining is not None and remaining <= 0.0 and count.bad >= LEAST_BAD and evidence >= EVIDENCE,
        lasts_s=max(0.0, remaining) * objective.window_s / rate if remaining is not None and rate > 0 else None,
    )  # fmt: skip


def _evidence(rule: Rule, tally: Tally, now_s: float, share: float) -> float:
    """Return the mean of the e-values of windows from the short one to the long one, which is an e-value too.

    What began a while ago is strong in the windows that are no longer than that: the long one alone would wait until it outweighs the calm before.
    """
    spans = (rule.short_s, rule.long_s / 4, rule.long_s / 2, rule.long_s)
    return sum(evidence_of(tally.window(now_s, span_s), share) for span_s in spans) / len(spans)


def evidence_of(count: Count, share: float) -> float:
    """Return the e-value against "at most this share is bad", cut at 1e12."""
    return math.exp(min(absolute_log_e(count.bad, count.total, limit=share), math.log(1e12)))


def too_few(count: Count, share: float) -> bool:
    """Whether nothing bad among so many events would still leave a chance of 1 in 20 for a share as large as this.

    >>> too_few(Count(0, 2_994), 0.001), too_few(Count(0, 2_995), 0.001)
    (True, False)
    """
    return count.total * -math.log1p(-min(share, 1.0 - 1e-12)) < math.log(EVIDENCE)
