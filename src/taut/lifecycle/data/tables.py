"""Tables of the data room."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

datasets: Final = Table(
    "data_datasets",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("current", Integer, nullable=False),  # number of the current snapshot; 0 before the first
    Column("last", Integer, nullable=False),  # highest number ever given
    Column("next_row_id", BigInteger, nullable=False),
)

batches: Final = Table(
    "data_batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("dataset", String(63), nullable=False),
    Column("key", String(71), nullable=False),  # digest of the files' digests and the contract's
    Column(
        "request", String(200)
    ),  # the caller's own key, so that a rerun after a crash gets the same answer
    Column("state", String(16), nullable=False),  # admitted, held, rejected
    Column("kind", String(16), nullable=False),  # ingest, replay
    Column("actor", Text, nullable=False),
    Column("snapshot", Integer),  # the one that it made
    Column("contract_digest", String(71), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("result", Text, nullable=False),  # IngestResult
    Column("evidence", Text, nullable=False),
    Column("verdict", Text, nullable=False),
)
Index("data_batches_key", batches.c.dataset, batches.c.key, unique=True)
Index("data_batches_request", batches.c.dataset, batches.c.request, unique=True)

sources: Final = Table(
    "data_sources",
    metadata,
    Column("dataset", String(63), primary_key=True),
    Column(
        "digest", String(71), primary_key=True
    ),  # of the file's bytes: the same bytes are never read twice
    Column("batch", String(40), nullable=False),
    Column("url", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column(
        "first_row_id", BigInteger, nullable=False
    ),  # record n of the file has row id first_row_id + n - 1
    Column("records", BigInteger, nullable=False),
)
Index("data_sources_rows", sources.c.dataset, sources.c.first_row_id)

snapshots: Final = Table(
    "data_snapshots",
    metadata,
    Column("dataset", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("parent", Integer),
    Column("reason", String(16), nullable=False),  # ingest, replay, rollback, erase
    Column("restores", Integer),  # the snapshot whose content a rollback brought back
    Column("batch", String(40)),
    Column("actor", Text, nullable=False),
    Column("contract_digest", String(71), nullable=False),
    Column("contract", Text, nullable=False),  # DatasetSpec, as it was
    Column("manifest", Text, nullable=False),  # TableManifest
    Column("rows", BigInteger, nullable=False),
    Column("statistics", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

quarantine: Final = Table(
    "data_quarantine",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("dataset", String(63), nullable=False),
    Column("batch", String(40), nullable=False),
    Column("attempt", String(40), nullable=False),  # of the writer; rows of attempts that died stay `pending`
    Column("state", String(16), nullable=False),  # pending, open, repaired, replayed, discarded, rejected
    Column("source_digest", String(71), nullable=False),
    Column("source_name", Text, nullable=False),
    Column("row", BigInteger, nullable=False),  # record number in its file, from 1
    Column("row_id", BigInteger, nullable=False),  # reserved for it; -1 where the batch was rejected
    Column("rules", Text, nullable=False),  # JSON array of rule names
    Column("record", Text, nullable=False),  # JSON object of raw values; personal ones are missing here
    Column("sealed", Text),  # JSON of the personal ones, sealed for the record's person, else for its batch
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)
Index("data_quarantine_open", quarantine.c.dataset, quarantine.c.state, quarantine.c.id)
Index("data_quarantine_attempt", quarantine.c.attempt)
Index("data_quarantine_rows", quarantine.c.dataset, quarantine.c.row_id)
