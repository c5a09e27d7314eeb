"""The world in which an engine of stories is tried: a store, a clock, effects to count, and ways to die."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select

from taut.core.errors import (
    TautError,
)
from taut.ports.records import Records, Tx
from taut.ports.stories import Json, Stories, Story, StoryTable
from taut.testing.world import ManualClock

metadata = MetaData()
effects: Final = Table(
    "conformance_effects", metadata, Column("id", Integer, primary_key=True), Column("what", String(64))
)
"""Where the suite's stories leave their effects; the world makes this table."""

LEASE_S: Final = 30.0
"""The lease with which a world opens its engines."""


class Killed(BaseException):
    """The death of a process, as far as one thread can die: nothing of the engine may clean up after it."""


class World(msgspec.Struct, frozen=True):
    """A store and a clock on which engines can be opened; each opening is another process as far as it can tell."""

    records: Records
    clock: ManualClock
    open: Callable[[StoryTable], Stories]

    def leave(self, what: str) -> Callable[[Tx], Json]:
        """Return an effect for a `commit`: one more row, whose count it returns."""

        def do(tx: Tx) -> Json:
            tx.execute(insert(effects).values(what=what))
            return tx.execute(select(func.count()).where(effects.c.what == what)).scalar_one()

        return do

    def left(self) -> dict[str, int]:
        """Return how often each effect was left."""
        with self.records.read() as tx:
            rows = tx.execute(select(effects.c.what, func.count().label("n")).group_by(effects.c.what))
            return {row.what: row.n for row in rows}


def failure(call: Callable[[], Any]) -> TautError:
    """Return the error that `call` raises."""
    with pytest.raises(TautError) as caught:
        call()
    return caught.value


class Rollback(Exception):
    pass


def nothing(_story: Story, _: Json) -> Json:
    return None


def once(error: BaseException) -> Callable[[], None]:
    """Return a function that raises `error` the first time that it is called."""
    left = [error]

    def do() -> None:
        if left:
            raise left.pop()

    return do


def tale(calls: list[str], die: Callable[[], None] = lambda: None) -> Callable[[Story, Json], Json]:
    def tell(story: Story, _: Json) -> Json:
        results = []
        for call in calls:
            if call.startswith("wait:"):
                results.append(story.wait(call.removeprefix("wait:")))
            elif call == "die":
                results.append(story.step(call, die))
            else:
                results.append(story.step(call, lambda call=call: call))  # type: ignore[misc]  # binds the loop's value
        return results

    return tell


def start_and_die(stories: Stories, name: str) -> str:
    """Start a story in an engine and let that engine's process die on it."""
    id_ = stories.start(name, {}, key=f"die-{name}")
    with pytest.raises(Killed):
        stories.work(until_idle=True)
    return id_


def take_over(world: World, table: StoryTable) -> Stories:
    world.clock.advance(LEASE_S + 1)
    stories = world.open(table)
    stories.work(until_idle=True)
    return stories


def run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not any(thread.is_alive() for thread in threads)


def unended(stories: Stories, world: World) -> str:
    """Return the id of a story that has not ended."""
    with world.records.begin() as tx:
        return stories.start_in(tx, "tell", {}, key="unended")
