"""A tale with every kind of call, and edges at which the process that tells it can be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Column, Integer, MetaData, String, Table, event, insert, select

from taut.adapters.records import open_postgres, open_sqlite
from taut.adapters.records.sql import SqlRecords
from taut.adapters.stories import JournalStories
from taut.adapters.stories import metadata as story_tables
from taut.adapters.world import SystemIds
from taut.ports.records import Tx
from taut.ports.stories import Json, Story, StoryTable
from taut.testing.records import create_tables
from taut.testing.world import ManualClock, SeededRandom

START = datetime(2026, 1, 1, tzinfo=UTC)
metadata = MetaData()
effects = Table(
    "crash_effects", metadata, Column("id", Integer, primary_key=True), Column("what", String(40))
)
WANTED = {"reserve": 1, "child 0": 1, "child 1": 1, "pay": 1}
RESULT = {"answers": [0, 10], "timed_out": True}


def tales(edge: Callable[[str], None]) -> Callable[[], StoryTable]:
    """Return the stories; `edge` is called where a process may die inside their own code."""

    def leave(what: str) -> Callable[[Tx], Json]:
        def do(tx: Tx) -> Json:
            edge(f"in {what}")
            tx.execute(insert(effects).values(what=what))
            edge(f"after {what}")
            return what

        return do

    def parent(story: Story, arguments: Json) -> Json:
        story.step("prepare", lambda: edge("prepare"))
        story.commit("reserve", leave("reserve"))
        for n in range(arguments["children"]):
            story.fork(f"child {n}", "child", {"parent": story.id, "n": n})
        answers = [story.wait(f"child {n}") for n in range(arguments["children"])]
        late = story.wait("nobody", timeout=timedelta(seconds=1))
        story.commit("pay", leave("pay"))
        return {"answers": answers, "timed_out": late is None}

    def table() -> StoryTable:
        def child(story: Story, arguments: Json) -> Json:
            n = arguments["n"]

            def answer(tx: Tx) -> Json:
                leave(f"child {n}")(tx)
                engines[0].signal_in(tx, arguments["parent"], f"child {n}", n * 10)

            story.commit("answer", answer)

        return {"parent": parent, "child": child}

    engines: list[JournalStories] = []
    table.engines = engines  # type: ignore[attr-defined]  # the engine is made from the table that needs it
    return table


def engine(
    records: SqlRecords, clock: ManualClock, edge: Callable[[str], None], *, seed: int
) -> JournalStories:
    make = tales(edge)
    stories = JournalStories(
        records, make(), clock=clock, ids=SystemIds(), random=SeededRandom(seed), lease_s=30, poll_s=0.01
    )
    make.engines.append(stories)  # type: ignore[attr-defined]
    return stories


def open_store(url: str) -> SqlRecords:
    from pathlib import Path

    return open_postgres(url) if "://" in url else open_sqlite(Path(url))


def prepare(url: str) -> None:
    records = open_store(url)
    create_tables(records, story_tables, metadata)
    records.close()


class Edges:
    """Counts the edges that a process passes, and kills it with SIGKILL at the one that is asked for."""

    def __init__(self, kill_at: int) -> None:
        self.passed = 0
        self._kill_at = kill_at

    def __call__(self, _where: str) -> None:
        self.passed += 1
        if self.passed == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, records: SqlRecords) -> None:
        """Make an edge before and after every statement and every commit."""
        real_begin = records.begin
        for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
            event.listen(records.engines().writer, name, lambda *_: self("statement"))

        @contextmanager
        def begin() -> Iterator[Tx]:
            self("before")
            with real_begin() as tx:
                yield tx
            self("after commit")

        records.begin = begin  # type: ignore[method-assign]  # this very object, in a process that is to die


def run_until_killed(url: str, kill_at: int, acknowledge: Callable[[str], None]) -> int:
    """Tell the tale in this process; return the number of edges where it lives to the end."""
    edges = Edges(kill_at)
    records = open_store(url)
    edges.watch(records)
    clock = ManualClock(START)
    stories = engine(records, clock, edges, seed=kill_at)
    id_ = stories.start("parent", {"children": 2}, key="the tale")
    acknowledge(id_)
    finish(stories, clock, id_)
    records.close()
    return edges.passed


def finish(stories: JournalStories, clock: ManualClock, id_: str) -> Json:
    """Work until the tale has ended, letting time pass where it waits."""
    for _ in range(50):
        stories.work(until_idle=True)
        if stories.status(id_).state in ("done", "failed", "stranded"):
            return stories.result(id_)
        clock.advance(31)
    raise AssertionError(f"the tale does not end: {stories.status(id_)}")


def recover(url: str) -> tuple[str | None, Json, dict[str, int]]:
    """Be the next process: return the tale's id, its result and the effects that were left."""
    records = open_store(url)
    clock = ManualClock(START + timedelta(hours=1))
    stories = engine(records, clock, lambda _: None, seed=0)
    try:
        known = stories.list()
        tale = next((status.id for status in known if status.name == "parent"), None)
        result = None if tale is None else finish(stories, clock, tale)
        with records.read() as tx:
            left = tx.execute(select(effects.c.what)).scalars().all()
        assert all(status.state == "done" for status in stories.list())
        return tale, result, {what: left.count(what) for what in left}
    finally:
        records.close()
