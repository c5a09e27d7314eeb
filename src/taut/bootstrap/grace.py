"""What is left of a gateway's grace, kept for the process that takes its place while control is gone."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import msgspec

from taut.serving.snapshot.store import write_atomically

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_EVERY_NS: Final = 60 * 10**9


class Kept(msgspec.Struct, frozen=True):
    """What is left of a ticket's grace. boot: of this machine, since whose start the times count.

    grace_until_ns: by class of risk, monotonic. identities: of whose ticket it is part: name, key and SVID; revoked, it is over.
    """

    boot: str
    grace_until_ns: dict[str, int]
    identities: tuple[str, ...] = ()


NOTHING: Final = Kept("", {})


class GraceFile:
    """Remembers until when a replica may go on by grace, on the machine's monotonic clock, which all its processes share.

    Whoever can write here is the owner of the home, and could start any process anyway. After a reboot, or where the system does
    not say that there was none, there is no grace.
    """

    def __init__(self, path: Path, *, boot: Path = _BOOT) -> None:
        self._path: Final = path
        self._written_ns = -_EVERY_NS
        try:
            self._boot = boot.read_text().strip()
        except OSError:
            self._boot = ""

    def read(self) -> Kept:
        """Return what an earlier process kept, as far as it is not over."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return NOTHING
        if not self._boot or kept.boot != self._boot:
            return NOTHING
        now_ns = time.monotonic_ns()
        left = {risk: until_ns for risk, until_ns in kept.grace_until_ns.items() if until_ns > now_ns}
        return msgspec.structs.replace(kept, grace_until_ns=left)

    def is_due(self) -> bool:
        """Tell, once a minute, that it is to be kept again, so that an earlier end costs no more than that."""
        now_ns = time.monotonic_ns()
        if now_ns - self._written_ns <= _EVERY_NS:
            return False
        self._written_ns = now_ns
        return True

    def keep(self, grace_until_ns: dict[str, int], *, identities: tuple[str, ...]) -> None:
        """Raises Unavailable where the disk is full."""
        kept = Kept(self._boot, grace_until_ns, identities)
        write_atomically(self._path, msgspec.json.encode(kept))

    def forget(self) -> None:
        """Leave nothing to the next process: admission refused what this one had."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
