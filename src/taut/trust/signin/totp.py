"""Time-based one-time passwords, RFC 6238 with SHA-1, 6 digits and 30 s: what every authenticator app takes."""

from __future__ import annotations

import hmac
from base64 import b32encode
from typing import Final
from urllib.parse import quote, urlencode

STEP_S: Final = 30
DIGITS: Final = 6
SECRET_BYTES: Final = 20
_WINDOW: Final = 1


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a step, the seconds since the epoch divided by 30."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def matching_step(secret: bytes, code: str, *, now_s: float, after: int) -> int | None:
    """Return the step that `code` is of, at most one step from now and later than `after`; None where there is none.

    after: the last step that was accepted; a code is good once, also for whoever saw it being typed.
    """
    now = int(now_s) // STEP_S
    found = None
    given = code.strip().replace(" ", "").encode("utf-8", "surrogatepass")
    for step in range(now - _WINDOW, now + _WINDOW + 1):  # each is compared, whichever it is
        if hmac.compare_digest(code_at(secret, step).encode(), given) and step > after:
            found = step
    return found


def uri(secret: bytes, *, principal: str, issuer: str) -> str:
    """Return the `otpauth:` address that an authenticator app takes, as a rule from a QR code."""
    label = quote(f"{issuer}:{principal}")
    text = b32encode(secret).decode("ascii").rstrip("=")
    return f"otpauth://totp/{label}?{urlencode({'secret': text, 'issuer': issuer})}"
