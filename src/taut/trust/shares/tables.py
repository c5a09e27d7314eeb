"""The table of what whole hours taught the share detector: one row each, kept for five weeks."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

metadata = MetaData()

hours = Table(
    "share_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),  # since 1970
    Column("known", Text, nullable=False),  # JSON: caller -> requests, as they were learned
    Column("strangers", Text, nullable=False),  # JSON: as above, newcomers beside all others
    Column("margins", Text, nullable=False),  # JSON: state -> multipliers by bin, of all hours up to this one
)
