"""Tables of monitoring: what was usual, what was seen, and the outcomes that people told of."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

metadata: Final = MetaData()

references: Final = Table(
    "monitor_references", metadata,
    Column("version", String(120), primary_key=True),
    Column("body", LargeBinary, nullable=False),  # the Reference, msgpack
    Column("made_us", BigInteger, nullable=False),
)  # fmt: skip

watches: Final = Table(
    "monitor_watches", metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("version", String(120), primary_key=True),
    Column("tolerance", Text, nullable=False),  # canonical JSON; with another one a watch begins anew
    Column("body", LargeBinary, nullable=False),  # its state
    Column("at_us", BigInteger, nullable=False),
)  # fmt: skip

# How far the prediction log was read: one row, written with the watches that it brought to where they are.
progress: Final = Table(
    "monitor_progress", metadata,
    Column("name", String(16), primary_key=True),
    Column("body", Text, nullable=False),  # JSON: segment -> records taken; -1 for one that is done
)  # fmt: skip

# Outcomes that came after their answer. Several of one answer are its history: the last that came counts.
outcomes: Final = Table(
    "monitor_outcomes", metadata,
    Column("request_id", String(30), primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("number", Integer, primary_key=True),  # 1, 2 … of one answer
    Column("endpoint", String(63), nullable=False),
    Column("version", String(120), nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the label, and what it said of the answer, under the installation's key
    Column("principal", String(63), nullable=False),
    Column("at_us", BigInteger, nullable=False),
)  # fmt: skip
