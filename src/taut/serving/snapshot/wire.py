"""What goes over the stream's Unix socket: length-prefixed frames, snapshots down and short JSON reports up."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Corrupt, InvalidInput

MAX_FRAME_BYTES: Final = 64 * 2**20
LENGTH: Final = struct.Struct(">I")
_WORD: Final = b"\0"  # a snapshot is JSON, and begins otherwise
_LEASE: Final = b"\1"
_PATH_BYTES: Final = 100  # a socket's address holds 104 to 108 bytes, by system


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """The first word of a gateway. epoch: what it serves now, 0 for nothing."""

    gateway: str
    pid: int
    epoch: int


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """A gateway's answer to a snapshot. serving: the epoch that it serves after it; reason: why it refused."""

    gateway: str
    epoch: int
    applied: bool
    serving: int
    reason: str = ""
    seconds: float = 0.0


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """A sign of life, every second or so, with counters since the gateway's start.

    reasons: why it is not ready. endpoints: why single endpoints are not, of one that may be ready itself.
    callers: principal -> endpoint -> requests; who did not ask for a while is absent, and begins at nothing again.
    costs: principal -> endpoint -> (requests for which a model worked, microseconds that it took), likewise.
    claim: on quotas, as `taut.trust.quota` encodes it; null of one that takes no leases.
    meters: a reading of `taut.serving.meters` as it was encoded, so that one of another layout than control knows costs
    its figures and not the connection. trials: what it counted of releases under way, as `taut.serving.trials` encodes it;
    shadows: the same of those that answer nobody.
    """

    gateway: str
    epoch: int
    ready: bool
    answers: int
    refusals: int
    reasons: tuple[str, ...] = ()
    endpoints: dict[str, tuple[str, ...]] = {}
    callers: dict[str, dict[str, int]] = {}
    costs: dict[str, dict[str, tuple[int, int]]] = {}
    claim: msgspec.Raw = msgspec.Raw(b"null")
    meters: msgspec.Raw = msgspec.Raw(b"null")
    trials: msgspec.Raw = msgspec.Raw(b"null")
    shadows: msgspec.Raw = msgspec.Raw(b"null")


class Word(msgspec.Struct, frozen=True, kw_only=True, tag="word"):
    """What a gateway says to somebody else in control, who reads it; the stream carries it."""

    data: bytes


Report = Hello | Ack | Beat | Word
_DECODER: Final = msgspec.json.Decoder(Report)


def frame(data: bytes) -> bytes:
    return LENGTH.pack(len(data)) + data


def frame_word(data: bytes) -> bytes:
    """Return the frame in which a gateway is told something that is no snapshot."""
    return frame(_WORD + data)


def word_in(data: bytes) -> bytes | None:
    """Return what a frame tells a gateway where that is no snapshot."""
    return data[len(_WORD) :] if data.startswith(_WORD) else None


def frame_lease(lease: bytes) -> bytes:
    """Return the frame in which a gateway is lent something."""
    return frame(_LEASE + lease)


def lease_in(data: bytes) -> bytes | None:
    """Return the lease in a frame, None where it holds a snapshot."""
    return data[len(_LEASE) :] if data.startswith(_LEASE) else None


def frame_report(report: Report) -> bytes:
    return frame(msgspec.json.encode(report))


def decode_report(data: bytes) -> Report:
    try:
        report: Report = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a gateway sent what is no report: {error}") from error
    return report


def check_length(header: bytes) -> int:
    """Return the length in a frame's header. Raises Corrupt beyond the bound."""
    length: int = LENGTH.unpack(header)[0]
    if length > MAX_FRAME_BYTES:
        raise Corrupt(f"a frame of {length} bytes is beyond the bound of {MAX_FRAME_BYTES}")
    return length


def read_frame(connection: socket.socket) -> bytes | None:
    """Return the next frame, or None when the other side has closed."""
    header = _read_exactly(connection, LENGTH.size)
    return None if header is None else _read_exactly(connection, check_length(header))


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(65_536, size - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield an address for a Unix socket at `path`, also where the path is longer than an address may be.

    Raises InvalidInput where the system offers no way for a long one.
    """
    if len(os.fsencode(path)) <= _PATH_BYTES:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise InvalidInput(
            f"{path} is too long for a Unix socket ({_PATH_BYTES} bytes): choose a shorter --home"
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
