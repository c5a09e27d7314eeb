"""Brings a database to the head of its chain, and compares it with the tables that the code declares.

Alembic does the work, without an ini file and without an env script. It is imported on use: it takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData

from taut.adapters.records.chain import MIGRATIONS, VERSION_TABLE, current_revision, refuse_newer, revisions
from taut.adapters.records.sql import SqlRecords
from taut.core.errors import Conflict
from taut.ports.records import Records, Tx

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext


def migrate(records: Records, *, folder: Path = MIGRATIONS) -> tuple[str, ...]:
    """Bring the database to the head of this code's chain, in one transaction; return the revisions that it went through.

    Several processes may call at once: one migrates, the others find nothing left to do. There is no way down: go
    back by restoring a backup.
    Raises Conflict when the database is newer than this code (nothing is changed then).
    """
    if not isinstance(records, SqlRecords):
        raise TypeError("only databases that open_sqlite or open_postgres opened have migrations")
    known = revisions(records.dialect, folder=folder)
    if not known:
        raise Conflict(
            f"this version of taut has no migrations for {records.dialect}: it was built without them"
        )
    with records.read() as tx:
        found = current_revision(tx)
    refuse_newer(found, known, where=records.where)
    if found == known[-1]:
        return ()
    with records.migrating() as tx:
        found = current_revision(tx)  # another process may have migrated meanwhile
        refuse_newer(found, known, where=records.where)
        left = known[known.index(found) + 1 :] if found else known
        if left:
            _upgrade(tx, folder / records.dialect, to=known[-1])
    return left


def _upgrade(tx: Tx, chain: Path, *, to: str) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(chain), version_locations=[str(chain / "versions")])

    def steps(revision: Any, _context: object) -> Any:
        return script._upgrade_revs(to, revision)

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=to) as environment:
        environment.configure(connection=tx, version_table=VERSION_TABLE, transactional_ddl=True)
        environment.run_migrations()


def differences(records: Records, metadatas: Sequence[MetaData]) -> list[str]:
    """Return what the database's schema has too much, too little or otherwise than `metadatas`; empty when it fits."""
    from alembic.autogenerate import compare_metadata

    with records.read() as tx:
        found = compare_metadata(comparison(tx), gather(metadatas))
    return [repr(difference) for difference in found]


def comparison(tx: Tx) -> MigrationContext:
    """Return what Alembic compares by: types included, our own version table left out."""
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(
        connection=tx,
        opts={
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "render_as_batch": tx.dialect.name == "sqlite",
        },
    )


def gather(metadatas: Sequence[MetaData]) -> MetaData:
    """Return the tables of every metadata in one. Raises Conflict when two rooms name a table alike."""
    whole = MetaData()
    for metadata in metadatas:
        for table in metadata.sorted_tables:
            if table.name in whole.tables:
                raise Conflict(f"table {table.name} is declared by two rooms: prefix it by its room's name")
            table.to_metadata(whole)
    return whole
