"""Compact JWS with ES256, strictly: one algorithm, known keys, no header that could bring a key along.

The signature is made by the Keys port, whose private keys never leave it, so the compact form is put together
here; joserfc verifies it. Source: RFC 7515, RFC 7518 section 3.4, RFC 8725 (best current practice), RFC 9068.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import deserialize_compact

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, Unauthenticated
from taut.ports.keys import Keys, PublicKey

TYPE: Final = "at+jwt"
ALGORITHM: Final = "ES256"
MAX_BYTES: Final = 8 * 1024
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_SIGNATURE_BYTES: Final = 64


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a header may hold: jku, jwk, x5u, x5c, crit and the like are refused, not ignored."""

    alg: str
    kid: str
    typ: str


_HEADER: Final = msgspec.json.Decoder(_Header)


class Claims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token of taut says; every field is needed but `nbf` and `scopes`. Times are seconds since the epoch."""

    iss: str
    sub: str
    kind: str
    aud: str
    roles: tuple[str, ...]
    iat: int
    exp: int
    jti: str
    nbf: int | None = None
    scopes: tuple[str, ...] = ()


_CLAIMS: Final = msgspec.json.Decoder(Claims)


def encode(keys: Keys, claims: Claims) -> str:
    """Return the claims as a compact JWS, signed by the current `token` key."""
    key_id = keys.public_keys(purpose="token")[0].key_id
    payload = msgspec.to_builtins(claims)
    payload = {name: value for name, value in payload.items() if value is not None}
    for _ in range(2):
        header = canonical_json({"alg": ALGORITHM, "kid": key_id, "typ": TYPE})
        signed = f"{_encode(header)}.{_encode(canonical_json(payload))}"
        used, signature = keys.sign(signed.encode("ascii"), purpose="token")
        if len(signature) != _SIGNATURE_BYTES:
            raise Corrupt(f"the token key gave a signature of {len(signature)} bytes, not {_SIGNATURE_BYTES}")
        if used == key_id:
            return f"{signed}.{_encode(signature)}"
        key_id = used  # the key was rotated between the two calls: name the new one
    raise Corrupt("the token key changed twice while one token was signed: check the key holder")


def load_keys(public_keys: Iterable[PublicKey]) -> Mapping[str, ECKey]:
    """Return verifying keys by key id. Raises Corrupt for one that is not a P-256 public key for tokens."""
    found: dict[str, ECKey] = {}
    for public in public_keys:
        if public.purpose != "token":
            raise Corrupt(
                f"key {public.key_id} is for {public.purpose!r}, not for tokens: refuse the snapshot"
            )
        try:
            key = ECKey.import_key(public.pem)
        except (JoseError, ValueError) as error:
            raise Corrupt(f"key {public.key_id} cannot be read: {error}") from error
        if key.is_private or key.curve_name != "P-256":
            raise Corrupt(f"key {public.key_id} is no P-256 public key: refuse the snapshot")
        found[public.key_id] = key
    return found


def jwks(public_keys: Iterable[PublicKey]) -> dict[str, list[dict[str, object]]]:
    """Return verifying keys as a JWK set (RFC 7517), the current one first, for others who are shown our tokens."""
    return {
        "keys": [
            {**key.as_dict(private=False), "kid": id_, "use": "sig", "alg": ALGORITHM}
            for id_, key in load_keys(public_keys).items()
        ]
    }


def decode(token: str, keys: Mapping[str, ECKey]) -> Claims:
    """Return the claims of a token whose form and signature are right. Times and audience are not looked at.

    token: of at most `MAX_BYTES`.
    Raises Unauthenticated otherwise; the message never repeats the token.
    """
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise Unauthenticated("the bearer is neither an API key nor a signed token: sign in again")
    try:
        header = _HEADER.decode(_decode(parts[1]))
        claims_bytes = _decode(parts[2])
        _decode(parts[3])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unauthenticated(f"the token's header is not accepted ({error}): sign in again") from error
    if header.alg != ALGORITHM or header.typ != TYPE:
        raise Unauthenticated(f"the token is not of type {TYPE} signed with {ALGORITHM}: sign in again")
    key = keys.get(header.kid)
    if key is None:
        raise Unauthenticated("the token is signed with a key that is not known here: get a new one")
    try:
        payload = deserialize_compact(token, key, algorithms=[ALGORITHM]).payload
    except (JoseError, ValueError) as error:
        raise Unauthenticated("the token's signature is wrong: sign in again") from error
    if payload != claims_bytes:
        raise Unauthenticated("the token reads differently in two ways: sign in again")
    try:
        return _CLAIMS.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unauthenticated(f"the token's claims are not accepted ({error}): sign in again") from error


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Decode base64url and refuse a second spelling of the same bytes, so that a token has one form only."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise Unauthenticated("the token is not written in base64url: sign in again") from error
    if _encode(data) != text:
        raise Unauthenticated("the token is not written in canonical base64url: sign in again")
    return data
