"""Verifying an ID token of somebody else's, strictly.

Sources: OpenID Connect Core 1.0, section 3.1.3.7; RFC 8725, best current practice for JWT.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import deserialize_compact

from taut.core.errors import Corrupt, Unauthenticated

_MAX_BYTES: Final = 64 * 1024
_SKEW_S: Final = 10.0
_AGE_MAX_S: Final = 600.0
_RSA_BITS_MIN: Final = 2048
_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA", "Ed25519"),
}
"""Signatures by public key alone, by the type of the key: a secret shared with the provider would let us sign for him."""
_KINDS: Final[dict[str, type[Key]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


class _Header(msgspec.Struct, frozen=True):
    """Further members are allowed to a provider, but keys that a token brings along are never looked at."""

    alg: str
    kid: str | None = None
    crit: tuple[str, ...] | None = None


_HEADER: Final = msgspec.json.Decoder(_Header)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of somebody. proved_at: when he proved there who he is; None where that is not said."""

    issuer: str
    subject: str
    claims: dict[str, Any]
    proved_at: datetime | None


def load_jwks(body: bytes) -> dict[str | None, Key]:
    """Return the verifying keys of a JWKS by their id; those that are for something else are left out."""
    try:
        listed = msgspec.json.decode(body)["keys"]
        found = [_key(entry) for entry in listed]
    except (msgspec.MsgspecError, JoseError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"the provider's keys cannot be read ({error}): check the issuer") from error
    return {key.kid: key for key in found if key is not None}


def verify(
    token: str,
    key_of: Callable[[str | None], Key | None],
    *,
    issuer: str,
    audience: str,
    nonce: str,
    now_s: float,
) -> Told:
    """Return what an ID token says, if everything about it is right. Raises Unauthenticated; the token is never repeated.

    key_of: the provider's key of an id; of None, the only one he has.
    """
    claims = _signed(token, key_of)
    audiences = claims.get("aud")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    if claims.get("iss") != issuer:
        raise _wrong("is of another issuer")
    if not isinstance(audiences, list) or audience not in audiences:
        raise _wrong("is for another audience")
    if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != audience:
        raise _wrong("was given to another party")
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode("utf-8", "replace"), nonce.encode()):
        raise _wrong("belongs to another sign-in")
    if not now_s < _number(claims, "exp"):
        raise _wrong("has expired: check the clocks")
    if not now_s - _AGE_MAX_S <= _number(claims, "iat") <= now_s + _SKEW_S:
        raise _wrong("was not issued just now: check the clocks")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _wrong("names nobody")
    proved_s = None if claims.get("auth_time") is None else _number(claims, "auth_time")
    if proved_s is not None and proved_s > now_s + _SKEW_S:
        raise _wrong("says that somebody signed in later than now: check the clocks")
    proved_at = None if proved_s is None else datetime.fromtimestamp(min(proved_s, now_s), UTC)
    return Told(issuer=issuer, subject=subject, claims=claims, proved_at=proved_at)


def _signed(token: str, key_of: Callable[[str | None], Key | None]) -> dict[str, Any]:
    if len(token) > _MAX_BYTES or not token.isascii() or token.count(".") != 2:
        raise _wrong("is no signed token")
    try:
        header = _HEADER.decode(_decode(token.partition(".")[0]))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise _wrong("has a header that cannot be read") from error
    if header.crit is not None:
        raise _wrong("asks for extensions that are not known here")
    key = key_of(header.kid)
    if key is None:
        raise _wrong("is signed with a key that the provider does not list")
    if (
        header.alg not in _TYPES[key.key_type]
    ):  # `none`, a shared secret, or the algorithm of another kind of key
        raise _wrong("is signed in a way that its key is not for")
    try:
        payload = deserialize_compact(token, key, algorithms=[header.alg]).payload
        claims = msgspec.json.decode(payload)
    except (JoseError, ValueError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _wrong("has a wrong signature") from error
    if not isinstance(claims, dict):
        raise _wrong("has no claims")
    return claims


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _key(entry: Mapping[str, Any]) -> Key | None:
    kind = _KINDS.get(str(entry.get("kty")))
    if kind is None or entry.get("use", "sig") != "sig":
        return None
    if kind is RSAKey and int.from_bytes(_decode(str(entry["n"]))).bit_length() < _RSA_BITS_MIN:
        return None
    return kind.import_key(dict(entry))


def _number(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(f"has no {name}")
    return float(value)


def _wrong(what: str) -> Unauthenticated:
    return Unauthenticated(
        f"what the identity provider sent {what}: sign in again, and if it stays so ask whoever runs it"
    )
