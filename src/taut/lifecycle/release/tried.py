"""Rows of what is tried under a release, a canary, a shadow or an experiment: a plan that never changes, and a state that moves on by turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from sqlalchemy import Row, Table, insert, select, update

from taut.lifecycle.release.tables import releases
from taut.ports.records import Tx

UNDER_WAY: Final = "started"
"""State of a release that is neither promoted nor ended."""

Leaf = Callable[[Tx, str, str, str, dict[str, str]], None]
"""Appends a leaf about a release to the ledger: of which kind, which release, by whom, and what it says."""


class Turned(Protocol):
    """What was read of a row. turn: of the row then."""

    @property
    def release(self) -> str: ...
    @property
    def turn(self) -> int: ...


def begin(tx: Tx, table: Table, release: str, *, plan: object, state: object) -> None:
    """Write the first row, with nothing found."""
    row = {"release": release, "plan": text(plan), "state": text(state), "findings": "[]", "turn": 0}
    tx.execute(insert(table).values(row))


def rows(table: Table) -> Any:
    """Select rows, each with what of its release does not change, by endpoint."""
    return (
        select(releases.c.endpoint, releases.c.version, releases.c.replaces, releases.c.started_us, table)
        .join(releases, releases.c.id == table.c.release)
        .order_by(releases.c.endpoint)
    )


def all_under_way(tx: Tx, table: Table) -> Sequence[Row[Any]]:
    return tx.execute(rows(table).where(releases.c.state == UNDER_WAY)).all()


def under_way(tx: Tx, table: Table, release: str) -> Row[Any] | None:
    chosen = rows(table).where(releases.c.id == release, releases.c.state == UNDER_WAY)
    return tx.execute(chosen).one_or_none()


def found(tx: Tx, table: Table, release: str) -> Row[Any] | None:
    """Return the row of a release, of one that ended too."""
    return tx.execute(rows(table).where(releases.c.id == release)).one_or_none()


def write(tx: Tx, table: Table, before: Turned, *, state: object, findings: object) -> bool:
    """Write the next turn; return whether it was: not where somebody else did meanwhile, or the release is over."""
    written = tx.execute(
        update(table)
        .where(table.c.release == before.release, table.c.turn == before.turn)
        .where(table.c.release.in_(select(releases.c.id).where(releases.c.state == UNDER_WAY)))
        .values(state=text(state), findings=text(findings), turn=before.turn + 1)
    ).rowcount
    return bool(written)


def text(value: object) -> str:
    return msgspec.json.encode(value).decode()
