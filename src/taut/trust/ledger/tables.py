"""Tables of the ledger.

Leaves are written in groups, one a call, in their effect's own transaction. A group's first leaf also carries what all
share: the time, the hashes, and `first_seq`, NULL until the sequencer gives the group its places. So a lone leaf is one
row and one statement, and numbering a group of thousands changes one row. Rivals, measured with 16 writers: numbering
each leaf by UPDATE took 18 microseconds a leaf on SQLite and 34 on PostgreSQL, moving leaves from a queue into the log
16 and 26; a table of groups beside the leaves cost a lone leaf twice the statements and twice the pages.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata: Final = MetaData()

leaves: Final = Table(
    "ledger_leaves",
    metadata,
    Column("group_id", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # within the group, from 0
    Column("id", String(80), nullable=False),  # `group_id.number`, kept because it is hashed
    Column("kind", String(64), nullable=False),
    Column("subject", String(512), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
    # of a group's first leaf only:
    Column("first_seq", BigInteger),  # its place; NULL until it is sequenced
    Column("waiting", Boolean),  # true until it is sequenced, then NULL
    Column("width", Integer),  # leaves in the group
    Column("at_us", BigInteger),
    Column("hashes", LargeBinary),  # RFC 6962 leaf hashes, joined
    sqlite_with_rowid=False,  # one tree instead of two, with a group's leaves side by side
)
Index("ledger_leaves_subject", leaves.c.subject)
_PLACED: Final = leaves.c.first_seq.is_not(None)
Index(
    "ledger_leaves_first_seq", leaves.c.first_seq, unique=True, sqlite_where=_PLACED, postgresql_where=_PLACED
)
_WAITING: Final = leaves.c.waiting.is_not(None)
Index("ledger_leaves_waiting", leaves.c.group_id, sqlite_where=_WAITING, postgresql_where=_WAITING)

# The same table, read for its first leaves: rows with `first_seq` or `waiting`.
groups: Final = leaves.alias("ledger_groups")

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
    Column("leaf_id", String(80), primary_key=True),
    Column("salt", String(64), nullable=False),
    Column("body", Text, nullable=False),  # canonical JSON
)
