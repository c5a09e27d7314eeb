"""The other side: whom a client trusts, and what it shows."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from taut.core.errors import InvalidInput
from taut.trust.tls.files import read_private, read_public


class ClientFiles(msgspec.Struct, frozen=True, kw_only=True):
    """ca: authorities to trust instead of the system's. cert, key: what to show to a server that asks for it."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def client_context(files: ClientFiles) -> ssl.SSLContext:
    """Return a context for TLS 1.3 that checks the server's certificate and name.

    Raises NotFound, Denied, InvalidInput for files that cannot be used.
    """
    if (files.cert is None) != (files.key is None):
        raise InvalidInput(
            "a client's certificate and its key go together: give --client-cert and --client-key"
        )
    if files.ca is not None:
        read_public(files.ca, "the authority")
    try:
        made = ssl.create_default_context(cafile=files.ca)
        if files.cert is not None and files.key is not None:
            read_public(files.cert, "the client's certificate")
            read_private(files.key)
            made.load_cert_chain(files.cert, files.key, password=_no_passphrase)
    except ssl.SSLError as error:
        named = ", ".join(str(path) for path in (files.ca, files.cert, files.key) if path is not None)
        raise InvalidInput(
            f"{named} cannot be used ({error.reason or 'not understood'}): they must be PEM, the key must fit the "
            "certificate and have no passphrase"
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def _no_passphrase() -> bytes:
    """OpenSSL would ask the terminal otherwise."""
    return b""
