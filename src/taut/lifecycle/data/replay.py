"""Replays repaired records: they pass the gate again and land, under their own row ids, in a new snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl
from sqlalchemy import select, update

from taut.core.canonical import canonical_json, digest_json
from taut.core.errors import Conflict, InvalidInput
from taut.core.evidence import Evidence, Verdict
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.times import to_us
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.aside import AsideRecord
from taut.lifecycle.data.commits import (
    Head,
    Moved,
    NewSnapshot,
    Stored,
    commit_snapshot,
    contract_digest,
    head_of,
    insert_batch,
    record_lineage,
    stored_snapshot,
)
from taut.lifecycle.data.compiled import CompiledContract
from taut.lifecycle.data.doors import Doors
from taut.lifecycle.data.evidence import evidence_of, gate_of
from taut.lifecycle.data.passing import BatchFile, BatchPass
from taut.lifecycle.data.personal import stored_schema, unseal_records
from taut.lifecycle.data.quarantine import IN_MAX
from taut.lifecycle.data.records import ROW, RecordChunk
from taut.lifecycle.data.statistics import add
from taut.lifecycle.data.unique import SeenKeys
from taut.lifecycle.data.values import BadExample, IngestResult
from taut.ports.records import Tx, transact
from taut.ports.sources import SourceFile
from taut.ports.tables import TableManifest
from taut.project.contract import check_dataset
from taut.project.manifest import DatasetSpec

_RECORDS_MAX = 100_000
_WRITERS_MAX = 20
_NO_FILE = BatchFile(file=SourceFile(url="", name="quarantine", size_bytes=0), digest="", size_bytes=0)


class StillBad:
    """Takes records that break rules again; they stay in the quarantine."""

    def __init__(self) -> None:
        self.rules: dict[int, tuple[str, ...]] = {}

    def add(self, found: Sequence[AsideRecord], *, records: int) -> None:  # noqa: ARG002 - as Aside's
        self.rules.update((record.row_id, record.rules) for record in found)

    def flush(self) -> None: ...


def replay(
    doors: Doors, spec: DatasetSpec, *, ids: Sequence[str] | None, include_open: bool, actor: str
) -> IngestResult:
    """Put records of the quarantine before the gate again: those that hold become rows of a new snapshot.

    ids: which; all repaired ones of the dataset when None (and open ones with `include_open`, for after the contract
    was mended), at most 100,000 at a time. Those that still break a rule stay, with the rules that they break now.
    The batch's share of bad records and its age are not asked about: they were judged when it arrived.
    """
    check_dataset(spec)
    contract = CompiledContract(spec.contract)
    for _ in range(_WRITERS_MAX):
        with doors.records.read() as tx:
            rows = _rows(tx, spec.name, ids, include_open=include_open)
            head = head_of(tx, spec.name)
            if not head.current:
                raise Conflict(f"dataset {spec.name!r} has no snapshot to add records to: ingest it first")
            parent = stored_snapshot(tx, spec.name, head.current)
        if not rows:
            raise InvalidInput(f"dataset {spec.name!r} has no repaired record to replay: repair some first")
        try:
            return _Replay(doors, spec, contract, head, parent, actor).run(rows)
        except Moved:
            doors.clock.sleep(doors.random.uniform() * 0.05)
    raise Conflict(f"other batches of {spec.name!r} were committed meanwhile: replay again when it is calmer")


class _Replay:
    def __init__(
        self,
        doors: Doors,
        spec: DatasetSpec,
        contract: CompiledContract,
        head: Head,
        parent: Stored,
        actor: str,
    ) -> None:
        self._doors = doors
        self._spec = spec
        self._contract = contract
        self._head = head
        self._parent = parent
        self._actor = actor
        self._schema = stored_schema(spec)

    def run(self, rows: list[dict[str, Any]]) -> IngestResult:
        if self._parent.manifest.schema != self._schema:
            raise Conflict(
                f"the contract of {self._spec.name!r} changed since its last snapshot: ingest a batch under it first"
            )
        batch = self._doors.ids.new("batch")
        still_bad = StillBad()
        passing = BatchPass(
            self._doors, self._spec, self._contract, seen=self._seen(), aside=still_bad, first_row_id=0
        )
        frame, forgotten = self._frame(rows)
        good = passing.take(
            RecordChunk(frame=frame, records=frame.height), _NO_FILE, first_row_id=0, text=True
        )
        counts = msgspec.structs.replace(passing.counts(), records=good.height, good=good.height, columns={})
        lenient = msgspec.structs.replace(
            self._spec.contract, min_rows=1, max_age=None, freshness_column=None
        )
        evidence = evidence_of(
            str(Ref(Kind.BATCH, batch)), lenient, msgspec.structs.replace(counts, rules={}),
            now=self._doors.clock.now(),
            facts={"dataset": self._spec.name, "contract": contract_digest(self._spec), "replayed": len(rows)},
        )  # fmt: skip
        verdict = gate_of(lenient).judge(evidence)
        manifest: TableManifest | None = None
        if verdict.admitted:
            manifest = self._doors.tables.write(
                [good], schema=self._schema, first_row_id=self._head.next_row_id, parent=self._parent.manifest
            )
        result_rules = dict(sorted(passing.counts().rules.items()))
        done = _Done(
            batch=batch, rows=rows, good_ids=frozenset(good["_row_id"].to_list()), still_bad=still_bad.rules,
            forgotten=forgotten, manifest=manifest, passing=passing, judged=(evidence, verdict), rules=result_rules,
        )  # fmt: skip
        return transact(self._doors.records, lambda tx: self._commit(tx, done))

    def _frame(self, rows: list[dict[str, Any]]) -> tuple[pl.DataFrame, frozenset[str]]:
        """Return the records as text with `_row` = row id + 1, and the ids of those whose person was forgotten."""
        parts = unseal_records(self._doors.sealer, self._spec.name, [row["sealed"] for row in rows])
        forgotten = frozenset(
            row["id"]
            for row, part in zip(rows, parts, strict=True)
            if row["sealed"] is not None and part is None
        )
        records: list[dict[str, Any]] = []
        for row, part in zip(rows, parts, strict=True):
            record = msgspec.json.decode(row["record"], type=dict[str, Any])
            record |= msgspec.json.decode(part, type=dict[str, Any]) if part else {}
            if row["id"] not in forgotten and "_raw" not in record:
                records.append({ROW: row["row_id"] + 1, **record})
        schema: dict[str, pl.DataType] = {ROW: pl.Int64()}
        schema |= {column.name: pl.String() for column in self._spec.contract.columns}
        cells = [
            {name: _text(record.get(name)) if name != ROW else record[ROW] for name in schema}
            for record in records
        ]
        return pl.DataFrame(cells, schema=schema).sort(ROW), forgotten

    def _seen(self) -> list[SeenKeys]:
        contract = self._spec.contract
        keys = [(c.name,) for c in contract.columns if c.unique] + list(contract.unique)
        found = []
        for key in keys:
            seen = SeenKeys(key)
            scanned = self._doors.tables.scan(self._parent.manifest, columns=key)
            seen.add_hashes(scanned.select(seen.hash_exprs()).collect())
            found.append(seen)
        return found

    def _commit(self, tx: Tx, done: _Done) -> IngestResult:
        spec, head, doors = self._spec, self._head, self._doors
        if head_of(tx, spec.name) != head or not _unchanged(tx, done.rows):
            raise Moved
        made: VersionRef | None = None
        if done.manifest is not None:
            new = NewSnapshot(
                manifest=done.manifest,
                tallies=add(self._parent.tallies, done.passing.tallies),
                reason="replay",
                next_row_id=head.next_row_id,
                batch=done.batch,
            )
            made = commit_snapshot(tx, doors, spec, head, new, actor=self._actor)
        now_us = to_us(doors.clock.now())
        moved = 0
        for row in done.rows:
            values: dict[str, Any] = {"updated_us": now_us}
            if made is not None and row["row_id"] in done.good_ids:
                values |= {"state": "replayed", "record": "{}", "sealed": None}
                moved += 1
            elif row["row_id"] in done.still_bad:
                values["rules"] = canonical_json(done.still_bad[row["row_id"]]).decode()
            tx.execute(update(t.quarantine).where(t.quarantine.c.id == row["id"]).values(**values))
        result = self._result(done, made, moved)
        insert_batch(
            tx, doors, spec, batch=done.batch, key=digest_json([done.batch]), request=None, kind="replay",
            actor=self._actor, snapshot=made.number if made else None, judged=done.judged, result=result,
        )  # fmt: skip
        record_lineage(
            tx, doors, batch=done.batch,
            sources=[Ref(Kind.QUARANTINE, batch) for batch in sorted({row["batch"] for row in done.rows})],
            parent=VersionRef(spec.name, head.current), made=made, quarantined=0,
            facts={"dataset": spec.name, "replayed": moved, "still_bad": len(done.rows) - moved, "actor": self._actor},
        )  # fmt: skip
        return result

    def _result(self, done: _Done, made: VersionRef | None, moved: int) -> IngestResult:
        examples = [
            BadExample(source=row["source_name"], row=row["row"], rules=done.still_bad[row["row_id"]])
            for row in done.rows
            if row["row_id"] in done.still_bad
        ]
        return IngestResult(
            dataset=self._spec.name,
            snapshot=str(made or VersionRef(self._spec.name, self._head.current)),
            rows=moved,
            quarantined=len(done.rows) - moved,
            rejected=made is None,
            rules=done.rules,
            batch=done.batch,
            verdict=done.judged[1],
            total_rows=self._parent.manifest.rows + moved,
            examples=tuple(examples[:20]),
        )


class _Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay has found, ready to be committed."""

    batch: str
    rows: list[dict[str, Any]]
    good_ids: frozenset[int]
    still_bad: dict[int, tuple[str, ...]]
    forgotten: frozenset[str]
    manifest: TableManifest | None
    passing: BatchPass
    judged: tuple[Evidence, Verdict]
    rules: dict[str, int]


def _rows(tx: Tx, dataset: str, ids: Sequence[str] | None, *, include_open: bool) -> list[dict[str, Any]]:
    c = t.quarantine.c
    states = ("repaired", "open") if include_open else ("repaired",)
    query = select(t.quarantine).where(c.dataset == dataset, c.state.in_(states)).order_by(c.row_id)
    if ids is None:
        return [dict(row) for row in tx.execute(query.limit(_RECORDS_MAX)).mappings()]
    found: list[dict[str, Any]] = []
    for start in range(0, len(ids), IN_MAX):
        group = query.where(c.id.in_(list(ids[start : start + IN_MAX])))
        found += [dict(row) for row in tx.execute(group).mappings()]
    missing = sorted(set(ids) - {row["id"] for row in found})
    if missing:
        raise Conflict(
            f"{missing[0]} and {len(missing) - 1} more are not {' or '.join(states)}: repair them first"
        )
    return found


def _unchanged(tx: Tx, rows: list[dict[str, Any]]) -> bool:
    """Say whether the records are still as they were read."""
    c = t.quarantine.c
    before = {row["id"]: (row["state"], row["updated_us"]) for row in rows}
    now: dict[str, tuple[str, int]] = {}
    for start in range(0, len(rows), IN_MAX):
        group = c.id.in_([row["id"] for row in rows[start : start + IN_MAX]])
        now.update((i, (s, u)) for i, s, u in tx.execute(select(c.id, c.state, c.updated_us).where(group)))
    return before == now


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
