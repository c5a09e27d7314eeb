"""Verification: every leaf, tile and checkpoint read again and compared, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import func, or_, select

from taut.core.errors import Corrupt, TautError
from taut.ports.keys import Keys
from taut.ports.records import Records, Tx
from taut.trust.ledger import tables as t
from taut.trust.ledger.copies import CheckpointCopy
from taut.trust.ledger.naming import Findings
from taut.trust.ledger.note import VerifyKey, open_checkpoint, verify_keys
from taut.trust.ledger.store import GROUP_MAX, head_size, select_leaves
from taut.trust.ledger.tiles import TILE_WIDTH, split
from taut.trust.ledger.values import Checkpoint, LedgerReport
from taut.trust.ledger.walk import Anchor, Walk, content_hash

CHUNK: Final = (
    4 * TILE_WIDTH
)  # leaves a read; with bodies of at most 32 KiB this bounds memory to some 32 MiB
_DATABASE: Final = "the database"


class Audit:
    """One verification of a ledger. It only reads, a chunk a transaction, and may run beside writers."""

    def __init__(
        self, records: Records, keys: Keys, *, origin: str, copies: Sequence[CheckpointCopy]
    ) -> None:
        self._records = records
        self._origin = origin
        self._copies = tuple(copies)
        self._public = verify_keys(keys)
        self._findings = Findings()

    def run(self, progress: Callable[[float], None] | None = None) -> LedgerReport:
        copied = (
            self._read_copies()
        )  # before the database, or a checkpoint made meanwhile would look rolled back
        with self._records.read() as tx:
            size, end = self._frame(tx)
            self._check_newest(tx, size, copied)
            walk = Walk(self._findings, size=size, end=end)
            walk.begin(self._anchors(tx, -1, 0, copied))
        for start in range(0, end, CHUNK):
            stop = min(start + CHUNK, end)
            with self._records.read() as tx:
                walk.chunk(tx, start, stop, self._anchors(tx, start, stop, copied))
            if progress is not None:
                progress(stop / end)
        with self._records.read() as tx:
            walk.finish(tx)
        waiting = self._check_pending()
        self._findings.resolve(end=end, size=size)
        return LedgerReport(
            ok=not self._findings.faults,
            size=size,
            root=walk.root(),
            faults=tuple(self._findings.faults),
            warnings=self._warnings(walk, size),
            pending=waiting,
            checkpoints=walk.compared,
            more_faults=self._findings.more,
        )

    def _warnings(self, walk: Walk, size: int) -> tuple[str, ...]:
        found = []
        if not self._copies:
            found.append(
                "no checkpoint copy is kept outside the database: whoever can write it could cut the log's end unseen"
            )
        if walk.signed_until < size:
            found.append(
                f"leaves {walk.signed_until} to {size - 1} are covered by no signed checkpoint yet: "
                "run `taut ledger checkpoint`"
            )
        return tuple(found)

    def _read_copies(self) -> list[tuple[str, Checkpoint]]:
        found = []
        for copy in self._copies:
            try:
                note = copy.latest()
                if note is not None:
                    found.append((copy.name, open_checkpoint(note, self._public, origin=self._origin)))
            except Corrupt as error:
                self._findings.add("copy_forged", f"the newest checkpoint in {copy.name}: {error}")
            except TautError as error:
                self._findings.add("copy_unreadable", f"{copy.name} proves nothing: {error}")
        return found

    def _frame(self, tx: Tx) -> tuple[int, int]:
        """Return (size by the head, end of the walk): a head far beyond the leaves must not keep us busy for ever."""
        size = head_size(tx)
        first, number = t.groups.c.first_seq, t.leaves.c.number
        newest = tx.execute(
            select(func.max(first + t.groups.c.width)).where(first < size, first >= 0)
        ).scalar_one()
        end = min(size, (newest or 0) + CHUNK)
        outside = tx.execute(
            select(func.count(), func.min(first + number), func.max(first + number))
            .select_from(t.leaves.join(t.groups, t.groups.c.group_id == t.leaves.c.group_id))
            .where(or_(first > size - GROUP_MAX, first < GROUP_MAX))  # by index; others cannot reach outside
            .where(or_(first + number >= size, first + number < 0))
        ).one()
        if outside[0]:
            self._findings.add(
                "leaf_beyond_head",
                f"{outside[0]} leaves from {outside[1]} to {outside[2]} lie outside the log of {size} leaves: they were "
                "put there, or the head was set back",
                seq=outside[1],
                last=outside[2],
            )
        return size, end

    def _check_newest(self, tx: Tx, size: int, copied: list[tuple[str, Checkpoint]]) -> None:
        """Find checkpoints beyond the log, and copies that are newer than anything the database remembers."""
        for row in tx.execute(select(t.checkpoints).where(t.checkpoints.c.size > size)):
            anchor = self._open(row, self._public)
            if anchor is not None:
                self._add_cut(_DATABASE, anchor.size, size)
        newest = tx.execute(select(func.max(t.checkpoints.c.size))).scalar_one()
        known = -1 if newest is None else newest
        for where, copy in copied:
            if copy.size > size:
                self._add_cut(where, copy.size, size)
            if copy.size > known:
                remembered = "none" if known < 0 else f"none after size {known}"
                self._findings.add(
                    "checkpoint_rolled_back",
                    f"{where} keeps a checkpoint of {copy.size} leaves, but the database remembers {remembered}: its "
                    "checkpoints were removed, or an old backup was restored",
                )

    def _add_cut(self, where: str, signed: int, size: int) -> None:
        self._findings.add(
            "tail_cut",
            f"{where} keeps a signed checkpoint of {signed} leaves, but the log ends at {size}: leaves {size} to "
            f"{signed - 1} are gone",
            seq=size,
            last=signed - 1,
        )

    def _anchors(self, tx: Tx, above: int, stop: int, copied: list[tuple[str, Checkpoint]]) -> list[Anchor]:
        """Return what is signed about more than `above` and at most `stop` leaves, by size."""
        sizes = t.checkpoints.c.size
        rows = tx.execute(select(t.checkpoints).where(sizes > above, sizes <= stop)).all()
        anchors = [anchor for row in rows if (anchor := self._open(row, self._public)) is not None]
        anchors += [
            Anchor(where, copy.size, copy.root) for where, copy in copied if above < copy.size <= stop
        ]
        return sorted(anchors, key=lambda anchor: anchor.size)

    def _open(self, row: Any, public: Sequence[VerifyKey]) -> Anchor | None:
        try:
            checkpoint = open_checkpoint(row.note, public, origin=self._origin)
        except Corrupt as error:
            self._findings.add("checkpoint_forged", f"checkpoint of size {row.size} in the database: {error}")
            return None
        if (checkpoint.size, checkpoint.root) != (row.size, bytes(row.root)):
            self._findings.add(
                "checkpoint_forged",
                f"checkpoint of size {row.size} in the database does not say what its signed note says",
            )
            return None
        return Anchor(_DATABASE, checkpoint.size, checkpoint.root)

    def _check_pending(self) -> int:
        """Check leaves whose groups have no place against their own hashes, a group a transaction."""
        last, count = "", 0
        while True:
            with self._records.read() as tx:
                group = tx.execute(
                    select(t.leaves)
                    .where(t.leaves.c.group_id > last, t.leaves.c.waiting.is_not(None))
                    .order_by(t.leaves.c.group_id)
                    .limit(1)
                ).one_or_none()
                if group is None:
                    return count
                rows = tx.execute(select_leaves().where(t.leaves.c.group_id == group.group_id)).all()
            found = {row.number: content_hash(row) for row in rows}
            logged = dict(enumerate(split(bytes(group.hashes))))
            for number in sorted({*found, *logged, *range(min(group.width, GROUP_MAX))}):
                if number not in found or found[number] != logged.get(number):
                    self._findings.add(
                        "pending_changed",
                        f"leaf {group.group_id}.{number}, not sequenced yet, is not what its hash says: it was changed",
                        leaf=f"{group.group_id}.{number}",
                    )
            count += group.width
            last = group.group_id
