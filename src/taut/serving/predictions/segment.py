"""One segment: a preallocated file, mapped shared, filled with framed records by one process.

Layout: a header of 64 bytes (magic with version, start in microseconds, in a sealed segment what its key is found by, which
incarnation of its gateway wrote it, and whether by grace alone), then frames of `length u32, crc32 u32, payload`,
little-endian; what lies in a sealed one instead, `batches` says. A length of zero ends the segment; so does a frame whose
checksum does not fit, which is the tail of a process or machine that died while it wrote. A frame is in the page cache, and so survives any process, as soon as
`append` has returned.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from taut.core.errors import Corrupt, Unavailable
from taut.serving.predictions.batches import (
    BATCH_BYTES,
    FRAME,
    FRAME_BYTES,
    STAGE,
    STAGE_BYTES,
    Batches,
    clear_stage,
    plain_frames,
    write_batch,
)
from taut.serving.predictions.envelope import LOCK_BYTES, SegmentKeys, SegmentLock
from taut.serving.predictions.record import ID_BYTES

MAGIC: Final = b"TAUTSEG1"
SEALED_MAGIC: Final = b"TAUTSEG2"
HEADER: Final = struct.Struct(f"<8sQ{LOCK_BYTES}sIB3x")
_PACK: Final = FRAME.pack
_STAGE_AT: Final = HEADER.size + STAGE.size
_CHUNK: Final = bytes(2**20)
_FULLFSYNC: Final = 51  # F_FULLFSYNC, which the fcntl module has on macOS only


class Mark(NamedTuple):
    """By what leave a gateway served what a segment holds. incarnation: that was admitted, 0 for none. degraded: by grace."""

    incarnation: int = 0
    degraded: bool = False


UNADMITTED: Final = Mark()


class SegmentWriter:
    """The writing end. Not safe for threads: one event loop owns it.

    path: the file to make; it must not exist. size_bytes: the whole file, header included.
    Holds an exclusive lock on the file, so that others see whether its writer lives.
    Raises Unavailable when the disk has no room for the whole segment: a full disk is met here, never in `append`.
    """

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        self.path = path
        self.size_bytes: Final = size_bytes
        self.end = HEADER.size
        self.records = 0
        self._limit = size_bytes
        self._lock: SegmentLock | None = None
        self._stage_bytes = min(STAGE_BYTES, size_bytes // 4)
        self._tail = 0
        self._batches = 0
        self._name_is_durable = False
        self._descriptor = -1
        try:
            self._descriptor = _create_locked(path)
            _allocate(self._descriptor, size_bytes)
            self._map: Final = mmap.mmap(self._descriptor, size_bytes, mmap.MAP_SHARED)
        except OSError as error:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                path.unlink(missing_ok=True)
            raise Unavailable(
                f"the prediction log cannot grow by {size_bytes} bytes ({error.strerror}): free disk space at "
                f"{path.parent}"
            ) from error

    def begin(
        self, path: Path, started_us: int, lock: SegmentLock | None = None, mark: Mark = UNADMITTED
    ) -> None:
        """Give the prepared file its header and its final name; again, with another lock or mark, while it has no record.

        lock: what seals its records; None leaves them open. mark: by what leave they are written.
        """
        if lock is not None:
            self._map[HEADER.size : _STAGE_AT] = STAGE.pack(self._stage_bytes, 1)
            self.end, self._tail = _STAGE_AT, _STAGE_AT + self._stage_bytes
        elif self._lock is not None:
            self._map[HEADER.size : _STAGE_AT] = bytes(STAGE.size)
            self.end, self._limit = HEADER.size, self.size_bytes
        self._lock = lock
        if lock is None:
            head = HEADER.pack(MAGIC, started_us, b"", *mark)
        else:
            self._bound()
            head = HEADER.pack(SEALED_MAGIC, started_us, lock.head, *mark)
        self._map[: HEADER.size] = head
        try:
            self.path.rename(path)
        except OSError as error:
            raise Unavailable(
                f"{self.path.name} cannot be named {path.name} ({error.strerror}): mend the folder of the log"
            ) from error
        self.path = path

    def append(self, payload: bytes) -> bool:
        """Write one record; False when it does not fit any more, and then nothing was written."""
        start = self.end
        end = start + FRAME_BYTES + len(payload)
        if end > self._limit:
            return self._append_elsewhere(payload)
        self._map[start:end] = _PACK(len(payload), crc32(payload)) + payload
        self.end = end
        self.records += 1
        return True

    def _append_elsewhere(self, payload: bytes) -> bool:
        """Make room on the stage by sealing what is there; past it, where the record is larger than it."""
        if self._lock is None:
            return False
        self.seal()
        size = FRAME_BYTES + len(payload)
        if _STAGE_AT + size <= self._limit:
            return self.append(payload)
        if BATCH_BYTES + ID_BYTES + size > self.size_bytes - self._tail:
            return False
        self._seal(_PACK(len(payload), crc32(payload)) + payload)
        self.records += 1
        return True

    def seal(self) -> None:
        """Seal what is on the stage; nothing where that is empty, or the segment lies open."""
        if self._lock is not None and self.end > _STAGE_AT:
            self._seal(self._map[_STAGE_AT : self.end])

    def _seal(self, frames_: bytes) -> None:
        assert self._lock is not None
        self._batches += 1
        self._tail = write_batch(
            self._map, self._lock.cipher, offset=self._tail, number=self._batches, head=HEADER.size,
            frames=frames_,
        )  # fmt: skip
        self.end = _STAGE_AT
        self._bound()

    def _bound(self) -> None:
        """Take onto the stage only what surely fits into a batch; a frame has more than 40 bytes, and an id takes 30."""
        room = max(0, self.size_bytes - self._tail - BATCH_BYTES) * 4 // 7
        self._limit = _STAGE_AT + min(self._stage_bytes, room)

    def sync(self) -> None:
        """Wait until all that was appended is on the disk itself. May be called from another thread."""
        try:
            _datasync(self._descriptor)
            if not self._name_is_durable:  # a synchronised file is lost all the same when its name is
                _sync_folder(self.path.parent)
                self._name_is_durable = True
        except OSError as error:
            raise Unavailable(
                f"the prediction log cannot be synchronised ({error.strerror}): check the disk"
            ) from error

    def finish(self, path: Path) -> None:
        """Cut the file to what was written, make it durable and give it its closed name."""
        self.seal()
        self._map.close()
        with contextlib.suppress(OSError):  # a failing cut leaves zeros, which readers take as the end
            os.ftruncate(self._descriptor, self.end if self._lock is None else self._tail)
        self.sync()
        self.path.rename(path)
        self.path = path
        os.close(self._descriptor)

    def discard(self) -> None:
        """Drop a prepared segment that was never begun."""
        self._map.close()
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def mark_of(data: bytes) -> Mark:
    """Return by what leave a segment was written; none where it has no header."""
    if len(data) < HEADER.size or data[: len(MAGIC)] not in (MAGIC, SEALED_MAGIC):
        return UNADMITTED
    _, _, _, incarnation, degraded = HEADER.unpack_from(data)
    return Mark(incarnation, bool(degraded))


def frames(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, payload) of each whole frame of an open segment, in order, up to the end or the first that is torn.

    Nothing, or a header of zeros, is what a power failure leaves of a segment of which only the name was durable: it
    holds no record. Raises Corrupt when the data begins otherwise than a segment does.
    """
    view = memoryview(data)
    if not any(view[: HEADER.size]):
        return
    if len(view) < HEADER.size or bytes(view[: len(MAGIC)]) != MAGIC:
        raise Corrupt("the file is no segment of the prediction log: restore it from a backup")
    yield from plain_frames(view, HEADER.size)


def sealed_part(data: bytes) -> tuple[bytes, Batches] | None:
    """Return what the key of a sealed segment is found by, and what is under it; None for one that lies open."""
    if data[: len(SEALED_MAGIC)] != SEALED_MAGIC or len(data) < HEADER.size:
        return None
    return HEADER.unpack_from(data)[2], Batches(data, HEADER.size)


def seal_left(path: Path, data: bytes, keys: SegmentKeys) -> None:
    """Seal the stage of a segment whose writer was killed; nothing where it is empty.

    data: its bytes. Only one process may do so, and only once nobody writes there.
    """
    found = sealed_part(data)
    if found is None:
        return
    number, offset, staged = found[1].left()
    if not staged and not any(data[_STAGE_AT : found[1].first]):
        return
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as held:
        if staged:
            if offset + BATCH_BYTES + 2 * len(staged) > len(data):
                return
            cipher = keys.cipher(found[0])
            write_batch(held, cipher, offset=offset, number=number, head=HEADER.size, frames=staged)
        # what it tore, and what it had sealed and not yet cleared
        clear_stage(held, head=HEADER.size, batches=number if staged else number - 1, used=STAGE_BYTES)
        held.flush()


def _create_locked(path: Path) -> int:
    """Make the file and lock it; again where whoever sweeps what the dead left took it between the two calls."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Reserve the blocks now, so that a full disk is an error here and not a SIGBUS at a write to the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size_bytes)
        return
    for start in range(0, size_bytes, len(_CHUNK)):  # macOS has no posix_fallocate
        os.write(descriptor, _CHUNK[: min(len(_CHUNK), size_bytes - start)])


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _datasync(descriptor: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        fcntl.fcntl(descriptor, _FULLFSYNC)  # macOS: fsync alone stops at the drive's cache
