"""Keys in the transit engine of OpenBao or HashiCorp Vault."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from taut.adapters.keys.remote import LIMITS, Answer, Limits, Remote, check_address
from taut.core.errors import Corrupt, Denied, InvalidInput, Unavailable
from taut.ports.world import Clock, Random

T = TypeVar("T")

_WHAT: Final = "Vault"
_TYPES: Final = {"seal": "aes256-gcm96", "sign": "ecdsa-p256"}


class _Version(msgspec.Struct, frozen=True):
    public_key: str


class _SignKey(msgspec.Struct, frozen=True):
    latest_version: int
    keys: dict[int, _Version]


class _AnyKey(msgspec.Struct, frozen=True):
    latest_version: int


class _Sealed(msgspec.Struct, frozen=True):
    ciphertext: str


class _Opened(msgspec.Struct, frozen=True):
    plaintext: str


class _Signed(msgspec.Struct, frozen=True):
    signature: str


class _Of(msgspec.Struct, frozen=True):
    data: msgspec.Raw


class _Refusal(msgspec.Struct, frozen=True):
    errors: tuple[str, ...] = ()


class VaultHolder:
    """Transit keys `NAME-seal` (AES-256-GCM) and `NAME-sign` (P-256), turned together, the one that signs last.

    url: of the server and the engine's mount, such as `https://vault:8200/transit`; plain HTTP on loopback only.
    ca: PEM file of the authority that vouches for the server; "" are the machine's.
    token: may create, read and rotate the keys of the prefix, and encrypt, decrypt and sign with them.
    A rotation whose answer was lost is sent again and may make one version more than was asked.
    """

    def __init__(
        self, url: str, *, token: str, clock: Clock, random: Random, limits: Limits = LIMITS,
        transport: httpx.BaseTransport | None = None, ca: str = "",
    ) -> None:  # fmt: skip
        check_address(url)
        if not token or not token.isascii() or not token.isprintable():
            raise InvalidInput("Vault's token is missing or no token: give it as TAUT_KEYS_PASSPHRASE")
        server, separator, mount = url.rstrip("/").partition("/v1/")
        if not separator:
            server, _, mount = url.rstrip("/").rpartition("/")
        if not mount or server.endswith("/"):
            raise InvalidInput(
                "Vault's address names no engine: write for example vault+https://vault:8200/transit"
            )
        self._base = f"{server}/v1/{mount}"
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        self._remote = Remote(
            _WHAT,
            clock=clock,
            random=random,
            limits=limits,
            transport=transport,
            ca=ca,
            secure=url.startswith("https:"),
        )

    def newest(self, name: str) -> int:
        found = self._key(name, "sign", _AnyKey)
        return 0 if found is None else found.latest_version

    def add(self, name: str, version: int) -> None:
        for half, kind in _TYPES.items():
            found = self._key(name, half, _AnyKey)
            if found is None:
                self._post(f"keys/{name}-{half}", {"type": kind})
            elif found.latest_version < version:
                self._post(f"keys/{name}-{half}/rotate", {})

    def encrypt(self, name: str, version: int, plain: bytes, *, aad: bytes) -> bytes:
        asked = {"plaintext": _text(plain), "associated_data": _text(aad), "key_version": version}
        answer = self._accepted(self._post(f"encrypt/{name}-seal", asked))
        return self._data(answer, _Sealed).ciphertext.encode()

    def decrypt(self, name: str, version: int, sealed: bytes, *, aad: bytes) -> bytes:
        asked = {"ciphertext": sealed.decode("utf-8", "replace"), "associated_data": _text(aad)}
        answer = self._post(f"decrypt/{name}-seal", asked)
        if answer.status == 400:
            raise Corrupt(
                f"wrapped key of {name} does not open: it was changed, is used where it does not belong, or its version "
                f"{version} is no longer in the Vault"
            )
        return self._bytes(self._data(self._accepted(answer), _Opened).plaintext)

    def sign(self, name: str, version: int, message: bytes) -> bytes:
        asked = {
            "input": _text(message), "key_version": version, "hash_algorithm": "sha2-256",
            "marshaling_algorithm": "jws",
        }  # fmt: skip
        answer = self._accepted(self._post(f"sign/{name}-sign", asked))
        text = self._data(answer, _Signed).signature.rpartition(":")[2]
        return self._bytes(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))

    def public(self, name: str, version: int) -> bytes:
        found = self._key(name, "sign", _SignKey)
        if found is None or version not in found.keys:
            raise Corrupt(f"the Vault holds no version {version} of {name}-sign: restore its storage")
        try:
            key = load_pem_public_key(found.keys[version].public_key.encode())
        except ValueError:
            raise Unavailable("the Vault answers with a public key that is none: look at it") from None
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def close(self) -> None:
        self._remote.close()

    def _key(self, name: str, half: str, type: type[T]) -> T | None:
        answer = self._ask("GET", f"keys/{name}-{half}", None)
        if answer.status == 404 and not self._remote.read(answer, _Refusal).errors:
            return None
        return self._data(self._accepted(answer), type)

    def _post(self, path: str, body: dict[str, Any]) -> Answer:
        answer = self._ask("POST", path, msgspec.json.encode(body))
        return answer if path.startswith("decrypt/") else self._accepted(answer)

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        def make() -> httpx.Request:
            return httpx.Request(method, f"{self._base}/{path}", content=body, headers=self._headers)

        return self._remote.ask(make, again=lambda answer: answer.status in (412, 472, 473))

    def _accepted(self, answer: Answer) -> Answer:
        if answer.status in (200, 204):
            return answer
        said = "; ".join(self._remote.read(answer, _Refusal).errors)[:300]
        if answer.status == 403:
            raise Denied(f"the Vault refuses ({said}): look at its policy for the token, or renew that")
        if answer.status == 404:
            raise InvalidInput(
                f"the Vault has no transit engine there ({said}): mount one, or mend TAUT_KEYS"
            )
        raise Unavailable(f"the Vault answers {answer.status} ({said}): look at it, then try again")

    def _data(self, answer: Answer, type: type[T]) -> T:
        return self._remote.read(Answer(answer.status, bytes(self._remote.read(answer, _Of).data)), type)

    def _bytes(self, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Unavailable("the Vault answers with something else than base64: look at it") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
