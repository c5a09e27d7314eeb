"""Tables of the registry."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata: Final = MetaData()

versions: Final = Table(
    "registry_versions", metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("run", String(64), nullable=False),
    Column("variant", String(32), nullable=False),  # empty: what the run itself made
    Column("state", String(16), nullable=False),
    Column("author", String(256), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("statement", Text, nullable=False),  # the signed manifest, as JSON
    Column("provenance", Text, nullable=False),  # the signed statement of how it was made, as JSON
    Column("candidate", Text, nullable=False),  # JSON
    Column("verdict", Text),  # JSON
    Column("evidence", Text),  # JSON
    UniqueConstraint("run", "variant"),
)  # fmt: skip

approvals: Final = Table(
    "registry_approvals", metadata,
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("principal", String(256), nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("self_approved", Boolean, nullable=False),
    UniqueConstraint("model", "number", "principal"),  # one person, one word
)  # fmt: skip

states: Final = Table(
    "registry_states", metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),
    Column("reason", Text, nullable=False),
)  # fmt: skip

aliases: Final = Table(
    "registry_aliases", metadata,
    Column("model", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("seq", Integer, primary_key=True),  # the highest holds
    Column("number", Integer),  # null: the alias was taken away
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(256), nullable=False),
)  # fmt: skip
