"""Records that were set aside: listed, repaired, discarded. Nothing leaves the quarantine unseen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import RowMapping, select, update

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref
from taut.core.times import to_us
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.personal import SetAside, unseal_records
from taut.lifecycle.data.values import QuarantinedRecord
from taut.ports.records import Tx, transact
from taut.project.manifest import DatasetSpec
from taut.project.words import nearest
from taut.trust.ledger import Entry

LIST_MAX: Final = 10_000
IN_MAX: Final = 500
STATES: Final = ("open", "repaired", "replayed", "discarded", "rejected")
_RAW: Final = ("_raw", "_why")
_VALUE_MAX: Final = 2**20


def list_records(
    doors: Doors,
    dataset: str,
    *,
    state: str | None,
    batch: str | None = None,
    rule: str | None = None,
    after: str | None = None,
    limit: int = 100,
    unseal: bool = False,
) -> tuple[QuarantinedRecord, ...]:
    """Return records in order of their ids, at most `limit`, beginning after the id `after`.

    rule: only those that broke this rule.
    """
    if not 0 < limit <= LIST_MAX:
        raise InvalidInput(f"limit is {limit}: ask for 1 to {LIST_MAX}")
    if state is not None and state not in STATES:
        raise InvalidInput(f"state {state!r} is unknown{nearest(state, STATES)}")
    c = t.quarantine.c
    query = select(t.quarantine).where(c.dataset == dataset, c.state != "pending").order_by(c.id).limit(limit)
    for column, value in ((c.state, state), (c.batch, batch)):
        query = query if value is None else query.where(column == value)
    query = query if after is None else query.where(c.id > after)
    if rule is not None:  # in a JSON array of texts its JSON form can only be that element
        query = query.where(c.rules.contains(canonical_json(rule).decode(), autoescape=True))
    with doors.records.read() as tx:
        rows = list(tx.execute(query).mappings())
    return _as_records(doors, dataset, rows, unseal=unseal)


def _as_records(
    doors: Doors, dataset: str, rows: Sequence[RowMapping], *, unseal: bool
) -> tuple[QuarantinedRecord, ...]:
    parts: list[str | None] = [None] * len(rows)
    if unseal:
        parts = unseal_records(doors.sealer, dataset, [row["sealed"] for row in rows])
    return tuple(
        QuarantinedRecord(
            id=row["id"],
            dataset=row["dataset"],
            batch=row["batch"],
            state=row["state"],
            source=row["source_name"],
            source_digest=row["source_digest"],
            row=row["row"],
            rules=tuple(msgspec.json.decode(row["rules"])),
            record=msgspec.json.decode(row["record"]) | (msgspec.json.decode(part) if part else {}),
            sealed=row["sealed"] is not None,
            created_us=row["created_us"],
        )
        for row, part in zip(rows, parts, strict=True)
    )


def repair(
    doors: Doors, spec: DatasetSpec, record_id: str, values: Mapping[str, Scalar], *, actor: str
) -> QuarantinedRecord:
    """Give new values for columns of a record; the others stay. It is checked again when it is replayed.

    Raises NotFound for an unknown record, Conflict for one that left the quarantine, InvalidInput for an unknown
    column or, where the record never had columns, one that is not given.
    """
    names = [column.name for column in spec.contract.columns]
    _check_values(values, names)

    def do(tx: Tx) -> None:
        row = _waiting(tx, spec.name, record_id)
        record = msgspec.json.decode(row["record"], type=dict[str, Any])
        if row["sealed"] is not None:
            frame_part = _unsealed_in(doors, tx, spec.name, row["sealed"])
            if frame_part is None:
                raise Conflict(f"{record_id}: its person was forgotten, so its values are gone: discard it")
            record |= frame_part
        if "_raw" in record:
            missing = [c.name for c in spec.contract.columns if c.required and c.name not in values]
            if missing:
                raise InvalidInput(f"{record_id} never had columns: give {', '.join(missing)} too")
            record = {}
        record |= dict(values)
        whole = [False]
        subject = record.get(spec.subject) if spec.subject else None
        split = SetAside(doors.sealer, spec, row["batch"])
        owner = None if subject is None else str(subject)
        opened, sealed = split.split(tx, [record], [owner], whole=whole)
        tx.execute(
            update(t.quarantine)
            .where(t.quarantine.c.id == record_id)
            .values(
                state="repaired",
                record=canonical_json(opened[0]).decode(),
                sealed=sealed[0],
                updated_us=to_us(doors.clock.now()),
            )
        )
        doors.ledger.append(
            tx,
            Entry(
                kind="data.repaired",
                subject=str(Ref(Kind.QUARANTINE, row["batch"])),
                actor=actor,
                body={"record": record_id, "columns": sorted(values)},
            ),
        )

    transact(doors.records, do)
    return one_record(doors, spec.name, record_id)


def discard(doors: Doors, dataset: str, ids: Sequence[str], *, reason: str, actor: str) -> int:
    """Give records up: their values are destroyed, where they were and why stays. Returns how many were open."""
    if not reason.strip():
        raise InvalidInput("say why these records are given up: it is kept in the ledger")

    def do(tx: Tx) -> int:
        for record_id in ids:
            _waiting(tx, dataset, record_id)
        for start in range(0, len(ids), IN_MAX):
            group = t.quarantine.c.id.in_(list(ids[start : start + IN_MAX]))
            tx.execute(
                update(t.quarantine)
                .where(group)
                .values(state="discarded", record="{}", sealed=None, updated_us=to_us(doors.clock.now()))
            )
        doors.ledger.append(
            tx,
            Entry(
                kind="data.discarded",
                subject=f"dataset:{dataset}",
                actor=actor,
                body={"records": len(ids), "first": ids[0], "last": ids[-1]},
                details={"reason": reason, "ids": list(ids[:1000])},
            ),
        )
        return len(ids)

    return transact(doors.records, do) if ids else 0


def one_record(doors: Doors, dataset: str, record_id: str) -> QuarantinedRecord:
    c = t.quarantine.c
    with doors.records.read() as tx:
        query = select(t.quarantine).where(c.id == record_id, c.dataset == dataset, c.state != "pending")
        rows = list(tx.execute(query).mappings())
    if not rows:
        raise NotFound(f"dataset {dataset!r} has no quarantined record {record_id}: list them first")
    return _as_records(doors, dataset, rows, unseal=False)[0]


def _waiting(tx: Tx, dataset: str, record_id: str) -> RowMapping:
    c = t.quarantine.c
    row = (
        tx.execute(select(t.quarantine).where(c.id == record_id, c.dataset == dataset))
        .mappings()
        .one_or_none()
    )
    if row is None or row["state"] == "pending":
        raise NotFound(f"dataset {dataset!r} has no quarantined record {record_id}: list them first")
    if row["state"] not in ("open", "repaired"):
        raise Conflict(f"{record_id} is {row['state']}: only open and repaired records can be changed")
    return row


def _unsealed_in(doors: Doors, tx: Tx, dataset: str, sealed: str) -> dict[str, Any] | None:
    part = unseal_records(doors.sealer, dataset, [sealed], tx=tx)[0]
    return None if part is None else msgspec.json.decode(part, type=dict[str, Any])


def _check_values(values: Mapping[str, Scalar], names: Sequence[str]) -> None:
    if not values:
        raise InvalidInput("a repair gives at least one column a new value")
    for name, value in values.items():
        if name not in names:
            raise InvalidInput(f"{name!r} is no column{nearest(name, names)}")
        if not isinstance(value, bool | int | float | str | None):
            raise InvalidInput(f"column {name!r}: {type(value).__name__} is no value of a record")
        if isinstance(value, str) and len(value) > _VALUE_MAX:
            raise InvalidInput(f"column {name!r}: the value is larger than 1 MiB")
