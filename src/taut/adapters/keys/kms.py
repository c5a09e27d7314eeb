"""Keys in AWS KMS, over its signed JSON."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final, TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from taut.adapters.keys.remote import LIMITS, Answer, Limits, Remote, check_address
from taut.adapters.keys.sigv4 import Credentials, signed_headers
from taut.core.errors import Conflict, Corrupt, Denied, NotFound, TautError, Unavailable
from taut.ports.world import Clock, Random

T = TypeVar("T")

_WHAT: Final = "KMS"
_MESSAGE_BYTES_MAX: Final = 4096  # of what KMS hashes itself
_AGAIN: Final = frozenset(
    {"ThrottlingException", "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException"}
)
_CHANGED: Final = frozenset(
    {"InvalidCiphertextException", "IncorrectKeyException", "InvalidKeyUsageException", "ValidationException"}
)
_REFUSED: Final = frozenset(
    {
        "AccessDeniedException", "ExpiredTokenException", "IncompleteSignatureException", "InvalidClientTokenId",
        "InvalidSignatureException", "MissingAuthenticationTokenException", "NotAuthorizedException",
        "UnrecognizedClientException",
    }
)  # fmt: skip


class _Metadata(msgspec.Struct, frozen=True, rename="pascal"):
    key_id: str


class _Made(msgspec.Struct, frozen=True, rename="pascal"):
    key_metadata: _Metadata


class _Sealed(msgspec.Struct, frozen=True, rename="pascal"):
    ciphertext_blob: bytes


class _Opened(msgspec.Struct, frozen=True, rename="pascal"):
    plaintext: bytes


class _Signed(msgspec.Struct, frozen=True, rename="pascal"):
    signature: bytes


class _Public(msgspec.Struct, frozen=True, rename="pascal"):
    public_key: bytes


class _Fault(msgspec.Struct, frozen=True):
    type: str = msgspec.field(name="__type", default="")


class KmsHolder:
    """A version is two KMS keys behind the aliases `alias/NAME-sign-N` and `alias/NAME-seal-N`, made in this order.

    KMS's own rotation of a key's material is not used: a version is a key, so that old ones can be seen and counted.
    endpoint: of the region's service; plain HTTP on loopback only. What a key seals is bound to the SHA-256 of what it
    belongs to, since encryption contexts are written to CloudTrail.
    When two make a version at once, the alias decides and the other's key is scheduled for deletion; one that was cut
    off between key and alias leaves a key without an alias, which costs its price until it is deleted by hand.
    """

    def __init__(
        self, endpoint: str, *, region: str, credentials: Credentials, clock: Clock, random: Random,
        limits: Limits = LIMITS, transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        check_address(endpoint)
        self._endpoint = endpoint.rstrip("/") + "/"
        self._region = region
        self._credentials = credentials
        self._clock = clock
        self._remote = Remote(
            _WHAT,
            clock=clock,
            random=random,
            limits=limits,
            transport=transport,
            secure=endpoint.startswith("https:"),
        )
        self._seen: dict[str, int] = {}  # the newest version that was met: versions only grow

    def newest(self, name: str) -> int:
        version = self._seen.get(name, 0)
        while self._is(_alias(name, "seal", version + 1)):
            version += 1
        self._seen[name] = version
        return version

    def add(self, name: str, version: int) -> None:
        self._make(_alias(name, "sign", version), KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        self._make(_alias(name, "seal", version), KeySpec="SYMMETRIC_DEFAULT", KeyUsage="ENCRYPT_DECRYPT")

    def encrypt(self, name: str, version: int, plain: bytes, *, aad: bytes) -> bytes:
        return self._ask(
            "Encrypt", _Sealed, KeyId=_alias(name, "seal", version), Plaintext=plain, EncryptionContext=_bound(aad)
        ).ciphertext_blob  # fmt: skip

    def decrypt(self, name: str, version: int, sealed: bytes, *, aad: bytes) -> bytes:
        try:
            return self._ask(
                "Decrypt", _Opened, KeyId=_alias(name, "seal", version), CiphertextBlob=sealed,
                EncryptionContext=_bound(aad),
            ).plaintext  # fmt: skip
        except (_Changed, NotFound) as error:
            raise Corrupt(
                f"wrapped key of {name} does not open: it was changed, is used where it does not belong, or its version "
                f"{version} was deleted from KMS"
            ) from error

    def sign(self, name: str, version: int, message: bytes) -> bytes:
        kind, sent = "RAW", message
        if len(message) > _MESSAGE_BYTES_MAX:
            kind, sent = "DIGEST", hashlib.sha256(message).digest()
        der = self._ask(
            "Sign", _Signed, KeyId=_alias(name, "sign", version), Message=sent, MessageType=kind,
            SigningAlgorithm="ECDSA_SHA_256",
        ).signature  # fmt: skip
        try:
            r, s = decode_dss_signature(der)
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        except (ValueError, OverflowError):
            raise Unavailable("KMS answers with a signature that is none: look at it") from None

    def public(self, name: str, version: int) -> bytes:
        return self._ask("GetPublicKey", _Public, KeyId=_alias(name, "sign", version)).public_key

    def close(self) -> None:
        self._remote.close()

    def _is(self, alias: str) -> bool:
        try:
            self._ask("DescribeKey", _Made, KeyId=alias)
        except NotFound:
            return False
        return True

    def _make(self, alias: str, **spec: str) -> None:
        if self._is(alias):
            return
        made = self._ask("CreateKey", _Made, Description=f"taut, {alias}", **spec).key_metadata.key_id
        try:
            self._do("CreateAlias", AliasName=alias, TargetKeyId=made)
        except Conflict:
            self._do("ScheduleKeyDeletion", KeyId=made, PendingWindowInDays=7)

    def _ask(self, action: str, type: type[T], **asked: Any) -> T:
        return self._remote.read(self._do(action, **asked), type)

    def _do(self, action: str, **asked: Any) -> Answer:
        body = msgspec.json.encode(asked)  # bytes become base64, as KMS writes them
        answer = self._remote.ask(lambda: self._request(action, body), again=self._transient)
        if answer.status != 200:
            raise _refusal(action, self._fault(answer), answer.status)
        return answer

    def _request(self, action: str, body: bytes) -> httpx.Request:
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"TrentService.{action}"}
        signed = signed_headers(
            self._endpoint, headers, body, credentials=self._credentials, region=self._region, service="kms",
            now=self._clock.now(),
        )  # fmt: skip
        return httpx.Request("POST", self._endpoint, content=body, headers=signed)

    def _transient(self, answer: Answer) -> bool:
        return answer.status == 400 and self._fault(answer) in _AGAIN

    def _fault(self, answer: Answer) -> str:
        return self._remote.read(answer, _Fault).type.rpartition("#")[2]


class _Changed(TautError):
    """KMS does not open what it was given."""


def _refusal(action: str, fault: str, status: int) -> TautError:
    if fault == "NotFoundException":
        return NotFound(f"KMS: {action}: no such key")
    if fault == "AlreadyExistsException":
        return Conflict(f"KMS: {action}: the alias is taken")
    if fault in _REFUSED:
        return Denied(f"KMS refuses {action} ({fault}): look at the key's policy and at the credentials")
    if fault in _CHANGED and action == "Decrypt":
        return _Changed(fault)
    return Unavailable(f"KMS answers {action} with {status} ({fault}): look at its keys, then try again")


def _alias(name: str, half: str, version: int) -> str:
    return f"alias/{name}-{half}-{version}"


def _bound(aad: bytes) -> dict[str, str]:
    return {"taut": base64.b64encode(hashlib.sha256(aad).digest()).decode()}
