"""Sealing on real databases: several processes' worth of writers, and nothing left of who was forgotten."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemClock, SystemRandom
from taut.ports.records import Records, transact
from taut.trust.envelope import metadata
from taut.trust.sealing import Sealer


def sealer_on(records: Records, folder: Path) -> Sealer:
    random = SystemRandom()
    return Sealer(records, FileKeys(folder / "keys", random=random), random, SystemClock())


def people(count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"who": [f"person{n}" for n in range(count)], "mail": [f"p{n}@example.org" for n in range(count)]}
    )


def test_many_people_are_sealed_unsealed_and_forgotten(open_records: Any, tmp_path: Path) -> None:
    records = open_records(metadata)
    sealer = sealer_on(records, tmp_path)
    frame = people(5000)  # more than fit one query
    with records.begin() as tx:
        sealed = sealer.seal(tx, dataset="d", frame=frame, subject="who", columns=["mail"])
    assert sealer.unseal(sealed, dataset="d", columns=["mail"], subject="who").frame.equals(frame)
    with records.begin() as tx:
        assert sealer.forget(tx, "person17")
        inside = sealer.unseal(sealed, dataset="d", columns=["mail"], tx=tx)
    after = sealer_on(open_records(metadata), tmp_path).unseal(sealed, dataset="d", columns=["mail"])
    assert (inside.forgotten, after.forgotten) == (1, 1)
    assert after.frame["mail"].is_null().arg_true().to_list() == [17]


def test_writers_who_meet_the_same_new_people_agree_on_their_keys(open_records: Any, tmp_path: Path) -> None:
    sealed: list[pl.DataFrame] = []
    failures: list[BaseException] = []
    stores = [open_records(metadata) for _ in range(4)]

    def ingest(records: Records) -> None:
        sealer = sealer_on(records, tmp_path)
        try:
            sealed.append(
                transact(
                    records,
                    lambda tx: sealer.seal(
                        tx, dataset="d", frame=people(50), subject="who", columns=["mail"]
                    ),
                    attempts=20,
                )
            )
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=ingest, args=(records,)) for records in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    together = sealer_on(stores[0], tmp_path).unseal(
        pl.concat(sealed), dataset="d", columns=["mail"], subject="who"
    )
    assert together.forgotten == 0
    assert together.frame["mail"].to_list() == people(50)["mail"].to_list() * 4


def test_a_key_that_was_made_in_a_transaction_that_failed_is_not_used(
    open_records: Any, tmp_path: Path
) -> None:
    records = open_records(metadata)
    sealer = sealer_on(records, tmp_path)

    def seal_and_fail() -> None:
        with records.begin() as tx:
            sealer.seal(tx, dataset="d", frame=people(3), subject="who", columns=["mail"])
            raise RuntimeError("later in the transaction")

    with pytest.raises(RuntimeError, match="later"):
        seal_and_fail()
    with records.begin() as tx:
        sealed = sealer.seal(tx, dataset="d", frame=people(3), subject="who", columns=["mail"])
    fresh = sealer_on(open_records(metadata), tmp_path)
    assert fresh.unseal(sealed, dataset="d", columns=["mail"], subject="who").frame.equals(people(3))


def test_no_file_of_the_installation_holds_a_forgotten_persons_key_or_name(tmp_path: Path) -> None:
    """SQLite after a checkpoint: neither the database nor its log keeps the wrapped key in free space."""
    from contextlib import closing

    from sqlalchemy import select, text

    from taut.adapters.records import open_sqlite
    from taut.testing.records import create_tables
    from taut.trust.envelope.tables import subject_keys

    with closing(open_sqlite(tmp_path / "taut.db")) as records:
        create_tables(records, metadata)
        sealer = sealer_on(records, tmp_path)
        with records.begin() as tx:
            sealer.seal(tx, dataset="d", frame=people(20), subject="who", columns=["mail"])
        with records.read() as tx:
            before = {bytes(wrapped) for wrapped in tx.execute(select(subject_keys.c.wrapped)).scalars()}
        for n in range(20):
            with records.begin() as tx:
                assert sealer.forget(tx, f"person{n}")
        with records.read() as tx:
            tx.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    image = b"".join(path.read_bytes() for path in tmp_path.glob("taut.db*"))
    assert len(before) == 20
    assert not any(wrapped in image for wrapped in before)
    assert b"person7" not in image
