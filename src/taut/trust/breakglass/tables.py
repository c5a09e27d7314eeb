"""The table of emergencies: one row for each time that the glass was broken; none is ever deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

metadata = MetaData()

glasses = Table(
    "break_glass",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("begun_by", String(63), nullable=False),
    Column("begun_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=True),
    Column("ended_by", String(63), nullable=True),
)
