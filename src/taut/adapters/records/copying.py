"""Rows of `insert_many` on PostgreSQL are sent as COPY: half the work for both sides, in the same transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Engine, event

from taut.ports.records import MANY

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


class _Pipelines(logging.Filter):
    """Drops what psycopg says about a batch that its server refused: the refusal itself is raised to the caller."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith("error ignored terminating")


def quiet_pipelines() -> None:
    """Keep psycopg from logging a lost race between transactions as a warning; once, however often it is called."""
    logger = logging.getLogger("psycopg")
    if not any(isinstance(found, _Pipelines) for found in logger.filters):
        logger.addFilter(_Pipelines())
