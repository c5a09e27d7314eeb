"""An OpenID provider that a test owns, honest or not, behind the port by which it is asked."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from taut.ports.web import WebAnswer
from taut.ports.world import Clock

ISSUER = "https://id.example.org/tenant"
CLIENT = "taut-example"
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa-1"})
EC = ECKey.generate_key("P-256", parameters={"kid": "ec-1"})


class FakeProvider:
    """Signs ada in. `claims`, `header`, `key` and `forge` change what it sends; `metadata` what it says of itself."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.keys: list[Key] = [RSA]
        self.key: Key = RSA
        self.header: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.without: tuple[str, ...] = ()
        self.forge: Callable[[str, dict[str, Any]], str] | None = None
        self.metadata: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.down = False
        self.basic: tuple[str, str] | None = None

    def visit(self, url: str) -> dict[str, str]:
        """A person proves himself at an authorization address; what his browser brings back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        return {"state": asked["state"], "code": code}

    def send(self, url: str, body: bytes, headers: Mapping[str, str], *, inside: bool) -> WebAnswer:
        raise AssertionError("nobody is sent anything in a sign-in")

    def get(self, url: str) -> WebAnswer:
        self.asked.append(url)
        if self.down:
            return WebAnswer(status=503, body=b"busy")
        if url == f"{ISSUER}/.well-known/openid-configuration":
            return _json({
                "issuer": ISSUER, "authorization_endpoint": f"{ISSUER}/authorize", "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys", **self.metadata,
            })  # fmt: skip
        assert url == f"{ISSUER}/keys"
        return _json(
            {"keys": [key.as_dict(private=False) for key in self.keys if not isinstance(key, OctKey)]}
        )

    def post(self, url: str, fields: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> WebAnswer:
        assert url == f"{ISSUER}/token"
        self.basic = basic
        asked = self.codes.pop(fields["code"], None)
        hashed = hashlib.sha256(fields["code_verifier"].encode()).digest()
        right = (
            asked is not None
            and asked["redirect_uri"] == fields["redirect_uri"]
            and urlsafe_b64encode(hashed).rstrip(b"=").decode() == asked["code_challenge"]
        )
        if asked is None or not right:
            return WebAnswer(status=400, body=b'{"error": "invalid_grant"}')
        return _json({"access_token": "x", "token_type": "Bearer", "id_token": self.signed(asked)})

    def signed(self, asked: Mapping[str, str]) -> str:
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": ISSUER, "aud": CLIENT, "sub": "u-1", "nonce": asked["nonce"], "iat": now, "exp": now + 300,
            "auth_time": now - 5, "preferred_username": "Ada.L@example.org", "groups": ["ml"], **self.claims,
        }  # fmt: skip
        told = {name: value for name, value in claims.items() if name not in self.without}
        header = {
            "alg": "RS256" if isinstance(self.key, RSAKey) else "ES256",
            "kid": self.key.kid,
            **self.header,
        }
        good = jws.serialize_compact(header, json.dumps(told), self.key, algorithms=[header["alg"]])
        return good if self.forge is None else self.forge(good, told)


def unsigned(claims: Mapping[str, Any], *, alg: str = "none", secret: bytes | None = None) -> str:
    """A token with no signature, or with one by a shared secret, such as the text of a public key."""
    parts = [json.dumps({"alg": alg, "kid": "rsa-1"}), json.dumps(claims)]
    text = ".".join(urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)
    mac = b"" if secret is None else hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _json(value: object) -> WebAnswer:
    return WebAnswer(status=200, body=json.dumps(value).encode())
