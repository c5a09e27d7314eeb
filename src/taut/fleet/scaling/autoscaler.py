"""Target tracking with two windows, as Knative's pod autoscaler has it, bounded on every side.

Sources: Knative Pod Autoscaler (knative.dev/docs/serving/autoscaling): load averaged over a stable window / target; a panic
window a tenth as long, which, once it asks for twice of what is ready, decides for as long as a stable window, and nothing is
scaled down meanwhile; bounded rates. Kubernetes' HPA: the largest demand of all signals wins; a tolerance; silent replicas
count as idle on the way up and as on target on the way down; down only to the most that was asked for within a while.
Ours: a saturated processor hides demand, so twice as many are asked for; waits and latency count only where replicas are busy.
"""

from __future__ import annotations

from collections import deque
from math import ceil, floor, inf
from typing import Final, NamedTuple

import msgspec

from taut.fleet.scaling.decision import Bound, Decision, Mode
from taut.fleet.scaling.hours import LoadHours, left_s
from taut.fleet.scaling.look import Look, Tally, tally
from taut.fleet.scaling.rule import Rule

_BUSY: Final = 0.5  # of what is aimed at: below it, waits and latency are not for want of replicas
_SATURATED: Final = {"cpu": 0.9, "gpu": 0.9}  # of a replica: more cannot be seen
_EPSILON: Final = 1e-9
_LOOKS_MAX: Final = 8192


class _Want(NamedTuple):
    """What a signal asks for. low, high: with silent replicas taken for idle, and for on target."""

    signal: str
    observed: float
    target: float
    low: int
    high: int


class Autoscaler:
    """Decides for one pool. It has no clock: each look brings the time. One thread owns it.

    hours: what was usual, and what the day has cost; it learns from each look.

    Guarantees: n is within minimum and maximum, and above the minimum within the budget of the day but for what runs on while it
    ends; in a burst nothing is scaled down, nor for `cooldown_s` after a start or after more was needed, but for budget and
    maximum; where nobody tells anything, nothing changes.
    Not guaranteed: that latency falls where its cause is no want of replicas.
    """

    def __init__(self, rule: Rule, *, hours: LoadHours | None = None) -> None:
        self.rule: Final = rule
        self.hours: Final = hours or LoadHours()
        self._tallies: Final[deque[Tally]] = deque(maxlen=_LOOKS_MAX)
        self._asked: Final[deque[tuple[float, int]]] = deque(maxlen=_LOOKS_MAX)
        self._began_s = inf
        self._changed_s = -inf
        self._panic_until_s = -inf
        self._busy_s = 0.0

    def decide(self, look: Look, *, n: int) -> Decision:
        """Decide how many there shall be. n: how many there shall be until now, whoever said so."""
        found = tally(look)
        if self._tallies and look.at_s <= self._tallies[-1].at_s:
            return self._nothing(n, told=("the clock stands still", *found.told))
        self._take(found, look)
        wanted = self._wanted(found, n)
        if wanted is None and found.ready:
            self._asked.append((look.at_s, n))  # what was needed meanwhile is not known
            decision = self._nothing(n, told=found.told)
        else:
            decision = self._decide(look, found, n, wanted)
        decision = self._bounded(decision, look.wall_s)
        if decision.changes:
            self._changed_s = look.at_s
        return decision

    def watch(self, look: Look) -> None:
        """Learn from a look while somebody else decides."""
        found = tally(look)
        if not self._tallies or look.at_s > self._tallies[-1].at_s:
            self._take(found, look)
            self._asked.append((look.at_s, found.ready))

    def _decide(self, look: Look, found: Tally, n: int, wanted: _Want | None) -> Decision:
        rule, panicking = self.rule, look.at_s < self._panic_until_s
        computed, bound = self._computed(wanted, n)
        mode: Mode = "panic" if panicking else "stable"
        if panicking:
            computed = max(computed, n)
        if not rule.minimum:
            mode, computed = self._awake(look, n, mode, computed)
        target = computed
        usual = self._usual(look.wall_s)
        if usual > target:
            target, bound = usual, "forecast"
        if target or mode != "idle":
            target, bound = self._stepped(target, found.ready, n, bound)
        target, bound = self._capped(target, look.wall_s, bound)
        self._asked.append((look.at_s, target))
        if mode in ("stable", "panic"):
            target, bound = self._paced(target, look.at_s, n, bound)
        signal, observed, aim = ("", 0.0, 0.0) if wanted is None else wanted[:3]
        return Decision(
            pool=rule.pool, n=target, before=n, mode=mode, signal=signal, observed=observed, target=aim,
            computed=computed, bound=bound, told=found.told,
        )  # fmt: skip

    # what is asked for

    def _take(self, found: Tally, look: Look) -> None:
        """Remember a look for as long as any window needs it, and learn from it."""
        if self._began_s == inf:
            self._began_s = self._busy_s = look.at_s
        self._tallies.append(found)
        while self._tallies[0].at_s <= look.at_s - self.rule.stable_s:
            self._tallies.popleft()
        while self._asked and self._asked[0][0] <= look.at_s - self.rule.cooldown_s:
            self._asked.popleft()
        if look.waiting or found.sums.get("concurrency", (0.0, 0))[0] > 0:
            self._busy_s = look.at_s
        loads = {name: total for name, (total, _) in found.sums.items()}
        self.hours.learn(look.wall_s, loads, replicas=look.ready)

    def _wanted(self, found: Tally, n: int) -> _Want | None:
        """Return what the strongest signal asks for; None where none tells anything. Begins a burst where there is one."""
        rule = self.rule
        stable, hasty = self._additive(rule.stable_s, found), self._additive(rule.panic_s, found)
        most = max((one.low for one in hasty), default=0)
        if most >= rule.panic_ratio * max(1, found.ready):
            self._panic_until_s = found.at_s + rule.stable_s
        panicking = found.at_s < self._panic_until_s
        wants = [*stable, *(hasty if panicking else ()), *self._strained(found, hasty, n)]
        if not wants:
            return None
        strongest: _Want = max(wants, key=lambda one: one.low)
        return strongest._replace(high=max(one.high for one in wants))

    def _additive(self, window_s: float, found: Tally) -> list[_Want]:
        """Return what signals ask for that add up over replicas, by their mean over a window."""
        rule, wants = self.rule, []
        recent = [one for one in self._tallies if one.at_s > found.at_s - window_s]
        for name, aim in rule.aims.items():
            seen = [one.sums[name] for one in recent if name in one.sums]
            if not seen:
                continue
            total = sum(value for value, _ in seen) / len(seen)
            silent = sum(count for _, count in seen) / len(seen)
            low, high = _whole(total / aim), _whole(total / aim + silent)
            if window_s == rule.panic_s and self._saturated(name, found):
                telling = found.ready - found.sums[name][1]
                low = max(low, _whole(telling * rule.panic_ratio))
            wants.append(_Want(name, total, aim, low, max(low, high)))
        return wants

    def _saturated(self, signal: str, found: Tally) -> bool:
        """Tell whether those that are ready have had no more to give for half a panic window, all of them."""
        since_s, share = found.at_s - self.rule.panic_s / 2, _SATURATED.get(signal)
        return share is not None and all(
            one.ready == found.ready and one.saturated(signal, share)
            for one in self._tallies
            if one.at_s > since_s
        )

    def _strained(self, found: Tally, hasty: list[_Want], n: int) -> list[_Want]:
        """Return what waits and latency ask for: in proportion to what is ready, where that is busy at all."""
        rule, wants = self.rule, []
        busy = max((one.observed / (one.target * max(1, found.ready)) for one in hasty), default=1.0)
        recent = [one for one in self._tallies if one.at_s > found.at_s - rule.panic_s]
        for name, aim in (("wait_ms", rule.wait_ms), ("latency", rule.latency)):
            told = [value for one in recent if (value := getattr(one, name)) is not None]
            if aim is None or not told or busy < _BUSY:
                continue
            observed = sum(told) / len(told)
            ratio = observed / aim
            if ratio > 1 - rule.tolerance:
                more = ratio > 1 + rule.tolerance
                asks = max(n, _whole(found.ready * min(ratio, rule.up))) if more else n
                wants.append(_Want(name, observed, aim, asks, asks))
        return wants

    def _computed(self, wanted: _Want | None, n: int) -> tuple[int, Bound]:
        """Return what a demand comes to; nothing changes where silent replicas may account for it, or within the tolerance."""
        if wanted is None or wanted.low <= n <= wanted.high:
            return n, ""
        if wanted.signal in self.rule.aims and n:
            load = wanted.observed / (n * wanted.target)
            if abs(load - 1) <= self.rule.tolerance:
                return n, "tolerance"
        return (wanted.low if wanted.low > n else wanted.high), ""

    def _awake(self, look: Look, n: int, mode: Mode, computed: int) -> tuple[Mode, int]:
        """Let the last one go once nothing was asked for long enough; have one as soon as somebody waits."""
        idle_s = self.rule.idle_s
        if look.waiting and not n:
            return "woken", max(1, computed)
        if idle_s is not None and look.at_s - self._busy_s >= idle_s:
            return "idle", 0
        return mode, max(min(n, 1), computed)

    def _usual(self, wall_s: float) -> int:
        """Return how many are usual now or a little later, whichever is more; 0 where that is not known."""
        asked = [
            _whole(load / aim)
            for name, aim in self.rule.aims.items()
            for at_s in (wall_s, wall_s + self.rule.lead_s)
            if (load := self.hours.usual(at_s, name)) is not None
        ]
        return max(asked, default=0)

    # what stands in between

    def _stepped(self, target: int, ready: int, n: int, bound: Bound) -> tuple[int, Bound]:
        """Go no further at once than by a factor of what is ready: what cannot start is not asked for again and again."""
        most = max(n, ceil(max(1, ready) * self.rule.up))
        least = floor(n / self.rule.down)
        if target > most:
            return most, "step"
        return (least, "step") if target < least else (target, bound)

    def _ceiling(self, wall_s: float) -> tuple[int, Bound]:
        """Return the most that there may be: what is left of the budget must last for a cooldown, beside the minimum until midnight."""
        rule = self.rule
        if rule.replica_hours is None:
            return rule.maximum, "maximum"
        spare_s = rule.replica_hours * 3600 - self.hours.spent_s(wall_s) - rule.minimum * left_s(wall_s)
        paid = rule.minimum + max(0, floor(spare_s / rule.cooldown_s))
        return (paid, "budget") if paid < rule.maximum else (rule.maximum, "maximum")

    def _capped(self, target: int, wall_s: float, bound: Bound) -> tuple[int, Bound]:
        most, why = self._ceiling(wall_s)
        if target > most:
            target, bound = most, why
        return (self.rule.minimum, "minimum") if target < self.rule.minimum else (target, bound)

    def _paced(self, target: int, at_s: float, n: int, bound: Bound) -> tuple[int, Bound]:
        """Have fewer only where fewer were enough for a while, and not another number at every look."""
        rule, since_s = self.rule, at_s - self._changed_s
        if target < n:
            asked = max(most for _, most in self._asked)
            if at_s - self._began_s < rule.cooldown_s or asked >= n:
                return n, "cooldown"
            if since_s < rule.stable_s:
                return n, "pace"
            return (asked, "cooldown") if asked > target else (target, bound)
        burst = at_s < self._panic_until_s
        if target > n and (at_s - self._began_s < rule.panic_s or (not burst and since_s < rule.panic_s)):
            return n, "pace"  # nor by the first look alone
        return target, bound

    def _bounded(self, decision: Decision, wall_s: float) -> Decision:
        """Keep to the bounds also where nothing else is known, or somebody said another number before."""
        n, bound = self._capped(decision.n, wall_s, decision.bound)
        return decision if n == decision.n else msgspec.structs.replace(decision, n=n, bound=bound)

    def _nothing(self, n: int, *, told: tuple[str, ...]) -> Decision:
        return Decision(pool=self.rule.pool, n=n, before=n, mode="blind", told=told)


def _whole(replicas: float) -> int:
    return ceil(replicas - _EPSILON)
