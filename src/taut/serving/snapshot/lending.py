"""Control's side of quotas on the stream: claims come with the gateways' beats, leases go down between snapshots."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from taut.core.errors import Corrupt, Unavailable
from taut.serving.snapshot.model import ServingSnapshot
from taut.serving.snapshot.store import write_atomically
from taut.trust.quota import Budgets, Holder, Leases, Limit, Row, State, decode_claim, digest_limits

_REMEMBERED: Final = 64
_KNOWN: Final = msgspec.json.Decoder(dict[str, int])
_ROWS: Final = msgspec.json.Decoder(tuple[Row, ...])


class Lender:
    """Leases on quotas, for gateways by name and process. Safe for threads.

    path: where those are kept who hold something, so that the next run of control knows of them; beside it, what was spent of
    budgets. wall_s: by which the windows of budgets go.

    Guarantees: as `Leases` and `Budgets` say. Nothing is lent before a snapshot has said which limits there are, nor while those who hold
    cannot be written down (`trouble` says why).
    """

    def __init__(
        self,
        path: Path,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._path: Final = path
        self._monotonic_s: Final = monotonic_s
        self._lock: Final = threading.Lock()
        self._declared = False
        self.trouble = ""
        known = {name: safe for name, safe in _read(path).items() if not _has_ended(name)}
        grantor = uuid.uuid4().hex
        self._leases: Final = Leases(grantor=grantor, now_s=monotonic_s(), known=known, keep=self._keep)
        self._spent_path: Final = path.with_name("budgets-spent.json")
        self._wall_s: Final = wall_s
        self._budgets: Final = Budgets(
            grantor=grantor, rows=_read_rows(self._spent_path), keep=self._keep_spent
        )

    def declare(self, snapshot: ServingSnapshot) -> None:
        """Lend what this snapshot limits, among as many as it says."""
        with self._lock:
            self._leases.expect(snapshot.gateways, limits=digest_limits(snapshot.limits))
            self._budgets.expect(snapshot.gateways, snapshot.limits)
            self._declared = True

    def hear(self, gateway: str, pid: int, claim: msgspec.Raw, *, near: Iterable[str]) -> dict[str, bytes]:
        """Take a claim; return leases for who claims and for others who are reached now, by process.

        A claim that cannot be read is none: such a gateway is of another version, and its lease runs out.
        """
        try:
            found = decode_claim(claim)
        except Corrupt:
            return {}
        if found is None:
            return {}
        name = process_of(gateway, pid)
        with self._lock:
            if not self._declared:
                return {}
            now_s = self._monotonic_s()
            try:
                lease = self._leases.hear(name, found, now_s)
                leases = self._leases.pushes(near, now_s)
                if lease is not None:
                    self._budgets.keep_only({one.name for one in self._leases.holders(now_s)}, self._wall_s())
                    allowed = self._budgets.hear(name, found, self._wall_s())
                    leases[name] = msgspec.structs.replace(leases.get(name, lease), credits=allowed)
            except Unavailable as error:
                self.trouble = f"{error.message}; no quota is lent before that"
                return {}
            self.trouble = ""
        return {one: msgspec.json.encode(lent) for one, lent in leases.items()}

    def end(self, processes: Iterable[str]) -> None:
        """Hear that processes have surely ended: what they held is free."""
        with self._lock:
            for name in processes:
                self._leases.end(name)

    def holders(self) -> tuple[tuple[Holder, int, float], ...]:
        """Return who may be using something, how much of each limit at most, and for how many seconds he was silent."""
        with self._lock:
            now_s = self._monotonic_s()
            return tuple(
                (one, one.most(None, now_s), now_s - one.heard_s) for one in self._leases.holders(now_s)
            )

    def budgets(self) -> tuple[tuple[State, Limit], ...]:
        """Return what was spent of budgets, by key."""
        with self._lock:
            return self._budgets.states(self._wall_s())

    def _keep_spent(self, rows: tuple[Row, ...]) -> None:
        write_atomically(self._spent_path, msgspec.json.encode(rows))

    def _keep(self, holders: dict[str, int]) -> None:
        write_atomically(self._path, msgspec.json.encode(holders))


def process_of(gateway: str, pid: int) -> str:
    """Return the name under which one process holds leases."""
    return f"{gateway}#{pid}"


class Departed:
    """Processes of this machine that are not connected any more, until it is known that they have ended."""

    def __init__(self) -> None:
        self._left: Final[set[str]] = set()
        self._ended: Final[dict[str, None]] = {}

    def left(self, process: str) -> None:
        self._left.add(process)

    def back(self, process: str) -> None:
        self._left.discard(process)

    def ended(self) -> tuple[str, ...]:
        """Return those that have ended, the last ones of them: who needs it may have missed it once."""
        for process in [
            one for one in self._left if _has_ended(f"{one.partition('@')[0]}#{one.rpartition('#')[2]}")
        ]:
            self._left.discard(process)
            self._ended[process] = None
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return tuple(self._ended)


def _has_ended(process: str) -> bool:
    """Tell whether a process of this machine is gone for sure; of another machine's that cannot be told."""
    name, _, pid = process.rpartition("#")
    if "@" in name or not pid.isdigit():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
    return False


def _read(path: Path) -> dict[str, int]:
    """Return who held something. A file that cannot be read names nobody, as after a loss of the whole folder."""
    try:
        return _KNOWN.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _read_rows(path: Path) -> tuple[Row, ...]:
    """Return what was spent of budgets. A file that cannot be read says of none, as after a loss of the whole folder."""
    try:
        return _ROWS.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return ()
