"""Signature Version 4 of AWS, for requests whose body is at hand.

Source: AWS, Signing AWS API requests, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from taut.core.errors import InvalidInput

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Credentials(msgspec.Struct, frozen=True):
    """An access key; `token` goes with those that end by themselves. Its text shows nothing of the secret."""

    key_id: str
    secret: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.key_id})"

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read `ID:SECRET` or `ID:SECRET:TOKEN`."""
        parts = text.split(":", 2)
        if len(parts) < 2 or not all(parts) or not text.isascii() or not text.isprintable():
            raise InvalidInput(
                "the access key of KMS is not understood: give TAUT_KEYS_PASSPHRASE as ID:SECRET or ID:SECRET:TOKEN"
            )
        return cls(*parts)


def signed_headers(
    url: str, headers: Mapping[str, str], body: bytes, *, credentials: Credentials, region: str, service: str,
    now: datetime,
) -> dict[str, str]:  # fmt: skip
    """Return `headers` with those that sign a POST to `url`, which has no query."""
    parts = urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    all_ = {**headers, "host": parts.netloc, "x-amz-date": stamp}
    if credentials.token:
        all_["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(all_))
    lines = [f"{name}:{all_[name].strip()}" for name in sorted(all_)]
    request = "\n".join(["POST", parts.path or "/", "", *lines, "", names, hashlib.sha256(body).hexdigest()])
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4" + credentials.secret.encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    all_["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return all_
