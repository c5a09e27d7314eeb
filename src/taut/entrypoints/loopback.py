"""Where a browser comes back to after a sign-in elsewhere: one request on loopback (RFC 8252, section 7.3)."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Final
from urllib.parse import parse_qs, urlsplit

from taut.core.errors import Denied, Unavailable

_WAIT_S: Final = 300.0
_EACH_S: Final = 5.0
_MAX_BYTES: Final = 16 * 1024
_PAGE: Final = (
    "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n"
    "referrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}\n"
)


class Loopback:
    """Listens on a free port of 127.0.0.1 until the provider's answer came, or for 5 minutes."""

    def __init__(self, *, wait_s: float = _WAIT_S) -> None:
        self._listener: Final = socket.create_server(("127.0.0.1", 0))
        self._wait_s: Final = wait_s

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/callback"

    def wait(self) -> dict[str, str]:
        """Return `state`, `code` and, where it came, `iss`. Raises Denied when the provider says no, Unavailable when nobody comes."""
        end_s = time.monotonic() + self._wait_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._listener.settimeout(left_s)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                break
            with connection:
                found = _answered(connection)
            if found is not None:
                return _read(found)
        raise Unavailable(
            "nobody came back from the identity provider in time: begin again with `taut login --provider`"
        )


def _answered(connection: socket.socket) -> str | None:
    """Answer one request and return its query if it is the one that is waited for; browsers ask for icons too."""
    connection.settimeout(_EACH_S)
    try:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _MAX_BYTES:
            part = connection.recv(4096)
            if not part:
                return None
            head += part
        target = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        parts = urlsplit(target[1] if len(target) == 3 else "")
        wanted = target[0] == "GET" and parts.path == "/callback" and bool(parts.query)
        status, text = (
            ("200 OK", "Go back to the command line.") if wanted else ("404 Not Found", "Nothing is here.")
        )
        connection.sendall(_PAGE.format(status=status, text=text).encode())
    except (OSError, ValueError):
        return None  # whoever that was, he is not the one who is waited for
    return parts.query if wanted else None


def _read(query: str) -> dict[str, str]:
    said = {name: values[0] for name, values in parse_qs(query).items() if len(values) == 1}
    if "code" not in said or "state" not in said:
        raise Denied(
            f"the identity provider did not sign you in ({said.get('error', 'no code came')[:80]}): begin again, or ask who runs it"
        )
    return {name: said[name] for name in ("state", "code", "iss") if name in said}
