"""Meters: bucket edges as Prometheus wants them, quantiles within a bucket, versions that come and go, other layouts."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.serving.meters import (
    BATCH_ROWS,
    LAYOUT,
    TIME_NS,
    EndpointMeter,
    Histogram,
    MeterReading,
    Meters,
    decode_reading,
    encode_reading,
    quantile,
    read_lanes,
)
from taut.serving.workers import Rota

Observe = Callable[[Histogram, int], None]


def at_most(bounds: tuple[int, ...], values: list[int]) -> tuple[int, ...]:
    """What a cumulative histogram says, counted the slow way."""
    return (*(sum(value <= bound for value in values) for bound in bounds), len(values))


def check_edges(observe: Observe) -> None:
    histogram = Histogram(TIME_NS)
    values = [edge + by for edge in TIME_NS for by in (-1, 0, 1)] + [0, 10**12]
    for value in values:
        observe(histogram, value)
    assert histogram.reading().cumulative() == at_most(TIME_NS, values)
    assert histogram.total == sum(values)


def test_a_value_on_a_bound_belongs_to_the_bucket_that_ends_there() -> None:
    check_edges(Histogram.observe)


def test_a_bisection_on_the_wrong_side_is_noticed() -> None:
    def planted(histogram: Histogram, value: int) -> None:
        histogram.counts[bisect_right(histogram.bounds, value)] += 1
        histogram.total += value

    with pytest.raises(AssertionError):
        check_edges(planted)


@given(st.lists(st.integers(0, 10**11), max_size=50))
def test_an_answer_counts_in_guard_model_and_total_as_three_observations_would(values: list[int]) -> None:
    meter = EndpointMeter()
    for value in values:
        meter.answered(value, 2 * value, 3 * value)
    for stage, times in (("guard", 1), ("model", 2), ("total", 3)):
        reading = getattr(meter, stage).reading()
        asked = values if stage != "model" else [value for value in values if value]
        assert reading.cumulative() == at_most(TIME_NS, [times * value for value in asked])
        assert reading.total == times * sum(values)


@given(st.lists(st.integers(0, 7 * 10**10), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[int], q: float) -> None:
    histogram = Histogram(TIME_NS)
    for value in values:
        histogram.observe(value)
    found = quantile(TIME_NS, histogram.counts, q)
    true = sorted(values)[max(0, -(-int(q * 1000) * len(values) // 1000) - 1)]
    above = next(bound for bound in TIME_NS if bound >= true)
    below = max((bound for bound in TIME_NS if bound < above), default=0)

    assert found is not None
    assert below <= found <= above


def test_a_quantile_of_nothing_is_none_and_beyond_the_bounds_it_is_the_highest() -> None:
    assert quantile(TIME_NS, [0] * (len(TIME_NS) + 1), 0.5) is None
    beyond = Histogram(TIME_NS)
    beyond.observe(10**13)
    assert quantile(TIME_NS, beyond.counts, 0.5) == TIME_NS[-1]


def test_values_are_taken_as_evenly_spread_within_their_bucket() -> None:
    histogram = Histogram((10, 20))
    for value in (11, 12, 13, 14):
        histogram.observe(value)
    assert quantile((10, 20), histogram.counts, 0.5) == 15.0
    assert quantile((10, 20), histogram.counts, 1.0) == 20.0


def test_bounds_rise_and_the_times_span_a_microsecond_to_more_than_a_minute() -> None:
    for bounds in (TIME_NS, BATCH_ROWS):
        assert list(bounds) == sorted(set(bounds))
    assert TIME_NS[0] == 1000
    assert TIME_NS[-1] >= 60 * 10**9


def test_a_version_that_comes_back_counts_on_and_the_live_one_is_the_last() -> None:
    meters = Meters()
    first = meters.of("late", "late@1")
    first.answered(1, 2, 3)
    meters.of("late", "late@2").answered(1, 2, 3)
    assert meters.of("late", "late@1") is first

    assert [(one.version, one.stages["total"].count) for one in meters.reading()] == [
        ("late@2", 1),
        ("late@1", 1),
    ]


def test_a_reading_is_taken_anew_whenever_anything_was_counted() -> None:
    meter = EndpointMeter()
    counts: list[Callable[[], object]] = [
        lambda: meter.answered(1000, 0, 1000), lambda: meter.answered(1000, 5, 1000), lambda: meter.queue.observe(1),
        lambda: meter.features.observe(1), lambda: meter.refusals.add(429, "exhausted"),
        lambda: setattr(meter, "cache_hits", 1), lambda: setattr(meter, "cache_misses", 1),
        lambda: setattr(meter, "fallbacks", 1),
    ]  # fmt: skip
    before = meter.reading("late", "late@1")
    for count in counts:
        assert meter.reading("late", "late@1") is before
        count()
        after = meter.reading("late", "late@1")
        assert after != before
        before = after


def test_old_versions_and_endpoints_that_are_gone_are_forgotten() -> None:
    meters = Meters()
    for number in range(100):
        meters.of("late", f"late@{number}")
    meters.of("other", "other@1")
    meters.keep({"late"})

    assert [one.version for one in meters.reading()] == [f"late@{number}" for number in range(92, 100)]


def test_a_reading_survives_the_wire_and_one_of_another_layout_is_none() -> None:
    meters = Meters()
    meter = meters.of("late", "late@1")
    meter.answered(random.Random(7).randrange(10**9), 5, 9)
    meter.refusals.add(429, "exhausted")
    reading = MeterReading(
        layout=LAYOUT, started_us=1, up_us=2, in_flight=3, slots=4, endpoints=meters.reading(),
        outside=meter.refusals.reading(),
    )  # fmt: skip

    assert decode_reading(encode_reading(reading)) == reading
    assert decode_reading(msgspec.Raw(b"null")) is None
    assert decode_reading(encode_reading(msgspec.structs.replace(reading, layout=LAYOUT + 1))) is None
    assert decode_reading(msgspec.Raw(b'{"layout": %d, "wholly": "other"}' % LAYOUT)) is None


class FakeLane:
    name, shed, lost, alive, wanted, waiting_rows, spares, held_s = "late@1", 1, 2, 3, 4, 5, 1, 0.0

    def __init__(self) -> None:
        self.sizes, self.rota = Histogram(BATCH_ROWS), Rota()


def test_workers_that_two_endpoints_share_are_read_once() -> None:
    shared, own = FakeLane(), FakeLane()
    found = read_lanes([("a", shared), ("b", shared), ("b", own), ("b", shared)])

    assert [(one.endpoints, one.workers, one.wanted, one.waiting_rows) for one in found] == [
        ("a+b", 3, 4, 5), ("b", 3, 4, 5),
    ]  # fmt: skip
