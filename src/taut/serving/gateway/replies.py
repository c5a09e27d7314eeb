"""What leaves the gateway: status, header lines, body; errors in the one shape of the data plane."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from taut.core.errors import Exhausted, TautError, Unavailable

JSON: Final = b"content-type: application/json\r\n"
BINARY: Final = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n%b"
STALLED_S: Final = 20.0
"""How long a reader of a stream may take nothing unless told otherwise; less than a drain may take."""
encode_json: Final = msgspec.json.Encoder().encode
STATUS_LINES: Final[dict[int, bytes]] = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus
}
Statuses = Mapping[str, int]
"""HTTP status by error code; the one table lies with the entrypoints and comes in by the door."""


class Stream(Protocol):
    """Parts of a body that follow as they are ready. Whoever takes them closes it, also when he takes none."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


class Reply(NamedTuple):
    """One answer. head: header lines, each ended by CRLF, without content-length. close: end the connection.

    stream: what follows the body, which then ends with the connection.
    """

    status: int
    head: bytes
    body: bytes
    close: bool = False
    stream: Stream | None = None

    def header_list(self) -> list[tuple[bytes, bytes]]:
        """Return the headers as ASGI wants them."""
        pairs = [line.split(b": ", 1) for line in self.head.split(b"\r\n") if line]
        headers = [(name, value) for name, value in pairs]
        if self.stream is None:
            headers.append((b"content-length", str(len(self.body)).encode()))
        if self.close:
            headers.append((b"connection", b"close"))
        return headers


Headers = Sequence[tuple[bytes, bytes]]
Pending = Coroutine[Any, Any, Reply]


class Answering(Protocol):
    """What a server hands requests to: the gateway, or the runner of a bundle at the edge."""

    @property
    def max_body_bytes(self) -> int: ...

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        """Answer one request; a coroutine where that takes waiting. Never raises."""
        ...

    def turn_away(self, method: str, path: str, headers: Headers) -> Reply | None:
        """Return the refusal of a request whose body need not be read to know it; None for all others."""
        ...

    def refuse(self, error: TautError, *, close: bool) -> Reply:
        """Return the answer to a request that did not get as far as `answer`."""
        ...


def ok(document: object, *, request_id: str, epoch: int) -> Reply:
    head = b"%btaut-request-id: %b\r\ntaut-policy-epoch: %d\r\n" % (JSON, request_id.encode(), epoch)
    return Reply(200, head, encode_json(document))


def binary_head(head: bytes, json_bytes: int) -> bytes:
    """Return the head of a JSON answer as that of one with raw tensors after `json_bytes` of JSON."""
    return BINARY % (json_bytes, head[len(JSON) :])


def refusal(
    error: TautError,
    *,
    statuses: Statuses,
    request_id: str,
    epoch: int,
    guard_us: int = 0,
    close: bool = False,
    more: Mapping[str, object] = {},
    lines: bytes = b"",
) -> Reply:
    """Return an error in the data plane's shape. A code without a status is ours to mend: it reads as 500.

    more: fields beside those that every error has. lines: the same of headers.
    """
    status = statuses.get(error.code, 500)
    head = b"%btaut-request-id: %b\r\ntaut-policy-epoch: %d\r\ntaut-guard-us: %d\r\n" % (
        JSON, request_id.encode(), epoch, guard_us,
    )  # fmt: skip
    if isinstance(error, Exhausted | Unavailable):
        head += b"retry-after: %d\r\n" % max(1, math.ceil(error.retry_after_s))
    if status == 401:
        head += b'www-authenticate: Bearer realm="taut"\r\n'
    if status == 415:
        head += b"accept-encoding: gzip, deflate, zstd\r\n"
    said = {"code": error.code, "message": error.message, "request_id": request_id, **more}
    return Reply(status, head + lines, encode_json({"error": said}), close)
