"""Verifies bearers from plain data, so that a gateway needs neither the control plane nor a database."""

from __future__ import annotations

import hashlib
import hmac
import threading
from typing import Final

import msgspec

from taut.core.errors import InvalidInput, Unauthenticated
from taut.ports.keys import PublicKey
from taut.trust.identity import jws
from taut.trust.identity.principals import ROLES, Principal, PrincipalKind, check_kind

KEY_PREFIX: Final = "taut_"
SKEW_S: Final = 10.0
"""How far another machine's clock may be off: applied to iat and nbf only, never to give a token longer life."""
_MAX_LIFE_S: Final = 7 * 86_400


class ApiKeyHash(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret."""

    id: str
    secret_sha256: str
    principal: str
    kind: PrincipalKind
    roles: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    expires_at_s: float | None = None


class RevokedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that is refused although it is signed and not yet expired."""

    jti: str
    expires_at_s: float


class VerifierData(msgspec.Struct, frozen=True, kw_only=True):
    """All that verification needs; a part of the serving snapshot. Holds no secret.

    api_keys: only those that are neither revoked nor of a disabled principal.
    tokens_from_s: principal -> moment before which issued tokens are refused.
    """

    issuer: str
    audience: str
    public_keys: tuple[PublicKey, ...]
    api_keys: tuple[ApiKeyHash, ...] = ()
    revoked: tuple[RevokedToken, ...] = ()
    disabled: tuple[str, ...] = ()
    tokens_from_s: dict[str, float] = {}
    version: int = 0


class TokenVerifier:
    """Turns a bearer into a principal; made anew from each snapshot, so revocations name what the cache may not.

    Guarantees: a bearer is accepted only when it is a live API key, or an ES256 token of this issuer and audience,
    signed by a known key, within its life and not revoked. A hit costs one dict look-up.
    Not guaranteed: that a revocation younger than the data is known.

    cache_size: bound on remembered bearers. Only verified ones are remembered, so forged ones cannot fill it; when
    it is full the oldest goes.
    """

    def __init__(self, data: VerifierData, *, cache_size: int = 65_536) -> None:
        if cache_size < 1:
            raise InvalidInput(f"cache_size is {cache_size}: give at least 1")
        self._data: Final = data
        self._keys: Final = jws.load_keys(data.public_keys)
        self._api_keys: Final = {key.id: key for key in data.api_keys}
        self._revoked: Final = frozenset(token.jti for token in data.revoked)
        self._disabled: Final = frozenset(data.disabled)
        self._cache: Final[dict[str, tuple[Principal, float]]] = {}
        self._cache_size: Final = cache_size
        self._lock: Final = threading.Lock()

    @property
    def version(self) -> int:
        return self._data.version

    def verify(self, bearer: str, now_s: float) -> Principal:
        """Return who holds `bearer` (the header's value without `Bearer `) at `now_s`, seconds since the epoch.

        Raises Unauthenticated on anything that is not accepted, whatever is wrong with it.
        """
        return self.accept(bearer, now_s)[0]

    def accept(self, bearer: str, now_s: float) -> tuple[Principal, float]:
        """Return who holds a bearer, and when it expires, in seconds since the epoch. Raises what `verify` does."""
        hit = self._cache.get(bearer)
        if hit is not None and now_s < hit[1]:
            return hit
        return self._verify(bearer, now_s)

    def _verify(self, bearer: str, now_s: float) -> tuple[Principal, float]:
        if len(bearer) > jws.MAX_BYTES or not bearer.isascii():
            raise Unauthenticated(
                f"the bearer is not ASCII or larger than {jws.MAX_BYTES} bytes: check what was sent"
            )
        if bearer.startswith(KEY_PREFIX):
            principal, expires_at_s = self._api_key(bearer, now_s)
        else:
            principal, expires_at_s = self._token(bearer, now_s)
        with self._lock:  # readers need none: a dict's get is atomic
            self._cache.pop(bearer, None)
            if len(self._cache) >= self._cache_size:
                del self._cache[next(iter(self._cache))]
            self._cache[bearer] = (principal, expires_at_s)
        return principal, expires_at_s

    def _api_key(self, bearer: str, now_s: float) -> tuple[Principal, float]:
        id_, _, secret = bearer.removeprefix(KEY_PREFIX).partition("_")
        key = self._api_keys.get(id_)
        digest = hashlib.sha256(secret.encode("ascii")).hexdigest()
        if key is None or not hmac.compare_digest(digest, key.secret_sha256):
            raise Unauthenticated("the API key is unknown or was revoked: ask for a new one")
        if key.principal in self._disabled:
            raise Unauthenticated("the principal of this API key is disabled: ask an administrator")
        expires_at_s = float("inf") if key.expires_at_s is None else key.expires_at_s
        if now_s >= expires_at_s:
            raise Unauthenticated("the API key has expired: ask for a new one")
        principal = Principal(
            id=key.principal, kind=key.kind, roles=key.roles, scopes=key.scopes, credential=key.id
        )
        return principal, expires_at_s

    def _token(self, bearer: str, now_s: float) -> tuple[Principal, float]:
        claims = jws.decode(bearer, self._keys)
        self._check_times(claims, now_s)
        if claims.iss != self._data.issuer or claims.aud != self._data.audience:
            raise Unauthenticated("the token is for another installation or audience: sign in here")
        if claims.jti in self._revoked or claims.sub in self._disabled:
            raise Unauthenticated("the token was revoked: sign in again")
        if claims.iat < self._data.tokens_from_s.get(claims.sub, 0.0):
            raise Unauthenticated("the token was revoked with all others of its principal: sign in again")
        if not claims.sub or not claims.jti or not set(claims.roles) <= ROLES:
            raise Unauthenticated("the token names no principal or an unknown role: sign in again")
        try:
            kind = check_kind(claims.kind)
        except InvalidInput as error:
            raise Unauthenticated("the token's kind of principal is unknown: sign in again") from error
        principal = Principal(
            id=claims.sub, kind=kind, roles=claims.roles, scopes=claims.scopes, credential=claims.jti
        )
        return principal, float(claims.exp)

    def _check_times(self, claims: jws.Claims, now_s: float) -> None:
        if now_s >= claims.exp:
            raise Unauthenticated("the token has expired: get a new one")
        starts = claims.iat if claims.nbf is None else max(claims.iat, claims.nbf)
        if starts > now_s + SKEW_S:
            raise Unauthenticated("the token is not valid yet: check the clocks of both machines")
        if not 0 < claims.exp - claims.iat <= _MAX_LIFE_S:
            raise Unauthenticated("the token's life is longer than any that is issued here: get a new one")
