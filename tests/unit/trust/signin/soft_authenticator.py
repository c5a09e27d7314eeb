"""A person's device in software: makes passkeys and answers challenges, honestly or not."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256

ORIGIN = "http://localhost:8081"
PRESENT, VERIFIED, WITH_KEY = 1, 4, 64


class SoftAuthenticator:
    """Holds one passkey. `origin`, `flags`, `rp_id` and `counter` are what it says; change them to lie."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = hashlib.sha256(self.key.public_key().public_numbers().x.to_bytes(32, "big")).digest()
        self.user: bytes | None = None
        self.origin, self.flags, self.rp_id, self.counter = ORIGIN, PRESENT | VERIFIED, "", 0

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """As `navigator.credentials.create` does."""
        assert any(one["alg"] == -7 for one in options["pubKeyCredParams"])
        assert options["authenticatorSelection"]["userVerification"] == "required"
        self.user = unb64(options["user"]["id"])
        self.rp_id = self.rp_id or options["rp"]["id"]
        public = cbor.encode(ES256.from_cryptography_key(self.key.public_key()))
        data = self._data(WITH_KEY) + bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        attested = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        return self._answer({"clientDataJSON": b64(client), "attestationObject": b64(attested)})

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """As `navigator.credentials.get` does."""
        self.counter += 1 if self.counter else 0
        data, client = self._data(0), self._client("webauthn.get", options["challenge"])
        signed = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        told = {"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signed)}
        return self._answer(told if self.user is None else {**told, "userHandle": b64(self.user)})

    def _data(self, more: int) -> bytes:
        flags = (self.flags | more).to_bytes(1, "big")
        return hashlib.sha256(self.rp_id.encode()).digest() + flags + self.counter.to_bytes(4, "big")

    def _client(self, kind: str, challenge: str) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(told).encode()

    def _answer(self, response: dict[str, str]) -> dict[str, Any]:
        return {
            "id": b64(self.id), "rawId": b64(self.id), "type": "public-key", "response": response,
            "clientExtensionResults": {},
        }  # fmt: skip


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
