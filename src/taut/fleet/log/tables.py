"""Table of the scale log."""

from sqlalchemy import Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

events = Table(
    "fleet_scale_events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("scale_id", String(64), nullable=False, unique=True),
    Column("statement", Text, nullable=False),  # the event, signed
)
