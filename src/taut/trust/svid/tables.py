"""Tables of authorities, invitations and machines. Secrets are never here: invitations are hashes, keys public ones."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text

metadata = MetaData()

authorities = Table(
    "svid_authorities",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("cert", Text, nullable=False),  # PEM, of a root
    Column("made_at_us", BigInteger, nullable=False),
    Column("retired_at_us", BigInteger, nullable=True),  # since when another one signs
)

invitations = Table(
    "svid_invitations",
    metadata,
    Column("secret_sha256", String(64), primary_key=True),
    Column("machine", String(63), nullable=False),
    Column("made_at_us", BigInteger, nullable=False),
    Column("made_by", String(63), nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("used_by", Text, nullable=True),  # the public key that came with it, PEM
)

machines = Table(
    "svid_machines",
    metadata,
    Column("machine", String(63), primary_key=True),
    Column("key", Text, nullable=False),  # public key that was certified last, PEM
    Column("key_before", Text, nullable=False),  # the one before it, PEM; empty for none
    Column("serial", String(64), nullable=False),
    Column("entered_at_us", BigInteger, nullable=False),
    Column("renewed_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("revoked_at_us", BigInteger, nullable=True),
)
