"""What every Records adapter must do. Subclass in a test module and give the fixture `records`."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import pytest
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from taut.core.errors import Conflict, InvalidInput
from taut.ports.records import Records, Tx, insert_late, insert_many, transact

metadata = MetaData()
"""The tables of the suite; make them before a test."""

things: Final = Table(
    "conformance_things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(40), unique=True),
    Column("body", Text),
    Column("big", BigInteger),
    Column("real", Float),
    Column("yes", Boolean),
    Column("raw", LargeBinary),
)
parts: Final = Table(
    "conformance_parts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("thing_id", Integer, ForeignKey("conformance_things.id"), nullable=False),
)


class RecordsConformance:
    """The promises of `taut.ports.records.Records` that one thread can try."""

    @pytest.fixture
    def records(self) -> Records:
        pytest.fail("a subclass gives the adapter")

    def test_what_was_committed_is_read_and_what_raised_is_not(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="kept"))
        with suppress(_Stop), records.begin() as tx:
            tx.execute(insert(things).values(id=2, name="lost"))
            tx.execute(delete(things).where(things.c.id == 1))
            raise _Stop

        assert names(records) == ["kept"]

    def test_values_come_back_as_they_were(self, records: Records) -> None:
        row = {
            "id": 7, "name": "é\U0001f600", "body": "x" * 100_000, "big": 2**62, "real": 0.1, "yes": True,
            "raw": bytes(range(256)),
        }  # fmt: skip
        empty = {"id": 8, "name": None, "body": "", "big": -(2**62), "real": -1e300, "yes": False, "raw": b""}
        with records.begin() as tx:
            tx.execute(insert(things), [row, empty])
        with records.read() as tx:
            found = [dict(found) for found in tx.execute(select(things).order_by(things.c.id)).mappings()]

        assert found == [row, empty]
        assert [type(found[0][name]) for name in ("yes", "real", "big", "raw")] == [bool, float, int, bytes]

    @pytest.mark.parametrize("count", [0, 1, 5, 1000])
    def test_many_rows_at_once_are_the_rows_given(self, records: Records, count: int) -> None:
        texts = ("", "\\N", "a\tb\nc\rd\\e", "\\.", "é\U0001f600", '"quoted", {braced}', "%s ? :name", None)
        rows: list[tuple[str | int | float | bool | bytes | None, ...]] = [
            (texts[number % len(texts)], number, 2**62 - number, number / 7, number % 2 == 0, b"\x00\\\n\xff")
            for number in range(count)
        ]
        with records.begin() as tx:
            insert_many(tx, things, ("body", "id", "big", "real", "yes", "raw"), rows)
        with records.read() as tx:
            columns = [things.c[name] for name in ("body", "id", "big", "real", "yes", "raw")]
            found = tx.execute(select(*columns).order_by(things.c.id)).all()

        assert [tuple(row) for row in found] == rows

    def test_many_rows_of_which_one_breaks_a_constraint_are_a_conflict_and_write_nothing(
        self, records: Records
    ) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=77, name="first"))
        with pytest.raises(Conflict), records.begin() as tx:
            insert_many(tx, things, ("id", "name"), [(number, f"n{number}") for number in range(100)])

        assert names(records) == ["first"]

    def test_a_late_row_is_there_when_its_transaction_is_and_only_then(self, records: Records) -> None:
        with records.begin() as tx:
            insert_late(tx, things, ("id", "name", "yes", "raw"), (1, "kept", True, b"\x00"))
            insert_late(tx, things, ("id", "name"), (2, None))
        with suppress(_Stop), records.begin() as tx:
            insert_late(tx, things, ("id", "name"), (3, "lost"))
            raise _Stop

        with records.read() as tx:
            found = tx.execute(
                select(things.c.id, things.c.name, things.c.yes, things.c.raw).order_by(things.c.id)
            )
            assert [tuple(row) for row in found] == [(1, "kept", True, b"\x00"), (2, None, None, None)]

    def test_a_late_row_of_a_savepoint_goes_with_it(self, records: Records) -> None:
        with records.begin() as tx:
            insert_late(tx, things, ("id", "name"), (1, "before"))
            with suppress(_Stop), tx.begin_nested():
                insert_late(tx, things, ("id", "name"), (2, "inner"))
                raise _Stop
            with tx.begin_nested():
                insert_late(tx, things, ("id", "name"), (3, "other"))
            insert_late(tx, things, ("id", "name"), (4, "after"))

        assert names(records) == ["after", "before", "other"]

    def test_a_late_row_that_breaks_a_constraint_is_a_conflict_and_undoes_all(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="first"))
        for _ in range(2):  # the connection is as good as before
            with pytest.raises(Conflict), records.begin() as tx:  # noqa: PT012 - both are one transaction
                tx.execute(insert(things).values(id=2, name="with it"))
                insert_late(tx, things, ("id", "name"), (3, "first"))
        with records.begin() as tx:
            insert_late(tx, things, ("id", "name"), (3, "fine"))

        assert names(records) == ["fine", "first"]

    def test_a_write_in_a_reading_transaction_is_refused_and_does_no_harm(self, records: Records) -> None:
        with pytest.raises(InvalidInput, match="read-only"), records.read() as tx:
            tx.execute(insert(things).values(id=1))
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="later"))

        assert names(records) == ["later"]

    @pytest.mark.parametrize("broken", ["key", "unique", "reference"])
    def test_a_broken_constraint_is_a_conflict_and_writes_nothing(
        self, records: Records, broken: str
    ) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="first"))
        statement = {
            "key": insert(things).values(id=1, name="second"),
            "unique": insert(things).values(id=2, name="first"),
            "reference": insert(parts).values(id=1, thing_id=99),
        }[broken]
        with pytest.raises(Conflict), records.begin() as tx:  # noqa: PT012 - both statements are one transaction
            tx.execute(insert(things).values(id=5, name="with it"))
            tx.execute(statement)

        assert names(records) == ["first"]

    def test_a_savepoint_can_be_taken_back_alone(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="outer"))
            with suppress(_Stop), tx.begin_nested():
                tx.execute(insert(things).values(id=2, name="inner"))
                raise _Stop
            tx.execute(insert(things).values(id=3, name="after"))

        assert names(records) == ["after", "outer"]

    def test_transact_runs_again_after_a_conflict_and_gives_up_in_the_end(self, records: Records) -> None:
        tried: list[int] = []

        def do(tx: Tx) -> int:
            tried.append(len(tried))
            tx.execute(insert(things).values(id=len(tried), name=str(tried)))
            if len(tried) < 3:
                raise Conflict("somebody was faster")
            return len(tried)

        assert transact(records, do) == 3
        assert len(names(records)) == 1
        with pytest.raises(Conflict):
            transact(records, lambda _: _conflict(), attempts=2)

    def test_threads_that_read_and_write_lose_no_update(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, big=0))

        def add() -> None:
            for _ in range(10):
                transact(records, _add_one, attempts=200)

        errors = in_threads(add, n=4)

        assert errors == []
        with records.read() as tx:
            assert tx.execute(select(things.c.big)).scalar_one() == 40

    def test_a_rule_over_several_rows_holds_under_concurrent_writers(self, records: Records) -> None:
        """Write skew: each writer reads that there is room for one more; only a serialisable store stops the last."""

        def book(tx: Tx) -> None:
            taken = tx.execute(select(func.count()).select_from(things)).scalar_one()
            if taken < 5:
                highest = tx.execute(select(func.max(parts.c.id))).scalar() or 0
                id_ = (
                    threading.get_ident() % 100_000
                ) * 100 + taken  # distinct, so that no key stops a second one
                tx.execute(insert(things).values(id=id_, name=f"{id_}-{highest}"))

        errors = in_threads(lambda: [transact(records, book, attempts=200) for _ in range(5)], n=4)

        assert errors == []
        assert len(names(records)) == 5


class ConcurrentRecordsConformance(RecordsConformance):
    """What is added for stores in which a reader and a writer may be open at once."""

    def test_a_reader_sees_one_state_however_long_it_looks(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="before"))
        with records.read() as tx:
            before = tx.execute(select(things.c.name)).scalars().all()
            with records.begin() as writer:
                writer.execute(update(things).values(name="after"))
            during = tx.execute(select(things.c.name)).scalars().all()

        assert before == during == ["before"]
        assert names(records) == ["after"]

    def test_what_is_not_committed_is_seen_by_nobody(self, records: Records) -> None:
        with records.begin() as tx:
            tx.execute(insert(things).values(id=1, name="secret"))
            seen = names(records)

        assert seen == []
        assert names(records) == ["secret"]


class _Stop(Exception):
    pass


def _conflict() -> None:
    raise Conflict("always")


def _add_one(tx: Tx) -> None:
    seen = tx.execute(select(things.c.big).where(things.c.id == 1)).scalar_one()
    tx.execute(update(things).where(things.c.id == 1).values(big=seen + 1))


def names(records: Records) -> list[str]:
    """Return the names of all things, sorted."""
    with records.read() as tx:
        return sorted(tx.execute(select(things.c.name)).scalars())


def in_threads(do: object, *, n: int) -> list[BaseException]:
    """Call `do` in n threads at once; return what they raised."""
    assert callable(do)
    errors: list[BaseException] = []
    gate = threading.Barrier(n)

    def run() -> None:
        gate.wait(90)
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - handed to the test, which fails on it
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not any(thread.is_alive() for thread in threads)
    return errors
