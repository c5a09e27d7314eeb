"""Which migrations this code knows, and whether a database stands at the last of them. Does not import Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Column, MetaData, String, Table, inspect, select

from taut.core.errors import Conflict
from taut.ports.records import Tx

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSION_TABLE: Final = "taut_schema"
"""The table in which Alembic keeps the revision at which a database stands."""

_VERSION: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))


def revisions(dialect: str, *, folder: Path = MIGRATIONS) -> tuple[str, ...]:
    """Return the names of every revision of a dialect's chain, oldest first; the last one is the head."""
    path = folder / dialect / "chain.txt"
    return tuple(path.read_text(encoding="ascii").split()) if path.exists() else ()


def current_revision(tx: Tx) -> str | None:
    """Return the revision at which the database stands, None where it was never migrated."""
    if not inspect(tx).has_table(VERSION_TABLE):
        return None
    return tx.execute(select(_VERSION.c.version_num)).scalar_one_or_none()


def check_version(tx: Tx, *, dialect: str, where: str, folder: Path = MIGRATIONS) -> None:
    """Prove that the database stands at the head of this code's chain.

    Raises Conflict when it is newer (never touched then), older, or was never migrated.
    """
    found = current_revision(tx)
    known = revisions(dialect, folder=folder)
    refuse_newer(found, known, where=where)
    if found is None:
        raise Conflict(f"{where} has no tables of taut yet: migrate it (`taut up` does)")
    if found != known[-1]:
        raise Conflict(
            f"{where} is at schema {found}, this version needs {known[-1]}: migrate it (`taut up` does)"
        )


def refuse_newer(found: str | None, known: tuple[str, ...], *, where: str) -> None:
    """Raise Conflict when a database stands at a revision that this code does not know."""
    if found is not None and found not in known:
        raise Conflict(
            f"{where} is at schema {found}, which this version of taut does not know: it was written by a newer one;"
            " install that, or restore a backup from before the upgrade. Nothing was changed"
        )
