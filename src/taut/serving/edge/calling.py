"""Calling the installation from a device: one JSON document there and one back, with a token, and no more trust than that."""

from __future__ import annotations

import http.client
import ssl
import threading
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from taut.core.errors import InvalidInput, Unavailable

ANSWER_BYTES_MAX: Final = 8 * 2**20
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class Called(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after_s: float


class Caller:
    """Posts JSON to one URL. Any number of threads; each keeps a connection of its own.

    token_file: holds the bearer; read for every call, so that it may be replaced at any time.
    Guarantees: the token goes to this host alone, redirects are not followed, and a proxy of the environment is not used.
    Raises InvalidInput for an address that would carry the token over a network in clear.
    """

    def __init__(self, url: str, *, token_file: Path | None) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if (
            parts.scheme not in ("http", "https")
            or not host
            or parts.username
            or parts.query
            or parts.fragment
        ):
            raise InvalidInput(f"{url[:200]!r} is no address to call: write http(s)://HOST:PORT/PATH")
        if parts.scheme == "http" and host not in _LOOPBACK:
            raise InvalidInput(
                f"http://{host} would carry the token in clear over the network: use https, or a tunnel to 127.0.0.1"
            )
        try:
            self._port: Final = parts.port
        except ValueError as error:
            raise InvalidInput(f"{url[:200]!r}: {error}") from error
        self.where: Final = f"{parts.scheme}://{parts.netloc}"
        self._host: Final = host
        self._path: Final = parts.path or "/"
        self._token_file: Final = token_file
        self._tls: Final = ssl.create_default_context() if parts.scheme == "https" else None
        self._mine: Final = threading.local()
        self._all: Final[set[http.client.HTTPConnection]] = set()
        self._guard: Final = threading.Lock()

    def post(self, body: bytes, *, timeout_s: float) -> Called:
        """Send a document and return what came back. timeout_s: for each wait of the socket.

        A connection that was kept and is dead is opened anew, once. Raises Unavailable when nothing comes back.
        """
        kept = getattr(self._mine, "connection", None)
        if kept is not None:
            try:
                return self._exchange(kept, body, timeout_s)
            except (http.client.RemoteDisconnected, ConnectionError):
                self._drop()
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                raise self._silent(error) from error
        try:
            return self._exchange(self._open(timeout_s), body, timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._silent(error) from error

    def close(self) -> None:
        """Close the connections of all threads; what is under way in them ends."""
        with self._guard:
            for connection in self._all:
                connection.close()
            self._all.clear()

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout_s, context=self._tls
            )
        self._mine.connection = connection
        with self._guard:
            self._all.add(connection)
        return connection

    def _drop(self) -> None:
        kept = getattr(self._mine, "connection", None)
        self._mine.connection = None
        if kept is not None:
            kept.close()
            with self._guard:
                self._all.discard(kept)

    def _exchange(self, connection: http.client.HTTPConnection, body: bytes, timeout_s: float) -> Called:
        headers = {"content-type": "application/json"}
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {read_token(self._token_file)}"
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        connection.request("POST", self._path, body=body, headers=headers)
        answer = connection.getresponse()
        data = answer.read(ANSWER_BYTES_MAX + 1)
        wait = answer.headers.get("retry-after", "")
        if len(data) > ANSWER_BYTES_MAX or answer.will_close:
            self._drop()
        if len(data) > ANSWER_BYTES_MAX:
            raise Unavailable(f"{self.where} answered with more than {ANSWER_BYTES_MAX} bytes")
        return Called(answer.status, data, float(wait) if wait.isdigit() and len(wait) < 6 else 0.0)

    def _silent(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self.where} does not answer ({type(error).__name__}: {error}): tried again later"
        )


def read_token(path: Path) -> str:
    """Return the bearer that a file holds. Raises InvalidInput when it holds none; the message never has it."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"token file {path} cannot be read ({type(error).__name__}): check its path and rights"
        ) from error
    if not text or len(text) > 8192 or not text.isprintable() or " " in text:
        raise InvalidInput(f"token file {path} holds no token: write one alone into it")
    return text
