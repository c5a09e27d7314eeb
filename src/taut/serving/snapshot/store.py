"""Snapshots on disk: the newest that control issued, and the last that a gateway could really serve."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Conflict, Corrupt, Denied, Unavailable
from taut.ports.keys import PublicKey
from taut.serving.files import replace_file
from taut.serving.snapshot.model import ServingSnapshot, open_snapshot

_KEYS: Final = msgspec.json.Decoder(tuple[PublicKey, ...])


class TrustFile:
    """The public keys whose snapshots a gateway believes, as a JSON file that only the installation's owner writes."""

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def write(self, keys: Sequence[PublicKey]) -> None:
        write_atomically(self._path, msgspec.json.encode(list(keys)))

    def read(self) -> tuple[PublicKey, ...]:
        """Return the keys. Raises Unavailable when there is no file yet, Corrupt when it is none of ours."""
        try:
            return _KEYS.decode(self._path.read_bytes())
        except FileNotFoundError as error:
            raise Unavailable(f"{self._path} is missing: start control once, it writes it") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"{self._path} is no list of public keys ({error}): restart control") from error


class SnapshotStore:
    """A folder with two signed snapshots: `snapshot.json`, the newest issued, and `applied.json`, the last served.

    Guarantees: a file is whole or absent, also after a power failure; the epoch in a file never falls; what is
    returned was signed by a trusted key. Safe for several processes.
    """

    def __init__(self, folder: Path, trust: TrustFile) -> None:
        self._folder: Final = folder
        self._trust: Final = trust
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def trust(self, keys: Sequence[PublicKey]) -> None:
        """Let gateways believe these keys from now on; called with a new one before anything signed by it is saved."""
        with contextlib.suppress(Unavailable, Corrupt):
            if self._trust.read() == tuple(keys):
                return
        self._trust.write(keys)

    def save(self, data: bytes) -> ServingSnapshot:
        """Keep a newly issued snapshot. Raises Conflict when it is not newer than what is there; see open_snapshot."""
        return self._save("snapshot.json", data)

    def save_applied(self, data: bytes) -> ServingSnapshot:
        """Keep a snapshot that is being served. One that is not newer than what is there changes nothing."""
        with contextlib.suppress(Conflict):
            return self._save("applied.json", data)
        return open_snapshot(data, self._trust.read())

    def newest(self) -> bytes | None:
        """Return the newest issued snapshot, unverified, or None."""
        return self._read("snapshot.json")

    def issued_last(self) -> ServingSnapshot | None:
        """Return the newest issued snapshot; None where there is none, or none that can be believed."""
        try:
            return self._known("snapshot.json", self._trust.read())
        except (Unavailable, Corrupt):
            return None

    def candidates(self) -> list[bytes]:
        """Return what a gateway may start from, best first: the newest issued, then the last that was served."""
        return [data for name in ("snapshot.json", "applied.json") if (data := self._read(name)) is not None]

    def floor(self) -> int:
        """Return the epoch below which nothing may be served any more; 0 when none was.

        A file that cannot be believed gives no floor: whoever can write here could also remove it.
        """
        return self._epoch("applied.json")

    def issued(self) -> int:
        """Return the epoch of the newest snapshot that was issued here or is served; the next must be above it."""
        return max(self._epoch("snapshot.json"), self._epoch("applied.json"))

    def _epoch(self, name: str) -> int:
        data = self._read(name)
        if data is None:
            return 0
        try:
            return open_snapshot(data, self._trust.read()).epoch
        except (Corrupt, Denied, Unavailable):
            return 0

    def _save(self, name: str, data: bytes) -> ServingSnapshot:
        keys = self._trust.read()
        snapshot = open_snapshot(data, keys)
        with self._lock():
            before = self._known(name, keys)
            if before is not None and before != snapshot and before.epoch >= snapshot.epoch:
                raise Conflict(
                    f"{name} is at epoch {before.epoch}, not before {snapshot.epoch}: issue a newer one"
                )
            if before != snapshot:
                write_atomically(self._folder / name, data)
        return snapshot

    def _known(self, name: str, keys: tuple[PublicKey, ...]) -> ServingSnapshot | None:
        """Return what a file holds; None where there is none, or nothing that can be believed and so be kept."""
        data = self._read(name)
        if data is None:
            return None
        try:
            return open_snapshot(data, keys)
        except (Corrupt, Denied):
            return None

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        descriptor = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write so that a reader, and a restart after a power failure, finds the old file or the new one, whole.

    Raises Unavailable when the disk is full or cannot be written; the old file is then as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, data, temporary=path.with_name(f".{path.name}.{os.getpid()}.tmp"))
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written ({error.strerror}): free disk space or mend its rights"
        ) from error
