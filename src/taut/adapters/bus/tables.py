"""The tables of the bus in Records: a log of events by topic, and how far each group has come."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

metadata = MetaData()

topics: Final = Table(
    "bus_topics",
    metadata,
    Column("topic", String(128), primary_key=True),
    Column("length", BigInteger, nullable=False),  # the position of its newest event
)

events: Final = Table(
    "bus_events",
    metadata,
    Column("topic", String(128), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("key", String(32), nullable=False),
    Column("event", LargeBinary, nullable=False),
    UniqueConstraint("topic", "key", name="bus_events_once"),
)

groups: Final = Table(
    "bus_groups",
    metadata,
    Column("topic", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("handed", BigInteger, nullable=False),  # every position up to here was handed to a consumer
)

pending: Final = Table(
    "bus_pending",
    metadata,
    Column("topic", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("consumer", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_us", BigInteger, nullable=False),  # when it may be taken from its consumer
)
