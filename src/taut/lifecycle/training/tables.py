"""Tables of runs."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

runs: Final = Table(
    "runs_runs", metadata,
    Column("id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column("ended_at_us", BigInteger),
    Column("model_digest", String(80)),
    Column("body", Text, nullable=False),  # the Run, as canonical JSON
    Index("runs_runs_by_model", "model", "started_at_us"),
)  # fmt: skip

params: Final = Table(
    "runs_params", metadata,
    Column("run", String(64), ForeignKey("runs_runs.id"), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("value", Text, nullable=False),  # JSON
)  # fmt: skip

metrics: Final = Table(
    "runs_metrics", metadata,
    Column("run", String(64), ForeignKey("runs_runs.id"), primary_key=True),
    Column("kind", String(16), primary_key=True),  # holdout, own, logged
    Column("name", String(256), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("value", Float, nullable=False),
)  # fmt: skip

artifacts: Final = Table(
    "runs_artifacts", metadata,
    Column("run", String(64), ForeignKey("runs_runs.id"), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("digest", String(80), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)  # fmt: skip
