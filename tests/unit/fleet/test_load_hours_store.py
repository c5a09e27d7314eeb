"""What hours taught outlives the process that learned it."""

from __future__ import annotations

from taut.fleet.scaling import HourStore, LoadHours, metadata
from taut.testing.records import memory_records

HOUR_S, WEEK_S = 3600.0, 7 * 86_400.0


def learned(begin_s: float, load: float, into: LoadHours) -> LoadHours:
    for minute in range(61):
        into.learn(begin_s + 60 * minute, {"cpu": load}, replicas=2)
    return into


def test_hours_are_kept_by_pool_and_again_in_their_own_places() -> None:
    records = memory_records(metadata)
    store = HourStore(records)
    for week, load in enumerate((3.0, 4.0, 5.0)):
        hours = store.recall("gateway")
        learned(week * WEEK_S, load, hours)
        store.keep("gateway", hours)
        store.keep("gateway", hours)
    store.keep("gateway", LoadHours())

    found = store.recall("gateway")
    assert found.usual(3 * WEEK_S, "cpu") == 4.0
    assert found.spent_s(2 * WEEK_S) == 7200.0
    assert store.recall("another").usual(3 * WEEK_S, "cpu") is None
    records.close()


def test_what_is_older_than_five_weeks_is_forgotten() -> None:
    records = memory_records(metadata)
    store = HourStore(records)
    store.keep("gateway", learned(0.0, 1.0, LoadHours()))
    store.keep("gateway", learned(6 * WEEK_S, 1.0, store.recall("gateway")))

    assert store.recall("gateway").spent_s(0.0) == 0.0
    records.close()
