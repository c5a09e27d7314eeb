"""Web on httpx."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from taut.adapters.outbound import reachable
from taut.core.errors import Denied, InvalidInput, Unavailable
from taut.ports.web import WebAnswer

_TIMEOUT_S: Final = 10.0
_MAX_BYTES: Final = 1 << 20
_PORTS: Final = {"https": 443, "http": 80}


class HttpxWeb:
    """A new connection each time: it is asked a few times an hour, and holds nothing open between.

    tls: whom to believe; None is the system's authorities.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls: Final[ssl.SSLContext | bool] = True if tls is None else tls

    def get(self, url: str) -> WebAnswer:
        return self._ask("GET", url, fields=None, basic=None)

    def post(self, url: str, fields: Mapping[str, str], *, basic: tuple[str, str] | None = None) -> WebAnswer:
        return self._ask("POST", url, fields=fields, basic=basic)

    def send(self, url: str, body: bytes, headers: Mapping[str, str], *, inside: bool) -> WebAnswer:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise InvalidInput(f"{url[:200]} is no address of a receiver: write https://HOST/PATH")
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        address = reachable(host, port, inside=inside)
        if parts.scheme == "http" and not ipaddress.ip_address(address).is_loopback:
            raise Denied(f"{host} would be told in clear: use https")
        shown = f"[{address}]" if ":" in address else address
        there = urlunsplit((parts.scheme, f"{shown}:{port}", parts.path or "/", parts.query, ""))
        request = {"content": body, "headers": {**headers, "host": parts.netloc.rpartition("@")[2]}}
        return self._whole("POST", there, shown=host, extensions={"sni_hostname": host}, **request)

    def _ask(
        self, method: str, url: str, *, fields: Mapping[str, str] | None, basic: tuple[str, str] | None
    ) -> WebAnswer:
        data = None if fields is None else dict(fields)
        auth = None if basic is None else httpx.BasicAuth(*basic)
        return self._whole(
            method, url, shown=url, data=data, auth=auth, headers={"accept": "application/json"}
        )

    def _whole(self, method: str, url: str, *, shown: str, **request: Any) -> WebAnswer:
        """Ask, and return the whole answer within the bounds. shown: how the server is named in errors."""
        end_s, parts, size = time.monotonic() + _TIMEOUT_S, [], 0
        try:
            with (
                httpx.Client(
                    timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False, verify=self._tls
                ) as client,
                client.stream(method, url, **request) as answer,
            ):
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > _MAX_BYTES or time.monotonic() > end_s:
                        raise Unavailable(
                            f"{shown} sends more than {_MAX_BYTES} bytes, or too slowly: check it"
                        )
                    parts.append(part)
                return WebAnswer(status=answer.status_code, body=b"".join(parts))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise Unavailable(f"{shown} does not answer ({said}): check it, and try again") from error
