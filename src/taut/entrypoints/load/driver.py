"""The open loop: arrivals go out when their time has come, whatever became of those before them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from taut.core.errors import InvalidInput
from taut.entrypoints.load.connection import Connection
from taut.entrypoints.load.histogram import Histogram
from taut.entrypoints.load.pacer import Pacer

Progress = Callable[[str, float | None], None]

CONNECTIONS_MAX: Final = 20_000
_FIRST: Final = 8
_SWEEP_S: Final = 0.05
_TELL_S: Final = 0.25
_MICROSECONDS: Final = 1e6
_SAID_BYTES: Final = 2048


class Address(NamedTuple):
    """Where to drive. tls: how the server is verified, None for plain HTTP. path: a Unix socket instead of host and port."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    path: str = ""


class Measured:
    """What came of a run. Latencies are in microseconds from when a request should have gone out.

    latency: of every request that was answered, whatever the status, and of those given up, which took at least that
    long. lateness: how much after its time the generator handed a request on, which is the generator's own fault.
    held_back: requests that waited because every connection was taken and no more were allowed. errors: by kind. refusals: how
    the first refusal of each status begins.
    """

    def __init__(self) -> None:
        self.latency: Final = Histogram()
        self.by_status: Final[dict[int, Histogram]] = {}
        self.lateness: Final = Histogram()
        self.refusals: Final[dict[int, bytes]] = {}
        self.errors: Final[Counter[str]] = Counter()
        self.offered = 0
        self.held_back = 0
        self.in_flight_max = 0
        self.connections = 0
        self.seconds = 0.0
        self.last_offer_s = 0.0
        self.cpu_s = 0.0

    @property
    def answered(self) -> int:
        return sum(found.count for found in self.by_status.values())


class Driver:
    """Sends one schedule to one address.

    arrivals: (seconds from the start, whole request) in order; read one ahead. connections_max: requests that may be
    on their way at once. timeout_s: how long a request may take from its intended moment before it is given up.

    Guarantees: no request waits for another's answer while a connection may be opened; one that had to wait counts
    the wait. Not guaranteed: that the generator keeps up; `Measured` says whether it did.
    """

    def __init__(
        self,
        address: Address,
        arrivals: Iterator[tuple[float, bytes]],
        *,
        connections_max: int = 512,
        timeout_s: float = 10.0,
        expected_s: float,
    ) -> None:
        if not 1 <= connections_max <= CONNECTIONS_MAX:
            raise InvalidInput(f"{connections_max} connections: choose 1 to {CONNECTIONS_MAX:,}")
        if not 0 < timeout_s <= 3600:
            raise InvalidInput(f"a time-out of {timeout_s:g} s: choose more than 0, up to an hour")
        self._address: Final = address
        self._arrivals: Final = arrivals
        self._connections_max: Final = connections_max
        self._timeout_s: Final = timeout_s
        self._expected_s: Final = expected_s
        self._now: Final = time.perf_counter
        self._measured: Final = Measured()
        self._idle: Final[list[Connection]] = []
        self._flying: Final[dict[Connection, float]] = {}  # in the order in which they were sent
        self._backlog: Final[deque[tuple[float, bytes]]] = deque()
        self._opening: Final[set[asyncio.Task[None]]] = set()
        self._open = 0
        self._due: tuple[float, bytes] | None = None
        self._began = 0.0
        self._ended: asyncio.Event = asyncio.Event()
        self._pacer: Pacer | None = None

    async def run(self, progress: Progress) -> Measured:
        """Drive to the end of the schedule and until everything is answered or given up."""
        loop = asyncio.get_running_loop()
        for _ in range(min(_FIRST, self._connections_max)):
            self._connect(loop)
        await asyncio.gather(*self._opening)
        cpu = time.process_time()
        self._pacer = Pacer(loop, self._tick)
        self._began = self._now()
        try:
            self._due = next(self._arrivals, None)
            self._tick()
            watch = asyncio.create_task(self._watch(progress))
            await self._ended.wait()
            watch.cancel()
        finally:
            self._pacer.close()
            for task in self._opening:
                task.cancel()
        self._measured.seconds = self._now() - self._began
        self._measured.cpu_s = time.process_time() - cpu
        for connection in [*self._idle]:
            connection.close("the run is over")
        await asyncio.sleep(0)
        return self._measured

    def _tick(self) -> None:
        """Hand on every request whose time has come, and sleep until the next one's."""
        assert self._pacer is not None
        while self._due is not None:
            offset, request = self._due
            late = self._now() - self._began - offset
            if late < 0:
                self._pacer.arm(-late)
                return
            self._measured.lateness.record(int(late * _MICROSECONDS))
            self._measured.last_offer_s = offset
            self._offer(self._began + offset, request)
            self._due = next(self._arrivals, None)
        self._end_if_done()

    def _offer(self, intended_s: float, request: bytes) -> None:
        self._measured.offered += 1
        if self._idle:
            self._send(self._idle.pop(), intended_s, request)
            return
        if self._open + len(self._opening) < self._connections_max:
            self._connect(asyncio.get_running_loop())
        else:
            self._measured.held_back += 1
        self._backlog.append((intended_s, request))

    def _send(self, connection: Connection, intended_s: float, request: bytes) -> None:
        self._flying[connection] = intended_s
        self._measured.in_flight_max = max(self._measured.in_flight_max, len(self._flying))
        connection.send(request)

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._connected(loop))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await asyncio.wait_for(self._open_one(loop), self._timeout_s)
        except (OSError, TimeoutError) as error:
            if self._backlog:  # the oldest that waits is who this connection was for
                self._backlog.popleft()
                self._measured.errors[f"not connected: {type(error).__name__}"] += 1
            self._end_if_done()

    async def _open_one(self, loop: asyncio.AbstractEventLoop) -> None:
        where = self._address
        if where.path:
            await loop.create_unix_connection(lambda: Connection(self), where.path)
        else:
            await loop.create_connection(lambda: Connection(self), where.host, where.port, ssl=where.tls)

    def opened(self, connection: Connection) -> None:
        self._open += 1
        self._measured.connections += 1
        self.ready(connection)

    def ready(self, connection: Connection) -> None:
        if self._backlog:
            intended_s, request = self._backlog.popleft()
            self._send(connection, intended_s, request)
        else:
            self._idle.append(connection)
            self._end_if_done()

    def answered(self, connection: Connection, status: int) -> None:
        intended_s = self._flying.pop(connection, None)
        if intended_s is None:  # given up, or nobody asked
            return
        took_us = int((self._now() - intended_s) * _MICROSECONDS)
        self._measured.latency.record(took_us)
        self._measured.by_status.setdefault(status, Histogram()).record(took_us)

    def refused(self, status: int, body: bytes) -> None:
        self._measured.refusals.setdefault(status, body[:_SAID_BYTES])

    def lost(self, connection: Connection, why: str) -> None:
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if self._flying.pop(connection, None) is not None:
            self._measured.errors[why] += 1
        if self._backlog and self._open + len(self._opening) < self._connections_max:
            self._connect(asyncio.get_running_loop())
        self._end_if_done()

    async def _watch(self, progress: Progress) -> None:
        """Give up what takes too long, and say where the run stands."""
        told = 0.0
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = self._now()
            self._give_up(now - self._timeout_s)
            if now - told >= _TELL_S:
                told = now
                passed = now - self._began
                said = f"{self._measured.answered:,} answered, {len(self._flying) + len(self._backlog):,} on their way"
                progress(said, min(1.0, passed / max(self._expected_s, 1e-9)))

    def _give_up(self, before_s: float) -> None:
        late = [connection for connection, intended_s in self._flying.items() if intended_s < before_s]
        for connection in late:
            self._gave_up(self._flying.pop(connection))
            connection.close("timed out")
        while self._backlog and self._backlog[0][0] < before_s:
            self._gave_up(self._backlog.popleft()[0])
        self._end_if_done()

    def _gave_up(self, intended_s: float) -> None:
        self._measured.errors["timed out"] += 1
        self._measured.latency.record(int((self._now() - intended_s) * _MICROSECONDS))

    def _end_if_done(self) -> None:
        if self._due is None and self._began and not self._flying and not self._backlog:
            self._ended.set()
