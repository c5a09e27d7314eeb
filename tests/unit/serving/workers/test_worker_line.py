"""Who is taken next from a line, and who is turned away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.serving.runtime import Cost
from taut.serving.workers import Item, Line, plan
from taut.serving.workers.queue import Pace

COST = Cost(base_us=1000, row_us=1000)


def item(*, rows: int = 1, deadline_s: float = 10.0, priority: int = 5, caller: str = "a") -> Item:
    return Item(rows, deadline_s, priority, caller)


def line(*, batch_rows: int = 4, line_rows: int = 16) -> Line:
    made = plan(COST, workers=1, latency_s=1.0)
    return Line(type(made)(cost=COST, batch_rows=batch_rows, line_rows=line_rows))


def test_a_batch_takes_what_waits_and_no_more_than_it_may_hold() -> None:
    waiting = line()
    items = [item() for _ in range(6)]
    for one in items:
        assert waiting.offer(one) == []

    assert waiting.take(0.0) == (items[:4], [])
    assert waiting.take(0.0) == (items[4:], [])
    assert waiting.take(0.0) == ([], [])


def test_one_request_that_is_larger_than_a_batch_goes_alone() -> None:
    waiting = line(line_rows=40)
    small, large = item(), item(rows=9)
    waiting.offer(small)
    waiting.offer(large)

    assert waiting.take(0.0)[0] == [small]
    assert waiting.take(0.0)[0] == [large]


def test_a_batch_grows_only_as_far_as_its_most_hurried_request_allows() -> None:
    waiting = line()
    hurried = item(deadline_s=0.0031)
    others = [item() for _ in range(3)]
    for one in (hurried, *others):
        waiting.offer(one)

    assert waiting.take(0.0)[0] == [hurried, others[0]]  # 1 ms and 1 ms a row: a third row would be too late


def test_what_cannot_be_ready_in_time_costs_the_worker_nothing() -> None:
    waiting = line()
    late, fine = item(deadline_s=0.001), item()
    waiting.offer(late)
    waiting.offer(fine)

    assert waiting.take(0.0) == ([fine], [late])


def test_a_long_line_is_served_newest_first() -> None:
    waiting = line(batch_rows=2, line_rows=8)
    items = [item(caller="a") for _ in range(7)]
    for one in items:
        waiting.offer(one)

    assert waiting.take(0.0)[0] == [items[6], items[5]]
    assert waiting.take(0.0)[0] == [items[4], items[3]]
    assert waiting.take(0.0)[0] == [items[0], items[1]]  # no longer long


def test_callers_take_turns() -> None:
    waiting = line()
    first = [item(caller="a") for _ in range(3)]
    second = [item(caller="b") for _ in range(3)]
    for one in (*first, *second):
        waiting.offer(one)

    assert waiting.take(0.0)[0] == [first[0], second[0], first[1], second[1]]


def test_who_makes_the_line_overflow_pays_and_nobody_else() -> None:
    waiting = line(line_rows=4)
    small = item(caller="small")
    waiting.offer(small)
    flood = [item(caller="flood") for _ in range(5)]
    turned_away = [gone for one in flood for gone in waiting.offer(one)]

    assert turned_away == flood[:2]
    assert small in waiting.clear()


def test_a_lower_priority_is_turned_away_first_and_served_last() -> None:
    waiting = line(batch_rows=1, line_rows=3)
    low, high = item(priority=1), [item(priority=8) for _ in range(3)]
    waiting.offer(low)
    for one in high[:2]:
        waiting.offer(one)
    assert waiting.take(0.0)[0] == [high[1]]  # long, so the newest of the highest
    waiting.offer(high[2])

    assert waiting.offer(item(priority=9)) == [low]


def test_one_that_must_be_alone_is_given_no_company() -> None:
    waiting = line()
    company, alone = item(), item()
    alone.alone = True
    waiting.put_back(alone)
    waiting.offer(company)

    assert waiting.take(0.0)[0] == [alone]
    waiting.offer(alone)
    assert waiting.take(0.0)[0] == [company]
    assert waiting.take(0.0)[0] == [alone]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6), st.floats(0, 0.1), st.integers(0, 9), st.sampled_from("abc"), st.booleans()
        ),
        max_size=60,
    )
)
def test_every_request_leaves_the_line_exactly_once(steps: list[tuple[int, float, int, str, bool]]) -> None:
    waiting = line(batch_rows=5, line_rows=12)
    seen: list[int] = []
    offered = []
    for rows, deadline_s, priority, caller, then_take in steps:
        one = item(rows=rows, deadline_s=deadline_s, priority=priority, caller=caller)
        offered.append(one)
        seen += [id(gone) for gone in waiting.offer(one)]
        assert waiting.rows <= 12 or len(waiting) == 1
        if then_take:
            batch, late = waiting.take(0.0)
            assert sum(taken.rows for taken in batch) <= 5 or len(batch) == 1
            seen += [id(gone) for gone in (*batch, *late)]
    seen += [id(gone) for gone in waiting.clear()]

    assert sorted(seen) == sorted(map(id, offered))
    assert (len(waiting), waiting.rows) == (0, 0)


@pytest.mark.parametrize(
    ("cost", "rows"),
    [
        (Cost(base_us=0, row_us=1000), 1),  # nothing gained by batching
        (Cost(base_us=900, row_us=100), 81),  # the fixed part is a tenth of the whole
        (Cost(base_us=100_000, row_us=1000), 150),  # no more than fits a quarter of the latency
        (Cost(base_us=10, row_us=0), 1024),
    ],
)
def test_the_batch_follows_from_the_cost(cost: Cost, rows: int) -> None:
    assert plan(cost, workers=1, latency_s=1.0).batch_rows == rows


@pytest.mark.parametrize(
    ("cost", "rows"),
    [
        (Cost(base_us=0, row_us=1000), 500),  # as many as fit half of the latency, gain or not
        (Cost(base_us=100_000, row_us=1000), 400),
        (Cost(base_us=900, row_us=100), 1024),
        (Cost(base_us=2_000_000, row_us=1000), 1),
    ],
)
def test_for_throughput_a_batch_takes_half_of_the_latency(cost: Cost, rows: int) -> None:
    made = plan(cost, workers=2, latency_s=1.0, profile="throughput")

    assert made.batch_rows == rows
    assert made.line_rows <= max(2 * rows, 1)


def test_the_pace_follows_what_batches_take_and_one_stall_does_not_turn_everything_away() -> None:
    pace = Pace()
    for _ in range(60):
        pace.observe(4.0)
    assert pace.factor == pytest.approx(4.0, rel=0.1)

    pace.observe(10_000.0)
    assert pace.factor < 10.0
    for _ in range(60):
        pace.observe(1.0)
    assert pace.factor == pytest.approx(1.0, rel=0.1)


def test_an_estimate_that_lets_nothing_through_is_doubted() -> None:
    pace = Pace()
    for _ in range(60):
        pace.observe(50.0)
    for _ in range(20):
        pace.relax()

    assert pace.factor < 1.0
