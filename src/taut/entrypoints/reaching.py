"""The way to an address over HTTP or HTTPS, as all commands take it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from taut.core.errors import InvalidInput
from taut.core.hosts import LOOPBACK
from taut.entrypoints.listening import INNER, read_state

if TYPE_CHECKING:
    import ssl

    from taut.trust.tls import ClientFiles

_ANY: Final = ("0.0.0.0", "::")  # noqa: S104 - to be told from an address that can be asked
_SECURE: Final = "https"


def client_files(
    ca: str | Path | None, cert: str | Path | None, key: str | Path | None
) -> ClientFiles | None:
    """Return whom a client trusts and what it shows; None where nothing was said, for the system's authorities."""
    if ca is None and cert is None and key is None:
        return None
    from taut.trust.tls import ClientFiles

    paths = [None if path is None else Path(path).expanduser() for path in (ca, cert, key)]
    return ClientFiles(ca=paths[0], cert=paths[1], key=paths[2])


def address_of(url: str, tls: ClientFiles | None = None) -> str:
    """Return a URL with its scheme: HTTPS where authorities or a certificate were given. Raises InvalidInput for no address."""
    whole = url if "://" in url else f"{_SECURE if tls is not None else 'http'}://{url}"
    try:
        parts = urlsplit(whole)
        sound = parts.scheme in ("http", _SECURE) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise InvalidInput(f"--url {url!r} is no address: write for example http://127.0.0.1:8081")
    return whole.rstrip("/")


def require_private(url: str, tls: ClientFiles | None = None) -> None:
    """Raise InvalidInput for an address at which a password would travel open to others."""
    parts = urlsplit(address_of(url, tls))
    if parts.scheme != _SECURE and parts.hostname not in LOOPBACK:
        raise InvalidInput(
            f"a password is not sent to {url}, where others could read it on its way: write https://"
        )


def verification(url: str, tls: ClientFiles | None) -> ssl.SSLContext | bool:
    """Return how the server is verified, as httpx takes it. Raises what is wrong with the files."""
    if urlsplit(url).scheme != _SECURE:
        return True
    from taut.trust.tls import ClientFiles, client_context

    return client_context(tls or ClientFiles())


def open_http(url: str, tls: ClientFiles | None = None, **more: Any) -> Any:
    """Return an `httpx.Client` for a URL, which ignores the environment's proxies."""
    import httpx

    return httpx.Client(base_url=url, verify=verification(url, tls), trust_env=False, **more)


@contextmanager
def asking(
    url: str, tls: ClientFiles | None = None, *, inside: Path | None = None, **more: Any
) -> Iterator[Any]:
    """Yield an `httpx.Client` for a URL, or for the Unix socket of gateways that is asked in its place."""
    import httpx

    from taut.serving.snapshot.wire import socket_address

    if inside is None:
        with open_http(url, tls, **more) as http:
            yield http
        return
    with socket_address(inside) as path:
        carrier = httpx.HTTPTransport(uds=path)
        with httpx.Client(base_url="http://gateways", transport=carrier, trust_env=False, **more) as http:
            yield http


def inside_of(home: Path) -> Path | None:
    """Return the socket at which the owner of a home asks gateways that speak TLS to others; None where they do not."""
    return home / INNER if read_state(home).get("tls") else None


def seen_from(where: str, url: str) -> str:
    """Return a plane's address as somebody sees it who came by `url`: one that listens on every address has that host."""
    parts, came = urlsplit(where), urlsplit(url)
    if parts.hostname not in _ANY or not came.hostname:
        return where
    host = f"[{came.hostname}]" if ":" in came.hostname else came.hostname
    return urlunsplit((parts.scheme, f"{host}:{parts.port}", "", "", ""))


def advice(error: BaseException, url: str) -> str:
    """Return what to try after a failure that has to do with TLS, as the end of a sentence; empty for another one."""
    said = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "; name the authority that signed its certificate with --tls-ca, and the host as the certificate does"
    if "CERTIFICATE_REQUIRED" in said or "UNKNOWN_CA" in said:
        return "; show a certificate of an authority that it trusts with --client-cert and --client-key"
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER" in said:
        return "; it does not speak TLS: write http://"
    if "disconnected" in said:
        asks = "if it asks clients for certificates, show one with --client-cert and --client-key"
        return "; if it speaks TLS, write https://" if urlsplit(url).scheme == "http" else f"; {asks}"
    return ""
