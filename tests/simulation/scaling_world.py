"""A pool under load, with true time: replicas that take their time to start, fail to, and tell what they have to do.

Load is a fluid: what a replica cannot do at once waits. The processor of one shows no more than that it is busy, so that
overload is visible only as far as real gateways show it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Protocol

from taut.fleet.scaling import Decision, Load, Look

RATE = 100.0  # requests a second that one replica answers
START_S = 3.0  # from the order to admitted; measured: see docs/how-to/scale.md
MONDAY_S = 4 * 86_400.0  # 5 January 1970, 00:00 UTC


class Decider(Protocol):
    def decide(self, look: Look, *, n: int) -> Decision: ...


def honest(_at_s: float, loads: tuple[Load, ...]) -> tuple[Load, ...]:
    return loads


@dataclass
class World:
    """load: requests a second at a time. starts: how long each start takes; None for one that fails after `START_S`. tell: what
    becomes of what replicas tell on its way."""

    decider: Decider
    load: Callable[[float], float]
    n: int = 1
    starts: Callable[[int], float | None] = lambda _number: START_S
    tell: Callable[[float, tuple[Load, ...]], tuple[Load, ...]] = honest
    began_s: float = MONDAY_S
    at_s: float = 0.0
    ready: int = 1
    backlog: float = 0.0
    coming: list[tuple[float, bool]] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    trace: list[tuple[float, float, int, int]] = field(default_factory=list)  # at, load, wanted, ready
    short_s: float = 0.0
    replica_s: float = 0.0
    waited: float = 0.0
    _numbers: count[int] = field(default_factory=count)

    def run(self, seconds: float, *, tick_s: float = 1.0, obey: bool = True) -> World:
        """Let time pass. obey: whether what is decided becomes capacity, as when control lives."""
        until_s = self.at_s + seconds
        while self.at_s < until_s:
            self.at_s += tick_s
            busy = self._work(tick_s)
            decision = self.decider.decide(self._look(busy), n=self.n)
            self.decisions.append((self.at_s, decision))
            if obey:
                self.n = decision.n
            self._staff()
            self.trace.append((self.at_s, self.load(self.at_s), self.n, self.ready))
        return self

    @property
    def changes(self) -> list[tuple[float, Decision]]:
        return [(at_s, one) for at_s, one in self.decisions if one.changes]

    @property
    def reversals(self) -> int:
        """How often the number went up after it went down, or down after up."""
        ways = [one.n > one.before for _, one in self.changes]
        return sum(left != right for left, right in pairwise(ways))

    def _work(self, tick_s: float) -> float:
        asked = self.load(self.at_s) * tick_s
        able = self.ready * RATE * tick_s
        done = min(self.backlog + asked, able)
        self.backlog += asked - done
        self.short_s += tick_s * (self.load(self.at_s) > self.ready * RATE)
        self.waited += self.backlog * tick_s
        self.replica_s += tick_s * max(self.n, self.ready)
        return done / able if able else 0.0

    def _look(self, busy: float) -> Look:
        loads = (Load(cpu=busy),) * self.ready
        return Look(
            at_s=self.at_s, wall_s=self.began_s + self.at_s, ready=self.ready,
            loads=self.tell(self.at_s, loads), waiting=0 if self.ready else int(self.backlog),
        )  # fmt: skip

    def _staff(self) -> None:
        self.ready += sum(1 for due_s, well in self.coming if due_s <= self.at_s and well)
        self.coming = [one for one in self.coming if one[0] > self.at_s]
        if self.ready > self.n:
            self.ready = self.n
        while self.ready + len(self.coming) < self.n:
            took_s = self.starts(next(self._numbers))
            self.coming.append((self.at_s + (START_S if took_s is None else took_s), took_s is not None))
        del self.coming[max(0, self.n - self.ready) :]


class Plain:
    """A plain target tracker, as Kubernetes' HPA by its defaults: a look each 15 s, at most twice as many, five minutes of
    stabilisation on the way down, no view of saturation, no bursts, no forecast."""

    def __init__(self, target: float, *, most: int, down_s: float = 300.0) -> None:
        self._target, self._most, self._down_s = target, most, down_s
        self._asked: list[tuple[float, int]] = []
        self._due_s = 0.0

    def decide(self, look: Look, *, n: int) -> Decision:
        wanted = n
        if look.at_s >= self._due_s and look.ready:
            self._due_s = look.at_s + 15.0
            total = sum(one.cpu or 0.0 for one in look.loads)
            ratio = total / (look.ready * self._target)
            asked = n if abs(ratio - 1) <= 0.1 else -int(-look.ready * ratio // 1)
            self._asked = [one for one in self._asked if one[0] > look.at_s - self._down_s]
            self._asked.append((look.at_s, asked))
            wanted = asked if asked > n else max(one for _, one in self._asked)
            wanted = max(1, min(wanted, max(2 * n, n + 4), self._most))
            wanted = min(wanted, n) if asked <= n else wanted
        return Decision(pool="gateway", n=wanted, before=n, mode="stable")


def step(at_s: float, low: float, high: float) -> Callable[[float], float]:
    return lambda now_s: high if now_s >= at_s else low


def ramp(low: float, high: float, seconds: float) -> Callable[[float], float]:
    return lambda now_s: low + (high - low) * min(1.0, max(0.0, now_s / seconds))


def bursts(low: float, high: float, every_s: float, lasts_s: float) -> Callable[[float], float]:
    return lambda now_s: high if now_s % every_s < lasts_s else low


def noise(mean: float, spread: float, seed: int) -> Callable[[float], float]:
    """Another load each second, the same for the same second."""
    return lambda now_s: mean * (1 + spread * (2 * random.Random(seed * 1_000_003 + int(now_s)).random() - 1))
