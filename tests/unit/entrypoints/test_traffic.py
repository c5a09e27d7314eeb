"""What happened between two readings: rates, quantiles, gateways that come, go and begin anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from taut.entrypoints.traffic import ALL, Row, Sample, Traffic, Watcher, samples_of
from taut.serving.meters import BATCH_ROWS, LAYOUT, EndpointMeter, Histogram, LaneReading, MeterReading

MS = 10**6


def meter(answers: int = 0, *, total_ns: int = 10 * MS, **refusals: int) -> EndpointMeter:
    made = EndpointMeter()
    for _ in range(answers):
        made.answered(9_000, 40_000, total_ns)
    for name, count in refusals.items():
        status, _, code = name.removeprefix("s").partition("_")
        for _ in range(count):
            made.refusals.add(int(status), code)
    return made


def sample(
    up_s: float, *meters: tuple[str, EndpointMeter], gateway: str = "gateway-0", pid: int = 1, lanes: Any = ()
) -> Sample:  # fmt: skip
    reading = MeterReading(
        layout=LAYOUT, started_us=pid, up_us=int(up_s * 1e6), in_flight=0, slots=9, lanes=lanes,
        endpoints=tuple(one.reading(version.partition("@")[0], version) for version, one in meters),
    )  # fmt: skip
    return Sample(gateway=gateway, pid=pid, ready=True, silent_s=0.1, epoch=1, meters=reading)


def row(traffic: Traffic, gateway: str = ALL, endpoint: str = "late") -> Row:
    (found,) = [one for one in traffic.rows if (one.gateway, one.endpoint) == (gateway, endpoint)]
    return found


def test_the_first_samples_are_only_what_later_ones_are_measured_from() -> None:
    watcher = Watcher()
    first = watcher.take([sample(100, ("late@1", meter(5000)))])

    assert first.rows == ()
    assert not first.whole


def test_rates_and_quantiles_are_of_the_interval_and_not_of_the_life() -> None:
    watcher, life = Watcher(), meter(5000, total_ns=10**9)
    watcher.take([sample(100, ("late@1", life))])
    for _ in range(20):
        life.answered(9_000, 40_000, 10 * MS)
    life.refusals.add(429, "exhausted")
    life.refusals.add(503, "unavailable")
    life.fallbacks, life.cache_hits, life.cache_misses = 4, 1, 3
    found = row(watcher.take([sample(102, ("late@1", life))]))

    assert (found.requests_per_s, found.refused_per_s, found.errors_per_s) == (11.0, 0.5, 0.5)
    assert found.p50_ms is not None
    assert 7 <= found.p50_ms <= 10
    assert found.guard_us is not None
    assert 7 <= found.guard_us <= 10
    assert (found.fallbacks_per_s, found.cache_hits) == (2.0, 0.25)
    assert (found.workers_wanted, found.batch_rows) == (0, None)


def anew(*, pid: int) -> Row:
    """A gateway's second process, which has already counted more than the first had."""
    watcher = Watcher()
    watcher.take([sample(2, ("late@1", meter(4)))])
    return row(watcher.take([sample(4, ("late@1", meter(40)), pid=pid)]))


def test_a_gateway_that_began_anew_counts_from_nothing() -> None:
    assert anew(pid=2).requests_per_s == 10.0


def test_were_a_new_process_taken_for_the_old_one_the_rate_would_be_noticed() -> None:
    with pytest.raises(AssertionError):
        assert anew(pid=1).requests_per_s == 10.0


def test_counters_that_fell_within_one_process_are_counted_from_nothing_too() -> None:
    watcher = Watcher()
    watcher.take([sample(100, ("late@1", meter(10, s429_exhausted=5)))])
    found = row(watcher.take([sample(102, ("late@1", meter(4, s429_exhausted=2)))]))

    assert (found.requests_per_s, found.refused_per_s) == (3.0, 1.0)


def test_without_a_newer_reading_the_last_interval_stays() -> None:
    watcher = Watcher()
    watcher.take([sample(100, ("late@1", meter(0)))])
    before = watcher.take([sample(101, ("late@1", meter(8)))])
    after = watcher.take([sample(101, ("late@1", meter(8)))])

    assert row(before) == row(after)
    assert row(after).requests_per_s == 8.0


def test_gateways_are_shown_apart_and_in_all_and_one_that_is_gone_is_left_out() -> None:
    watcher = Watcher()
    none = [sample(1, ("late@1", meter(0)), gateway=f"gateway-{n}", pid=n + 1) for n in range(2)]
    some = [
        sample(2, ("late@1", meter(30, total_ns=MS)), gateway="gateway-0", pid=1),
        sample(3, ("late@1", meter(20, total_ns=100 * MS)), gateway="gateway-1", pid=2),
    ]
    watcher.take(none)
    both = watcher.take(some)
    left = watcher.take(some[:1])

    assert both.whole
    assert [one.gateway for one in both.rows] == [ALL, "gateway-0", "gateway-1"]
    assert [one.requests_per_s for one in both.rows] == [40.0, 30.0, 10.0]
    p50, p99 = row(both).p50_ms, row(both).p99_ms
    assert p50 is not None
    assert p99 is not None
    assert p50 <= 1 < 70 <= p99
    assert [one.gateway for one in left.rows] == [ALL]


def test_versions_of_one_endpoint_are_one_row_under_the_live_one() -> None:
    watcher = Watcher()
    watcher.take([sample(1, ("late@1", meter(5)))])
    found = row(watcher.take([sample(2, ("late@1", meter(7)), ("late@2", meter(3)))]))

    assert (found.version, found.requests_per_s) == ("late@2", 5.0)


def lane(shed: int, *batches: int) -> LaneReading:
    sizes = Histogram(BATCH_ROWS)
    for rows in batches:
        sizes.observe(rows)
    return LaneReading(
        endpoints="late+slow", version="late@1", workers=1, wanted=2, waiting_rows=6, shed=shed, lost=0,
        batch_rows=sizes.reading(),
    )  # fmt: skip


def test_workers_are_shown_with_each_endpoint_that_they_work_for() -> None:
    watcher = Watcher()
    meters = ("late@1", meter()), ("slow@1", meter())
    watcher.take([sample(1, *meters, lanes=(lane(10, 8, 8),))])
    traffic = watcher.take([sample(3, *meters, lanes=(lane(16, 8, 8, 2, 4),))])

    for endpoint in ("late", "slow"):
        found = row(traffic, endpoint=endpoint)
        assert (found.batch_rows, found.shed_per_s, found.queue_rows) == (3.0, 3.0, 6)
        assert (found.workers, found.workers_wanted) == (1, 2)


def test_samples_survive_the_wire() -> None:
    one = sample(1, ("late@1", meter(3, s404_not_found=1)), lanes=(lane(1, 2),))
    wire = msgspec.json.decode(msgspec.json.encode({"gateways": [msgspec.to_builtins(one)]}))

    assert samples_of(wire) == (one,)
