"""Tables of the release room."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()


def _tried(name: str) -> Table:
    """What is tried under a release, one row each. turn: raised with each writing, so that who read an older row writes nothing."""
    return Table(
        f"release_{name}",
        metadata,
        Column("release", String(64), primary_key=True),
        Column("plan", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("findings", Text, nullable=False),
        Column("turn", Integer, nullable=False),
    )


releases = Table(
    "release_releases",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("endpoint", String(64), nullable=False),
    Column("version", String(96), nullable=False),  # model@number
    Column("strategy", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("replaces", String(64)),  # the release that was live when this one was promoted
    Column("actor", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Index("release_by_endpoint", "endpoint", "started_us"),
)

# One row an endpoint: what answers now. The release it names carries the rest.
routes = Table(
    "release_routes",
    metadata,
    Column("endpoint", String(64), primary_key=True),
    Column("release", String(64), nullable=False),
)

# One row a canary: what it is judged by, never changed, and where it stands, written anew with each step and whatever is counted.
canaries = _tried("canaries")

# What outcomes taught of a canary, by step and guardrail: counts by bin, of the canary and of the live version.
learned = Table(
    "release_learned",
    metadata,
    Column("release", String(64), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("counts", Text, nullable=False),
)

# Whose outcomes were counted, so that each counts once; gone with the end of the release.
lessons = Table(
    "release_lessons",
    metadata,
    Column("release", String(64), primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("unit", BigInteger, primary_key=True),  # its mark
    Column("minute", BigInteger, primary_key=True),  # of the answer; 0 where a caller counts once a step
)

# One row a shadow, in the same way; of one that took over, until when what it replaced stays in memory.
shadows = _tried("shadows")

# One row an experiment, as of a canary.
experiments = _tried("experiments")

# What answers of an experiment turned out to be worth: one of a unit in each of its turns.
payoffs = Table(
    "release_payoffs",
    metadata,
    Column("release", String(64), primary_key=True),
    Column("unit", String(32), primary_key=True),  # a hash under the release's id
    Column(
        "turn", BigInteger, primary_key=True
    ),  # of the time when it was answered: a unit counts once in each
    Column("arm", Integer, nullable=False),
    Column("share", Float, nullable=False),  # the weight under which the unit was drawn
    Column("at_us", BigInteger, nullable=False),  # when it was answered
    Column("answer", String(48), nullable=False),  # the request's id and the row
    Column("value", Float, nullable=False),  # 0 to 1
)

# One row: the epoch of the last serving snapshot, raised in the transaction that changes what is served.
epochs = Table(
    "release_epochs",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("epoch", Integer, nullable=False),
)
