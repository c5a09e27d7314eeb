"""When a schedule is due, over changes of clocks, leap years and what Vixie's cron means by day and weekday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.cron import Cron
from taut.core.errors import InvalidInput


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "now", "due"),
    [
        ("0 3 * * *", "2026-05-04T12:00", "2026-05-05T03:00"),
        ("*/15 9-17 * * 1-5", "2026-05-01T17:45", "2026-05-04T09:00"),  # over a weekend
        ("0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00"),
        ("30 6 1,15 * *", "2026-05-02T00:00", "2026-05-15T06:30"),
        ("0 0 13 * 5", "2026-05-09T00:00", "2026-05-13T00:00"),  # either of day and weekday, as Vixie's
        ("0 0 * * 7", "2026-05-04T00:00", "2026-05-10T00:00"),  # Sunday is 0 and 7
        ("5/20 0 1 1 *", "2026-01-01T00:05", "2026-01-01T00:25"),
    ],
)
def test_a_schedule_is_due_when_cron_says_so(schedule: str, now: str, due: str) -> None:
    assert Cron(schedule).next(at(now)) == at(due)
    assert Cron(schedule).last(at(due)) == at(due)


def test_the_change_of_clocks_neither_loses_a_time_nor_doubles_it() -> None:
    nightly = Cron("30 2 * * *", "Europe/Zurich")
    spring = [at("2026-03-28T01:30"), at("2026-03-29T01:30"), at("2026-03-30T00:30")]
    autumn = [at("2026-10-24T00:30"), at("2026-10-25T00:30"), at("2026-10-26T01:30")]
    for days in (spring, autumn):
        found = [days[0]]
        while found[-1] < days[-1]:
            following = nightly.next(found[-1])
            assert following is not None
            found.append(following)
        assert found == days


@given(st.integers(min_value=0, max_value=10 * 366 * 86_400))
def test_the_last_time_is_the_one_after_which_the_next_one_comes_later_than_now(seconds: int) -> None:
    here = at("2020-01-01T00:00") + timedelta(seconds=seconds)
    schedule = Cron("7 */5 * * 2", "America/New_York")
    last, following = schedule.last(here), schedule.next(here)
    assert last is not None
    assert following is not None
    assert last <= here < following
    assert schedule.next(last) == following
    assert following - last <= timedelta(days=8)


@pytest.mark.parametrize("schedule", ["0 0 31 2 *", "0 0 * *", "60 * * * *", "0 24 * * *", "a * * * *", "1-0 * * * *", "*/0 * * * *", "² * * * *"])  # fmt: skip
def test_what_is_no_schedule_or_never_due_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidInput, match="cron"):
        Cron(schedule)


def test_a_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Middle/Earth"):
        Cron("0 0 * * *", "Middle/Earth")
