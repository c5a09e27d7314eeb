"""Balancing between machines in simulated time: slow ones get less, fresh ones begin slowly, sick ones are left alone."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random as Seeded

import pytest

from taut.serving.peers import Balance, Choice, Load

HOP_S = 0.0008


class Seed:
    """Randomness with a seed, as the port wants it."""

    def __init__(self, seed: int) -> None:
        self._of = Seeded(seed)

    def uniform(self) -> float:
        return self._of.random()

    def bytes(self, n: int) -> bytes:
        return self._of.randbytes(n)


class Machine:
    """A model on some workers. faster: than it says, below 1 slower. up: whether it answers."""

    def __init__(self, service_s: float, *, workers: int = 2, faster: float = 1.0) -> None:
        self.service_s, self.workers, self.faster = service_s, workers, faster
        self.free_s = [0.0] * workers
        self.up = True

    def load(self, now_s: float) -> Load:
        return Load(max(0.0, min(self.free_s) - now_s), self.service_s, 0.0, self.workers)

    def serve(self, now_s: float) -> float:
        """Take a request and return when it is answered."""
        at = self.free_s.index(min(self.free_s))
        self.free_s[at] = max(now_s, self.free_s[at]) + self.service_s / self.faster
        return self.free_s[at]


class World:
    """Requests that all arrive at `here`, and go where it sends them. chosen: instead of the balance."""

    def __init__(self, here: Machine, peers: dict[str, Machine], *, seed: int = 1) -> None:
        self.here, self.peers = here, peers
        self.balance = Balance(Seed(seed))
        self.balance.keep(set(peers))
        self.went: Counter[str] = Counter()
        self.times_s: list[float] = []
        self.failed = 0
        self._seeded = Seeded(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.now_s = 0.0

    def run(self, rate: float, seconds: float, *, turns: bool = False) -> None:
        """Let requests arrive at random for so long. turns: send them round instead."""
        end_s = self.now_s + seconds
        names = itertools.cycle(["", *self.peers])
        while True:
            next_s = self.now_s + self._seeded.expovariate(rate)
            while self._due and self._due[0][0] <= next_s:
                self.now_s, _, then = heapq.heappop(self._due)
                then()
            if next_s > end_s:
                self.now_s = end_s
                return
            self.now_s = next_s
            if turns:
                name = next(names)
                where = self.here if not name else self.peers[name]
                self.went[name] += 1
                self.times_s.append(where.serve(self.now_s) - self.now_s)
            else:
                self._arrive()

    def _arrive(self) -> None:
        choice = self.balance.choose("e", 1, self.here.load(self.now_s), self.now_s)
        if choice is None:
            self.went[""] += 1
            self.times_s.append(self.here.serve(self.now_s) - self.now_s)
            return
        self.balance.sent(choice, "e", 1)
        peer, since_s = self.peers[choice.peer], self.now_s
        if not peer.up:
            self._at(self.now_s + HOP_S, lambda: self._fail(choice, since_s))
            return
        there_s = self.now_s + HOP_S / 2
        done_s = peer.serve(there_s)
        self._at(done_s + HOP_S / 2, lambda: self._answered(choice, peer, since_s, done_s - there_s))

    def _answered(self, choice: Choice, peer: Machine, since_s: float, took_s: float) -> None:
        self.went[choice.peer] += 1
        self.times_s.append(self.now_s - since_s)
        self.balance.answered(
            choice,
            "e",
            1,
            peer.load(self.now_s),
            elapsed_s=self.now_s - since_s,
            took_s=took_s,
            now_s=self.now_s,
        )

    def _fail(self, choice: Choice, since_s: float) -> None:
        self.failed += 1
        self.balance.failed(choice, "e", 1, why="gone", now_s=self.now_s)
        self.times_s.append(self.here.serve(self.now_s) - since_s)

    def _at(self, when_s: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when_s, next(self._order), then))

    def quantile_ms(self, q: float) -> float:
        return sorted(self.times_s)[int(q * len(self.times_s))] * 1e3


def test_what_one_machine_cannot_do_is_shared_and_a_slow_machine_gets_its_share_only() -> None:
    """Capacity 200/s here, 200/s on `fast`, 50/s on `slow`, which is 4 times as slow; 420/s arrive."""

    def world() -> World:
        return World(Machine(0.010), {"fast": Machine(0.010), "slow": Machine(0.040)})

    ours, turns = world(), world()
    ours.run(420.0, 40.0)
    turns.run(420.0, 40.0, turns=True)

    assert ours.went["fast"] / ours.went["slow"] > 3.0
    assert ours.went["slow"] > 0.03 * ours.went.total()
    assert ours.quantile_ms(0.99) < 200.0
    # by turns the slow one's line grows without end, and every third request waits in it
    assert turns.quantile_ms(0.9) > 50 * ours.quantile_ms(0.99)


def test_what_is_idle_here_stays_here() -> None:
    ours = World(Machine(0.010), {"other": Machine(0.010)})
    ours.run(20.0, 30.0)

    assert ours.went[""] > 0.97 * ours.went.total()


def test_big_requests_move_before_small_ones() -> None:
    balance = Balance(Seed(1))
    balance.keep({"p"})
    here = Load(0.002, 0.0, 0.001, 1)
    known = Choice("p", 0.01, 0.01)
    balance.sent(known, "e", 1)
    balance.answered(known, "e", 1, Load(0.0, 0.0, 0.0002, 1), elapsed_s=0.003, took_s=0.0005, now_s=0.0)

    assert balance.choose("e", 1, here._replace(wait_s=0.0), 0.0) is None
    assert balance.choose("e", 100, here._replace(wait_s=0.0), 0.0) is not None


def test_a_peer_that_is_gone_costs_few_requests_and_is_found_again() -> None:
    ours = World(Machine(0.010), {"other": Machine(0.010)})
    ours.run(300.0, 5.0)
    ours.peers["other"].up = False
    ours.run(190.0, 20.0)
    assert 0 < ours.failed < 150  # what was under way, and a try every so often
    lost = ours.failed
    ours.run(190.0, 20.0)
    assert ours.failed - lost <= 3  # pauses have grown

    ours.peers["other"].up = True
    ours.went.clear()
    ours.run(300.0, 60.0)
    assert ours.went["other"] > 0.15 * ours.went.total()


def test_a_peer_that_is_far_slower_than_it_says_is_left_alone_for_a_while() -> None:
    ours = World(Machine(0.010), {"liar": Machine(0.010, faster=0.02)})
    ours.run(260.0, 20.0)

    assert "times as long as expected" in ours.balance.peers["liar"].why
    assert ours.went["liar"] < 0.1 * ours.went.total()


def test_a_fresh_peer_is_asked_one_at_a_time_at_first() -> None:
    balance = Balance(Seed(1))
    balance.keep({"fresh"})
    here = Load(10.0, 0.01, 0.0, 1)
    under_way = []
    for round_ in range(6):
        while (choice := balance.choose("e", 1, here, float(round_))) is not None:
            balance.sent(choice, "e", 1)
            under_way.append(choice)
        assert len(under_way) == 2**round_
        for choice in under_way:
            balance.answered(
                choice, "e", 1, Load(0.0, 0.01, 0.0, 8), elapsed_s=0.011, took_s=0.01, now_s=float(round_)
            )
        under_way.clear()


@pytest.mark.parametrize("told", ["answered", "failed", "turned_away", "left"])
def test_whatever_becomes_of_a_request_it_is_under_way_no_more(told: str) -> None:
    balance = Balance(Seed(1))
    balance.keep({"p"})
    choice = balance.choose("e", 3, Load(1.0, 0.1, 0.0, 1), 0.0)
    assert choice is not None
    balance.sent(choice, "e", 3)
    more: dict[str, dict[str, object]] = {
        "answered": {"load": None, "elapsed_s": 0.1, "took_s": 0.1, "now_s": 0.1}, "failed": {"why": "x", "now_s": 0.1},
        "turned_away": {"now_s": 0.1}, "left": {},
    }  # fmt: skip
    getattr(balance, told)(choice, "e", 3, **more[told])

    assert (balance.peers["p"].in_flight, balance.peers["p"].of("e").ahead_rows) == (0, 0)
    assert (balance.choose("e", 3, Load(1.0, 0.1, 0.0, 1), 0.2) is None) == (
        told in ("failed", "turned_away")
    )
