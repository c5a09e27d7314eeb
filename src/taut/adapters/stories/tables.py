"""The journal's tables. Every value in them is JSON or a plain scalar; nothing in a row chooses how it is decoded."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

NEVER: Final = 2**62
"""A `due_us` that no clock reaches."""

stories: Final = Table(
    "story_stories",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(255), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column(
        "root_id", String(64), nullable=False
    ),  # the story from which it was forked, at any depth, or itself
    Column("arguments", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("result", Text),
    Column("error", Text),
    Column(
        "epoch", BigInteger, nullable=False
    ),  # the fence: one more at every claim and at every cancellation
    Column("attempts", Integer, nullable=False),  # claims since the last recorded step
    Column("owner", String(128)),  # who claimed it last, for people
    # When somebody should look at it next: now when it may run, the lease's end while somebody runs it, the time-out
    # while it waits. One column, so that one index finds all work.
    Column("due_us", BigInteger, nullable=False),
    Column("waiting_for", String(128)),
    Column(
        "wait_number", Integer
    ),  # the call that waits, and until when, so that a replay keeps its deadline
    Column("wait_until_us", BigInteger),
    Column("started_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Index("story_stories_due", "due_us"),
    Index("story_stories_root", "root_id"),
)

steps: Final = Table(
    "story_steps",
    metadata,
    Column("story_id", String(64), ForeignKey("story_stories.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("name", String(128), nullable=False),
    Column("value", Text),
    Column("error", Text),
    Column("ended_us", BigInteger, nullable=False),
)

signals: Final = Table(
    "story_signals",
    metadata,
    Column("story_id", String(64), ForeignKey("story_stories.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("value", Text, nullable=False),
    Column("sent_us", BigInteger, nullable=False),
)
