"""An OpenID provider as taut uses it: discovery, authorization code with PKCE, keys that are rotated.

Sources: OpenID Connect Core and Discovery 1.0; RFC 7636 (PKCE), RFC 9207 (issuer in the answer), RFC 9700 (security
best current practice).
"""

from __future__ import annotations

import hashlib
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from joserfc.jwk import Key

from taut.core.errors import Corrupt, InvalidInput, Unauthenticated, Unavailable
from taut.core.hosts import LOOPBACK
from taut.ports.web import Web, WebAnswer
from taut.ports.world import Clock
from taut.trust.signin.idtoken import Told, load_jwks, verify

MAX_AGE_S: Final = 900
"""Asked of the provider, so that he says when somebody proved who he is, and asks him again where that is long ago."""
_FRESH_S: Final = 3600.0
_AGAIN_S: Final = 30.0


class Metadata(msgspec.Struct, frozen=True):
    """The part of a provider's discovery document that is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    code_challenge_methods_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str


class Provider:
    """One OpenID provider.

    Guarantees: nothing of a token is believed before its signature, issuer, audience, nonce and times were right; the code
    is redeemed with the verifier whose hash began it. Keys are fetched anew when one is not known, at most each 30 s,
    and at least each hour.

    issuer: exactly as the provider writes it. client_secret: asked at each redemption; None for a public client.
    """

    def __init__(
        self, web: Web, clock: Clock, *, issuer: str, client_id: str, client_secret: Callable[[], str | None]
    ) -> None:
        _require_safe(issuer, "issuer")
        self._web: Final = web
        self._clock: Final = clock
        self.issuer: Final = issuer
        self._client_id: Final = client_id
        self._client_secret: Final = client_secret
        self._lock: Final = threading.Lock()
        self._metadata: tuple[Metadata, float] | None = None
        self._keys: tuple[dict[str | None, Key], float] | None = None

    def authorization_url(self, *, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Return where a person proves who he is."""
        asked = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": redirect_uri,
            "scope": "openid profile email", "state": state, "nonce": nonce, "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256", "max_age": str(MAX_AGE_S),
        }  # fmt: skip
        where = self.metadata().authorization_endpoint
        return f"{where}{'&' if urlsplit(where).query else '?'}{urlencode(asked)}"

    def redeem(
        self, code: str, *, verifier: str, redirect_uri: str, nonce: str, issuer: str | None = None
    ) -> Told:
        """Turn a code into what the provider says of the person. issuer: that came with the code, if one did.

        Raises Unauthenticated when the provider refuses the code or anything about his token is wrong, Unavailable when he does not answer.
        """
        metadata = self.metadata()
        if issuer is None and metadata.authorization_response_iss_parameter_supported:
            raise Unauthenticated("the answer does not say which provider it is of: begin again")
        if issuer is not None and issuer != self.issuer:
            raise Unauthenticated("the answer is of another provider than was asked: begin again")
        fields = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier,
        }  # fmt: skip
        secret = self._client_secret()
        if secret is None:
            answer = self._web.post(metadata.token_endpoint, {**fields, "client_id": self._client_id})
        else:
            basic = (quote_plus(self._client_id), quote_plus(secret))
            answer = self._web.post(metadata.token_endpoint, fields, basic=basic)
        tokens = _decoded(answer, _Tokens, metadata.token_endpoint)
        return verify(
            tokens.id_token, self._key_of, issuer=self.issuer, audience=self._client_id, nonce=nonce,
            now_s=self._clock.now().timestamp(),
        )  # fmt: skip

    def metadata(self) -> Metadata:
        """Return the provider's own description, of the last hour."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            if self._metadata is None or now_s - self._metadata[1] > _FRESH_S:
                self._metadata = (self._discover(), now_s)
            return self._metadata[0]

    def _discover(self) -> Metadata:
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found: Metadata = _decoded(self._web.get(url), Metadata, url)
        if found.issuer != self.issuer:
            raise Corrupt(
                f"{url} describes another issuer, {found.issuer[:200]!r}: set TAUT_OIDC_ISSUER as it is written there"
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _require_safe(getattr(found, name), name)
        methods = found.code_challenge_methods_supported
        if methods is not None and "S256" not in methods:
            raise Corrupt(
                f"{url} offers no PKCE with S256, without which a stolen code could be used: ask for it there"
            )
        return found

    def _key_of(self, kid: str | None) -> Key | None:
        keys, fetched_s = self._known_keys(newer_than_s=None)
        if (kid is None and len(keys) != 1) or (kid is not None and kid not in keys):
            keys, _ = self._known_keys(newer_than_s=fetched_s)
        if kid is not None:
            return keys.get(kid)
        return next(iter(keys.values())) if len(keys) == 1 else None

    def _known_keys(self, *, newer_than_s: float | None) -> tuple[dict[str | None, Key], float]:
        where = self.metadata().jwks_uri
        with self._lock:
            now_s = self._clock.monotonic_s()
            stale = self._keys is None or now_s - self._keys[1] > _FRESH_S
            wanted = newer_than_s is not None and self._keys is not None and self._keys[1] <= newer_than_s
            if stale or (wanted and self._keys is not None and now_s - self._keys[1] >= _AGAIN_S):
                answer = self._web.get(where)
                if answer.status != 200:
                    raise Unavailable(
                        f"{where} answers {answer.status}: try again, or ask who runs the provider"
                    )
                self._keys = (load_jwks(answer.body), now_s)
            assert self._keys is not None
            return self._keys


def challenge_of(verifier: str) -> str:
    """RFC 7636, section 4.2."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def _decoded(answer: WebAnswer, kind: Any, where: str) -> Any:
    if answer.status >= 500:
        raise Unavailable(f"{where} answers {answer.status}: try again")
    if answer.status != 200:
        raise Unauthenticated(
            f"the identity provider refused ({answer.status}{_reason(answer.body)} of {where}): begin again"
        )
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{where} answers what no OpenID provider does ({error}): check the issuer") from error


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


def _reason(body: bytes) -> str:
    """The error's name of RFC 6749, section 5.2; nothing else of what a stranger wrote is repeated."""
    try:
        said = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return f", {said}" if said.isascii() and said.isidentifier() and len(said) <= 40 else ""


def _require_safe(url: str, what: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise InvalidInput(
            f"the provider's {what} {url[:200]!r} is not reached by https: nothing is sent there"
        )
