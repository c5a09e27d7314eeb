"""The table of what autoscaling learned: one row for each pool and hour, kept for five weeks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, MetaData, String, Table, Text

metadata = MetaData()

hours = Table(
    "fleet_load_hours",
    metadata,
    Column("pool", String(128), primary_key=True),
    Column("hour", BigInteger, primary_key=True, autoincrement=False),  # since 1970
    Column("loads", Text, nullable=False),  # JSON: signal -> the highest mean of five minutes
    Column("replica_s", Float, nullable=False),
)
