"""Writes records that were set aside into the quarantine, while the batch that they are of is still being read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from sqlalchemy import delete, insert, select, update

from taut.core.canonical import canonical_json
from taut.core.evidence import Scalar
from taut.core.times import to_us
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.personal import SetAside
from taut.lifecycle.data.pii import has_pii
from taut.lifecycle.data.tables import quarantine
from taut.lifecycle.data.values import BadExample
from taut.ports.records import Tx, transact
from taut.project.manifest import DatasetSpec

_BUFFER: Final = 2_000  # records kept in memory
_EXAMPLES: Final = 20
REJECTED_KEPT: Final = 1_000  # records of a rejected batch that can be looked at
_HOPELESS: Final = 20_000  # bad records after which a batch far beyond its threshold is only counted


class AsideRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is set aside, with its raw values."""

    source_digest: str
    source_name: str
    row: int
    row_id: int
    rules: tuple[str, ...]
    record: dict[str, Scalar]
    owner: str | None  # its subject, where that could be read


class AsideSink(Protocol):
    """Takes the records that a pass sets aside, in order."""

    def add(self, found: Sequence[AsideRecord], *, records: int) -> None:
        """Take records. records: how many the batch had so far, good ones included."""
        ...

    def flush(self) -> None:
        """Everything was given."""
        ...


class Aside:
    """Collects set-aside records of one attempt at a batch.

    They are written as `pending` in bounded groups, invisible until the batch's own transaction opens them; what an
    attempt that died has left is removed with a batch of the dataset that is committed a day later or more. When far more records break than the
    batch may have, the rest is counted only (`complete` turns false): such a batch is rejected, or read once more
    with `limited=False`.
    """

    def __init__(
        self, doors: Doors, spec: DatasetSpec, *, batch: str, attempt: str, limited: bool = True
    ) -> None:
        self._doors = doors
        self._spec = spec
        self._batch = batch
        self._attempt = attempt
        self._limited = limited
        self._split = SetAside(doors.sealer, spec, batch)
        self._buffer: list[AsideRecord] = []
        self._count = 0
        self.complete = True
        self.examples: list[BadExample] = []

    def add(self, found: Sequence[AsideRecord], *, records: int) -> None:
        """Add records in order. records: how many the batch had so far, good ones included."""
        for record in found[: _EXAMPLES - len(self.examples)] if len(self.examples) < _EXAMPLES else ():
            self.examples.append(BadExample(source=record.source_name, row=record.row, rules=record.rules))
        before = self._count
        self._count += len(found)
        if self._limited and self._count > max(_HOPELESS, 2 * self._spec.contract.max_bad_fraction * records):
            self.complete = False
            found = found[: max(0, REJECTED_KEPT - before)]
        self._buffer += found
        while len(self._buffer) >= _BUFFER:
            self._write(self._buffer[:_BUFFER])
            del self._buffer[:_BUFFER]

    def flush(self) -> None:
        """Write what is still in memory."""
        if self._buffer:
            self._write(self._buffer)
            self._buffer = []

    def open_all(self, tx: Tx) -> None:
        """Make this attempt's records visible; what dead attempts of the dataset left is removed."""
        mine = quarantine.c.attempt == self._attempt
        tx.execute(update(quarantine).where(mine).values(state="open"))
        self.drop_dead(tx)

    def keep_some(self, tx: Tx) -> None:
        """Keep the first records of a rejected batch, to be looked at; they cannot be replayed."""
        mine = quarantine.c.attempt == self._attempt
        some = select(quarantine.c.id).where(mine).order_by(quarantine.c.id).limit(REJECTED_KEPT)
        kept = list(tx.execute(some).scalars())
        for start in range(0, len(kept), 500):
            group = quarantine.c.id.in_(kept[start : start + 500])
            tx.execute(update(quarantine).where(group).values(state="rejected", row_id=-1))
        tx.execute(delete(quarantine).where(mine, quarantine.c.state == "pending"))
        self.drop_dead(tx)

    def drop_dead(self, tx: Tx) -> None:
        """Remove what attempts at batches of this dataset left pending a day ago or longer: they are dead."""
        day_us = 86_400 * 1_000_000
        tx.execute(
            delete(quarantine).where(
                quarantine.c.dataset == self._spec.name,
                quarantine.c.state == "pending",
                quarantine.c.created_us < to_us(self._doors.clock.now()) - day_us,
            )
        )

    def drop(self) -> None:
        """Remove what this attempt has written."""
        self._buffer = []
        with self._doors.records.begin() as tx:
            tx.execute(
                delete(quarantine).where(
                    quarantine.c.attempt == self._attempt, quarantine.c.state == "pending"
                )
            )

    def _write(self, found: Sequence[AsideRecord]) -> None:
        whole = [self._all_apart(record) for record in found]
        transact(self._doors.records, lambda tx: self._insert(tx, found, whole))

    def _insert(self, tx: Tx, found: Sequence[AsideRecord], whole: Sequence[bool]) -> None:
        now_us = to_us(self._doors.clock.now())
        opened, sealed = self._split.split(
            tx, [record.record for record in found], [record.owner for record in found], whole=whole
        )
        tx.execute(
            insert(quarantine),
            [
                {
                    "id": self._doors.ids.new("quar"),
                    "dataset": self._spec.name,
                    "batch": self._batch,
                    "attempt": self._attempt,
                    "state": "pending",
                    "source_digest": record.source_digest,
                    "source_name": record.source_name,
                    "row": record.row,
                    "row_id": record.row_id,
                    "rules": canonical_json(record.rules).decode(),
                    "record": canonical_json(part).decode(),
                    "sealed": apart,
                    "created_us": now_us,
                    "updated_us": now_us,
                }
                for record, part, apart in zip(found, opened, sealed, strict=True)
            ],
        )

    def _all_apart(self, record: AsideRecord) -> bool:
        """Say whether even the open columns must be sealed: text that nobody could split, or undeclared PII."""
        if "_raw" in record.record and self._split.personal:
            return True
        if self._spec.contract.pii == "keep":
            return False
        return has_pii({k: v for k, v in record.record.items() if k not in self._split.personal})
