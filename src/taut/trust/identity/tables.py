"""Tables of principals, keys, tokens and revocations. Secrets are never here: keys are hashes, tokens only ids."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

metadata = MetaData()

principals = Table(
    "identity_principals",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("display", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("disabled", Boolean, nullable=False),
    Column("tokens_from_us", BigInteger, nullable=False),  # tokens issued before this moment are not accepted
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(63), nullable=False),
)

api_keys = Table(
    "identity_api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(63), nullable=False),
    Column("name", Text, nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("scopes", Text, nullable=False),  # JSON list
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(63), nullable=False),
    Column("expires_at_us", BigInteger, nullable=True),
    Column("revoked_at_us", BigInteger, nullable=True),
    Column("revoked_by", String(63), nullable=True),
)
Index("identity_api_keys_principal", api_keys.c.principal)

tokens = Table(
    "identity_tokens",
    metadata,
    Column("jti", String(64), primary_key=True),
    Column("principal", String(63), nullable=False),
    Column("roles", Text, nullable=False),  # JSON list
    Column("issued_at_us", BigInteger, nullable=False),
    Column("issued_by", String(63), nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
)
Index("identity_tokens_principal", tokens.c.principal)

revocations = Table(
    "identity_revocations",
    metadata,
    Column("jti", String(64), primary_key=True),
    Column("expires_at_us", BigInteger, nullable=False),  # after this the token is refused anyway
    Column("revoked_at_us", BigInteger, nullable=False),
    Column("revoked_by", String(63), nullable=False),
)

changes = Table(
    "identity_changes",  # one row an act that verifiers must know; their count is the version
    metadata,
    Column("id", String(64), primary_key=True),
)
