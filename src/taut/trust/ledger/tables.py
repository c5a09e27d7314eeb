"""Tables of the ledger.

A leaf is written to `ledger_pending` in its effect's own transaction. The sequencer moves groups of them, whatever
has committed, into `ledger_leaves`, which only ever grows. Moving beats numbering rows in place (`seq IS NULL`,
then UPDATE): measured 11 against 18 microseconds a leaf on SQLite, 17 against 34 on PostgreSQL, no dead row
versions in the large table, and rights to update `ledger_leaves` need be given to nobody.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata: Final = MetaData()

LEAF_COLUMNS: Final = ("id", "kind", "subject", "actor", "at_us", "body", "hash")


def _leaf_columns() -> list[Column[Any]]:
    return [
        Column("kind", String(64), nullable=False),
        Column("subject", String(512), nullable=False),
        Column("actor", String(256), nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("body", Text, nullable=False),  # canonical JSON
        Column("hash", LargeBinary(32), nullable=False),  # RFC 6962 leaf hash
    ]


pending: Final = Table(
    "ledger_pending", metadata, Column("id", String(64), primary_key=True), *_leaf_columns()
)

leaves: Final = Table(
    "ledger_leaves",
    metadata,
    # SQLite keeps an INTEGER primary key as the row's own number: appends in order, no second index
    Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False, unique=True),
    *_leaf_columns(),
)
Index("ledger_leaves_subject", leaves.c.subject)

tiles: Final = Table(
    "ledger_tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),  # 1 to 256 hashes of 32 bytes
)

head: Final = Table(
    "ledger_head",
    metadata,
    Column("log", String(16), primary_key=True),
    Column("size", BigInteger, nullable=False),
)

checkpoints: Final = Table(
    "ledger_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

details: Final = Table(
    "ledger_details",
    metadata,
    Column("leaf_id", String(64), primary_key=True),
    Column("salt", String(64), nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
)
