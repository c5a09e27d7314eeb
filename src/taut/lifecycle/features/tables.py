"""Tables of feature sets: what was materialised from what, and what is online."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

materialisations = Table(
    "features_materialisations",
    metadata,
    Column("id", String(80), primary_key=True),  # SET@NUMBER
    Column("feature_set", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("inputs_digest", String(71), nullable=False),  # of the spec, the snapshots and the bundle
    Column("spec", Text, nullable=False),  # JSON
    Column("sources", Text, nullable=False),  # JSON: dataset -> snapshot
    Column("bundle", String(71), nullable=False),
    Column("manifest", Text, nullable=False),  # JSON of the TableManifest
    Column("digest", String(71), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("entities", BigInteger, nullable=False),
    Column("future_rows", BigInteger, nullable=False),
    Column("event_time_min_us", BigInteger, nullable=False),
    Column("event_time_max_us", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(63), nullable=False),
    UniqueConstraint("feature_set", "number"),
)

online = Table(
    "features_online",
    metadata,
    Column("feature_set", String(63), primary_key=True),
    Column("materialisation", String(80), nullable=True),  # None while the first one is being written
    Column("entities", BigInteger, nullable=False),
    Column("event_time_max_us", BigInteger, nullable=True),  # None where no row was due yet
    Column("written_at_us", BigInteger, nullable=False),
    Column("unfinished", Text, nullable=False),  # JSON: those whose rows may be there in part, after a crash
)
