"""Many writers and many sequencers on real databases: one log without a gap, nothing lost, nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Column, MetaData, String, Table, insert, select

from taut.adapters.keys.file import FileKeys
from taut.adapters.records import open_postgres
from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.ports.records import Records, Tx, transact
from taut.testing.records import create_tables
from taut.trust.ledger import DirectoryCopy, Entry, Ledger, metadata, proof_as_json, verify_proof
from taut.trust.ledger import tables as t
from taut.trust.ledger.store import select_leaves

OpenRecords = Callable[..., Records]

EFFECTS = MetaData()
effects = Table("effects", EFFECTS, Column("id", String(64), primary_key=True), Column("value", BigInteger))


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys(tmp_path / "keys", random=SystemRandom())


def make(records: Records, keys: FileKeys, copy: Path, *, leaves_max: int = 64) -> Ledger:
    return Ledger(
        records, keys, SystemClock(), SystemIds(), origin="example.org/taut",
        copies=[DirectoryCopy(copy)], leaves_max=leaves_max,
    )  # fmt: skip


def in_parallel(*work: Callable[[], object]) -> None:
    start = threading.Barrier(len(work))

    def begin_together(do: Callable[[], object]) -> None:
        start.wait(timeout=90)
        do()

    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(begin_together, do) for do in work]:
            done.result(timeout=90)


def test_concurrent_writers_and_sequencers_leave_one_log_without_a_gap(
    open_records: OpenRecords, keys: FileKeys, tmp_path: Path
) -> None:
    """Each writer's effect and leaf, single or in a group, sequencers of two 'processes', signing meanwhile."""
    one, two = open_records(metadata, EFFECTS), open_records(metadata, EFFECTS)
    ledgers = [make(one, keys, tmp_path / "copy"), make(two, keys, tmp_path / "copy")]
    stores, rounds, group = [one, two], 8, 12
    writing = threading.Event()
    writing.set()

    def write(number: int) -> None:
        ledger, records = ledgers[number % 2], stores[number % 2]
        for turn in range(rounds):
            names = [f"e{number}.{turn}.{item}" for item in range(group if turn % 2 else 1)]

            def effect(tx: Tx, names: list[str] = names) -> None:
                tx.execute(insert(effects), [{"id": name, "value": 1} for name in names])
                if len(names) == 1:
                    ledger.append(tx, Entry("effect.made", f"run:{names[0]}", "owner"))
                else:
                    ledger.append_many(tx, [Entry("effect.made", f"run:{name}", "owner") for name in names])

            transact(records, effect, attempts=50)

    def sequence(number: int) -> None:
        while writing.is_set():
            ledgers[number % 2].sequence()

    def write_all() -> None:
        try:
            in_parallel(*[lambda number=number: write(number) for number in range(8)])
        finally:
            writing.clear()

    in_parallel(write_all, lambda: sequence(0), lambda: sequence(1), lambda: sequence(0))
    checkpoint = ledgers[0].checkpoint()

    total = 8 * rounds // 2 * (1 + group)
    with one.read() as tx:
        places = sorted(row.seq for row in tx.execute(select_leaves()))
        logged = set(tx.execute(select(t.leaves.c.subject)).scalars())
        made = {f"run:{name}" for name in tx.execute(select(effects.c.id)).scalars()}
    assert places == list(range(total))
    assert logged == made
    assert checkpoint.size == total
    report = ledgers[1].verify()
    assert report.ok, report.faults


def test_concurrent_signers_agree_on_one_note_a_size(
    open_records: OpenRecords, keys: FileKeys, tmp_path: Path
) -> None:
    records = open_records(metadata)
    ledgers = [make(open_records(), keys, tmp_path / "copy") for _ in range(4)]
    made = []
    for turn in range(3):
        with records.begin() as tx:
            ledgers[0].append(tx, Entry("a.b", f"run:r{turn}", "owner"))
        in_parallel(*[lambda ledger=ledger: made.append(ledger.checkpoint()) for ledger in ledgers])

    assert len({checkpoint.note for checkpoint in made if checkpoint.size == 3}) == 1
    assert ledgers[0].verify().ok


def test_an_uncommitted_leaf_is_left_for_the_next_group_and_never_skipped(
    postgres_url: str, keys: FileKeys, tmp_path: Path
) -> None:
    """The slow transaction takes its id first and commits last: a high-water mark would skip it.

    On PostgreSQL only: SQLite has one writer, so nobody can commit while a slow transaction is open.
    """
    records = open_postgres(postgres_url)
    create_tables(records, metadata)
    ledger = make(records, keys, tmp_path / "copy")
    try:
        with records.begin() as slow:
            late = ledger.append(slow, Entry("a.b", "run:late", "owner"))
            transact(records, lambda tx: ledger.append(tx, Entry("a.b", "run:early", "owner")))
            assert ledger.sequence() == 1

        assert ledger.sequence() == 1
        proof = proof_as_json(ledger.prove(late))
        assert verify_proof(proof, keys.public_keys(purpose="ledger")[0].pem).seq == 1
        assert ledger.verify().ok
    finally:
        records.close()


def test_the_face_behaves_alike_on_every_database(
    open_records: OpenRecords, keys: FileKeys, tmp_path: Path
) -> None:
    records = open_records(metadata)
    ledger = make(records, keys, tmp_path / "copy", leaves_max=300)
    with records.begin() as tx:
        ledger.append_many(
            tx, [Entry("a.b", f"snapshot:flüge@{n}", "zoë", {"n": n, "x": 0.5}) for n in range(700)]
        )
        single = ledger.append(tx, Entry("verdict.data", "batch:b", "owner", {}, {"why": "…"}))
    checkpoint = ledger.checkpoint()

    assert checkpoint.size == 701
    assert ledger.get(single).details == {"why": "…"}
    assert [leaf.seq for leaf in ledger.show(kind="verdict.")] == [700]
    assert ledger.prove("snapshot:flüge@650").index == 650
    assert len(ledger.resource("tile/0/001")) == 8192
    with records.begin() as tx:
        assert ledger.erase_details(tx, single)
    report = ledger.verify()
    assert report.ok, report.faults
    with records.begin() as tx:
        tx.execute(t.leaves.update().where(t.leaves.c.number == 400).values(body="{}"))
    assert [(fault.kind, fault.seq) for fault in ledger.verify().faults] == [("leaf_changed", 400)]
