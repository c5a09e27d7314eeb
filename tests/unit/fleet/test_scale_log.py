"""The scale log: signed, without a gap, on record before anything exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, Denied, InvalidInput
from taut.fleet.log import ScaleEvent, ScaleLog, metadata
from taut.fleet.log.tables import events
from taut.ports.records import Tx, transact
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def records() -> Iterator[MemoryRecords]:
    store = memory_records(ledger_tables, metadata)
    yield store
    store.close()


def open_log(records: MemoryRecords, keys: FileKeys) -> tuple[ScaleLog, Ledger]:
    clock, ids = ManualClock(), SequenceIds()
    ledger = Ledger(records, keys, clock, ids, origin="example.org/taut")
    return ScaleLog(records=records, ledger=ledger, keys=keys, clock=clock, ids=ids), ledger


def say(records: MemoryRecords, log: ScaleLog, n: int) -> ScaleEvent:
    return transact(records, lambda tx: log.append(tx, pool="model", n=n, reason="load", actor="autoscaler"))


def test_events_have_places_without_a_gap_and_a_leaf_each(records: MemoryRecords, keys: FileKeys) -> None:
    log, ledger = open_log(records, keys)

    said = [say(records, log, n) for n in (2, 20, 2)]

    assert [event.seq for event in said] == [1, 2, 3]
    assert log.read(after=0) == tuple(said)
    assert log.read(after=1, limit=1) == (said[1],)
    assert {leaf.subject for leaf in ledger.show(kind="fleet.scale-intended")} == {e.scale_id for e in said}


def test_an_event_that_was_not_committed_is_not_there(records: MemoryRecords, keys: FileKeys) -> None:
    log, ledger = open_log(records, keys)

    def crash(tx: Tx) -> None:
        log.append(tx, pool="model", n=2, reason="load", actor="autoscaler")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        transact(records, crash)

    assert log.read(after=0) == ()
    assert ledger.show() == ()
    assert say(records, log, 3).seq == 1


def test_a_removed_event_is_seen(records: MemoryRecords, keys: FileKeys) -> None:
    log, _ = open_log(records, keys)
    for n in (2, 20, 2):
        say(records, log, n)

    with records.begin() as tx:
        tx.execute(delete(events).where(events.c.seq == 2))

    with pytest.raises(Corrupt, match="where 2 belongs"):
        log.read(after=0)


def test_an_event_moved_to_another_place_is_seen(records: MemoryRecords, keys: FileKeys) -> None:
    log, _ = open_log(records, keys)
    for n in (2, 20):
        say(records, log, n)

    with records.begin() as tx:
        tx.execute(delete(events).where(events.c.seq == 1))
        tx.execute(update(events).where(events.c.seq == 2).values(seq=1))

    with pytest.raises(Corrupt, match="has event 2 in row 1"):
        log.read(after=0)


def test_an_event_by_another_key_is_refused(records: MemoryRecords, keys: FileKeys, tmp_path: Path) -> None:
    log, _ = open_log(records, FileKeys(tmp_path / "stranger", random=SystemRandom()))
    say(records, log, 9)

    with pytest.raises(Denied, match="no trusted key"):
        open_log(records, keys)[0].read(after=0)


@pytest.mark.parametrize("n", [-1, 10_001])
def test_a_number_out_of_range_is_refused(records: MemoryRecords, keys: FileKeys, n: int) -> None:
    log, _ = open_log(records, keys)

    with pytest.raises(InvalidInput, match="0 to 10000 replicas"):
        say(records, log, n)
