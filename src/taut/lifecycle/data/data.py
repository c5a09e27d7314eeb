"""The data room's one class: ingest, snapshots, quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl
from sqlalchemy import select

from taut.core.errors import InvalidInput, NotFound
from taut.core.evidence import Evidence, Scalar
from taut.core.refs import VersionRef
from taut.core.schema import DType
from taut.lifecycle.data import quarantine, replay, snapshots
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.commits import head_of, stored_snapshot
from taut.lifecycle.data.doors import Doors, Progress
from taut.lifecycle.data.ingest import Ingest
from taut.lifecycle.data.reading import SourceTable
from taut.lifecycle.data.retry import Retry
from taut.lifecycle.data.values import (
    DatasetInfo,
    IngestResult,
    QuarantinedRecord,
    RowOrigin,
    SnapshotDiff,
    SnapshotInfo,
)
from taut.ports.blobs import Blobs
from taut.ports.records import Records
from taut.ports.tables import TableManifest, Tables
from taut.ports.world import Clock, Ids, Random
from taut.project.manifest import DatasetSpec
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage
from taut.trust.sealing import Sealer


class Data:
    """Datasets: batches in through the data gate, immutable snapshots out.

    Guarantees: a batch is in a snapshot whole or not at all, together with its ledger leaf and lineage; the same
    content is never read twice into one dataset, whatever the file is called; a rejected batch leaves everything as
    it was but the record of its rejection; a row id names one record for ever. Any number of threads and processes
    may ingest one dataset at once: each batch is judged on top of the one that was committed before it.

    Not guaranteed: that row ids have no gaps (a quarantined record keeps its own); order between batches of
    different callers.
    """

    def __init__(
        self,
        *,
        records: Records,
        blobs: Blobs,
        tables: Tables,
        ledger: Ledger,
        lineage: Lineage,
        sealer: Sealer,
        sources: SourceTable,
        clock: Clock,
        ids: Ids,
        random: Random,
        retry: Retry | None = None,
        scratch: Path | None = None,
    ) -> None:
        """sources: by URL scheme; `file` is that of plain paths. random: for the jitter of retries only.

        scratch: where copies of source files lie while they are read; None for the system's folder.
        """
        self._doors = Doors(
            records=records, blobs=blobs, tables=tables, ledger=ledger, lineage=lineage, sealer=sealer,
            sources=sources, clock=clock, ids=ids, random=random, retry=retry or Retry(),
            scratch=scratch,
        )  # fmt: skip

    def ingest(
        self,
        dataset: DatasetSpec,
        *,
        root: Path,
        source: str | None = None,
        actor: str,
        request: str | None = None,
        progress: Progress | None = None,
    ) -> IngestResult:
        """Read what is new at the dataset's source, judge it as one batch and, if it is admitted, make a snapshot.

        root: where relative paths start. source: read this address instead of the declared one. request: the
        caller's key; asked again with it, after a crash too, the first answer is given and nothing else is done.
        Safe to run again after a crash at any moment.
        Raises NotFound or Denied for files that are absent or unreadable, InvalidInput for a contract that
        contradicts itself, Unavailable when a place does not answer after retries. A batch that the gate rejects is
        no error but a result.
        """
        return Ingest(self._doors, dataset, actor=actor, progress=progress).run(
            root=root, source=source, request=request
        )

    def list(self) -> tuple[DatasetInfo, ...]:
        """Return every dataset that was ever ingested."""
        with self._doors.records.read() as tx:
            return snapshots.dataset_infos(tx)

    def current(self, dataset: str) -> SnapshotInfo | None:
        """Return the current snapshot of a dataset; None before the first."""
        with self._doors.records.read() as tx:
            head = head_of(tx, dataset)
            return snapshots.info_of(stored_snapshot(tx, dataset, head.current)) if head.current else None

    def added(self, dataset: str, *, since: int) -> tuple[int, int]:
        """Return the number of the current snapshot, 0 before the first, and how many rows were brought in after snapshot `since`.

        Cheap, and asked often. What a rollback or an erasure changes is not new.
        """
        with self._doors.records.read() as tx:
            return snapshots.added(tx, dataset, since)

    def show(self, dataset: str) -> SnapshotInfo:
        """Return the current snapshot. Raises NotFound, naming the nearest dataset, where there is none."""
        with self._doors.records.read() as tx:
            head = snapshots.require_dataset(tx, dataset)
            return snapshots.info_of(stored_snapshot(tx, dataset, head.current))

    def snapshot(self, ref: VersionRef) -> SnapshotInfo:
        """Return a snapshot. Raises NotFound."""
        with self._doors.records.read() as tx:
            return snapshots.info_of(stored_snapshot(tx, ref.name, ref.number))

    def history(self, dataset: str, *, limit: int = 100) -> tuple[SnapshotInfo, ...]:
        """Return the newest snapshots, newest first."""
        with self._doors.records.read() as tx:
            return snapshots.history(tx, dataset, limit=limit)

    def manifest(self, ref: VersionRef) -> TableManifest:
        """Return the files of a snapshot. Raises NotFound."""
        with self._doors.records.read() as tx:
            return stored_snapshot(tx, ref.name, ref.number).manifest

    def spec(self, ref: VersionRef) -> DatasetSpec:
        """Return the dataset's declaration as it was when the snapshot was made. Raises NotFound."""
        with self._doors.records.read() as tx:
            row = stored_snapshot(tx, ref.name, ref.number).row
        return msgspec.json.decode(row["contract"], type=DatasetSpec)

    def evidence(self, batch: str) -> Evidence:
        """Return what a batch was judged on. Raises NotFound."""
        with self._doors.records.read() as tx:
            text = tx.execute(
                select(t.batches.c.evidence).where(t.batches.c.id == batch)
            ).scalar_one_or_none()
        if text is None:
            raise NotFound(f"there is no batch {batch!r}: ingest reports its id")
        return msgspec.json.decode(text, type=Evidence)

    def scan(
        self,
        ref: VersionRef,
        *,
        purpose: str | None = None,
        unseal: bool = False,
        actor: str | None = None,
        row_ids: bool = False,
    ) -> pl.LazyFrame:
        """Return the rows of a snapshot, personal columns as they are stored.

        unseal: give sealed and tokenised columns back in plain (null where the person was forgotten), in memory;
        it needs a purpose and an actor, and is a leaf of the ledger before a row is read.
        """
        with self._doors.records.read() as tx:
            stored = stored_snapshot(tx, ref.name, ref.number)
        if not unseal:
            return self._doors.tables.scan(stored.manifest, row_ids=row_ids)
        if not purpose or not actor:
            raise InvalidInput(
                "unsealing personal columns needs purpose= and actor=: both are kept in the ledger"
            )
        spec = msgspec.json.decode(stored.row["contract"], type=DatasetSpec)
        words = {c.name: c for c in spec.contract.columns if c.personal in ("seal", "tokenise")}
        self._record_access(f"snapshot:{ref}", actor=actor, purpose=purpose, columns=sorted(words))
        sealed = [name for name, column in words.items() if column.personal == "seal"]
        dtypes: dict[str, DType] = {name: column.dtype for name, column in words.items()}
        frames = []
        for frame in self._doors.tables.batches(stored.manifest, row_ids=row_ids):
            plain = self._doors.sealer.unseal(frame, dataset=ref.name, columns=sealed, dtypes=dtypes).frame
            with self._doors.records.read() as tx:
                for name in set(words) - set(sealed):
                    series = self._doors.sealer.detokenise(
                        tx, plain[name], dataset=ref.name, dtype=dtypes[name]
                    )
                    plain = plain.with_columns(series)
            frames.append(plain)
        return (
            pl.concat(frames).lazy() if frames else self._doors.tables.scan(stored.manifest, row_ids=row_ids)
        )

    def diff(self, before: VersionRef, after: VersionRef) -> SnapshotDiff:
        """Say what changed between two snapshots of one dataset. Raises NotFound, InvalidInput for two datasets."""
        if before.name != after.name:
            raise InvalidInput(f"{before} and {after} are of two datasets: rows have nothing in common")
        with self._doors.records.read() as tx:
            a = stored_snapshot(tx, before.name, before.number)
            b = stored_snapshot(tx, after.name, after.number)
        return snapshots.difference(self._doors, a, b)

    def rollback(self, dataset: str, to: int, *, actor: str) -> SnapshotInfo:
        """Make a new snapshot with the content of an older one; see `taut.lifecycle.data.snapshots.roll_back`."""
        return self.snapshot(snapshots.roll_back(self._doors, dataset, to, actor=actor))

    def locate(self, dataset: str, row_id: int) -> RowOrigin:
        """Say which record of which source file a row was. Raises NotFound."""
        with self._doors.records.read() as tx:
            return snapshots.locate(tx, dataset, row_id)

    def quarantine(
        self,
        dataset: str,
        *,
        state: str | None = "open",
        batch: str | None = None,
        rule: str | None = None,
        after: str | None = None,
        limit: int = 100,
        unseal: bool = False,
        purpose: str | None = None,
        actor: str | None = None,
    ) -> tuple[QuarantinedRecord, ...]:
        """Return records that were set aside, oldest first; `after` is the last id of the page before.

        unseal: with their personal values; needs a purpose and an actor, and is a leaf of the ledger.
        """
        if unseal:
            if not purpose or not actor:
                raise InvalidInput(
                    "unsealing quarantined records needs purpose= and actor=: both are kept in the ledger"
                )
            self._record_access(f"dataset:{dataset}", actor=actor, purpose=purpose, columns=["_quarantine"])
        return quarantine.list_records(
            self._doors, dataset, state=state, batch=batch, rule=rule, after=after, limit=limit, unseal=unseal
        )

    def repair(
        self, dataset: DatasetSpec, record_id: str, values: Mapping[str, Scalar], *, actor: str
    ) -> QuarantinedRecord:
        """Give a quarantined record new values; see `taut.lifecycle.data.quarantine.repair`."""
        return quarantine.repair(self._doors, dataset, record_id, values, actor=actor)

    def discard(self, dataset: str, ids: Sequence[str], *, reason: str, actor: str) -> int:
        """Give quarantined records up: their values are destroyed, the fact stays."""
        return quarantine.discard(self._doors, dataset, ids, reason=reason, actor=actor)

    def replay(
        self,
        dataset: DatasetSpec,
        *,
        ids: Sequence[str] | None = None,
        include_open: bool = False,
        actor: str,
    ) -> IngestResult:
        """Put repaired records before the gate again; see `taut.lifecycle.data.replay.replay`."""
        return replay.replay(self._doors, dataset, ids=ids, include_open=include_open, actor=actor)

    def _record_access(self, subject: str, *, actor: str, purpose: str, columns: Sequence[str]) -> None:
        with self._doors.records.begin() as tx:
            self._doors.ledger.append(
                tx, Entry("data.unsealed", subject, actor, {"purpose": purpose, "columns": [*columns]})
            )
