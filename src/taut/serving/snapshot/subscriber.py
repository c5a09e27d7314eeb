"""A gateway's end of the stream: takes snapshots, answers what became of them, and reconnects for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from taut.core.errors import Corrupt
from taut.ports.world import Random
from taut.serving.snapshot.wire import (
    LENGTH,
    Ack,
    Beat,
    Hello,
    check_length,
    frame_report,
    socket_address,
)
from taut.serving.tasks import end_task

_FIRST_S: Final = 0.05
_LAST_S: Final = 0.5  # so that a gateway is back within a second of control
_BEAT_S: Final = 1.0
_UNREAD_BYTES: Final = 2**20


class Subscriber:
    """Follows control's stream until cancelled; control may die and come back as it likes.

    apply: takes a signed snapshot, switches to it or refuses it, never raises, and says what it did.
    hello, beat: make the reports with what is true now.
    """

    def __init__(
        self,
        path: Path,
        *,
        apply: Callable[[bytes], Awaitable[Ack]],
        hello: Callable[[], Hello],
        beat: Callable[[], Beat],
        random: Random,
    ) -> None:
        self._path: Final = path
        self._apply: Final = apply
        self._hello: Final = hello
        self._beat: Final = beat
        self._random: Final = random
        self.connected = False

    async def run(self) -> None:
        """Connect, follow, and after a loss connect again with backoff and jitter."""
        pause_s = _FIRST_S
        while True:
            try:
                with socket_address(self._path) as address:
                    reader, writer = await asyncio.open_unix_connection(address)
            except OSError:
                await asyncio.sleep(pause_s * (0.5 + self._random.uniform()))
                pause_s = min(_LAST_S, pause_s * 2)
                continue
            pause_s = _FIRST_S
            try:
                await self._follow(reader, writer)
            finally:
                self.connected = False
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beats: asyncio.Task[None] | None = None
        try:
            writer.write(frame_report(self._hello()))
            self.connected = True
            beats = asyncio.create_task(self._send_beats(writer))
            while True:
                data = await reader.readexactly(check_length(await reader.readexactly(LENGTH.size)))
                writer.write(frame_report(await self._apply(data)))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, Corrupt):
            return  # control is gone, or speaks nonsense: connect again
        finally:
            if beats is not None:
                await end_task(beats)

    async def _send_beats(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            if writer.transport.get_write_buffer_size() < _UNREAD_BYTES:  # else control does not read: no use
                writer.write(frame_report(self._beat()))
            await asyncio.sleep(_BEAT_S)
