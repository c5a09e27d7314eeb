"""The line before a model's workers under load, by simulation: what is answered in time, and who pays."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Iterator

import pytest

from taut.serving.runtime import Cost
from taut.serving.workers import Item, Line, Plan, plan

SECONDS = 10.0
LATENCY_S = 0.05


class Fifo:
    """What most servers do: first in, first out, without a bound, whatever the deadline."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rows = 0
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: Item) -> list[Item]:
        self._items.append(item)
        return []

    def take(self, _now_s: float, *, share: float = 1.0) -> tuple[list[Item], list[Item]]:
        del share
        return [self._items.popleft() for _ in range(min(len(self._items), self.plan.batch_rows))], []


def arrivals(
    rate: float, seed: int, *, caller: str, priority: int = 5, rows: int = 1
) -> Iterator[tuple[float, Item]]:
    dice, now_s = random.Random(seed), 0.0
    while now_s < SECONDS:
        now_s += dice.expovariate(rate)
        yield now_s, Item(rows, now_s + LATENCY_S, priority, caller)


def simulate(
    line: Line | Fifo, *streams: Iterator[tuple[float, Item]], workers: int = 1
) -> dict[str, list[float]]:
    """Return caller -> latencies of the requests that were answered within their deadline."""
    coming = sorted(
        (at, index, item) for index, (at, item) in enumerate(pair for one in streams for pair in one)
    )
    free = workers
    done: list[tuple[float, int, list[Item]]] = []
    in_time: dict[str, list[float]] = {}
    turn = 0

    def start(now_s: float) -> None:
        nonlocal free, turn
        while free and len(line):
            batch, _late = line.take(now_s)
            if batch:
                free, turn = free - 1, turn + 1
                rows = sum(item.rows for item in batch)
                heapq.heappush(done, (now_s + line.plan.seconds(rows), turn, batch))

    for at, _, item in [*coming, (SECONDS + 10, 0, Item(1, 0, 0, ""))]:
        while done and done[0][0] <= at:
            end_s, _, batch = heapq.heappop(done)
            free += 1
            for one in batch:
                if end_s <= one.deadline_s:
                    in_time.setdefault(one.caller, []).append(end_s - (one.deadline_s - LATENCY_S))
            start(end_s)
        line.offer(item)
        start(at)
    return in_time


COSTS = {
    "1 ms a request, nothing gained by batching": Cost(base_us=0, row_us=1000),
    "1 ms a batch": Cost(base_us=900, row_us=100),
    "5 ms a request": Cost(base_us=500, row_us=4500),
}


@pytest.mark.parametrize("overload", [1.3, 3.0])
@pytest.mark.parametrize("kind", COSTS)
def test_goodput_under_overload_stays_near_the_capacity(kind: str, overload: float) -> None:
    made = plan(COSTS[kind], workers=1, latency_s=LATENCY_S)
    capacity = made.batch_rows / made.seconds(made.batch_rows)

    answered = simulate(Line(made), arrivals(overload * capacity, 1, caller="a"))["a"]
    without = simulate(Fifo(made), arrivals(overload * capacity, 1, caller="a"))["a"]

    assert len(answered) >= 0.97 * capacity * SECONDS
    assert len(without) < 0.1 * capacity * SECONDS
    assert sorted(answered)[int(0.99 * len(answered))] <= LATENCY_S


def test_the_throughput_profile_answers_more_within_the_same_latency() -> None:
    cost = Cost(base_us=5000, row_us=100)
    calm, bold = (
        plan(cost, workers=1, latency_s=LATENCY_S),
        plan(cost, workers=1, latency_s=LATENCY_S, profile="throughput"),
    )
    rate = 1.5 * bold.batch_rows / bold.seconds(bold.batch_rows)

    few, many = (simulate(Line(made), arrivals(rate, 1, caller="a"))["a"] for made in (calm, bold))

    assert len(many) >= 1.25 * len(few)  # 8,000 a second by the fit, instead of 6,000
    assert sorted(many)[int(0.99 * len(many))] <= LATENCY_S


def test_the_throughput_profile_waits_for_no_batch_to_fill() -> None:
    made = plan(COSTS["1 ms a batch"], workers=1, latency_s=LATENCY_S, profile="throughput")

    answered = simulate(Line(made), arrivals(50, 2, caller="a"))["a"]

    assert sorted(answered)[len(answered) // 2] == pytest.approx(made.seconds(1), rel=0.01)


def test_below_its_capacity_nobody_waits_for_a_batch_to_fill() -> None:
    made = plan(COSTS["1 ms a batch"], workers=1, latency_s=LATENCY_S)

    answered = simulate(Line(made), arrivals(50, 2, caller="a"))["a"]

    assert sorted(answered)[len(answered) // 2] == pytest.approx(made.seconds(1), rel=0.01)


class TurnsByRequest(Line):
    """A planted fault, as it was: a turn is a request, however many rows it has."""

    def _next(self, level: OrderedDict[str, deque[Item]]) -> str:
        return next(iter(level))


def kept(line: Line, capacity: float, *, rows: int, times: float) -> float:
    """Return the share of what a caller of a fifth of the capacity is answered that he keeps beside a flood."""
    small = list(arrivals(0.2 * capacity, 4, caller="small"))
    alone = len(simulate(Line(line.plan), iter(small))["small"])
    flood = arrivals(times * capacity / rows, 3, caller="flood", rows=rows)
    return len(simulate(line, flood, iter(small)).get("small", [])) / alone


@pytest.mark.parametrize(("rows", "times"), [(8, 3.0), (16, 10.0)])
@pytest.mark.parametrize("kind", ["1 ms a request, nothing gained by batching", "1 ms a batch"])
def test_a_flood_of_large_requests_costs_another_caller_less_than_a_tenth(
    kind: str, rows: int, times: float
) -> None:
    made = plan(COSTS[kind], workers=1, latency_s=LATENCY_S)
    capacity = made.batch_rows / made.seconds(made.batch_rows)

    assert kept(Line(made), capacity, rows=rows, times=times) >= 0.97


def test_turns_by_request_would_let_large_requests_starve_small_ones() -> None:
    made = plan(COSTS["1 ms a batch"], workers=1, latency_s=LATENCY_S)
    capacity = made.batch_rows / made.seconds(made.batch_rows)

    assert kept(TurnsByRequest(made), capacity, rows=16, times=3.0) < 0.5


def test_a_flood_of_many_callers_leaves_each_his_share() -> None:
    made = plan(COSTS["1 ms a request, nothing gained by batching"], workers=1, latency_s=LATENCY_S)
    capacity = 1 / made.seconds(1)
    floods = [arrivals(capacity / 2, seed, caller=f"flood{seed}", rows=2) for seed in range(10, 14)]
    small = list(arrivals(0.15 * capacity, 4, caller="small"))

    both = simulate(Line(made), *floods, iter(small))

    assert len(both["small"]) >= 0.9 * len(small)
    answered = [len(both[f"flood{seed}"]) for seed in range(10, 14)]
    assert max(answered) <= 1.1 * min(answered)


def test_one_caller_s_flood_does_not_starve_another() -> None:
    made = plan(COSTS["1 ms a request, nothing gained by batching"], workers=1, latency_s=LATENCY_S)
    capacity = 1 / made.seconds(1)

    small = list(arrivals(0.2 * capacity, 4, caller="small"))
    both = simulate(Line(made), arrivals(3 * capacity, 3, caller="flood"), iter(small))

    assert len(both["small"]) >= 0.98 * len(small)
    assert len(both["flood"]) + len(both["small"]) >= 0.97 * capacity * SECONDS


def test_a_high_priority_is_answered_before_a_flood_of_low_ones() -> None:
    made = plan(COSTS["1 ms a batch"], workers=2, latency_s=LATENCY_S)
    capacity = 2 * made.batch_rows / made.seconds(made.batch_rows)

    both = simulate(
        Line(made),
        arrivals(2 * capacity, 5, caller="a", priority=2),
        arrivals(0.3 * capacity, 6, caller="a", priority=8),
        workers=2,
    )["a"]
    high = simulate(Line(made), arrivals(0.3 * capacity, 6, caller="a", priority=8), workers=2)["a"]

    assert len(high) >= 0.99 * 0.3 * capacity * SECONDS
    assert len(both) >= 0.97 * capacity * SECONDS
