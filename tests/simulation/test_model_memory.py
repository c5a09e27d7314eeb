"""A memory for models under hours of requests, by simulation with a clock of its own: what is in it, and what it costs."""

from __future__ import annotations

import heapq
import itertools
import random
from typing import Any, cast

import pytest

from taut.serving.memory import Resident, Shelf

MIB = 2**20
MODELS, REQUESTS = 150, 6000
MODEL = cast(Any, object())


class Forgetful(Shelf):
    """A planted fault: it does not look at who is in use."""

    def _may_go(self) -> list[Resident]:
        return [one for one in self if one.model is not None and not one.keep]


class Generous(Shelf):
    """A planted fault: what is being loaded is not counted."""

    @property
    def free_bytes(self) -> int:
        return self.budget_bytes - sum(one.taken_bytes for one in self if one.model is not None)


class LeastRecent(Shelf):
    """What most do: who was asked least recently goes, whatever it costs to have him back."""

    def loaded(self, resident: Resident) -> None:
        resident.worth, resident.priced_ns = float(resident.used_ns), resident.used_ns


class World:
    """Models of all sizes, requests that ask the popular ones most, loads and answers that take their time."""

    def __init__(self, shelf: Shelf, seed: int) -> None:
        self.dice = random.Random(seed)
        self.shelf = shelf
        self.models = [Resident(f"m{number}", f"m{number}") for number in range(MODELS)]
        self.size_mib = {one.key: self.dice.choice((1, 2, 5, 40)) for one in self.models}
        self.load_s = {one.key: self.dice.choice((0.005, 0.05, 1.0)) for one in self.models}
        self.weights = [1 / (rank + 1) for rank in range(MODELS)]
        self.loading_s = 0.0
        self.faults: set[str] = set()
        self.events: list[tuple[float, int, str, Resident]] = []
        self.turns = itertools.count()

    def run(self) -> None:
        """Ask, load, answer, until a fault is seen; after each event everything that must hold is looked at."""
        now_s = 0.0
        for _ in range(REQUESTS):
            now_s += self.dice.expovariate(20.0)
            while self.events and self.events[0][0] <= now_s and not self.faults:
                at_s, _, what, one = heapq.heappop(self.events)
                self._happens(what, one, at_s)
            if self.faults:
                return
            one = self.dice.choices(self.models, self.weights)[0]
            one.pin()
            self._ask(one, now_s)
            self._look()

    def _later(self, at_s: float, what: str, one: Resident) -> None:
        heapq.heappush(self.events, (at_s, next(self.turns), what, one))

    def _ask(self, one: Resident, now_s: float) -> None:
        if one.model is not None:
            one.used_ns = int(now_s * 1e9)
            self._later(now_s + 0.02, "answered", one)
        elif one.loading:
            self._later(now_s + 0.05, "again", one)
        else:
            gone = self.shelf.take(one, self.size_mib[one.key] * MIB)
            if gone is None:
                self._later(now_s + 0.05, "again", one)
                return
            for other in gone:
                if other.pins:
                    self.faults.add("evicted in use")
                other.set(None)
            one.loading = True
            self.loading_s += self.load_s[one.key]
            self._later(now_s + self.load_s[one.key], "loaded", one)

    def _happens(self, what: str, one: Resident, at_s: float) -> None:
        match what:
            case "answered":
                one.unpin()
            case "again":
                self._ask(one, at_s)
            case "loaded":
                one.loading, one.load_s = False, self.load_s[one.key]
                one.used_ns = int(at_s * 1e9)
                one.set(MODEL)
                self.shelf.loaded(one)
                self._later(at_s + 0.02, "answered", one)
        self._look()

    def _look(self) -> None:
        held = sum(
            self.size_mib[one.key] for one in self.models if one.model is not None or one.loading
        )  # by sizes of its own, not by the shelf's books
        if held * MIB > self.shelf.budget_bytes:
            self.faults.add("beyond the budget")


@pytest.mark.parametrize("budget_mib", [60, 200, 800])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_memory_is_never_exceeded_and_nobody_in_use_goes(budget_mib: int, seed: int) -> None:
    world = World(Shelf(budget_mib * MIB), seed)

    world.run()

    assert world.faults == set()
    assert world.loading_s > 0


@pytest.mark.parametrize(("fault", "found"), [(Forgetful, "evicted in use"), (Generous, "beyond the budget")])
def test_the_same_requests_find_a_planted_fault(fault: type[Shelf], found: str) -> None:
    world = World(fault(60 * MIB), 1)

    world.run()

    assert found in world.faults


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_by_value_requests_wait_less_for_loads_than_by_recency(seed: int) -> None:
    by_value, by_recency = World(Shelf(200 * MIB), seed), World(LeastRecent(200 * MIB), seed)

    by_value.run()
    by_recency.run()

    assert by_value.loading_s < 0.8 * by_recency.loading_s
