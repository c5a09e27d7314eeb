"""Tables of the plans room."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text

metadata = MetaData()

# Every manifest that was ever applied, in order; nothing is deleted, so each can be returned to.
applied = Table(
    "plans_applied",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("digest", String(71), nullable=False),  # of the manifest
    Column("bundle", String(71), nullable=False),  # blob with the code
    Column("statement", Text, nullable=False),  # control's signature over both digests
    Column("manifest", Text, nullable=False),  # canonical JSON, with the project's folder
    Column("actor", String(256), nullable=False),
    Column("reverts_to", String(64)),  # the plan whose manifest this one brought back
    Column("applied_us", BigInteger, nullable=False),
)

# One row: the plan that holds now.
current = Table(
    "plans_current",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("plan", String(64), nullable=False),
)
