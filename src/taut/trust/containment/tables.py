"""The table of containments: one row for each; none is ever deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, MetaData, String, Table, Text

metadata = MetaData()

containments = Table(
    "containments",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("principal", String(63), nullable=False),
    Column("action", String(16), nullable=False),
    Column("per_s", Float, nullable=False),
    Column("allowed", Text, nullable=False),  # JSON list of endpoints
    Column("reason", Text, nullable=False),
    Column("alert", String(64), nullable=False),
    Column("begun_by", String(63), nullable=False),
    Column("begun_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("lifted_us", BigInteger, nullable=True),
    Column("lifted_by", String(63), nullable=True),
    Column("lifted_why", Text, nullable=False),
)
Index("containments_until", containments.c.until_us)
