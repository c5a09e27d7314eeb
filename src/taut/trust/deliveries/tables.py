"""The table of deliveries."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

deliveries = Table(
    "alert_deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("alert", String(64), nullable=False),
    Column("change", String(16), nullable=False),
    Column("receiver", String(128), nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered, dead
    Column("attempts", Integer, nullable=False),
    Column("said", Text, nullable=False),  # how the last attempt ended
    Column("words", Text, nullable=False),  # of a page or a notice; empty where the alert says it itself
    Column("made_us", BigInteger, nullable=False),
    Column("tried_us", BigInteger, nullable=True),
)
Index("alert_deliveries_alert", deliveries.c.alert)
