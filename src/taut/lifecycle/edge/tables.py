"""Tables of the edge. They grow with devices and bundles, never with reports."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

metadata: Final = MetaData()

bundles: Final = Table(
    "edge_bundles", metadata,
    Column("id", String(64), primary_key=True),
    Column("version", String(80), nullable=False),
    Column("statement", Text, nullable=False),  # signed, as it lies in the bundle
    Column("facts", Text, nullable=False),  # the BundleFacts, as canonical JSON
    Column("actor", String(256), nullable=False),
    Column("created_us", BigInteger, nullable=False),
)  # fmt: skip

# A device is its principal's own: another principal's device of the same id is another device.
devices: Final = Table(
    "edge_devices", metadata,
    Column("principal", String(256), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("bundle", String(64), nullable=False),  # of its last report
    Column("sequence", BigInteger, nullable=False),  # the highest that was received
    Column("digest", String(80), nullable=False),  # of that report
    Column("missed", BigInteger, nullable=False),  # reports between that never came
    Column("first_us", BigInteger, nullable=False),  # by control's clock
    Column("last_us", BigInteger, nullable=False),
)  # fmt: skip

counts: Final = Table(
    "edge_counts", metadata,
    Column("principal", String(256), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("bundle", String(64), primary_key=True),
    Column("reports", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
    Column("counts", Text, nullable=False),  # the sum of all Counts, as canonical JSON
)  # fmt: skip
