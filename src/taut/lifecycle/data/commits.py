"""The one commit point: a batch becomes a snapshot, or a recorded rejection, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import insert, select, update

from taut.core.canonical import canonical_json, digest_json
from taut.core.errors import NotFound
from taut.core.evidence import Evidence, Scalar, Verdict
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.times import to_us
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.statistics import Tallies, Tally
from taut.ports.records import Tx
from taut.ports.tables import TableManifest
from taut.project.manifest import DatasetSpec

Reason = Literal["ingest", "replay", "rollback", "erase"]


class Moved(Exception):
    """Another writer committed to the dataset meanwhile: read its head again."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where a dataset stands. `current` is 0 before its first snapshot; `last` is the highest number ever given."""

    current: int = 0
    last: int = 0
    next_row_id: int = 0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as its row holds it."""

    number: int
    manifest: TableManifest
    tallies: Tallies
    row: dict[str, Any]


class NewSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is made of."""

    manifest: TableManifest
    tallies: Tallies
    reason: Reason
    next_row_id: int
    batch: str | None = None
    restores: int | None = None


def head_of(tx: Tx, dataset: str) -> Head:
    row = tx.execute(select(t.datasets).where(t.datasets.c.name == dataset)).mappings().one_or_none()
    if row is None:
        return Head()
    return Head(current=row["current"], last=row["last"], next_row_id=row["next_row_id"])


def stored_snapshot(tx: Tx, dataset: str, number: int) -> Stored:
    """Return a snapshot. Raises NotFound, naming those that there are."""
    where = (t.snapshots.c.dataset == dataset, t.snapshots.c.number == number)
    row = tx.execute(select(t.snapshots).where(*where)).mappings().one_or_none()
    if row is None:
        last = head_of(tx, dataset).last
        there = f"it has 1 to {last}" if last else "it has none yet: ingest it first"
        raise NotFound(f"dataset {dataset!r} has no snapshot {number}: {there}")
    return Stored(
        number=number,
        manifest=msgspec.json.decode(row["manifest"], type=TableManifest),
        tallies=msgspec.json.decode(row["statistics"], type=dict[str, Tally]),
        row=dict(row),
    )


def contract_digest(spec: DatasetSpec) -> str:
    """Return the digest of everything that decides how a batch is judged and stored."""
    return digest_json(
        {
            "contract": spec.contract,
            "source": msgspec.structs.replace(spec.source, url=""),
            "subject": spec.subject,
        }
    )


def commit_snapshot(
    tx: Tx, doors: Doors, spec: DatasetSpec, head: Head, new: NewSnapshot, *, actor: str
) -> VersionRef:
    """Add a snapshot on top of `head` and make it current. Raises Moved when the dataset moved on since."""
    found = head_of(tx, spec.name)
    if found != head:
        raise Moved
    number = head.last + 1
    if head.last == 0 and head.next_row_id == 0 and not _exists(tx, spec.name):
        tx.execute(
            insert(t.datasets).values(
                name=spec.name, current=number, last=number, next_row_id=new.next_row_id
            )
        )
    else:
        tx.execute(
            update(t.datasets)
            .where(t.datasets.c.name == spec.name)
            .values(current=number, last=number, next_row_id=new.next_row_id)
        )
    tx.execute(
        insert(t.snapshots).values(
            dataset=spec.name,
            number=number,
            parent=head.current or None,
            reason=new.reason,
            restores=new.restores,
            batch=new.batch,
            actor=actor,
            contract_digest=contract_digest(spec),
            contract=canonical_json(spec).decode(),
            manifest=canonical_json(new.manifest).decode(),
            rows=new.manifest.rows,
            statistics=canonical_json(new.tallies).decode(),
            created_us=to_us(doors.clock.now()),
        )
    )
    ref = VersionRef(spec.name, number)
    doors.lineage.describe(
        tx,
        Ref(Kind.SNAPSHOT, str(ref)),
        {
            "rows": new.manifest.rows,
            "files": len(new.manifest.files),
            "contract": contract_digest(spec),
            "reason": new.reason,
            "manifest": digest_json(new.manifest),
        },
    )
    return ref


def insert_batch(
    tx: Tx,
    doors: Doors,
    spec: DatasetSpec,
    *,
    batch: str,
    key: str,
    request: str | None,
    kind: Literal["ingest", "replay"],
    actor: str,
    snapshot: int | None,
    judged: tuple[Evidence, Verdict],
    result: object,
) -> None:
    """Record a batch with its evidence, and its verdict as a leaf of the ledger."""
    evidence, verdict = judged
    tx.execute(
        insert(t.batches).values(
            id=batch,
            dataset=spec.name,
            key=key,
            request=request,
            state="admitted" if verdict.admitted else "rejected",
            kind=kind,
            actor=actor,
            snapshot=snapshot,
            contract_digest=contract_digest(spec),
            created_us=to_us(doors.clock.now()),
            result=canonical_json(result).decode(),
            evidence=canonical_json(evidence).decode(),
            verdict=canonical_json(verdict).decode(),
        )
    )
    doors.ledger.record_verdict(tx, verdict, actor=actor, evidence=evidence)


def record_lineage(
    tx: Tx,
    doors: Doors,
    *,
    batch: str,
    sources: Sequence[Ref],
    parent: VersionRef | None,
    made: VersionRef | None,
    quarantined: int,
    facts: dict[str, Scalar],
) -> None:
    """Record source files -> batch -> snapshot, and batch -> quarantine."""
    batch_ref = Ref(Kind.BATCH, batch)
    doors.lineage.record(tx, activity="data.read", inputs=sources, outputs=[batch_ref], facts=facts)
    outputs = [Ref(Kind.SNAPSHOT, str(made))] if made else []
    if quarantined:
        outputs.append(Ref(Kind.QUARANTINE, batch))
    if outputs:
        above = [Ref(Kind.SNAPSHOT, str(parent))] if parent and made else []
        doors.lineage.record(
            tx, activity="data.admit" if made else "data.reject", inputs=[batch_ref, *above], outputs=outputs,
            facts={"quarantined": quarantined},
        )  # fmt: skip


def _exists(tx: Tx, dataset: str) -> bool:
    return tx.execute(select(t.datasets.c.name).where(t.datasets.c.name == dataset)).first() is not None
