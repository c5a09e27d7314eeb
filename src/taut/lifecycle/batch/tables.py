"""Tables of batch serving."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

# What was scored of a batch that is under way, or was cut short; gone with the result that it becomes part of.
chunks: Final = Table(
    "batch_chunks", metadata,
    Column("work", String(80), primary_key=True),  # digest of what is scored and of the chunks' size
    Column("number", Integer, primary_key=True),
    Column("body", Text, nullable=False),  # the Chunk, as canonical JSON
)  # fmt: skip

results: Final = Table(
    "batch_results", metadata,
    Column("name", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("inputs", String(80), nullable=False),  # digest of the Scored
    Column("body", Text, nullable=False),  # the NewResult, as canonical JSON
    Column("actor", String(256), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Index("batch_results_inputs", "inputs"),
)  # fmt: skip
