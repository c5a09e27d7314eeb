"""Keeps principals, issues and revokes their credentials; each administrative act is a leaf of the ledger."""

from __future__ import annotations

import hashlib
import threading
from base64 import b32encode
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import insert, select, update

from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.evidence import Scalar
from taut.core.times import from_us, to_us
from taut.ports.keys import Keys, PublicKey
from taut.ports.records import Records, Tx, transact
from taut.ports.world import Clock, Ids, Random
from taut.trust.identity import jws, rows
from taut.trust.identity.people import MAX_TEXT, SECOND_US, Enrol, People, json_text
from taut.trust.identity.principals import (
    Principal,
    check_roles,
    check_scopes,
)
from taut.trust.identity.rows import ApiKeyRow, PrincipalRow, TokenRow
from taut.trust.identity.tables import api_keys, principals, revocations, tokens
from taut.trust.identity.verifier import KEY_PREFIX, TokenVerifier, VerifierData
from taut.trust.ledger import Ledger

AUDIENCE: Final = "taut"
_ATTEMPTS: Final = 32
MAX_TOKEN_TTL: Final = timedelta(hours=24)
MAX_OVERLAP: Final = timedelta(days=30)
_SECRET_BYTES: Final = 32


class Identity:
    """The register of who exists and which credentials they hold.

    Guarantees: an act, its ledger leaf and the new version number commit together or not at all. Secrets of API
    keys are returned once and kept as a sha256 (they carry 256 random bits, so no slow hash is needed).
    Not guaranteed: that gateways know a revocation before their next snapshot.

    issuer: names this installation in its tokens; tokens of another installation are refused.
    actor, everywhere: the id of the principal who acts, for the ledger. Whether he may is decided by policy before.
    """

    def __init__(
        self,
        records: Records,
        keys: Keys,
        ledger: Ledger,
        clock: Clock,
        ids: Ids,
        random: Random,
        *,
        issuer: str = "taut",
    ) -> None:
        self._records: Final = records
        self._keys: Final = keys
        self._people: Final = People(ledger, clock)
        self._clock: Final = clock
        self._ids: Final = ids
        self._random: Final = random
        self._issuer: Final = issuer
        self._lock: Final = threading.Lock()
        self._verifier: TokenVerifier | None = None

    # Principals

    def create_principal(
        self, id: str, *, kind: Enrol, roles: Iterable[str], actor: str, display: str = ""
    ) -> PrincipalRow:
        """Add a user or service principal. Raises Conflict when the id is taken, InvalidInput on a bad word."""
        granted = check_roles(roles)

        def do(tx: Tx) -> PrincipalRow:
            return self._people.add(tx, id, kind=kind, roles=granted, actor=actor, display=display)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def set_roles(self, id: str, roles: Iterable[str], *, actor: str) -> PrincipalRow:
        """Give a principal exactly these roles. Where one is taken away, his tokens are revoked too."""
        granted = check_roles(roles)

        def do(tx: Tx) -> PrincipalRow:
            return self._people.set_roles(tx, rows.get_principal(tx, id), granted, actor=actor)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def set_disabled(self, id: str, disabled: bool, *, actor: str) -> PrincipalRow:
        """Disable a principal (tokens and keys are refused while it lasts), or enable it again."""

        def do(tx: Tx) -> PrincipalRow:
            rows.get_principal(tx, id)
            tx.execute(update(principals).where(principals.c.id == id).values(disabled=disabled))
            self._people.note(
                tx, "identity.principal.disabled" if disabled else "identity.principal.enabled", id, actor
            )
            return rows.get_principal(tx, id)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def principals(self) -> tuple[PrincipalRow, ...]:
        with self._records.read() as tx:
            return rows.list_principals(tx)

    def principal(self, id: str) -> PrincipalRow:
        """Return a principal. Raises NotFound."""
        with self._records.read() as tx:
            return rows.get_principal(tx, id)

    def is_single_user(self) -> bool:
        """Whether at most one human principal exists, so that the owner of the files may act without a sign-in."""
        with self._records.read() as tx:
            return rows.count_humans(tx) <= 1

    # Tokens

    def create_token(
        self,
        principal: str,
        roles: Iterable[str],
        ttl: timedelta,
        *,
        actor: str,
        scopes: Iterable[str] = (),
        enrol: Enrol | None = None,
    ) -> tuple[str, datetime]:
        """Return a signed token for some of a principal's roles, and when it expires.

        ttl: 1 s to 24 h; whole seconds, rounded up.
        enrol: add the principal as this kind where there is none, and the roles where he lacks them, as acts of
        their own; only for actors who may administer users.
        Raises NotFound without such a principal, Denied for a role that he has not, InvalidInput on a bad ttl.
        """
        wanted, narrowed = check_roles(roles), check_scopes(scopes)
        if not timedelta(seconds=1) <= ttl <= MAX_TOKEN_TTL:
            raise InvalidInput(f"a token cannot live for {ttl}: give 1s to 24h, or use an API key")

        def do(tx: Tx) -> tuple[str, datetime]:
            person = self._people.holder(tx, principal, wanted, actor=actor, enrol=enrol)
            # never before the moment that a revocation of all his tokens set, so that a new one is accepted
            iat = max(to_us(self._clock.now()) // SECOND_US, -(-person.tokens_from_us // SECOND_US))
            exp = iat - (-ttl // timedelta(seconds=1))
            claims = jws.Claims(
                iss=self._issuer, sub=person.id, kind=person.kind, aud=AUDIENCE, roles=wanted, iat=iat,
                exp=exp, jti=self._ids.new("tok"), scopes=narrowed,
            )  # fmt: skip
            token = jws.encode(self._keys, claims)
            tx.execute(
                insert(tokens).values(
                    jti=claims.jti, principal=person.id, roles=json_text(wanted), issued_at_us=iat * SECOND_US,
                    issued_by=actor, expires_at_us=exp * SECOND_US,
                )
            )  # fmt: skip
            facts: dict[str, Scalar] = {
                "jti": claims.jti,
                "roles": " ".join(wanted),
                "scopes": " ".join(narrowed),
                "expires_s": exp,
            }
            self._people.note(tx, "identity.token.created", person.id, actor, facts, known_by_itself=True)
            return token, from_us(exp * SECOND_US)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def revoke_token(self, jti: str, *, actor: str) -> None:
        """Refuse one token from now on. Revoking it again changes nothing. Raises NotFound for an unknown jti."""

        def do(tx: Tx) -> None:
            row = tx.execute(select(tokens).where(tokens.c.jti == jti)).one_or_none()
            if row is None:
                raise NotFound(
                    f"no token {jti[:64]!r} was issued here: give the id that `token create` recorded"
                )
            if tx.execute(select(revocations.c.jti).where(revocations.c.jti == jti)).first() is not None:
                return
            tx.execute(
                insert(revocations).values(
                    jti=jti, expires_at_us=row.expires_at_us, revoked_at_us=to_us(self._clock.now()),
                    revoked_by=actor,
                )
            )  # fmt: skip
            self._people.note(tx, "identity.token.revoked", row.principal, actor, {"jti": jti})

        transact(self._records, do, attempts=_ATTEMPTS)

    def revoke_tokens(self, principal: str, *, actor: str) -> None:
        """Refuse every token that a principal was given so far; his API keys stay."""

        def do(tx: Tx) -> None:
            rows.get_principal(tx, principal)
            self._people.cut_tokens(tx, principal, actor=actor)
            self._people.note(tx, "identity.tokens.revoked", principal, actor)

        transact(self._records, do, attempts=_ATTEMPTS)

    def tokens(self, principal: str | None = None, *, limit: int = 1000) -> tuple[TokenRow, ...]:
        """Return the tokens that have not expired, the newest first."""
        with self._records.read() as tx:
            return rows.list_tokens(tx, principal, now_us=to_us(self._clock.now()), limit=limit)

    # API keys

    def create_key(
        self,
        principal: str,
        roles: Iterable[str],
        *,
        actor: str,
        name: str = "",
        scopes: Iterable[str] = (),
        ttl: timedelta | None = None,
        enrol: Enrol | None = None,
    ) -> tuple[ApiKeyRow, str]:
        """Make an API key and return it with its text, `taut_ID_SECRET`, which is never shown again.

        ttl: None for a key without an end. Errors and `enrol` as in `create_token`.
        """
        wanted, narrowed = check_roles(roles), check_scopes(scopes)
        if ttl is not None and ttl < timedelta(seconds=1):
            raise InvalidInput(f"an API key cannot live for {ttl}: give 1s or more")
        if len(name) > MAX_TEXT:
            raise InvalidInput(f"the key's name has {len(name)} characters: use at most {MAX_TEXT}")
        id_ = self._random.bytes(8).hex()
        secret = b32encode(self._random.bytes(_SECRET_BYTES)).rstrip(b"=").decode("ascii").lower()

        def do(tx: Tx) -> ApiKeyRow:
            person = self._people.holder(tx, principal, wanted, actor=actor, enrol=enrol)
            now = self._clock.now()
            expires_us = None if ttl is None else to_us(now + ttl)
            tx.execute(
                insert(api_keys).values(
                    id=id_, principal=person.id, name=name, roles=json_text(wanted), scopes=json_text(narrowed),
                    secret_sha256=hashlib.sha256(secret.encode("ascii")).hexdigest(),
                    created_at_us=to_us(now), created_by=actor, expires_at_us=expires_us,
                )
            )  # fmt: skip
            facts: dict[str, Scalar] = {
                "key": id_,
                "roles": " ".join(wanted),
                "scopes": " ".join(narrowed),
                "expires_us": expires_us,
            }
            self._people.note(tx, "identity.key.created", person.id, actor, facts)
            return rows.get_key(tx, id_)

        return transact(self._records, do, attempts=_ATTEMPTS), f"{KEY_PREFIX}{id_}_{secret}"

    def rotate_key(self, id: str, *, overlap: timedelta, actor: str) -> tuple[ApiKeyRow, str]:
        """Make a key for the same principal, roles and scopes; the former one ends after `overlap`, or before as it would.

        A key with an end gets a successor that lives as long. Raises NotFound, Conflict for one that is over already.
        """
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidInput(f"a key cannot go on for {overlap} beside its successor: give 0s to 30d")
        with self._records.read() as tx:
            old = rows.get_key(tx, id)
        now = self._clock.now()
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise Conflict(f"API key {id!r} is revoked or has expired: make a new one with `taut key create`")
        life = None if old.expires_at is None else old.expires_at - old.created_at
        made = self.create_key(
            old.principal, old.roles, actor=actor, name=old.name, scopes=old.scopes, ttl=life
        )

        def do(tx: Tx) -> None:
            until = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
            tx.execute(update(api_keys).where(api_keys.c.id == id).values(expires_at_us=to_us(until)))
            facts: dict[str, Scalar] = {"key": id, "successor": made[0].id, "until_us": to_us(until)}
            self._people.note(tx, "identity.key.rotated", old.principal, actor, facts)

        transact(self._records, do, attempts=_ATTEMPTS)
        return made

    def revoke_key(self, id: str, *, actor: str) -> ApiKeyRow:
        """Refuse an API key from now on. Revoking it again changes nothing. Raises NotFound."""

        def do(tx: Tx) -> ApiKeyRow:
            key = rows.get_key(tx, id)
            if key.revoked_at is None:
                now_us = to_us(self._clock.now())
                change = update(api_keys).where(api_keys.c.id == id)
                tx.execute(change.values(revoked_at_us=now_us, revoked_by=actor))
                self._people.note(tx, "identity.key.revoked", key.principal, actor, {"key": id})
            return rows.get_key(tx, id)

        return transact(self._records, do, attempts=_ATTEMPTS)

    def keys(self, principal: str | None = None) -> tuple[ApiKeyRow, ...]:
        with self._records.read() as tx:
            return rows.list_keys(tx, principal)

    # Verification

    def verifier_data(self) -> VerifierData:
        """Return what gateways need to verify bearers; a part of the serving snapshot."""
        public_keys = self._keys.public_keys(purpose="token")
        with self._records.read() as tx:
            return rows.read_verifier_data(
                tx, issuer=self._issuer, audience=AUDIENCE, public_keys=public_keys,
                now_us=to_us(self._clock.now()),
            )  # fmt: skip

    def jwks(self) -> dict[str, list[dict[str, object]]]:
        """Return the public keys of tokens as a JWK set: those whose tokens may still live, the current one first."""
        return jws.jwks(self._keys.public_keys(purpose="token"))

    def version(self) -> int:
        """Return a number that grows with every change of who exists and which credentials hold."""
        with self._records.read() as tx:
            return rows.read_version(tx)

    def authenticate(self, bearer: str) -> Principal:
        """Verify a bearer against the state of this moment; for the control plane. Raises Unauthenticated."""
        with self._records.read() as tx:
            version = rows.read_version(tx)
        with self._lock:
            if self._verifier is None or self._verifier.version != version:
                self._verifier = TokenVerifier(self.verifier_data())
            verifier = self._verifier
        return verifier.verify(bearer, self._clock.now().timestamp())

    def rotate_token_key(self, *, actor: str) -> PublicKey:
        """Sign new tokens with a new key; tokens signed with the old ones live on to their end."""
        key = self._keys.rotate(purpose="token")
        transact(
            self._records,
            lambda tx: self._people.note(
                tx, "identity.token_key.rotated", "token", actor, {"key_id": key.key_id}
            ),
        )
        return key
