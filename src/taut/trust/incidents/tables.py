"""The tables of incidents, and of the alerts that belong to each."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("title", Text, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("status", String(16), nullable=False),  # open, mitigated, resolved
    Column("owner", String(63), nullable=False),  # empty while nobody took it
    Column("resource", String(200), nullable=False),
    Column("principal", String(63), nullable=False),  # empty where it is about nobody
    Column("opened_us", BigInteger, nullable=False),
    Column("opened_by", String(63), nullable=False),
    Column("heard_us", BigInteger, nullable=False),  # when something of it was seen last
    Column("ended_us", BigInteger, nullable=True),  # mitigated or resolved
    Column("ended_by", String(63), nullable=True),
    Column("reason", Text, nullable=False),
    Column("times", Integer, nullable=False),  # 1, and one more for each time that it came back
)
Index("incidents_status", incidents.c.status, incidents.c.opened_us)

joined = Table(
    "incident_alerts",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column("alert", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("resource", String(200), nullable=False),
    Column("principal", String(63), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("joined_us", BigInteger, nullable=False),
    Column("over", Boolean, nullable=False),
)
Index("incident_alerts_alert", joined.c.alert)

acts = Table(
    "incident_acts",
    metadata,
    Column("story", String(64), primary_key=True),  # that did it
    Column("number", Integer, primary_key=True),
    Column("incident", String(64), nullable=False),
    Column("playbook", String(63), nullable=False),
    Column("act", String(16), nullable=False),
    Column("outcome", String(16), nullable=False),  # done, refused, left
    Column("at_us", BigInteger, nullable=False),
)
Index("incident_acts_playbook", acts.c.playbook, acts.c.at_us)

drills = Table(
    "drills",
    metadata,
    Column("id", String(64), primary_key=True),  # of its story
    Column("name", String(63), nullable=False),
    Column("endpoint", String(63), nullable=False),
    Column("release", String(64), nullable=False),
    Column("failing", Float, nullable=False),
    Column("slow_ms", Float, nullable=False),
    Column("planted_us", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("over", Boolean, nullable=False),
)
