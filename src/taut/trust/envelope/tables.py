"""Where wrapped keys live: a small mutable table that no snapshot and no long-lived backup holds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table

metadata = MetaData()

subject_keys = Table(
    "sealing_subject_keys",
    metadata,
    Column(
        "pseudonym", String(22), primary_key=True
    ),  # of the person; the plain name is nowhere in this table
    Column("under", BigInteger, nullable=False),  # the version of the tenant's key that wrapped it
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

data_keys = Table(
    "sealing_data_keys",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("purpose", String(16), nullable=False),  # of the holder's key that wrapped it
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
