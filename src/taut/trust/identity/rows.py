"""Reads of the identity tables, and what they return."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, func, insert, select

from taut.core.errors import NotFound
from taut.core.times import from_us
from taut.ports.keys import PublicKey
from taut.ports.records import Tx
from taut.trust.identity.principals import PrincipalKind, check_kind
from taut.trust.identity.tables import api_keys, changes, principals, revocations, tokens
from taut.trust.identity.verifier import ApiKeyHash, RevokedToken, VerifierData

_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])


class PrincipalRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user or service principal as it is kept."""

    id: str
    kind: PrincipalKind
    display: str
    roles: tuple[str, ...]
    disabled: bool
    tokens_from_us: int
    created_at: datetime
    created_by: str


class ApiKeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as it is listed: never its secret."""

    id: str
    principal: str
    name: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was issued; the token itself is never kept."""

    id: str
    principal: str
    roles: tuple[str, ...]
    issued_at: datetime
    issued_by: str
    expires_at: datetime
    revoked: bool


def strings(text: str) -> tuple[str, ...]:
    return _STRINGS.decode(text)


def find_principal(tx: Tx, id_: str) -> PrincipalRow | None:
    row = tx.execute(select(principals).where(principals.c.id == id_)).one_or_none()
    return None if row is None else _principal(row)


def get_principal(tx: Tx, id_: str) -> PrincipalRow:
    found = find_principal(tx, id_)
    if found is None:
        raise NotFound(
            f"no principal {id_!r}: list them with `taut user list`, or add it with `taut user add`"
        )
    return found


def list_principals(tx: Tx) -> tuple[PrincipalRow, ...]:
    return tuple(_principal(row) for row in tx.execute(select(principals).order_by(principals.c.id)))


def count_humans(tx: Tx) -> int:
    wanted = (principals.c.kind == "human") & principals.c.disabled.is_(False)
    return int(tx.execute(select(func.count()).select_from(principals).where(wanted)).scalar_one())


def list_keys(tx: Tx, principal: str | None) -> tuple[ApiKeyRow, ...]:
    query = select(api_keys).order_by(api_keys.c.created_at_us, api_keys.c.id)
    if principal is not None:
        query = query.where(api_keys.c.principal == principal)
    return tuple(_key(row) for row in tx.execute(query))


def get_key(tx: Tx, id_: str) -> ApiKeyRow:
    row = tx.execute(select(api_keys).where(api_keys.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"no API key {id_[:40]!r}: list them with `taut key list`")
    return _key(row)


def list_tokens(tx: Tx, principal: str | None, *, now_us: int, limit: int) -> tuple[TokenRow, ...]:
    """Return the tokens that have not expired, the newest first."""
    joined = tokens.outerjoin(revocations, tokens.c.jti == revocations.c.jti)
    query = (
        select(tokens, revocations.c.revoked_at_us)
        .select_from(joined)
        .where(tokens.c.expires_at_us > now_us)
        .order_by(tokens.c.issued_at_us.desc(), tokens.c.jti)
        .limit(limit)
    )
    if principal is not None:
        query = query.where(tokens.c.principal == principal)
    cuts = {person.id: person.tokens_from_us for person in list_principals(tx)}
    return tuple(
        TokenRow(
            id=row.jti,
            principal=row.principal,
            roles=strings(row.roles),
            issued_at=from_us(row.issued_at_us),
            issued_by=row.issued_by,
            expires_at=from_us(row.expires_at_us),
            revoked=row.revoked_at_us is not None or row.issued_at_us < cuts.get(row.principal, 0),
        )
        for row in tx.execute(query)
    )


def read_version(tx: Tx) -> int:
    """Return how many acts so far changed what verifiers must know.

    A count, not a counter: acts at the same time would fight for the counter's one row.
    """
    return int(tx.execute(select(func.count()).select_from(changes)).scalar_one())


def add_change(tx: Tx, id_: str) -> None:
    tx.execute(insert(changes).values(id=id_))


def read_verifier_data(
    tx: Tx, *, issuer: str, audience: str, public_keys: Iterable[PublicKey], now_us: int
) -> VerifierData:
    """Return what a verifier needs at `now_us`; expired keys and revocations are left out."""
    people = {person.id: person for person in list_principals(tx)}
    live = (api_keys.c.revoked_at_us.is_(None)) & (
        api_keys.c.expires_at_us.is_(None) | (api_keys.c.expires_at_us > now_us)
    )
    keys = (_hash(row, people) for row in tx.execute(select(api_keys).where(live).order_by(api_keys.c.id)))
    dead = select(revocations).where(revocations.c.expires_at_us > now_us).order_by(revocations.c.jti)
    return VerifierData(
        issuer=issuer,
        audience=audience,
        public_keys=tuple(public_keys),
        api_keys=tuple(key for key in keys if key is not None),
        revoked=tuple(
            RevokedToken(jti=row.jti, expires_at_s=row.expires_at_us / 1e6) for row in tx.execute(dead)
        ),
        disabled=tuple(sorted(person.id for person in people.values() if person.disabled)),
        tokens_from_s={
            person.id: person.tokens_from_us / 1e6 for person in people.values() if person.tokens_from_us
        },
        version=read_version(tx),
    )


def _hash(row: Row[Any], people: dict[str, PrincipalRow]) -> ApiKeyHash | None:
    """Return a key with the roles that its principal still has; None where nothing is left of it."""
    person = people.get(row.principal)
    roles = () if person is None else tuple(role for role in strings(row.roles) if role in person.roles)
    if person is None or person.disabled or not roles:
        return None
    return ApiKeyHash(
        id=row.id,
        secret_sha256=row.secret_sha256,
        principal=row.principal,
        kind=person.kind,
        roles=roles,
        scopes=strings(row.scopes),
        expires_at_s=None if row.expires_at_us is None else row.expires_at_us / 1e6,
    )


def _principal(row: Row[Any]) -> PrincipalRow:
    return PrincipalRow(
        id=row.id,
        kind=check_kind(row.kind),
        display=row.display,
        roles=strings(row.roles),
        disabled=row.disabled,
        tokens_from_us=row.tokens_from_us,
        created_at=from_us(row.created_at_us),
        created_by=row.created_by,
    )


def _key(row: Row[Any]) -> ApiKeyRow:
    return ApiKeyRow(
        id=row.id,
        principal=row.principal,
        name=row.name,
        roles=strings(row.roles),
        scopes=strings(row.scopes),
        created_at=from_us(row.created_at_us),
        created_by=row.created_by,
        expires_at=None if row.expires_at_us is None else from_us(row.expires_at_us),
        revoked_at=None if row.revoked_at_us is None else from_us(row.revoked_at_us),
    )
