"""The table of findings: one row for each thing that was held against somebody, from its first sight to its end."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, MetaData, String, Table, Text

metadata = MetaData()

findings = Table(
    "security_findings",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("principal", String(63), nullable=False),  # empty where it is about a group
    Column("group", String(128), nullable=False),  # empty where it is about one principal
    Column("resource", String(200), nullable=False),
    Column("score", Float, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON object of scalars
    Column("severity", String(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("closes", Text, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),  # open, dismissed, lapsed
    Column("ended_us", BigInteger, nullable=True),
    Column("ended_by", String(63), nullable=True),
    Column("reason", Text, nullable=False),
)
Index("security_findings_state", findings.c.state, findings.c.since_us)
