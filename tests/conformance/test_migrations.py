"""Migrations: what the tool writes, what a database is brought to, and what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, text

from taut.adapters.records import chain
from taut.adapters.records.autogenerate import write_revision
from taut.adapters.records.chain import check_version, current_revision, revisions
from taut.adapters.records.migration import differences, gather, migrate
from taut.bootstrap.schema import all_metadata
from taut.core.errors import Conflict
from taut.ports.records import Records

Open = Callable[..., Records]


def _first() -> MetaData:
    metadata = MetaData()
    Table(
        "room_parents",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(20), unique=True),
    )
    Table(
        "room_children", metadata, Column("id", Integer, primary_key=True),
        Column("parent_id", Integer, ForeignKey("room_parents.id", ondelete="CASCADE"), nullable=False, index=True),
    )  # fmt: skip
    return metadata


def _second() -> MetaData:
    metadata = _first()
    metadata.tables["room_parents"].append_column(Column("size", Integer))
    metadata.tables["room_parents"].c.name.nullable = False
    return metadata


@pytest.fixture
def grown(
    tmp_path: Path, open_records: Open, request: pytest.FixtureRequest
) -> tuple[Records, Path, Records]:
    """A database at the first revision, a chain of two, and a scratch database that was used to write it."""
    scratch, folder = open_records(), tmp_path / "chain"
    write_revision(scratch, [_first()], message="first", folder=folder)
    write_revision(scratch, [_second()], message="Grow the parents.", folder=folder)
    return scratch, folder, scratch


def test_every_table_of_the_installation_survives_the_way_through_a_migration(
    open_records: Open, tmp_path: Path
) -> None:
    records = open_records()
    missing = differences(records, all_metadata())

    path = write_revision(records, all_metadata(), message="Make the tables", folder=tmp_path)
    went = migrate(records, folder=tmp_path)

    assert missing
    assert path is not None
    assert path.name == "v0001_make_the_tables.py"
    assert went == ("0001",)
    assert differences(records, all_metadata()) == []
    assert write_revision(records, all_metadata(), message="nothing", folder=tmp_path) is None


def test_the_same_tables_give_the_same_revision(open_records: Open, tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        path = write_revision(open_records(), all_metadata(), message="make", folder=tmp_path / name)
        assert path is not None
        texts.append(path.read_bytes())

    assert texts[0] == texts[1]


def test_a_migration_keeps_rows_that_refer_to_a_table_that_is_rebuilt(
    grown: tuple[Records, Path, Records], tmp_path: Path
) -> None:
    records, folder, _ = grown
    first = tmp_path / "first"
    _cut(folder, first, records.dialect, keep=1)
    with records.begin() as tx:
        for statement in (
            "INSERT INTO room_parents (id, name) VALUES (1, 'a')",
            "INSERT INTO room_children VALUES (1, 1)",
        ):
            tx.execute(text(statement))
    went = migrate(records, folder=folder)

    with records.read() as tx:
        assert went == ("0002",)
        assert tx.execute(text("SELECT id, name, size FROM room_parents")).all() == [(1, "a", None)]
        assert tx.execute(text("SELECT id, parent_id FROM room_children")).all() == [(1, 1)]
    with pytest.raises(Conflict), records.begin() as tx:  # the constraint is there, and on
        tx.execute(text("INSERT INTO room_children VALUES (2, 99)"))
    assert differences(records, [_second()]) == []


def test_a_newer_database_is_refused_and_left_as_it_is(
    grown: tuple[Records, Path, Records], tmp_path: Path
) -> None:
    records, folder, _ = grown
    migrate(records, folder=folder)
    older = tmp_path / "older"
    _cut(folder, older, records.dialect, keep=1)

    for call in (lambda: migrate(records, folder=older), lambda: _check(records, older)):
        with pytest.raises(Conflict, match="0002, which this version of taut does not know"):
            call()
    assert differences(records, [_second()]) == []


def test_check_tells_an_empty_an_old_and_a_current_database_apart(
    grown: tuple[Records, Path, Records],
) -> None:
    records, folder, _ = grown
    with pytest.raises(Conflict, match="at schema 0001, this version needs 0002"):
        _check(records, folder)
    migrate(records, folder=folder)
    _check(records, folder)

    assert migrate(records, folder=folder) == ()


def test_check_of_a_database_without_tables_says_what_to_do(open_records: Open) -> None:
    with pytest.raises(Conflict, match="no tables of taut yet"):
        open_records().check()


def test_a_migration_that_fails_changes_nothing(grown: tuple[Records, Path, Records]) -> None:
    records, folder, _ = grown
    (path,) = (folder / records.dialect / "versions").glob("v0002*")
    path.write_text(
        path.read_text()
        + '\n    op.execute("CREATE TABLE half (id INTEGER)")\n    raise RuntimeError("power")\n'
    )

    with pytest.raises(RuntimeError, match="power"):
        migrate(records, folder=folder)
    assert differences(records, [_first()]) == []
    with records.read() as tx:
        assert current_revision(tx) == "0001"


def test_several_that_migrate_at_once_do_it_once(open_records: Open, tmp_path: Path) -> None:
    folder = tmp_path / "chain"
    write_revision(open_records(), [_first()], message="first", folder=folder)
    opened = [open_records() for _ in range(4)]
    went: list[tuple[str, ...]] = []
    threads = [
        threading.Thread(target=lambda r=records: went.append(migrate(r, folder=folder)))
        for records in opened
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)

    assert sorted(went) == [(), (), (), ("0001",)]


def test_two_rooms_may_not_name_a_table_alike() -> None:
    with pytest.raises(Conflict, match="room_parents is declared by two rooms"):
        gather([_first(), _first()])


def test_check_does_not_import_alembic(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from taut.adapters.records import open_sqlite\n"
        f"records = open_sqlite(pathlib.Path({str(tmp_path / 'x.db')!r}))\n"
        "try: records.check()\nexcept Exception as error: print(type(error).__name__)\n"
        "print('alembic' in sys.modules); records.close()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout.split() == ["Conflict", "False"], done.stderr


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_the_chain_file_lists_what_lies_in_the_chain(dialect: str) -> None:
    versions = chain.MIGRATIONS / dialect / "versions"

    assert [path.name[1:5] for path in sorted(versions.glob("v*.py"))] == list(revisions(dialect))


def test_the_shipped_chain_makes_the_tables_that_the_code_declares(open_records: Open) -> None:
    records = open_records()
    migrate(records)

    assert differences(records, all_metadata()) == []
    records.check()


def test_other_stores_have_no_migrations() -> None:
    from taut.testing.records import memory_records

    records = memory_records()
    with pytest.raises(TypeError, match="open_sqlite"):
        migrate(records)
    records.close()


def _check(records: Records, folder: Path) -> None:
    with records.read() as tx:
        check_version(tx, dialect=records.dialect, where="the database", folder=folder)


def _cut(folder: Path, to: Path, dialect: str, *, keep: int) -> None:
    """Copy the beginning of a chain, as an older version of the code has it."""
    (to / dialect / "versions").mkdir(parents=True)
    names = revisions(dialect, folder=folder)[:keep]
    for name in names:
        (path,) = (folder / dialect / "versions").glob(f"v{name}*")
        (to / dialect / "versions" / path.name).write_text(path.read_text())
    (to / dialect / "chain.txt").write_text("\n".join(names))
