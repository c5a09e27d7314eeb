"""Tables of objectives: events by the hour and by the minute, and how far the counters of gateways were read."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

metadata: Final = MetaData()

# Minutes of the last six hours, hours of the window. Bad events may be fewer than none: outcomes are corrected later.
counts: Final = Table(
    "objective_counts", metadata,
    Column("endpoint", String(63), primary_key=True),
    Column("measure", String(40), primary_key=True),  # with its limit, so that another limit begins anew
    Column("span_s", Integer, primary_key=True),
    Column("at", BigInteger, primary_key=True),  # which minute or hour since 1970
    Column("bad", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
)  # fmt: skip

# One row, written with the counts that it brought to where they are.
progress: Final = Table(
    "objective_progress", metadata,
    Column("name", String(16), primary_key=True),
    Column("body", LargeBinary, nullable=False),  # counters as they were read last
    Column("at_us", BigInteger, nullable=False),
)  # fmt: skip
