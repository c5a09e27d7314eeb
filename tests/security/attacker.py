"""Tools of an attacker: raw sockets, and a look at what a process holds."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PATIENCE_S = 60.0
BODY = b'{"instances":[{"x0":1.0,"x1":0.5,"x2":-0.25}]}'
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


class Heard(NamedTuple):
    """What came back. ended: whether the other side closed the connection, rather than waiting for more."""

    data: bytes
    ended: bool

    @property
    def statuses(self) -> list[int]:
        """Of the answers, in their order."""
        return [int(part[:3]) for part in self.data.split(b"HTTP/1.1 ")[1:]]

    def error(self) -> dict[str, Any]:
        """Of the last answer."""
        _, _, body = self.data.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
        found: dict[str, Any] = json.loads(body)["error"]
        return found


def connect(port: int, timeout_s: float = 60.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=timeout_s)


def hear(client: socket.socket, answers: int | None = 1, *, quiet_s: float = 0.2) -> Heard:
    """Read until the other side closes, or says nothing more for `quiet_s` after so many answers; None reads to the end."""
    data = b""
    while True:
        enough = answers is not None and data.count(b"HTTP/1.1 ") >= answers
        client.settimeout(quiet_s if enough else PATIENCE_S)
        try:
            part = client.recv(65_536)
        except TimeoutError:
            return Heard(data, ended=False)
        except ConnectionError:
            return Heard(data, ended=True)
        if not part:
            return Heard(data, ended=True)
        data += part


def say(
    port: int, *parts: bytes, answers: int | None = 1, pause_s: float = 0.0, hang_up: bool = False
) -> Heard:
    """Send, and read what comes; see `hear`. hang_up: end our direction of the connection after it."""
    with connect(port) as client:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause_s)
            if hang_up:
                client.shutdown(socket.SHUT_WR)
        return hear(client, answers)


def says_well(port: int, request: bytes) -> bool:
    """Whether a fresh caller is answered. request: one that asks for the connection to be kept."""
    closing = request.replace(b"host: x", b"host: x\r\nconnection: close", 1)
    return say(port, closing, answers=None).statuses == [200]


def push(client: socket.socket, part: bytes, *, most_bytes: int) -> int:
    """Send `part` again and again until the other side has enough of it; return how many bytes went."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most_bytes:
            client.sendall(part)
            sent += len(part)
    return sent


def post(bearer: str | None, *lines: bytes, body: bytes = BODY, path: bytes = b"/v1/predict/delay") -> bytes:
    """Return a request for a prediction; with a content-length unless `lines` say how long it is."""
    head = [b"POST " + path + b" HTTP/1.1", b"host: x", *lines]
    if bearer is not None:
        head.append(b"authorization: Bearer " + bearer.encode())
    if not any(b"content-length" in line.lower() or b"transfer" in line.lower() for line in lines):
        head.append(b"content-length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(body: bytes = BODY, *, size: bytes | None = None, end: bytes = b"0\r\n\r\n") -> bytes:
    return (b"%x" % len(body) if size is None else size) + b"\r\n" + body + b"\r\n" + end


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets(pid: int) -> int:
    """How many sockets a process has open; databases open files of their own as they please."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed while we look
            found += os.readlink(entry).startswith("socket:")
    return found


def until(condition: Callable[[], bool], *, within_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)
