"""Fewer and shorter ways to PostgreSQL: many rows as COPY, and late ones together with the commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Engine, event, exc

from taut.ports.records import MANY, Tx

_ROWS_MIN: Final = 16  # below, COPY's own round trips cost more than it saves


def copy_many(engine: Engine) -> None:
    """Let `engine` send the rows of `insert_many` as COPY. Everything else goes its usual way."""
    event.listen(engine, "do_executemany", _executemany)


def _executemany(
    cursor: Any, statement: str, parameters: Sequence[tuple[Any, ...]], context: Any
) -> bool | None:
    """Send the rows and return True, or return None and leave the statement to SQLAlchemy."""
    if len(parameters) < _ROWS_MIN or MANY not in context.execution_options:
        return None
    into, _, _ = statement.removeprefix("INSERT INTO ").partition(" VALUES ")
    with cursor.copy(f"COPY {into} FROM STDIN") as copy:
        for row in parameters:
            copy.write_row(row)
    return True


def commit_with(connection: Tx, late: Sequence[tuple[str, Any]]) -> None:
    """Run statements and commit, all of it in one message to the server; either all of it holds or nothing.

    A pipeline would wait four times, and each wait of one thread among many costs as much as a statement.
    Raises what SQLAlchemy would for the same statements.
    """
    import psycopg

    raw: Any = connection.connection.driver_connection
    try:
        with psycopg.ClientCursor(raw) as cursor:
            said = [cursor.mogrify(statement, values) for statement, values in late]
            cursor.execute(
                "; ".join([*said, "COMMIT"])
            )  # values are quoted by libpq for this very connection
    except psycopg.Error as error:
        raise exc.DBAPIError.instance(
            "COMMIT", None, error, psycopg.Error, hide_parameters=True, connection_invalidated=raw.closed,
            dialect=connection.dialect,
        ) from error  # fmt: skip


class _Pipelines(logging.Filter):
    """Drops what psycopg says about a batch that its server refused: the refusal itself is raised to the caller."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("error ignored terminating")


def quiet_pipelines() -> None:
    """Keep psycopg from logging a lost race between transactions as a warning; once, however often it is called."""
    logger = logging.getLogger("psycopg")
    if not any(isinstance(found, _Pipelines) for found in logger.filters):
        logger.addFilter(_Pipelines())
