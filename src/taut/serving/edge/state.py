"""What a device keeps of its answers until it was told: a snapshot and a journal after it, both bounded.

`state.json` is replaced whole; what was counted since is one line a request in `counts.G.jsonl`, where G is the
snapshot's generation. A line is written before its answer leaves, so that the death of the process loses none; a cut of
the power loses what the system had not yet written. The snapshot of the next generation holds everything, and the
journal of the one before is then nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from taut.core.edge import Counts, Report
from taut.core.errors import Conflict, Corrupt, Unavailable
from taut.ports.world import Ids
from taut.serving.files import replace_file

WAITING_MAX: Final = 32
JOURNAL_BYTES_MAX: Final = 256 * 1024
_JOURNAL_BYTES_END: Final = 4 * JOURNAL_BYTES_MAX  # while no snapshot can be written
_SNAPSHOT: Final = "state.json"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one bundle over some time, not yet told. merged: further periods that are in it."""

    bundle: str
    began_us: int
    ended_us: int
    counts: Counts
    merged: int = 0

    def plus(self, other: Period) -> Period:
        """Return both as one period."""
        return Period(
            bundle=self.bundle, began_us=min(self.began_us, other.began_us), ended_us=max(self.ended_us, other.ended_us),
            counts=self.counts.plus(other.counts), merged=self.merged + other.merged + 1,
        )  # fmt: skip


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What lies in the file. sending: was perhaps received and is therefore never changed again."""

    device: str
    generation: int
    sequence: int  # of the next report
    now: Period
    waiting: tuple[Period, ...] = ()
    sending: Report | None = None
    dropped: int = 0


class EdgeState:
    """The counts of one device in a folder of its own. One thread at a time uses it; a second process is refused.

    Guarantees: what was counted and not acknowledged is in the reports to come, exactly once; a report that was once
    taken by `next_report` is the same each time until it is acknowledged; the folder stays below about a megabyte,
    however long nobody is reached: beyond `waiting_max` periods the two oldest become one.
    Not guaranteed: that what was counted just before a cut of the power is still there; that anything is kept while the
    disk is full, which `faults` counts, and the reports with them as `dropped`.
    """

    def __init__(
        self, folder: Path, *, bundle: str, now_us: int, ids: Ids, waiting_max: int = WAITING_MAX
    ) -> None:
        self.faults = 0
        self._folder: Final = folder
        self._waiting_max: Final = waiting_max
        self._ids: Final = ids
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock: Final = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"{folder} cannot be used ({error.strerror}): name another with --state"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(f"another process counts in {folder}: give each its own --state") from None
        self._journal = -1
        self._journal_bytes = 0
        self._save_at = JOURNAL_BYTES_MAX
        try:
            found = self._read(bundle, now_us)
            if found.now.bundle != bundle:
                found = self._turned(found, bundle, now_us)
            self._kept = found
            self._save()
        except BaseException:
            self.close(save=False)
            raise

    @property
    def device(self) -> str:
        return self._kept.device

    @property
    def waiting(self) -> int:
        """How many reports are still to be told."""
        return len(self._kept.waiting) + (self._kept.sending is not None)

    @property
    def now(self) -> Period:
        """What was counted since the last turn."""
        return self._kept.now

    def count(self, counts: Counts, now_us: int) -> None:
        """Add what a request brought. Never raises: an answer is worth more than its count."""
        now = self._kept.now
        total = msgspec.structs.replace(now, ended_us=now_us, counts=now.counts.plus(counts))
        self._kept = msgspec.structs.replace(self._kept, now=total)
        line = b"\n" + msgspec.json.encode((now_us, counts))  # begun anew, whatever became of the line before
        try:
            whole = self._journal_bytes <= _JOURNAL_BYTES_END and os.write(self._journal, line) == len(line)
        except OSError:
            whole = False
        self.faults += not whole
        self._journal_bytes += len(line)
        if self._journal_bytes > self._save_at:
            self._save_or_count()

    def turn(self, now_us: int) -> None:
        """End the running period, so that it can be told."""
        if not self._kept.now.counts.empty:
            self._kept = self._turned(self._kept, self._kept.now.bundle, now_us)
            self._save_or_count()

    def next_report(self) -> Report | None:
        """Return the report to be told now, the oldest first; None when there is none. Raises Unavailable when it cannot be
        kept: a report that was sent and then forgotten would be counted twice."""
        kept = self._kept
        if kept.sending is None and kept.waiting:
            oldest = kept.waiting[0]
            report = Report(
                device=kept.device, bundle=oldest.bundle, sequence=kept.sequence, began_us=oldest.began_us,
                ended_us=oldest.ended_us, counts=oldest.counts, merged=oldest.merged, dropped=kept.dropped,
            )  # fmt: skip
            self._kept = msgspec.structs.replace(
                kept, sending=report, waiting=kept.waiting[1:], sequence=kept.sequence + 1, dropped=0
            )
            try:
                self._save()
            except OSError as error:
                self._kept = kept
                self.faults += 1
                raise Unavailable(f"{self._folder} cannot be written ({error.strerror})") from error
        return self._kept.sending

    def acknowledge(self, sequence: int) -> None:
        """Forget the report that was received."""
        if self._kept.sending is not None and self._kept.sending.sequence == sequence:
            self._kept = msgspec.structs.replace(self._kept, sending=None)
            self._save_or_count()

    def give_up(self, sequence: int, *, anew: bool = False) -> None:
        """Forget a report that will never be taken: its answers are told as dropped. anew: as another device, since somebody
        reports with a copy of this one's state."""
        kept = self._kept
        if kept.sending is None or kept.sending.sequence != sequence:
            return
        lost = kept.sending.counts.requests + kept.sending.dropped
        kept = msgspec.structs.replace(kept, sending=None, dropped=kept.dropped + lost)
        if anew:
            kept = msgspec.structs.replace(kept, device=self._ids.new("device"), sequence=1)
        self._kept = kept
        self._save_or_count()

    def close(self, *, save: bool = True) -> None:
        if save:
            self._save_or_count()
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1
        os.close(self._lock)

    def _turned(self, kept: _Snapshot, bundle: str, now_us: int) -> _Snapshot:
        fresh = Period(bundle=bundle, began_us=now_us, ended_us=now_us, counts=Counts())
        if kept.now.counts.empty:
            return msgspec.structs.replace(kept, now=fresh)
        waiting, dropped = [*kept.waiting, kept.now], kept.dropped
        while len(waiting) > self._waiting_max:
            pair = next((at for at in range(len(waiting) - 1) if _alike(waiting[at], waiting[at + 1])), None)
            if (
                pair is None
            ):  # more bundles than periods: the oldest is given up, and its answers are told as dropped
                dropped += waiting.pop(0).counts.requests
            else:
                waiting[pair : pair + 2] = [waiting[pair].plus(waiting[pair + 1])]
        return msgspec.structs.replace(kept, now=fresh, waiting=tuple(waiting), dropped=dropped)

    def _save_or_count(self) -> None:
        try:
            self._save()
        except OSError:
            self.faults += 1
            self._save_at = (
                self._journal_bytes + JOURNAL_BYTES_MAX
            )  # tried again when as much has come together

    def _save(self) -> None:
        """Write the next generation whole, and begin its journal."""
        kept = msgspec.structs.replace(self._kept, generation=self._kept.generation + 1)
        journal = os.open(
            self._journal_path(kept.generation), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600
        )  # fmt: skip
        try:
            # one name for what is not whole yet, so that deaths leave no more than one file
            partial = self._folder / f".{_SNAPSHOT}.tmp"
            replace_file(self._folder / _SNAPSHOT, msgspec.json.encode(kept), temporary=partial)
        except BaseException:
            os.close(journal)
            raise
        before, self._journal = self._journal, journal
        self._kept, self._journal_bytes, self._save_at = kept, 0, JOURNAL_BYTES_MAX
        if before >= 0:
            os.close(before)
        for left in self._folder.glob("counts.*.jsonl"):
            if left != self._journal_path(kept.generation):
                with contextlib.suppress(OSError):
                    left.unlink()

    def _journal_path(self, generation: int) -> Path:
        return self._folder / f"counts.{generation}.jsonl"

    def _read(self, bundle: str, now_us: int) -> _Snapshot:
        path = self._folder / _SNAPSHOT
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Snapshot)
        except FileNotFoundError:
            fresh = Period(bundle=bundle, began_us=now_us, ended_us=now_us, counts=Counts())
            return _Snapshot(device=self._ids.new("device"), generation=0, sequence=1, now=fresh)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"{path} cannot be read ({error}): move the folder away to begin anew") from error
        journal = self._journal_path(kept.generation)
        total, ended_us = kept.now.counts, kept.now.ended_us
        for line in journal.read_bytes().split(b"\n") if journal.exists() else ():
            try:
                ended_us, counts = msgspec.json.decode(line, type=tuple[int, Counts])
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # the end of the last line before the power went, or of the file
            total = total.plus(counts)
        return msgspec.structs.replace(
            kept, now=msgspec.structs.replace(kept.now, counts=total, ended_us=ended_us)
        )


def _alike(left: Period, right: Period) -> bool:
    return left.bundle == right.bundle
