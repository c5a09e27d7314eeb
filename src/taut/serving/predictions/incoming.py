"""Segments of further machines on their way into control's prediction log: in parts, once, durable before acknowledged."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from taut.core.errors import Conflict, Corrupt, Denied, InvalidInput, Unavailable
from taut.serving.predictions.envelope import NO_KEYS, SegmentKeys
from taut.serving.predictions.log import CLOSED
from taut.serving.predictions.reader import SEALED, whole_records
from taut.serving.predictions.record import decode_record

_PART: Final = ".part"
_MAX_BYTES: Final = 2**30
_NAME: Final = re.compile(r"\d{16}-[a-z][a-z0-9_.\-]{0,62}@([a-z][a-z0-9_.\-]{0,62})-[0-9a-f]{8}")


class Incoming:
    """Takes segments into `folder`, the prediction log, where the sealer finds them as it finds those of this machine.

    Guarantees: a segment whose last part was acknowledged is there whole, under its own name, also after a power failure;
    taking it again changes nothing; a machine writes only segments of its own name; nothing is taken that holds anything but
    records. Not guaranteed: that the records say what happened; they are the machine's word, and the ledger says whose.
    """

    def __init__(self, folder: Path, keys: SegmentKeys = NO_KEYS) -> None:
        self._folder: Final = folder
        self._keys: Final = keys

    def take(self, name: str, *, machine: str, size_bytes: int, sha256: str, offset: int, data: bytes) -> int:
        """Take a part and return how many bytes are here: `size_bytes` when it is done, else where to go on.

        name: of the segment, without its suffix. sha256: of the whole of it, hexadecimal.
        Raises InvalidInput for what is no segment of this machine, Conflict for another one of a name that is here,
        Corrupt for other bytes than `sha256` says (then it begins anew), Unavailable when the disk is full.
        """
        found = _NAME.fullmatch(name)
        if found is None or found[1] != machine:
            raise InvalidInput(f"{name[:120]!r} names no segment of machine {machine!r}")
        if not 0 < size_bytes <= _MAX_BYTES or offset < 0 or offset + len(data) > size_bytes:
            raise InvalidInput(
                f"a part of {len(data)} bytes at {offset} does not fit a segment of {size_bytes} bytes"
            )
        if self._has(name, sha256):
            return size_bytes
        with _unavailable(self._folder):
            return self._add(name, machine, size_bytes, sha256, offset, data)

    def _has(self, name: str, sha256: str) -> bool:
        for suffix in (CLOSED, SEALED):
            with contextlib.suppress(FileNotFoundError):  # sealed meanwhile: its next name
                if hashlib.sha256((self._folder / f"{name}{suffix}").read_bytes()).hexdigest() == sha256:
                    _sync(self._folder)  # whoever took it may have died before he did
                    return True
                raise Conflict(
                    f"segment {name} is here with other records: keep both, and ask the installation's owner"
                )
        return False

    def _add(self, name: str, machine: str, size_bytes: int, sha256: str, offset: int, data: bytes) -> int:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / f"{name}{_PART}"
        if offset == 0:  # a machine hands over one at a time: what it began before it will begin again
            for left in self._folder.glob(f"*@{machine}-????????{_PART}"):
                if left != path:
                    left.unlink(missing_ok=True)
        with _locked(path) as descriptor:
            here = os.fstat(descriptor).st_size
            if here != offset:
                return here
            _write(descriptor, data, offset)
            if offset + len(data) < size_bytes:
                return offset + len(data)
            whole = path.read_bytes()
            if hashlib.sha256(whole).hexdigest() != sha256:
                path.unlink()
                raise Corrupt(f"segment {name} came with other bytes than were sent: it is asked for again")
            self._check(name, path, whole)
            os.fsync(descriptor)
            path.rename(path.with_suffix(CLOSED))
        _sync(self._folder)
        return size_bytes

    def _check(self, name: str, path: Path, whole: bytes) -> None:
        """Refuse what the sealer could not read, for ever."""
        try:
            for payload in whole_records(whole, self._keys):
                decode_record(payload)
        except (Corrupt, Denied) as error:
            path.unlink()
            raise InvalidInput(f"segment {name} cannot be read: {error.message}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the file: a part that was sent again may meet the first one, of which nobody waits for the answer any more."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if not os.fstat(descriptor).st_nlink:  # taken away, or done, by whoever held it before
            raise Unavailable(
                f"{path.name} was just taken by another request: send it again", retry_after_s=0.1
            )
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _unavailable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"a segment cannot be written in {folder} ({error.strerror}): free disk space or mend its rights"
        ) from error
