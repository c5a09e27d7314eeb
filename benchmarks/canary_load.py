"""Callers of several endpoints at once, in a process of its own: `python -m benchmarks.canary_load '{…}'`, until told to end.

Each request is of another data subject, so that each is one unit to a canary. Arrivals are Poisson's, and go out when they
are due. A line for each answer: when it came (wall clock), the endpoint, the status, the release, what was asked, and of whom.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import deque
from typing import Any, Final, TextIO

import uvloop

from taut.entrypoints.load.pacer import Pacer

CONNECTIONS: Final = 64
GOOD, BOTH_FAIL, ONE_FAILS = range(3)
"""What is asked: what both versions answer, what neither can, what the harmful one alone cannot."""


class Line(asyncio.Protocol):
    """A connection with one request under way at most."""

    def __init__(self, load: Load) -> None:
        self._load: Final = load
        self._got = b""
        self.transport: Any = None
        self.asked: tuple[int, int, str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._load.free(self)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, ended, body = self._got.partition(b"\r\n\r\n")
        if not ended or len(body) < int(_field(head, b"content-length:")):
            return
        self._got = b""
        asked, self.asked = self.asked, None
        assert asked is not None, "an answer that nobody asked for"
        self._load.answered(asked, int(head[9:12]), _field(head, b"taut-release:").decode())
        self._load.free(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.asked is not None:
            self._load.answered(self.asked, 0, "")
        self._load.gone(self)


def _field(head: bytes, name: bytes) -> bytes:
    at = head.find(name)
    return b"" if at < 0 else head[at + len(name) : head.find(b"\r", at) % (len(head) + 1)].strip()


class Load:
    """endpoints: path of each with its requests a second. bodies: by what is asked. shares: of requests that both versions, and
    that the harmful one alone, cannot answer."""

    def __init__(self, given: dict[str, Any], said: TextIO) -> None:
        self._paths: Final[list[str]] = given["paths"]
        self._bodies: Final = [body.encode() for body in given["bodies"]]
        self._shares: Final[list[float]] = given["shares"]
        self._port: Final[int] = given["port"]
        self._bearer: Final[str] = given["bearer"]
        self._rate: Final[float] = sum(given["rates"])
        self._rates: Final[list[float]] = given["rates"]
        self._dice: Final = random.Random(given["seed"])
        self._prefix: Final[str] = f"{given['seed']}-"
        self._said: Final = said
        self._idle: Final[deque[Line]] = (
            deque()
        )  # each in its turn, so that none is idle for long enough to be closed
        self._waiting: Final[deque[tuple[tuple[int, int, str], bytes]]] = deque()
        self._count = 0
        self._over = asyncio.Event()
        self._due = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._over.set)
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Line(self), "127.0.0.1", self._port)
        self._due = time.perf_counter()
        pacer = Pacer(loop, lambda: self._tick(pacer))
        self._tick(pacer)
        try:
            await self._over.wait()
        finally:
            pacer.close()
        for _ in range(100):  # what is on its way is answered first
            if len(self._idle) == CONNECTIONS:
                break
            await asyncio.sleep(0.02)

    def _tick(self, pacer: Pacer) -> None:
        while (late := time.perf_counter() - self._due) >= 0:
            self._ask()
            self._due += self._dice.expovariate(self._rate)
        pacer.arm(-late)

    def _ask(self) -> None:
        dice = self._dice
        (at,) = dice.choices(range(len(self._paths)), self._rates)
        drawn = dice.random()
        what = BOTH_FAIL if drawn < self._shares[0] else ONE_FAILS if drawn < sum(self._shares) else GOOD
        self._count += 1
        body, subject = self._bodies[what], f"{self._prefix}{self._count}"
        request = (
            f"POST {self._paths[at]} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._bearer}\r\ncontent-type: application/json\r\n"
            f"taut-subject: {subject}\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        if self._idle:
            self._send(self._idle.popleft(), (at, what, subject), request)
        else:
            self._waiting.append(((at, what, subject), request))

    def _send(self, line: Line, asked: tuple[int, int, str], request: bytes) -> None:
        line.asked = asked
        line.transport.write(request)

    def free(self, line: Line) -> None:
        if self._waiting:
            self._send(line, *self._waiting.popleft())
        else:
            self._idle.append(line)

    def gone(self, line: Line) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(line)

    def answered(self, asked: tuple[int, int, str], status: int, release: str) -> None:
        at, what, subject = asked
        self._said.write(f"{time.time():.4f} {at} {status} {release or '-'} {what} {subject}\n")


async def main(given: dict[str, Any]) -> None:
    with open(given["said"], "w", buffering=1 << 16) as said:
        await Load(given, said).run()


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
