"""The journal of stories, on Records in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taut.adapters.stories import JournalStories
from taut.adapters.stories import metadata as story_tables
from taut.ports.records import Records
from taut.ports.stories import Stories, StoryTable
from taut.testing.conformance import stories as suite
from taut.testing.conformance.stories import LEASE_S, World
from taut.testing.world import ManualClock, SeededRandom, SequenceIds


@pytest.fixture
def world(open_records: Callable[..., Records]) -> World:
    records = open_records(story_tables, suite.metadata)
    clock, ids, random = ManualClock(), SequenceIds(), SeededRandom(1)

    def open_(table: StoryTable) -> Stories:
        return JournalStories(
            records, table, clock=clock, ids=ids, random=random, lease_s=LEASE_S, poll_s=0.05
        )

    return World(records, clock, open_)


class TestJournalStories(suite.StoriesConformance):
    @pytest.fixture
    def world(self, world: World) -> World:  # type: ignore[override]  # pytest looks the outer fixture up by this name
        return world
