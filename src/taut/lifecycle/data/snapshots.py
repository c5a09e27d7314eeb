"""Snapshots as people ask for them: list, show, difference, roll back, and where a row came from."""

from __future__ import annotations

from typing import Final

import msgspec
import polars as pl
from sqlalchemy import func, select

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import Kind, Ref, VersionRef
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.commits import Head, NewSnapshot, Stored, commit_snapshot, head_of, stored_snapshot
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.values import ColumnStatistics, DatasetInfo, RowOrigin, SnapshotDiff, SnapshotInfo
from taut.ports.records import Tx, transact
from taut.ports.tables import ROW_ID
from taut.project.manifest import DatasetSpec
from taut.trust.ledger import Entry

LIST_MAX: Final = 10_000


def info_of(stored: Stored) -> SnapshotInfo:
    row, manifest = stored.row, stored.manifest
    return SnapshotInfo(
        dataset=row["dataset"],
        number=stored.number,
        rows=manifest.rows,
        schema=manifest.schema,
        parent=row["parent"],
        reason=row["reason"],
        restores=row["restores"],
        batch=row["batch"],
        actor=row["actor"],
        contract_digest=row["contract_digest"],
        created_us=row["created_us"],
        statistics={name: tally.statistics() for name, tally in stored.tallies.items()},
        files=len(manifest.files),
        size_bytes=sum(file.size_bytes for file in manifest.files),
    )


def added(tx: Tx, dataset: str, since: int) -> tuple[int, int]:
    """Return the number of the current snapshot, 0 before the first, and how many rows came into it after snapshot `since`."""
    head = head_of(tx, dataset)
    if head.current <= since:
        return head.current, 0
    before = t.snapshots.alias()
    grown = func.sum(t.snapshots.c.rows - func.coalesce(before.c.rows, 0))
    parent = (before.c.dataset == t.snapshots.c.dataset) & (before.c.number == t.snapshots.c.parent)
    query = select(grown).select_from(t.snapshots.outerjoin(before, parent))
    new = t.snapshots.c.number.between(since + 1, head.current)
    came = (t.snapshots.c.dataset == dataset, new, t.snapshots.c.reason.in_(("ingest", "replay")))
    return head.current, int(tx.execute(query.where(*came)).scalar() or 0)


def dataset_infos(tx: Tx) -> tuple[DatasetInfo, ...]:
    """Return every dataset that was ever ingested, rejected ones too."""
    names = set(tx.execute(select(t.datasets.c.name)).scalars())
    names |= set(tx.execute(select(t.batches.c.dataset).distinct()).scalars())
    return tuple(_dataset_info(tx, name) for name in sorted(names))


def _dataset_info(tx: Tx, name: str) -> DatasetInfo:
    head = head_of(tx, name)
    counted = tx.execute(
        select(t.batches.c.state, func.count()).where(t.batches.c.dataset == name).group_by(t.batches.c.state)
    )
    states: dict[str, int] = {row[0]: row[1] for row in counted}
    waiting = tx.execute(
        select(func.count())
        .select_from(t.quarantine)
        .where(t.quarantine.c.dataset == name, t.quarantine.c.state.in_(("open", "repaired")))
    ).scalar_one()
    current = (
        tx.execute(
            select(t.snapshots.c.rows, t.snapshots.c.created_us).where(
                t.snapshots.c.dataset == name, t.snapshots.c.number == head.current
            )
        ).one()
        if head.current
        else None
    )
    return DatasetInfo(
        dataset=name,
        snapshot=str(VersionRef(name, head.current)) if head.current else None,
        rows=current.rows if current else 0,
        snapshots=head.last,
        batches=sum(states.values()),
        rejected_batches=states.get("rejected", 0),
        quarantined=waiting,
        updated_us=current.created_us if current else None,
    )


def history(tx: Tx, dataset: str, *, limit: int) -> tuple[SnapshotInfo, ...]:
    """Return the newest snapshots of a dataset, newest first. Raises NotFound for a dataset that has none."""
    if not 0 < limit <= LIST_MAX:
        raise InvalidInput(f"limit is {limit}: ask for 1 to {LIST_MAX}")
    numbers = (
        select(t.snapshots.c.number)
        .where(t.snapshots.c.dataset == dataset)
        .order_by(t.snapshots.c.number.desc())
        .limit(limit)
    )
    found = [info_of(stored_snapshot(tx, dataset, n)) for n in tx.execute(numbers).scalars().all()]
    if not found:
        require_dataset(tx, dataset)
    return tuple(found)


def require_dataset(tx: Tx, dataset: str) -> Head:
    """Return where a dataset stands. Raises NotFound, naming the nearest, when it has no snapshot."""
    head = head_of(tx, dataset)
    if not head.current:
        from taut.project.words import nearest

        near = nearest(dataset, tx.execute(select(t.datasets.c.name)).scalars())
        what = near if "did you mean" in near else f": bring records in with `taut data ingest {dataset}`"
        raise NotFound(f"dataset {dataset!r} has no snapshot yet{what}")
    return head


def difference(doors: Doors, before: Stored, after: Stored) -> SnapshotDiff:
    """Say what changed between two snapshots of one dataset; rows are told apart by their ids, never compared."""
    old, new = before.manifest, after.manifest
    shared = {f.digest for f in old.files} & {f.digest for f in new.files}
    kept = sum(f.rows for f in old.files if f.digest in shared)
    if shared != {f.digest for f in old.files} or shared != {f.digest for f in new.files}:
        left, right = (
            doors.tables.scan(
                msgspec.structs.replace(
                    manifest, files=tuple(f for f in manifest.files if f.digest not in shared)
                ),
                columns=[manifest.schema.names[0]],
                row_ids=True,
            ).select(ROW_ID)
            for manifest in (old, new)
        )
        kept += int(left.join(right, on=ROW_ID, how="semi").select(pl.len()).collect().item())
    types_old = {c.name: c.dtype for c in old.schema.columns}
    types_new = {c.name: c.dtype for c in new.schema.columns}
    both = [name for name in types_old if name in types_new]
    a, b = info_of(before).statistics, info_of(after).statistics
    statistics: dict[str, tuple[ColumnStatistics | None, ColumnStatistics | None]] = {
        name: (a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)
    }
    return SnapshotDiff(
        before=str(info_of(before).ref),
        after=str(info_of(after).ref),
        rows_added=new.rows - kept,
        rows_removed=old.rows - kept,
        rows_kept=kept,
        columns_added=tuple(name for name in types_new if name not in types_old),
        columns_removed=tuple(name for name in types_old if name not in types_new),
        columns_retyped=tuple(name for name in both if types_old[name] is not types_new[name]),
        contract_changed=before.row["contract_digest"] != after.row["contract_digest"],
        statistics=statistics,
    )


def roll_back(doors: Doors, dataset: str, to: int, *, actor: str) -> VersionRef:
    """Make a new snapshot with the content of an older one. Files read since stay read: they do not come back.

    Row ids that were given since are not given again. Raises NotFound for a number that there is not, InvalidInput
    for the current one.
    """

    def do(tx: Tx) -> VersionRef:
        head = require_dataset(tx, dataset)
        target = stored_snapshot(tx, dataset, to)
        if to == head.current:
            raise InvalidInput(f"{dataset}@{to} is current already: name an older snapshot")
        spec = msgspec.json.decode(target.row["contract"], type=DatasetSpec)
        new = NewSnapshot(
            manifest=target.manifest,
            tallies=target.tallies,
            reason="rollback",
            next_row_id=head.next_row_id,
            restores=to,
        )
        ref = commit_snapshot(tx, doors, spec, head, new, actor=actor)
        before = Ref(Kind.SNAPSHOT, str(VersionRef(dataset, head.current)))
        doors.ledger.append(
            tx,
            Entry(
                kind="data.rollback",
                subject=f"snapshot:{ref}",
                actor=actor,
                body={"restores": str(VersionRef(dataset, to)), "leaves": before.id},
            ),
        )
        doors.lineage.record(
            tx,
            activity="data.rollback",
            inputs=[Ref(Kind.SNAPSHOT, str(VersionRef(dataset, to)))],
            outputs=[Ref(Kind.SNAPSHOT, str(ref))],
            facts={"actor": actor, "leaves": before.id},
        )
        return ref

    return transact(doors.records, do)


def locate(tx: Tx, dataset: str, row_id: int) -> RowOrigin:
    """Say which record of which file a row was. Raises NotFound for an id that was never given."""
    source = (
        tx.execute(
            select(t.sources)
            .where(
                t.sources.c.dataset == dataset, t.sources.c.first_row_id <= row_id, t.sources.c.records > 0
            )
            .order_by(t.sources.c.first_row_id.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if source is None or row_id >= source["first_row_id"] + source["records"]:
        raise NotFound(
            f"dataset {dataset!r} never had a row {row_id}: row ids begin at 0 and count records read"
        )
    where = (t.quarantine.c.dataset == dataset, t.quarantine.c.row_id == row_id)
    aside = (
        tx.execute(select(t.quarantine.c.id).where(*where, t.quarantine.c.state != "pending"))
        .scalars()
        .first()
    )
    return RowOrigin(
        dataset=dataset,
        row_id=row_id,
        source=source["name"],
        url=source["url"],
        digest=source["digest"],
        row=row_id - source["first_row_id"] + 1,
        batch=source["batch"],
        quarantine=aside,
    )
