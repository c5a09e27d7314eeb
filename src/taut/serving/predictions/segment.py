"""One segment: a preallocated file, mapped shared, filled with framed records by one process.

Layout: a header of 64 bytes (magic with version, start in microseconds, in a sealed segment what its key is found by, which
incarnation of its gateway wrote it, and whether by grace alone), then frames of `length u32, crc32 u32, payload`, little-endian; in a sealed one the tag of the record is the checksum, and
the word for it is zero. A length of zero ends the segment; so does a frame whose checksum or tag does not fit, which is
the tail of a process or machine that died while it wrote. A frame is in the page cache, and so survives any process, as soon as
`append` has returned.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from taut.core.errors import Corrupt, Unavailable
from taut.serving.predictions.envelope import CLEAR_BYTES, LOCK_BYTES, SegmentLock, nonce_at

MAGIC: Final = b"TAUTSEG1"
SEALED_MAGIC: Final = b"TAUTSEG2"
HEADER: Final = struct.Struct(f"<8sQ{LOCK_BYTES}sIB3x")
FRAME: Final = struct.Struct("<II")
_PACK: Final = FRAME.pack
_FRAME_BYTES: Final = FRAME.size
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
        self._encrypt: Callable[[bytes, bytes, bytes], bytes] | None = None
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
        if lock is None:
            self._encrypt, head = None, HEADER.pack(MAGIC, started_us, b"", *mark)
        else:
            self._encrypt, head = lock.cipher.encrypt, HEADER.pack(SEALED_MAGIC, started_us, lock.head, *mark)
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
        start, encrypt = self.end, self._encrypt
        if encrypt is None:
            frame = _PACK(len(payload), crc32(payload)) + payload
        else:  # here and not by a call: it runs on every request
            clear = payload[:CLEAR_BYTES]
            body = clear + encrypt(nonce_at(start), payload[CLEAR_BYTES:], clear)
            frame = _PACK(len(body), 0) + body
        end = start + len(frame)
        if end > self.size_bytes:
            return False
        self._map[start:end] = frame
        self.end = end
        self.records += 1
        return True

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
        self._map.close()
        with contextlib.suppress(OSError):  # a failing cut leaves zeros, which readers take as the end
            os.ftruncate(self._descriptor, self.end)
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


def frames(data: bytes | mmap.mmap | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, payload) of each whole frame, in order, up to the end or the first that is torn.

    Of a sealed segment the payloads are as they lie, and only their lengths are looked at: whether one is whole, its
    key tells.

    Nothing, or a header of zeros, is what a power failure leaves of a segment of which only the name was durable: it
    holds no record. Raises Corrupt when the data begins otherwise than a segment does.
    """
    view = memoryview(data)
    if not any(view[: HEADER.size]):
        return
    if len(view) < HEADER.size or bytes(view[: len(MAGIC)]) not in (MAGIC, SEALED_MAGIC):
        raise Corrupt("the file is no segment of the prediction log: restore it from a backup")
    offset = HEADER.size
    while (found := frame_at(view, offset)) is not None:
        yield offset, found
        offset += _FRAME_BYTES + len(found)


def lock_of(data: bytes | mmap.mmap | memoryview) -> bytes | None:
    """Return what the key of a sealed segment is found by; None for one that lies open, or has no header yet."""
    if data[: len(SEALED_MAGIC)] != SEALED_MAGIC or len(data) < HEADER.size:
        return None
    head: bytes = HEADER.unpack_from(data)[2]
    return head


def frame_at(view: memoryview, offset: int) -> memoryview | None:
    """Return the payload of the frame at `offset`, or None when there is no whole one."""
    size = len(view)
    if offset + _FRAME_BYTES > size:
        return None
    length, checksum = FRAME.unpack_from(view, offset)
    begin = offset + _FRAME_BYTES
    if length == 0 or begin + length > size:
        return None
    payload = view[begin : begin + length]
    sealed = bytes(view[: len(SEALED_MAGIC)]) == SEALED_MAGIC
    return payload if sealed or crc32(payload) == checksum else None


def begins_frame(view: memoryview, offset: int) -> bool:
    """Whether a frame of the segment begins at `offset`, found by the lengths of those before it.

    What lies inside a frame may be a caller's own bytes, also such as look like a frame.
    """
    at = HEADER.size
    while at < offset:
        if at + _FRAME_BYTES > len(view):
            return False
        length = FRAME.unpack_from(view, at)[0]
        if length == 0:
            return False
        at += _FRAME_BYTES + length
    return at == offset


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
