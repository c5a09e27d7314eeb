"""Ids of requests: made in bulk, and yet each as `Ids` would have written it."""

from __future__ import annotations

from datetime import UTC, datetime

from taut.adapters.world import SystemIds, SystemRandom
from taut.serving.gateway.ids import RequestIds

AT_US = 1_795_305_600_000_000


class At:
    def __init__(self, us: int) -> None:
        self.us = us

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.us / 1e6, tz=UTC)


def test_an_id_begins_with_its_time_as_ids_write_it_whatever_was_asked_before() -> None:
    ids = RequestIds(SystemRandom())

    for later_ms in (0, 1, 31, 32, 1023, 1024, 1025, 40_000, 7, 10**9, 3 * 10**12):
        us = AT_US + later_ms * 1000
        made, written = ids.next(us), SystemIds(At(us)).new("req")
        assert made[:14] == written[:14]
        assert len(made) == len(written)


def test_ids_sort_by_their_time_and_none_comes_twice() -> None:
    ids = RequestIds(SystemRandom())
    made = [ids.next(AT_US + at * 500_000) for at in range(1000)]

    assert len(set(made)) == 1000
    assert [one[:14] for one in made] == sorted(one[:14] for one in made)
