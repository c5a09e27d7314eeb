"""The writing end of the prediction log: segment after segment, a spare at hand, group synchronisation without a timer."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from taut.core.errors import TautError, Unavailable
from taut.ports.world import Random
from taut.serving.predictions.envelope import SegmentLock, lock_segment
from taut.serving.predictions.segment import UNADMITTED, Mark, SegmentWriter

_SEGMENT_ROOM: Final = 512  # headers, and the stage of a sealed segment, which is a quarter of it at most
_RETRY_S: Final = 0.2
OPEN: Final = ".open"
CLOSED: Final = ".closed"
SPARE: Final = ".spare"


class PredictionLog:
    """Records of one gateway. `append` belongs to one thread (the event loop's).

    folder: shared by all gateways. writer: names this one in file names. now_us: wall clock, microseconds.
    monotonic_s: for how often a full disk is tried again.

    Guarantees: what `append` took survives the death of any process; what `synced` confirmed survives a power failure;
    a log that cannot be written raises Unavailable before anything is answered.
    """

    def __init__(
        self,
        folder: Path,
        writer: str,
        *,
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
        random: Random,
        segment_bytes: int = 32 * 2**20,
    ) -> None:
        self._folder: Final = folder
        self._writer: Final = writer
        self._now_us: Final = now_us
        self._monotonic_s: Final = monotonic_s
        self._random: Final = random
        self._segment_bytes: Final = segment_bytes
        self._pool: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prediction-log")
        self._recipient = ""
        self._mark = UNADMITTED
        self._current: SegmentWriter | None = None
        self._spare: Future[SegmentWriter] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing = False
        self._began_s = float("-inf")
        self._failed = ""
        self._retry_at_s = float("-inf")
        self._refusal = ""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unavailable(
                f"{folder} cannot be made ({error.strerror}): mend the rights of its parent"
            ) from error
        close_orphans(folder)
        with contextlib.suppress(Unavailable):  # `check` says so until there is room again
            self._roll(0)

    def seal_to(self, recipient: str) -> None:
        """Seal what is appended from now on, to the holder of a public key; none leaves it open.

        Called with each snapshot, before the first record. Raises Corrupt when `recipient` is no key; nothing changes then.
        """
        if recipient == self._recipient:
            return
        self._lock(recipient)
        self._recipient = recipient
        self._begin_anew()

    def mark(self, mark: Mark) -> None:
        """Say by what leave is served what follows; what was served by another lies in an earlier segment."""
        if mark != self._mark:
            self._mark = mark
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Go on in a segment whose header says what holds now."""
        with contextlib.suppress(Unavailable):  # `check` says so until there is room again
            if self._current is None or self._current.records:
                self._roll(0)
            else:
                self._current.begin(
                    self._current.path, self._now_us(), self._lock(self._recipient), self._mark
                )

    def _lock(self, recipient: str) -> SegmentLock | None:
        return lock_segment(recipient, self._random) if recipient else None

    def append(self, payload: bytes) -> None:
        """Write one record. Raises Unavailable when there is no room: shed the request."""
        current = self._current
        if current is None or not current.append(payload):
            self._roll(len(payload)).append(payload)

    def check(self) -> None:
        """Raise Unavailable while the log cannot be written, or when a closed segment could not be made durable."""
        if self._failed:
            raise Unavailable(self._failed)
        if self._current is None:
            self._roll(0)

    def _sync(self, segment: SegmentWriter | None) -> None:
        if segment is not None:  # else the last one was finished, and thereby synchronised, before this runs
            segment.sync()
        if self._failed:  # the segment before this one holds records that wait as well
            raise Unavailable(self._failed)

    def turn(self, *, older_than_s: float) -> None:
        """Go on to the next segment when this one has records and is older, so that quiet gateways are sealed too.

        What waits on the stage is sealed each time.
        """
        current = self._current
        if current is not None:
            current.seal()
        if current is not None and current.records and self._monotonic_s() - self._began_s > older_than_s:
            with contextlib.suppress(Unavailable):  # `check` and the next `append` say so
                self._roll(0)

    async def synced(self) -> None:
        """Return when all that was appended before this call is on the disk itself.

        One synchronisation serves all that wait; the next begins as soon as the last has ended. Raises Unavailable
        when the disk fails.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if not self._syncing:
            self._start_sync()
        await waiter

    def close(self) -> None:
        """Close the segment, so that it can be sealed."""
        if self._spare is not None:
            with contextlib.suppress(TautError):
                self._spare.result().discard()
            self._spare = None
        current, self._current = self._current, None
        if current is not None:
            self._pool.submit(self._finish, current).result()
        self._pool.shutdown()

    def _start_sync(self) -> None:
        loop = asyncio.get_running_loop()
        group, self._waiting = self._waiting, []
        self._syncing = True
        if self._current is not None:
            self._current.seal()  # else its stage would go to the disk in the clear
        # one thread runs these in order: a segment that was rolled over is finished, and thereby synchronised, first
        done = loop.run_in_executor(self._pool, self._sync, self._current)
        done.add_done_callback(lambda future: self._end_sync(future, group))

    def _end_sync(self, done: asyncio.Future[None], group: list[asyncio.Future[None]]) -> None:
        error = done.exception()
        self._syncing = False
        for waiter in group:
            if waiter.cancelled():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
        if self._waiting:
            self._start_sync()

    def _roll(self, record_bytes: int) -> SegmentWriter:
        """Go on to the next segment, large enough for a record of `record_bytes`."""
        now_s = self._monotonic_s()
        if now_s < self._retry_at_s:
            raise Unavailable(self._refusal, retry_after_s=_RETRY_S)
        old, self._current = self._current, None
        if old is not None:
            self._pool.submit(self._finish, old)
        try:
            fresh = self._next(2 * record_bytes + _SEGMENT_ROOM)
            started_us = self._now_us()
            fresh.begin(
                self._folder / f"{started_us:016d}-{self._writer}-{self._random.bytes(4).hex()}{OPEN}",
                started_us,
                self._lock(self._recipient),
                self._mark,
            )
        except Unavailable as error:
            self._retry_at_s, self._refusal = now_s + _RETRY_S, error.message
            raise Unavailable(error.message, retry_after_s=_RETRY_S) from error
        self._current, self._began_s = fresh, now_s
        self._spare = self._pool.submit(self._prepare, self._segment_bytes)
        return fresh

    def _next(self, needed_bytes: int) -> SegmentWriter:
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(Unavailable):
                found = spare.result()
                if found.size_bytes >= needed_bytes:
                    return found
                found.discard()
        return self._prepare(max(self._segment_bytes, needed_bytes))

    def _prepare(self, size_bytes: int) -> SegmentWriter:
        return SegmentWriter(
            self._folder / f"{self._writer}-{self._random.bytes(8).hex()}{SPARE}", size_bytes=size_bytes
        )

    def _finish(self, segment: SegmentWriter) -> None:
        try:
            segment.finish(segment.path.with_suffix(CLOSED))
        except (OSError, Unavailable) as error:
            self._failed = f"segment {segment.path.name} could not be closed ({error}): check the disk, restart the gateway"


def close_orphans(folder: Path) -> int:
    """Close segments whose writer is dead, so that they can be sealed; remove spares of the dead. Return how many.

    A writer holds a lock on its file as long as it lives, however it dies.
    """
    closed = 0
    for path in [*folder.glob(f"*{OPEN}"), *folder.glob(f"*{SPARE}")]:
        with contextlib.suppress(OSError):  # renamed or locked meanwhile: not ours
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.suffix == SPARE:
                    path.unlink()
                else:
                    path.rename(path.with_suffix(CLOSED))
                    closed += 1
            finally:
                os.close(descriptor)
    return closed
