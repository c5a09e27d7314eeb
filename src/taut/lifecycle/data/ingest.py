"""Ingests batches: find the files that are new, read, judge, commit; the same batch twice changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import insert, select

from taut.core.canonical import digest_json
from taut.core.errors import Conflict, Unavailable
from taut.core.evidence import Evidence, Scalar, Verdict
from taut.core.refs import Kind, Ref, VersionRef
from taut.lifecycle.data import tables as t
from taut.lifecycle.data.aside import Aside
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
from taut.lifecycle.data.doors import Doors, Progress
from taut.lifecycle.data.evidence import Counts, evidence_of, gate_of, refused
from taut.lifecycle.data.evolution import evolved
from taut.lifecycle.data.passing import BatchFile, BatchPass
from taut.lifecycle.data.personal import stored_schema
from taut.lifecycle.data.reading import digest_of, format_of, sources_for, way_of_reading
from taut.lifecycle.data.records import BatchRefused
from taut.lifecycle.data.statistics import add
from taut.lifecycle.data.unique import SeenKeys
from taut.lifecycle.data.values import FileRead, IngestResult
from taut.ports.records import Tx, transact
from taut.ports.tables import TableManifest
from taut.project.contract import check_dataset
from taut.project.manifest import DatasetSpec

_WRITERS_MAX: Final = 20  # times that another writer may come first
_IN_MAX: Final = 500


class Ingest:
    """One ingest of one dataset. Every step may run twice: nothing exists before the one commit."""

    def __init__(
        self, doors: Doors, spec: DatasetSpec, *, actor: str, progress: Progress | None = None
    ) -> None:
        check_dataset(spec)
        self._doors = doors
        self._spec = spec
        self._actor = actor
        self._progress = progress
        self._contract = CompiledContract(spec.contract)
        self._schema = stored_schema(spec)

    def run(self, *, root: Path, source: str | None, request: str | None) -> IngestResult:
        url = source or self._spec.source.url
        listed = self._doors.persist(lambda: self._digested(url, root))
        for _ in range(_WRITERS_MAX):
            try:
                return self._doors.persist(lambda: self._once(listed, request))
            except Moved:
                self._doors.clock.sleep(self._doors.random.uniform() * 0.05)
        raise Conflict(
            f"{_WRITERS_MAX} other batches of {self._spec.name!r} were committed meanwhile: ingest again when it is calmer"
        )

    def _once(self, listed: Sequence[BatchFile], request: str | None) -> IngestResult:
        with self._doors.records.read() as tx:
            before = self._answered(tx, request) or self._nothing_new(tx, listed)
            known = _known(tx, self._spec.name, [item.digest for item in listed])
        if before is not None:
            return before
        new = [item for item in listed if item.digest not in known]
        return self._attempt(new, len(listed) - len(new), request)

    def _digested(self, url: str, root: Path) -> list[BatchFile]:
        """Return the files that an address means, each content once. Raises what Sources raises."""
        sources = sources_for(self._doors.sources, url)
        found: dict[str, BatchFile] = {}
        for file in sources.find(url, root=root):
            format_of(file, self._spec.source)
            digest, size = digest_of(sources, file)
            found.setdefault(digest, BatchFile(file=file, digest=digest, size_bytes=size))
            if self._progress is not None:
                self._progress(f"{file.name}: digested", 0.0)
        return list(found.values())

    def _answered(self, tx: Tx, request: str | None) -> IngestResult | None:
        """Return what this very request was answered before, after a crash that lost the answer."""
        if request is None:
            return None
        where = (t.batches.c.dataset == self._spec.name, t.batches.c.request == request)
        text = tx.execute(select(t.batches.c.result).where(*where)).scalar_one_or_none()
        return None if text is None else msgspec.json.decode(text, type=IngestResult)

    def _nothing_new(self, tx: Tx, listed: Sequence[BatchFile]) -> IngestResult | None:
        """Return the earlier answer when every file was read before, or this very batch was judged before."""
        known = _known(tx, self._spec.name, [item.digest for item in listed])
        new = [item for item in listed if item.digest not in known]
        head = head_of(tx, self._spec.name)
        if new:
            where = (t.batches.c.dataset == self._spec.name, t.batches.c.key == self._key(new))
        else:
            latest = [known[item.digest] for item in listed]
            where = (t.batches.c.dataset == self._spec.name, t.batches.c.id == max(latest))
        text = tx.execute(select(t.batches.c.result).where(*where)).scalar_one_or_none()
        if text is None:
            return None
        result = msgspec.json.decode(text, type=IngestResult)
        current = stored_snapshot(tx, self._spec.name, head.current) if head.current else None
        return msgspec.structs.replace(
            result,
            unchanged=True,
            snapshot=str(VersionRef(self._spec.name, head.current)) if current else None,
            total_rows=current.manifest.rows if current else 0,
            files_skipped=len(listed),
        )

    def _key(self, files: Sequence[BatchFile]) -> str:
        read = [[item.digest, *way_of_reading(item.file, self._spec.source)] for item in files]
        return digest_json({"files": sorted(read), "contract": contract_digest(self._spec)})

    def _attempt(self, files: list[BatchFile], skipped: int, request: str | None) -> IngestResult:
        with self._doors.records.read() as tx:
            head = head_of(tx, self._spec.name)
            parent = stored_snapshot(tx, self._spec.name, head.current) if head.current else None
        batch = self._doors.ids.new("batch")
        try:
            return self._judged(files, skipped, request, head, parent, batch=batch, limited=True)
        except _ReadAgain:
            return self._judged(files, skipped, request, head, parent, batch=batch, limited=False)

    def _judged(
        self,
        files: list[BatchFile],
        skipped: int,
        request: str | None,
        head: Head,
        parent: Stored | None,
        *,
        batch: str,
        limited: bool,
    ) -> IngestResult:
        aside = Aside(
            self._doors, self._spec, batch=batch, attempt=self._doors.ids.new("try"), limited=limited
        )
        manifest: TableManifest | None = None
        subject = str(Ref(Kind.BATCH, batch))
        try:
            seen = [SeenKeys(key) for key in self._keys()]
            reading = BatchPass(
                self._doors, self._spec, self._contract, seen=seen, aside=aside,
                first_row_id=head.next_row_id, progress=self._progress,
            )  # fmt: skip
            facts = self._facts(files)
            try:
                base = evolved(self._doors, parent, self._schema, first_row_id=head.next_row_id)
                self._fill(seen, base)
                manifest = self._doors.tables.write(
                    reading.frames(files), schema=self._schema, first_row_id=head.next_row_id, parent=base
                )
                counts = reading.counts()
                evidence = evidence_of(
                    subject, self._spec.contract, counts, now=self._doors.clock.now(), facts=facts
                )
            except BatchRefused as error:
                counts = reading.counts()
                evidence = refused(subject, error, facts=facts)
            verdict = gate_of(self._spec.contract).judge(evidence)
            if verdict.admitted and not aside.complete:
                raise _ReadAgain
            outcome = _Outcome(
                files=files, skipped=skipped, request=request, head=head, parent=parent, batch=batch, counts=counts,
                evidence=evidence, verdict=verdict, reading=reading, manifest=manifest, aside=aside,
            )  # fmt: skip
            return transact(self._doors.records, lambda tx: self._commit(tx, outcome))
        except Exception:
            with suppress(Unavailable):  # what stays is pending: invisible, and removed later
                aside.drop()
            raise

    def _commit(self, tx: Tx, outcome: _Outcome) -> IngestResult:
        spec, head, verdict = self._spec, outcome.head, outcome.verdict
        if head_of(tx, spec.name) != head or _known(tx, spec.name, [item.digest for item in outcome.files]):
            raise Moved
        key = self._key(outcome.files)
        where = (t.batches.c.dataset == spec.name, t.batches.c.key == key)
        if tx.execute(select(t.batches.c.id).where(*where)).first() is not None:
            raise Moved
        made: VersionRef | None = None
        if verdict.admitted:
            assert outcome.manifest is not None, "an admitted batch was written"
            tallies = outcome.reading.tallies
            new = NewSnapshot(
                manifest=outcome.manifest,
                tallies=add(outcome.parent.tallies, tallies) if outcome.parent else tallies,
                reason="ingest",
                next_row_id=outcome.reading.next_row_id,
                batch=outcome.batch,
            )
            made = commit_snapshot(tx, self._doors, spec, head, new, actor=self._actor)
            tx.execute(insert(t.sources), self._source_rows(outcome))
            outcome.aside.open_all(tx)
        else:
            outcome.aside.keep_some(tx)
        result = self._result(outcome, made)
        insert_batch(
            tx, self._doors, spec, batch=outcome.batch, key=key, request=outcome.request, kind="ingest",
            actor=self._actor, snapshot=made.number if made else None,
            judged=(outcome.evidence, verdict), result=result,
        )  # fmt: skip
        record_lineage(
            tx,
            self._doors,
            batch=outcome.batch,
            sources=[Ref(Kind.SOURCE, f"{item.digest}#{item.file.name}"[:1000]) for item in outcome.files],
            parent=VersionRef(spec.name, head.current) if head.current else None,
            made=made,
            quarantined=result.quarantined,
            facts={
                "dataset": spec.name, "records": outcome.counts.records, "rows": outcome.counts.good,
                "decision": str(verdict.decision), "actor": self._actor,
            },
        )  # fmt: skip
        return result

    def _result(self, outcome: _Outcome, made: VersionRef | None) -> IngestResult:
        counts, head, rejected = outcome.counts, outcome.head, not outcome.verdict.admitted
        current = made or (VersionRef(self._spec.name, head.current) if head.current else None)
        before = outcome.parent.manifest.rows if outcome.parent else 0
        return IngestResult(
            dataset=self._spec.name,
            snapshot=str(current) if current else None,
            rows=0 if rejected else counts.good,
            quarantined=counts.records - counts.good,
            rejected=rejected,
            rules=dict(sorted(counts.rules.items())),
            batch=outcome.batch,
            verdict=outcome.verdict,
            total_rows=before if rejected else before + counts.good,
            files=tuple(
                FileRead(
                    name=item.file.name,
                    digest=item.digest,
                    size_bytes=item.size_bytes,
                    records=outcome.reading.records_by_file.get(item.digest, 0),
                )
                for item in outcome.files
            ),
            files_skipped=outcome.skipped,
            examples=tuple(outcome.aside.examples),
        )

    def _source_rows(self, outcome: _Outcome) -> list[dict[str, object]]:
        return [
            {
                "dataset": self._spec.name,
                "digest": item.digest,
                "batch": outcome.batch,
                "url": item.file.url,
                "name": item.file.name,
                "size_bytes": item.size_bytes,
                "first_row_id": outcome.reading.first_row_ids[item.digest],
                "records": outcome.reading.records_by_file[item.digest],
            }
            for item in outcome.files
        ]

    def _facts(self, files: Sequence[BatchFile]) -> dict[str, Scalar]:
        return {
            "dataset": self._spec.name,
            "contract": contract_digest(self._spec),
            "files": len(files),
            "bytes": sum(item.size_bytes for item in files),
            "sources": digest_json(sorted(item.digest for item in files)),
        }

    def _keys(self) -> list[tuple[str, ...]]:
        contract = self._spec.contract
        return [(c.name,) for c in contract.columns if c.unique] + list(contract.unique)

    def _fill(self, seen: Sequence[SeenKeys], base: TableManifest | None) -> None:
        for keys in seen if base is not None and base.rows else ():
            assert base is not None, "asked above"
            scanned = self._doors.tables.scan(base, columns=keys.columns)
            keys.add_hashes(scanned.select(keys.hash_exprs()).collect())


class _ReadAgain(Exception):
    """The batch is admitted although most of its bad records were only counted: read it once more."""


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt has found, ready to be committed."""

    files: list[BatchFile]
    skipped: int
    request: str | None
    head: Head
    parent: Stored | None
    batch: str
    counts: Counts
    evidence: Evidence
    verdict: Verdict
    reading: BatchPass
    manifest: TableManifest | None
    aside: Aside


def _known(tx: Tx, dataset: str, digests: Sequence[str]) -> dict[str, str]:
    """Return which of these contents the dataset has read, with the batch of each."""
    found: dict[str, str] = {}
    for start in range(0, len(digests), _IN_MAX):
        rows = tx.execute(
            select(t.sources.c.digest, t.sources.c.batch).where(
                t.sources.c.dataset == dataset, t.sources.c.digest.in_(digests[start : start + _IN_MAX])
            )
        )
        found.update((digest, batch) for digest, batch in rows)
    return found
