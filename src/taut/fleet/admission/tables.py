"""Tables of admission."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

# One row: the whole of admission's state as a value, with the number of its version as a fence.
state = Table(
    "fleet_admission",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
)

# One row a scale event: that it must be told, written with the state that took it; when it was told.
alerts = Table(
    "fleet_alerts",
    metadata,
    Column("scale_id", String(64), primary_key=True),
    Column("body", Text, nullable=False),
    Column("told_us", BigInteger),
)
