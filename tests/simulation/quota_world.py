"""Gateways and a control that share limits over a network that delays and loses, in simulated time: the real code, no I/O."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random

import msgspec

from taut.core.errors import Exhausted, Unavailable
from taut.trust.quota import (
    WHOLE,
    Account,
    Budgets,
    Claim,
    Key,
    Lease,
    Leases,
    Limit,
    Quota,
    Row,
    digest_limits,
)

BEAT_S = 1.0


class Replica:
    """One gateway: the real Quota, a clock of its own, a link to control that may be cut."""

    def __init__(self, world: World, name: str, incarnation: int) -> None:
        self.world, self.name, self.incarnation = world, name, incarnation
        self.drift = 1 + world.random.uniform(-world.skew, world.skew)
        self.quota = world.counter()
        self.accounts: dict[tuple[Key, ...], Account] = {}
        self.quota.declare(world.limits, parts=max(1, world.announced), now_s=self.now_s())
        self.quota.await_lease(self.now_s())
        self.cut = self.dead = self.leased = False

    @property
    def process(self) -> str:
        return f"{self.name}/{self.incarnation}"

    def now_s(self) -> float:
        return 1000.0 + self.world.now_s * self.drift

    def beat(self) -> None:
        if self.dead:
            return
        self.send()
        self.world.after(BEAT_S, self.beat)

    def send(self) -> None:
        claim = self.quota.claim(self.now_s())
        if not self.lost():
            self.world.after(self.world.delay_s(), lambda: self.world.arrive(self, claim))

    def hear(self, lease: Lease) -> None:
        self.leased = True
        if not self.dead and self.quota.hear(lease, self.now_s()):
            self.send()

    def lost(self) -> bool:
        return self.cut or self.world.random.random() < self.world.loss

    def take(self, key: Key, n: float = 1.0) -> bool:
        try:
            self.quota.take(key, n, self.now_s())
        except (Exhausted, Unavailable):
            return False
        self.world.passed(key, n)
        return True

    def draw(self, keys: tuple[Key, ...]) -> bool:
        """Ask as a request does that counts at several levels."""
        account = self.accounts.setdefault(keys, Account(keys))
        try:
            self.quota.draw(account, self.now_s())
        except (Exhausted, Unavailable):
            return False
        for key in keys:
            self.world.passed(key, 1.0)
        return True

    def spend(self, key: Key, cost: float) -> bool:
        """Ask as a request does whose cost is known only afterwards."""
        account = self.accounts.setdefault((key,), Account((), (("usd_micros", key),)))
        try:
            self.quota.draw(account, self.now_s())
        except (Exhausted, Unavailable):
            return False
        self.quota.settle(account, {"usd_micros": cost}, self.now_s())
        self.world.passed(key, cost)
        return True

    def share_of(self, key: Key) -> int:
        """Return what it lets pass now, whatever it believes."""
        if self.dead:
            return 0
        try:
            self.quota.take(
                ("", ""), 1.0, self.now_s()
            )  # a name without limit: only looks whether the lease is over
        except Unavailable:
            return 0
        return self.quota._keys.get(key, self.quota.share)  # the invariant is about the state itself


class World:
    """Simulated time: events in order, one seed."""

    def __init__(
        self,
        limits: dict[str, Limit],
        *,
        seed: int,
        loss: float = 0.0,
        skew: float = 0.0,
        slow_s: float = 0.02,
        lender: type[Leases] = Leases,
        counter: type[Quota] = Quota,
        keeper: type[Budgets] = Budgets,
        window_s: float = 1.0,
    ) -> None:
        self._lender = lender
        self._keeper = keeper
        self._window_s = window_s
        self.rows: tuple[Row, ...] = ()
        self.counter = counter
        self.random = Random(seed)
        self.limits, self.loss, self.skew, self.slow_s = limits, loss, skew, slow_s
        self.now_s = 0.0
        self.announced = 1
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.replicas: dict[str, Replica] = {}
        self._incarnations = 0
        self.controls = 0
        self.kept: dict[str, int] = {}
        self.leases: Leases | None = None
        self.spent: dict[Key, deque[tuple[float, float]]] = {}
        self._in_second: dict[Key, float] = {}
        self.worst: dict[Key, float] = {}
        self.total: dict[Key, float] = {}
        self.start_control()

    def start_control(self) -> None:
        self.controls += 1
        self.leases = self._lender(
            grantor=f"control-{self.controls}", now_s=self.now_s, known=self.kept, keep=self._keep
        )
        self.budgets = self._keeper(grantor=f"control-{self.controls}", rows=self.rows, keep=self._keep_rows)
        self.announce(self.announced)

    def _keep_rows(self, rows: tuple[Row, ...]) -> None:
        self.rows = rows

    def _keep(self, holders: dict[str, int]) -> None:
        self.kept = holders

    def announce(self, n: int) -> None:
        self.announced = n
        if self.leases is not None:
            self.leases.expect(n, limits=digest_limits(self.limits))
            self.budgets.expect(n, self.limits)

    def start(self, name: str) -> Replica:
        """Start a gateway, or start it again: of one name there is one process."""
        old = self.replicas.get(name)
        if old is not None:
            self.stop(name, seen=True)
        self._incarnations += 1
        self.replicas[name] = found = Replica(self, name, self._incarnations)
        found.beat()
        return found

    def stop(self, name: str, *, seen: bool) -> None:
        ended = self.replicas.pop(name)
        ended.dead = True
        if seen:
            self.kept.pop(ended.process, None)
            if self.leases is not None:
                self.leases.end(ended.process)
                self.budgets.end(ended.process, self.now_s)

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._events, (self.now_s + delay_s, self._serial, act))

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        self.now_s = until_s

    def delay_s(self) -> float:
        return self.random.random() * self.slow_s

    def arrive(self, replica: Replica, claim: Claim) -> None:
        if self.leases is None or replica.cut:
            return
        lease = self.leases.hear(replica.process, claim, self.now_s)
        near = {one.process: one for one in self.replicas.values() if not one.cut}
        answers = self.leases.pushes(near, self.now_s)
        if lease is not None:
            allowed = self.budgets.hear(replica.process, claim, self.now_s)
            self._deliver(replica, msgspec.structs.replace(lease, credits=allowed))
        for name, pushed in answers.items():
            self._deliver(near[name], pushed)

    def _deliver(self, replica: Replica, lease: Lease) -> None:
        if not replica.lost():
            self.after(self.delay_s(), lambda: replica.hear(lease))

    def passed(self, key: Key, n: float) -> None:
        spent = self.spent.setdefault(key, deque())
        spent.append((self.now_s, n))
        total = self._in_second.get(key, 0.0) + n
        while spent[0][0] <= self.now_s - self._window_s:
            total -= spent.popleft()[1]
        self._in_second[key] = total
        self.worst[key] = max(self.worst.get(key, 0.0), total)
        self.total[key] = self.total.get(key, 0.0) + n

    def in_use(self, key: Key) -> tuple[int, int]:
        """Return what may pass now by leases, and by the safe shares of those who never reached control."""
        leased = sum(one.share_of(key) for one in self.replicas.values() if one.leased)
        return leased, sum(one.share_of(key) for one in self.replicas.values() if not one.leased)


__all__ = ["BEAT_S", "WHOLE", "Replica", "World"]
