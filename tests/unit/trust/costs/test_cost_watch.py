"""Who amplifies what his requests cost is found within some dozens of them; honest heavy callers are not."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from taut.core.errors import InvalidInput
from taut.trust.costs import KINDS, CostWatch

HONEST = 30


class Crowd:
    """Honest callers of one endpoint: each has batches of a usual size, with a long tail, some ten times as busy as others."""

    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        self.watch = CostWatch()
        self.now_s = 0.0
        self.usual_ms = [self.random.lognormvariate(0.0, 0.7) for _ in range(HONEST)]
        self.values = 0

    def second(self, honest: bool = True) -> set[tuple[str, str]]:
        """Let a second pass; return who is held to what."""
        self.now_s += 1.0
        for number in range(HONEST if honest else 0):
            requests = self.random.randrange(0, 60 if number % 7 == 0 else 6)
            tail = [self.random.lognormvariate(math.log(self.usual_ms[number]), 0.6) for _ in range(requests)]
            self.values += requests // 5
            self.watch.observe("delay", f"caller-{number}", requests, sum(tail), self.now_s)
        return {(one.principal, one.kind) for one in self.watch.sightings(self.now_s)}

    def attack(self, name: str, times: float, *, per_s: int = 5) -> int:
        """Return how many requests it took to find somebody whose requests cost so many times what his peers' do."""
        asked = 0
        while asked < 2000:
            cost_ms = sum(self.random.lognormvariate(0.0, 0.6) * times for _ in range(per_s))
            self.watch.observe("delay", name, per_s, cost_ms, self.now_s + 1.0)
            asked += per_s
            if (name, "cost.amplification") in self.second():
                return asked
        raise AssertionError("was not found")


@pytest.fixture(scope="module")
def settled() -> Crowd:
    crowd = Crowd()
    for _ in range(200):
        assert crowd.second() == set()
    return crowd


def test_honest_callers_some_of_them_heavy_raise_no_alarm(settled: Crowd) -> None:
    assert settled.values > 5_000
    crowd = Crowd(2)
    assert set().union(*(crowd.second() for _ in range(100))) == set()


@pytest.mark.parametrize(("times", "within"), [(20.0, 60), (50.0, 40)])
def test_a_planted_amplifier_is_found_within_some_dozens_of_requests(
    settled: Crowd, times: float, within: int
) -> None:
    assert settled.attack(f"amplifier-{times:g}", times) <= within


def test_a_known_caller_who_turns_is_found_and_let_go_once_he_is_as_before(settled: Crowd) -> None:
    assert settled.attack("caller-1", 40.0) <= 80
    seconds = 0
    while ("caller-1", "cost.amplification") in settled.second():
        seconds += 1
        assert seconds < 200
    assert seconds >= 3


def test_a_caller_alone_is_judged_by_his_own_past_and_spending_by_the_ten_seconds() -> None:
    watch = CostWatch()
    now_s = 0.0
    for _ in range(300):
        now_s += 1.0
        watch.observe("delay", "ana", 5, 10.0, now_s)
    assert watch.sightings(now_s) == ()
    found: set[str] = set()
    for _ in range(120):
        now_s += 1.0
        watch.observe("delay", "ana", 500, 1000.0, now_s)  # as cheap as before, and a hundred times as many
        found |= {one.kind for one in watch.sightings(now_s)}
    assert found == {"cost.spending"}
    watch.accept("ana")
    assert watch.sightings(now_s) == ()


def test_who_is_not_seen_for_an_hour_is_forgotten_and_memory_is_bounded() -> None:
    watch = CostWatch(callers_max=3)
    for number in range(5):
        watch.observe("delay", f"caller-{number}", 5, 1.0, 0.0)
    assert len(watch) == 3
    watch.sightings(3601.0)
    assert len(watch) == 0
    watch.observe("delay", "cached", 10, 0.0, 0.0)  # answers from the cache cost nothing, and say nothing
    assert len(watch) == 0
    with pytest.raises(InvalidInput):
        CostWatch(callers_max=0)
    assert KINDS == ("cost.amplification", "cost.spending")


class ForgetsDeviations(CostWatch):
    """A planted fault: takes everything above the usual for abuse."""

    def _take(self, endpoint: str, caller: Any, kind: str, value_ms: float) -> None:
        track = caller.tracks[kind]
        track.wide = 0.0
        track.take(math.log(value_ms), None, 1.0, self._alarm)


def test_the_search_finds_a_watch_that_accuses_the_honest() -> None:
    crowd = Crowd(4)
    crowd.watch = ForgetsDeviations()
    assert set().union(*(crowd.second() for _ in range(60)))
