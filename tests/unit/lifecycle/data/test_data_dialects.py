"""The same room on SQLite and on PostgreSQL, with writers at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from data_room import HEADER, METADATAS, Room, people

from taut.adapters.tables.parquet import ParquetTables
from taut.core.refs import VersionRef
from taut.lifecycle.data import IngestResult
from taut.ports.records import Records

WRITERS = 5


def test_writers_at_once_repairs_and_rollbacks_hold_on_each_database(
    tmp_path: Path, open_records: Callable[..., Records]
) -> None:
    room = Room(tmp_path, records=open_records(*METADATAS))
    spec = people(unique=(("id",),))
    for n in range(WRITERS):
        room.write(f"{n}.csv", HEADER + f"{n * 10 + 1},p,1,\n1000,shared,1,\nx,bad,1,\n{n * 10 + 2},p,1,\n")
    results: list[IngestResult] = []
    errors: list[BaseException] = []

    def one(n: int) -> None:
        try:
            results.append(room.ingest(spec, source=f"{n}.csv"))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors, errors
    assert sum(r.rules.get("id:unique", 0) for r in results) == WRITERS - 1, (
        "the shared key is in one batch only"
    )
    frame = room.rows(f"people@{WRITERS}")
    assert frame.height == 2 * WRITERS + 1
    assert frame["_row_id"].n_unique() == frame.height
    assert frame["id"].n_unique() == frame.height
    open_ = room.data.quarantine("people")
    assert len(open_) == 2 * WRITERS - 1
    repaired = next(record for record in open_ if record.rules == ("id:type",))
    room.data.repair(spec, repaired.id, {"id": 777}, actor="bob")
    assert room.data.replay(spec, actor="bob").rows == 1
    assert room.data.rollback("people", 1, actor="bob").number == WRITERS + 2
    assert room.data.diff(VersionRef("people", 1), VersionRef("people", WRITERS + 2)).rows_kept >= 2
    assert room.ledger.sequence() == WRITERS + 3
    assert room.ledger.verify().ok
    room.close()


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_may_be_opened_again_by_another_process(
    tmp_path: Path, open_records: Callable[..., Records], rows: int
) -> None:
    room = Room(tmp_path, records=open_records(*METADATAS))
    room.write("a.csv", HEADER + "1,a,1,\n" * rows)
    result = room.ingest(people(min_rows=0))
    room.close()

    again = Room(tmp_path, records=open_records(*METADATAS))

    assert result.rows == rows
    assert again.rows("people@1").height == rows
    assert again.ingest(people(min_rows=0)).unchanged
    assert isinstance(again.tables, ParquetTables)
    again.close()
