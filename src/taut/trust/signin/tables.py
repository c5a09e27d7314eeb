"""Tables of how people sign in. No password, code or session is here as it is: they are hashes, or wrapped by the key store."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

passwords = Table(
    "signin_passwords",
    metadata,
    Column("principal", String(63), primary_key=True),
    Column("hash", Text, nullable=False),  # argon2id with its parameters and salt
    Column("set_at_us", BigInteger, nullable=False),
)

invitations = Table(
    "signin_invitations",  # one at most for each person; a later one replaces it
    metadata,
    Column("principal", String(63), primary_key=True),
    Column("code_sha256", String(64), nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
)

totp = Table(
    "signin_totp",
    metadata,
    Column("principal", String(63), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("confirmed", Boolean, nullable=False),  # asked for at sign-in only once it was shown to work
    Column("last_step", BigInteger, nullable=False),  # a code of this step or an earlier one is a replay
)

recovery_codes = Table(
    "signin_recovery_codes",
    metadata,
    Column("code_sha256", String(64), primary_key=True),
    Column("principal", String(63), nullable=False),
)
Index("signin_recovery_codes_principal", recovery_codes.c.principal)

passkeys = Table(
    "signin_passkeys",
    metadata,
    Column("id", String(64), primary_key=True),  # sha256 of the credential's id, which may have 1023 bytes
    Column("principal", String(63), nullable=False),
    Column("name", Text, nullable=False),
    Column("credential", LargeBinary, nullable=False),  # attested credential data: id and public key
    Column("sign_count", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)
Index("signin_passkeys_principal", passkeys.c.principal)

links = Table(
    "signin_links",
    metadata,
    Column("account_sha256", String(64), primary_key=True),  # of a provider's issuer and subject
    Column("principal", String(63), nullable=False),
    Column("linked_at_us", BigInteger, nullable=False),
)

ceremonies = Table(
    "signin_ceremonies",  # begun and not finished: a passkey's challenge, a way to a provider; each is used once
    metadata,
    Column("handle_sha256", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("body", Text, nullable=False),  # JSON
    Column("address", String(64), nullable=False),  # sha256 of where it was begun, as the throttle knows it
    Column("expires_at_us", BigInteger, nullable=False),
)
Index("signin_ceremonies_address", ceremonies.c.address)
Index("signin_ceremonies_expiry", ceremonies.c.expires_at_us)

sessions = Table(
    "signin_sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("principal", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("method", String(32), nullable=False),
    Column("started_at_us", BigInteger, nullable=False),
    Column(
        "proved_at_us", BigInteger, nullable=True
    ),  # when the person proved who he is; null where nobody says
    Column("seen_at_us", BigInteger, nullable=False),
)
Index("signin_sessions_principal", sessions.c.principal)

throttle = Table(
    "signin_throttle",
    metadata,
    Column("key", String(64), primary_key=True),  # sha256 of `account:NAME` or `address:ADDRESS`
    Column("failures", BigInteger, nullable=False),
    Column("until_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)
Index("signin_throttle_seen", throttle.c.seen_us)
