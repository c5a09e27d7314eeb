"""A gateway's end of the stream: takes snapshots, answers what became of them, and reconnects for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from taut.core.errors import Corrupt
from taut.ports.world import Random
from taut.serving.snapshot.wire import (
    LENGTH,
    Ack,
    Beat,
    Hello,
    Word,
    check_length,
    frame_report,
    lease_in,
    socket_address,
    word_in,
)
from taut.serving.tasks import end_task

_FIRST_S: Final = 0.05
_LAST_S: Final = 0.5  # so that a gateway is back within a second of control
_BEAT_S: Final = 1.0
_UNREAD_BYTES: Final = 2**20


Say = Callable[[bytes], None]


class Talk(Protocol):
    """Who else speaks over the stream, with somebody in control. Called on the loop's thread; raises nothing."""

    def opened(self, say: Say) -> None:
        """A connection is there. say: sends a word over it, and drops it once the connection is gone."""
        ...

    def due(self) -> None:
        """A second has passed while connected."""
        ...

    def heard(self, data: bytes) -> None:
        """A word came."""
        ...


class Subscriber:
    """Follows control's stream until cancelled; control may die and come back as it likes.

    apply: takes a signed snapshot, switches to it or refuses it, never raises, and says what it did. It is given one at a time,
    always the newest: one that came and went while it worked on another is passed over.
    hello, beat: make the reports with what is true now. talk: speaks over the same connection. lend: takes a lease on quotas,
    and tells whether control waits to hear that it is in use.
    """

    def __init__(
        self,
        path: Path,
        *,
        apply: Callable[[bytes], Awaitable[Ack]],
        hello: Callable[[], Hello],
        beat: Callable[[], Beat],
        random: Random,
        talk: Talk | None = None,
        lend: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._path: Final = path
        self._apply: Final = apply
        self._hello: Final = hello
        self._beat: Final = beat
        self._random: Final = random
        self._talk: Final = talk
        self._newest: bytes | None = None
        self._came: Final = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._lend: Final = lend
        self.settled: Final = asyncio.Event()
        """Set once a lease was heard, or control could not be reached."""

    @property
    def connected(self) -> bool:
        return self._writer is not None

    async def run(self) -> None:
        """Connect, follow, and after a loss connect again with backoff and jitter."""
        applying = asyncio.create_task(self._apply_newest())
        pause_s = _FIRST_S
        try:
            while True:
                try:
                    with socket_address(self._path) as address:
                        reader, writer = await asyncio.open_unix_connection(address)
                except OSError:
                    self.settled.set()
                    await asyncio.sleep(pause_s * (0.5 + self._random.uniform()))
                    pause_s = min(_LAST_S, pause_s * 2)
                    continue
                pause_s = _FIRST_S
                try:
                    await self._follow(reader, writer)
                finally:
                    self._writer = None
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
        finally:
            await end_task(applying)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beats: asyncio.Task[None] | None = None
        try:
            writer.write(frame_report(self._hello()))
            self._writer = writer
            if self._talk is not None:
                self._talk.opened(lambda data: self._say(writer, data))
            beats = asyncio.create_task(self._send_beats(writer))
            while True:
                data = await reader.readexactly(check_length(await reader.readexactly(LENGTH.size)))
                word, lease = word_in(data), lease_in(data)
                if lease is not None:
                    if self._lend(lease):
                        writer.write(frame_report(self._beat()))
                    self.settled.set()
                elif word is None:
                    self._newest = data
                    self._came.set()
                elif self._talk is not None:
                    self._talk.heard(word)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, Corrupt):
            return  # control is gone, or speaks nonsense: connect again
        finally:
            if beats is not None:
                await end_task(beats)

    async def _apply_newest(self) -> None:
        """Apply what came last, beside the reading: words and leases must be heard while models are loaded."""
        while True:
            await self._came.wait()
            self._came.clear()
            data, self._newest = self._newest, None
            if data is not None:
                ack = await self._apply(data)
                if self._writer is not None:
                    self._writer.write(frame_report(ack))
                    self._writer.write(
                        frame_report(self._beat())
                    )  # what it limits is lent to who enforces it

    async def _send_beats(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            if writer.transport.get_write_buffer_size() < _UNREAD_BYTES:  # else control does not read: no use
                writer.write(frame_report(self._beat()))
            await asyncio.sleep(_BEAT_S)
            if self._talk is not None:
                self._talk.due()

    def _say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing() and writer.transport.get_write_buffer_size() < _UNREAD_BYTES:
            writer.write(frame_report(Word(data=data)))
