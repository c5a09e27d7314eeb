"""How records lie in a sealed segment: a stage of the newest in the clear, and batches of the earlier ones, sealed.

A record must survive the process as soon as it is appended, and a call of AES-GCM costs microseconds in the midst of other
work. So records are staged as frames in a small part of the file, and sealed together when that is full, before it is
synchronised, at each turn of the log, and at its end; then the stage is overwritten. What was killed meanwhile leaves at
most a stage in the clear, which control seals.

After the segment's header: size and generation of the stage (u32 each), the stage, and batches as frames `length u32, 0`
of `count u32`, that many request ids, and the sealed frames; ids are authenticated, and in the clear to be found. A batch
counts from the moment its length is written. The stage counts only if its generation is one above the number of batches,
so that dying between a batch and the clearing of its stage doubles nothing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from itertools import islice
from struct import Struct
from typing import Final
from zlib import crc32

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taut.serving.predictions.record import ID_BYTES, ID_OFFSET

FRAME: Final = Struct("<II")
FRAME_BYTES: Final = FRAME.size
STAGE: Final = Struct("<II")
STAGE_BYTES: Final = 64 << 10
_COUNT: Final = Struct("<I")
_TAG_BYTES: Final = 16
BATCH_BYTES: Final = FRAME_BYTES + _COUNT.size + _TAG_BYTES
"""What a batch takes beside its ids and its records."""

_nonce: Final = Struct("<4xQ").pack


def plain_frames(view: memoryview, at: int) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, payload) of each whole frame from `at`, up to the end or the first that is torn."""
    while at + FRAME_BYTES <= len(view):
        length, checksum = FRAME.unpack_from(view, at)
        payload = view[at + FRAME_BYTES : at + FRAME_BYTES + length]
        if length == 0 or len(payload) < length or crc32(payload) != checksum:
            return
        yield at, payload
        at += FRAME_BYTES + length


class Batches:
    """The batches of one segment, over its bytes. at: where the stage's head lies, after the segment's header.

    first: where the first batch lies, after the stage.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._view: Final = memoryview(data)
        self._stage: Final = at + STAGE.size
        size, self._generation = STAGE.unpack_from(data, at) if self._stage <= len(data) else (0, 0)
        self.first: Final = self._stage + size

    def __iter__(self) -> Iterator[tuple[int, memoryview]]:
        """Yield (offset, body) of each batch that is there whole by its length."""
        view, at = self._view, self.first
        while at + FRAME_BYTES <= len(view):
            length = FRAME.unpack_from(view, at)[0]
            body = view[at + FRAME_BYTES : at + FRAME_BYTES + length]
            if length == 0 or len(body) < length:
                return
            yield at, body
            at += FRAME_BYTES + length

    def staged(self, batches: int) -> Iterator[memoryview]:
        """Yield the records of the stage, `batches` being how many batches there are: none where they are in the last."""
        if self._generation == batches + 1:
            stage = self._view[self._stage : self.first]
            yield from (payload for _, payload in plain_frames(stage, 0))

    def left(self) -> tuple[int, int, bytes]:
        """Return the number and the place of the batch to come, and the frames on the stage that belong into it."""
        count, offset = 0, self.first
        for at, body in self:
            count, offset = count + 1, at + FRAME_BYTES + len(body)
        size = sum(FRAME_BYTES + len(payload) for payload in self.staged(count))
        return count + 1, offset, bytes(self._view[self._stage : self._stage + size])

    def ids(self) -> list[str]:
        """Return the request ids of all records, which needs no key; of a batch that was changed they may be wrong."""
        found, count = [], 0
        for _, body in self:
            clear = bytes(_clear(body))[_COUNT.size :].decode("ascii", "replace")
            found += [clear[start : start + ID_BYTES] for start in range(0, len(clear), ID_BYTES)]
            count += 1
        return found + [str(one[ID_OFFSET : ID_OFFSET + ID_BYTES], "ascii") for one in self.staged(count)]

    def records(self, cipher: AESGCM, wanted: bytes = b"", *, after: int = 0) -> Iterator[bytes]:
        """Yield the records in order, up to the first batch that was changed. wanted: open only batches that name this id.

        after: how many are left out at the beginning; batches of none but those are not opened.
        """
        count = 0
        for offset, body in self:
            count += 1
            held = _held(body)
            if held <= after:
                after -= held
            elif wanted in bytes(_clear(body)):
                plain = _open(cipher, offset, body)
                if plain is None:
                    return
                found = plain_frames(memoryview(plain), 0)
                yield from (bytes(payload) for _, payload in islice(found, after, None))
                after = 0
        yield from (bytes(payload) for payload in islice(self.staged(count), after, None))


def write_batch(
    data: mmap.mmap, cipher: AESGCM, *, offset: int, number: int, head: int, frames: bytes
) -> int:
    """Seal frames into a batch at `offset`, the `number`th, clear the stage, and return where the next one goes.

    head: where the stage's head lies. Dying on the way loses and doubles nothing.
    """
    ids = [
        bytes(payload[ID_OFFSET : ID_OFFSET + ID_BYTES]) for _, payload in plain_frames(memoryview(frames), 0)
    ]
    clear = _COUNT.pack(len(ids)) + b"".join(ids)
    body = clear + cipher.encrypt(_nonce(offset), frames, clear)
    end = offset + FRAME_BYTES + len(body)
    data[offset + FRAME_BYTES : end] = body
    data[offset : offset + FRAME_BYTES] = FRAME.pack(len(body), 0)  # from here on it counts
    clear_stage(data, head=head, batches=number, used=len(frames))
    return end


def clear_stage(data: mmap.mmap, *, head: int, batches: int, used: int) -> None:
    """Overwrite what is on the stage, of which `batches` hold everything, and take new records there."""
    stage, size = head + STAGE.size, STAGE.unpack_from(data, head)[0]
    data[stage : stage + FRAME_BYTES] = bytes(
        FRAME_BYTES
    )  # first: it is not to be read under the next generation
    data[head:stage] = STAGE.pack(size, batches + 1)
    used = min(used, size)
    data[stage : stage + used] = bytes(used)


def _held(body: memoryview) -> int:
    """Return how many records a batch says that it holds; of one that is no batch none is left out."""
    return int(_COUNT.unpack_from(body)[0]) if len(body) >= _COUNT.size else 0


def _clear(body: memoryview) -> memoryview:
    count = _COUNT.unpack_from(body)[0] if len(body) >= _COUNT.size else 0
    return body[: _COUNT.size + ID_BYTES * count]


def _open(cipher: AESGCM, offset: int, body: memoryview) -> bytes | None:
    clear = _clear(body)
    try:
        return cipher.decrypt(_nonce(offset), body[len(clear) :], clear)
    except (InvalidTag, ValueError):
        return None
