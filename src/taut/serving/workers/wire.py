"""Frames between a gateway and a worker over a Unix socket: a fixed head, then tensors as their bytes.

A frame's body of more than 64 KiB lies in an anonymous file (memfd where there is one) whose descriptor goes with the
head. Both ends read such a file with pread into memory of their own: a mapping of a file that the other side cuts
short would end the reader.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import Corrupt

HEAD: Final = struct.Struct("<4sBBHIQ")  # magic, kind, flags, 0, rows, bytes of the body
INLINE_BYTES: Final = 64 * 1024
_MOST: Final = INLINE_BYTES + HEAD.size
_ONE_DESCRIPTOR: Final = socket.CMSG_SPACE(4)
BODY_MAX: Final = 2**30
WIDTH_MAX: Final = 10_000
_MAGIC: Final = b"tw1\n"
_IN_FILE: Final = 1

LOAD, LOADED, RUN, DONE, FAILED, MOVED, LAPSED = range(1, 8)
"""Kinds of frames: the gateway sends LOAD (a file with the model) and RUN, the worker LOADED, DONE and FAILED; MOVED is DONE
behind a word on where the model runs from now on, LAPSED refuses a batch that came without leave. The body of RUN begins with its
leave."""

TensorForms = dict[str, tuple[str, int]]
"""Input name -> (tensor type as ONNX names it, rank)."""
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype("<f4"), "tensor(double)": np.dtype("<f8"), "tensor(int64)": np.dtype("<i8"),
    "tensor(int32)": np.dtype("<i4"), "tensor(bool)": np.dtype("?"),
}  # fmt: skip
_OUTPUTS: Final[dict[int, np.dtype[Any]]] = {0: np.dtype("<f4"), 1: np.dtype("<f8")}
_OUTPUT_CODES: Final = {dtype.str: code for code, dtype in _OUTPUTS.items()}
_COPIED: Final = 4096  # bytes of a tensor: so few are copied sooner than a view of them is made
_OUTPUT_HEAD: Final = struct.Struct("<BB2xII")  # dtype, rank, two dimensions
_LENGTH: Final = struct.Struct("<I")
_MOVED_BYTES: Final = 2**15  # of the word in front of a MOVED frame


class Frame(NamedTuple):
    """One frame. rows: of the batch, 0 where there is none."""

    kind: int
    rows: int
    body: bytes


def send(sock: socket.socket, kind: int, rows: int, buffers: Sequence[Any]) -> None:
    """Send a frame. buffers: bytes, or arrays of them in one dimension.

    A small frame fits the socket's buffer when the other side has read what came before; then nothing blocks, also on
    a non-blocking socket. Raises OSError when the other side is gone, BlockingIOError when it does not read.
    """
    size = sum(map(len, buffers))
    if size <= INLINE_BYTES:
        sent = sock.send(b"".join((HEAD.pack(_MAGIC, kind, 0, 0, rows, size), *buffers)))
        if sent != HEAD.size + size:
            raise BlockingIOError(f"{sent} of {HEAD.size + size} bytes went to a worker that does not read")
        return
    descriptor = anonymous_file(buffers)
    try:
        socket.send_fds(sock, [HEAD.pack(_MAGIC, kind, _IN_FILE, 0, rows, size)], [descriptor])
    finally:
        os.close(descriptor)


def anonymous_file(views: Sequence[Any]) -> int:
    """Return the descriptor of a nameless file that holds the bytes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("taut")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        for view in views:
            rest = memoryview(view)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_file(descriptor: int, size: int) -> bytes:
    """Read `size` bytes of a descriptor from its beginning. Raises Corrupt when there are fewer."""
    parts, at = [], 0
    while at < size:
        part = os.pread(descriptor, min(size - at, 2**24), at)
        if not part:
            raise Corrupt(f"a frame's file holds {at} bytes, {size} were announced")
        parts.append(part)
        at += len(part)
    return b"".join(parts)


class Reader:
    """Puts frames together from what arrives on one socket. The other side is not trusted."""

    def __init__(self, sock: socket.socket, *, most: int = BODY_MAX) -> None:
        self.most = most  # bytes of a body: more is refused before it is read
        self._sock: Final = sock
        self._data = b""
        self._descriptors: list[int] = []

    def read(self, *, sleep: bool = True) -> Frame | None:
        """Receive once and return a whole frame, or None where more must come.

        sleep: wait for it on a socket that blocks; else BlockingIOError says that nothing is there. Raises EOFError when
        the other side is gone, Corrupt when what came is no frame.
        """
        data, ancillary, _, _ = self._sock.recvmsg(
            _MOST, _ONE_DESCRIPTOR, 0 if sleep else socket.MSG_DONTWAIT
        )
        if ancillary:
            self._take(ancillary)
        if not data:
            raise EOFError("the other side closed the socket")
        self._data = self._data + data if self._data else data
        if len(self._data) < HEAD.size:
            return None
        magic, kind, flags, _, rows, size = HEAD.unpack_from(self._data)
        if magic != _MAGIC or size > self.most or (size > INLINE_BYTES and not flags & _IN_FILE):
            raise Corrupt("what came over a worker's socket is no frame")
        if flags & _IN_FILE:
            return Frame(kind, rows, self._from_file(size))
        if len(self._data) < HEAD.size + size:
            return None
        if len(self._data) > HEAD.size + size:
            raise Corrupt("more came over a worker's socket than was asked for")
        body = self._data[HEAD.size :]
        self._data = b""
        return Frame(kind, rows, body)

    def _take(self, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._descriptors += array("i", data[: len(data) - len(data) % 4])

    def _from_file(self, size: int) -> bytes:
        if len(self._data) != HEAD.size or len(self._descriptors) != 1:
            raise Corrupt("a frame announced a file and did not bring just one")
        descriptor = self._descriptors.pop()
        self._data = b""
        try:
            return read_file(descriptor, size)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close descriptors that came with nothing to read them."""
        while self._descriptors:
            os.close(self._descriptors.pop())


class Layout:
    """How the tensors of one model lie in a RUN frame: in the order of `forms`, each with its rows."""

    def __init__(self, forms: TensorForms, *, matrix_width: int | None) -> None:
        width = matrix_width or 1
        self._forms: Final = [
            (name, _DTYPES.get(kind), width if rank == 2 else 1, rank) for name, (kind, rank) in forms.items()
        ]  # of strings, which have no bytes of a fixed length, None

    def buffers(self, feeds: Sequence[dict[str, npt.NDArray[Any]]], stamp: bytes = b"") -> list[Any]:
        """Return the buffers of a batch: its leave, then the rows of all feeds, one after the other, tensor by tensor."""
        found: list[Any] = [stamp] if stamp else []
        for name, dtype, _, _ in self._forms:
            if dtype is None:
                values = [value for feed in feeds for value in feed[name].reshape(-1).tolist()]
                encoded = msgspec.msgpack.encode(values)
                found += [_LENGTH.pack(len(encoded)), encoded]
            else:
                found += [_bytes_of(feed[name]) for feed in feeds]
        return found

    def feed(self, body: bytes, rows: int, *, at: int = 0) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors of a RUN frame. at: where they begin in its body. Raises ValueError or TypeError where it is too short for them."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, dtype, width, rank in self._forms:
            shape = (rows, width) if rank == 2 else (rows,)
            if dtype is None:
                (length,) = _LENGTH.unpack_from(body, at)
                at += _LENGTH.size
                values = msgspec.msgpack.decode(body[at : at + length], type=list[str])
                found[name] = np.array(values, dtype=object).reshape((rows, 1) if rank == 2 else (rows,))
                at += length
                continue
            found[name] = np.ndarray(shape, dtype, body, at)
            at += rows * width * dtype.itemsize
        return found


def _bytes_of(tensor: npt.NDArray[Any]) -> Any:
    """Return the bytes of a tensor: a copy where they are few, else a view."""
    if tensor.nbytes <= _COPIED:
        return tensor.tobytes()
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)


def output_buffers(tensor: npt.NDArray[Any]) -> list[Any]:
    """Return the buffers of a DONE frame. Raises ValueError for a tensor that no signature allows."""
    code = _OUTPUT_CODES.get(tensor.dtype.str)
    if code is None or tensor.ndim not in (1, 2):
        raise ValueError(f"the model gave {tensor.dtype} of shape {tensor.shape}")
    rows, width = tensor.shape if tensor.ndim == 2 else (*tensor.shape, 1)
    return [_OUTPUT_HEAD.pack(code, tensor.ndim, rows, width), _bytes_of(tensor)]


def answer_bytes(rows: int, width: int) -> int:
    """Return how long an answer to so many rows, of so many values each, may be; or a reason why there is none."""
    return max(INLINE_BYTES, _OUTPUT_HEAD.size + rows * width * 8 + _MOVED_BYTES)


def moved_buffers(word: bytes, answer: Sequence[Any]) -> list[Any]:
    """Return the buffers of a MOVED frame. answer: those of a DONE frame."""
    return [_LENGTH.pack(len(word)), word, *answer]


def split_moved(body: bytes) -> tuple[bytes, bytes]:
    """Return (the word, the body of a DONE frame) of a MOVED frame. Raises Corrupt where it is not as long as it says."""
    if len(body) < _LENGTH.size:
        raise Corrupt("a worker moved without a word")
    (length,) = _LENGTH.unpack_from(body)
    if length > min(_MOVED_BYTES, len(body) - _LENGTH.size):
        raise Corrupt("a worker's word on where it moved is not as long as its head says")
    return body[_LENGTH.size : _LENGTH.size + length], body[_LENGTH.size + length :]


def output_tensor(body: bytes, rows: int) -> npt.NDArray[Any]:
    """Return the tensor of a DONE frame. Raises Corrupt when it is not one of `rows` rows."""
    if len(body) < _OUTPUT_HEAD.size:
        raise Corrupt("a worker's answer has no head")
    code, rank, first, second = _OUTPUT_HEAD.unpack_from(body)
    dtype = _OUTPUTS.get(code)
    if dtype is None or rank not in (1, 2) or first != rows:
        raise Corrupt(f"a worker answered {first} rows of rank {rank}, {rows} were sent")
    shape = (first, second) if rank == 2 else (first,)
    count = first * second if rank == 2 else first
    if len(body) != _OUTPUT_HEAD.size + count * dtype.itemsize:
        raise Corrupt("a worker's answer is not as long as its head says")
    return np.ndarray(shape, dtype, body, _OUTPUT_HEAD.size)
