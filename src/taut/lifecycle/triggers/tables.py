"""Tables of triggers: what is remembered of each model, and each run that they began."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

models: Final = Table(
    "triggers_models",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("state", Text, nullable=False),  # State
    Column("turn", Integer, nullable=False),  # raised by each write, so that none overwrites another unseen
)

firings: Final = Table(
    "triggers_firings",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 1
    Column("story", String(64), nullable=False),
    Column("reasons", Text, nullable=False),  # JSON array of texts
    Column("actor", String(256), nullable=False),  # by whose plan, or which person
    Column("fired_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("outcome", Text, nullable=False),  # JSON of what became of it, empty while it is under way
)
