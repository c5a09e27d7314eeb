"""Tables of lineage: activities, what they read and made, and facts about either."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

metadata: Final = MetaData()

activities: Final = Table(
    "lineage_activities",
    metadata,
    Column(
        "id", String(36), primary_key=True
    ),  # a UUID derived from what was done, so that a repetition is one
    Column("activity", String(128), nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

# A row for each end, not for each pair: an activity with m inputs and n outputs takes m + n rows.
edges: Final = Table(
    "lineage_edges",
    metadata,
    Column("activity_id", String(36), primary_key=True),
    Column("output", Boolean, primary_key=True),
    Column("ref", String(1024), primary_key=True),
)
Index("lineage_edges_ref", edges.c.ref, edges.c.output)

facts: Final = Table(
    "lineage_facts",
    metadata,
    Column("owner", String(1024), primary_key=True),  # a reference, or the id of an activity
    Column("name", String(128), primary_key=True),
    Column("value", Text, nullable=False),  # canonical JSON
    Column("at_us", BigInteger, nullable=False),
)
