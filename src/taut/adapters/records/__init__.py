"""Records on SQLite and on PostgreSQL: one implementation of transactions, two databases, one migration chain each."""

from __future__ import annotations

from taut.adapters.records.migration import migrate
from taut.adapters.records.postgres import open_postgres
from taut.adapters.records.sqlite import open_sqlite

__all__ = ["migrate", "open_postgres", "open_sqlite"]
