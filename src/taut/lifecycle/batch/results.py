"""Keeps results: chunk by chunk while they are made, then as one version, with its leaf and its lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import polars as pl
from sqlalchemy import Row, delete, func, insert, select

from taut.core.canonical import canonical_json, digest_json
from taut.core.errors import Conflict, Corrupt, InvalidInput, NotFound
from taut.core.evidence import Evidence, Scalar, Verdict
from taut.core.frames import TO_POLARS
from taut.core.refs import Kind, Ref, check_name
from taut.core.schema import Column, DType, Schema
from taut.core.times import from_us, to_us
from taut.lifecycle.batch import tables as t
from taut.lifecycle.batch.values import Chunk, Found, NewResult, ResultInfo, Scored
from taut.ports.records import Records, Tx, transact
from taut.ports.tables import ROW_ID, Tables
from taut.ports.world import Clock
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage

_FOUND_MAX: Final = 1000


class Results:
    """The room of batch results.

    Guarantees: a chunk of one piece of work is kept once, whoever scored it and how often; a result is one version,
    whose row, ledger leaf and lineage commit together and never change; equal inputs give one result.
    Not guaranteed: that chunks of work which nobody finished go away by themselves.
    """

    def __init__(
        self, *, records: Records, tables: Tables, ledger: Ledger, lineage: Lineage, clock: Clock
    ) -> None:
        self._records: Final = records
        self._tables: Final = tables
        self._ledger: Final = ledger
        self._lineage: Final = lineage
        self._clock: Final = clock

    def chunks(self, work: str) -> dict[int, Chunk]:
        """Return what of a piece of work was scored, by number."""
        with self._records.read() as tx:
            return _chunks(tx, work)

    def keep_chunk(self, work: str, number: int, chunk: Chunk) -> None:
        """Keep a chunk; one that is there stays, since the same work gives the same chunk."""

        def do(tx: Tx) -> None:
            known = select(t.chunks.c.number).where(t.chunks.c.work == work, t.chunks.c.number == number)
            if tx.execute(known).first() is None:
                body = canonical_json(chunk).decode()
                tx.execute(insert(t.chunks).values(work=work, number=number, body=body))

        transact(self._records, do)

    def judged(self, tx: Tx, verdict: Verdict, evidence: Evidence, *, actor: str) -> None:
        """Put what the batch gate said into the ledger."""
        self._ledger.record_verdict(tx, verdict, actor=actor, evidence=evidence)

    def known(self, tx: Tx, scored: Scored) -> ResultInfo | None:
        """Return the result of exactly these inputs."""
        query = select(t.results).where(t.results.c.inputs == scored.digest)
        row = tx.execute(query.order_by(t.results.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else _info(row)

    def commit(self, tx: Tx, new: NewResult, *, rows: int, actor: str) -> ResultInfo:
        """Make the chunks of `new.work` the next version of a result, which nothing else has the inputs of.

        rows: of the snapshot. Raises Conflict unless the chunks have each of them, scored or not.
        """
        chunks = _chunks(tx, new.work)
        new = _with_files(new, [chunks[at] for at in sorted(chunks)])
        if new.manifest.rows + new.rejects.rows != rows:
            raise Conflict(
                f"{len(chunks)} chunks have {new.manifest.rows + new.rejects.rows:,} of {rows:,} rows: score again"
            )
        name = check_name(new.scored.name, what="result")
        last = tx.execute(select(func.max(t.results.c.number)).where(t.results.c.name == name)).scalar() or 0
        info = ResultInfo(name=name, number=int(last) + 1, new=new, actor=actor, created_at=self._clock.now())
        tx.execute(
            insert(t.results).values(
                name=name, number=info.number, inputs=new.scored.digest, body=canonical_json(new).decode(),
                actor=actor, created_us=to_us(info.created_at),
            )
        )  # fmt: skip
        tx.execute(delete(t.chunks).where(t.chunks.c.work == new.work))
        facts: dict[str, Scalar] = {
            "rows": info.rows, "rejected": info.rejected, "digest": digest_json(new.manifest),
        }  # fmt: skip
        body = {**facts, "rejects": digest_json(new.rejects), **msgspec.to_builtins(new.scored)}
        self._ledger.append(tx, Entry(kind="batch.scored", subject=str(info.ref), actor=actor, body=body))
        inputs = [Ref(Kind.SNAPSHOT, new.scored.snapshot), Ref(Kind.MODEL, new.scored.version)]
        inputs += [Ref(Kind.FEATURES, made) for made in new.scored.features.values()]
        if new.release is not None:
            inputs.append(Ref(Kind.RELEASE, new.release))
        self._lineage.record(tx, activity="batch", inputs=inputs, outputs=[info.ref], facts=facts)
        return info

    def of(self, scored: Scored) -> ResultInfo | None:
        """As `known`, in a transaction of its own."""
        with self._records.read() as tx:
            return self.known(tx, scored)

    def show(self, name: str, number: int | None = None) -> ResultInfo:
        """Return a version of a result, the newest when `number` is None. Raises NotFound."""
        query = select(t.results).where(t.results.c.name == name)
        if number is not None:
            query = query.where(t.results.c.number == number)
        with self._records.read() as tx:
            row = tx.execute(query.order_by(t.results.c.number.desc()).limit(1)).one_or_none()
        if row is None:
            which = f"{name[:63]}@{number}" if number is not None else name[:63]
            raise NotFound(f"no result {which!r}: `taut batch list` shows those that there are")
        return _info(row)

    def list(self, *, name: str | None = None, limit: int = 100) -> tuple[ResultInfo, ...]:
        """Return results, the newest first."""
        query = select(t.results).order_by(t.results.c.created_us.desc(), t.results.c.number.desc())
        if name is not None:
            query = query.where(t.results.c.name == name)
        with self._records.read() as tx:
            return tuple(_info(row) for row in tx.execute(query.limit(limit)))

    def scan(self, info: ResultInfo, *, row_ids: bool = False) -> pl.LazyFrame:
        """Return the answers: keys, then what the model said; row ids are those of the snapshot's rows."""
        return self._tables.scan(info.new.manifest, row_ids=row_ids)

    def rejects(self, info: ResultInfo) -> pl.LazyFrame:
        """Return the rows that were not scored: `_row_id`, keys, `reasons`."""
        return self._tables.scan(info.new.rejects, row_ids=True)

    def get(self, info: ResultInfo, key: Mapping[str, Scalar], *, limit: int = 100) -> Found:
        """Return the rows of a key: each with its `_row_id`, at most `limit` of either kind.

        key: key column -> value; one value under "" stands for the only entity column.
        The result's files are read: this is for looking up, not for serving at a rate.
        Raises InvalidInput for a column that is no key, or a value that is none of its type.
        """
        if not 1 <= limit <= _FOUND_MAX:
            raise InvalidInput(f"limit is {limit}: choose 1 to {_FOUND_MAX}")
        if set(key) == {""} and len(info.new.entity) == 1:
            key = {info.new.entity[0]: key[""]}
        wrong = sorted(set(key) - {*info.new.keys, ROW_ID}) or ([] if key else ["nothing"])
        if wrong:
            raise InvalidInput(
                f"{wrong[0]!r} names no row of {info.version}: give {', '.join((*info.new.keys, ROW_ID))} as name=value"
            )
        schema = info.new.rejects.schema
        tests = [pl.col(name) == _literal(_column(schema, name), value) for name, value in key.items()]
        both = (self.scan(info, row_ids=True), self.rejects(info))
        rows, rejects = (frame.filter(pl.all_horizontal(tests)).head(limit).collect() for frame in both)
        return Found(rows=tuple(rows.iter_rows(named=True)), rejects=tuple(rejects.iter_rows(named=True)))


def _column(schema: Schema, name: str) -> Column:
    return Column(ROW_ID, DType.INT) if name == ROW_ID else schema[name]


def _chunks(tx: Tx, work: str) -> dict[int, Chunk]:
    found = tx.execute(select(t.chunks.c.number, t.chunks.c.body).where(t.chunks.c.work == work))
    return {row.number: _decoded(row.body, Chunk) for row in found}


def _with_files(new: NewResult, chunks: Sequence[Chunk]) -> NewResult:
    files = tuple(file for chunk in chunks for file in chunk.files)
    rejects = tuple(file for chunk in chunks for file in chunk.rejects)
    return msgspec.structs.replace(
        new,
        manifest=msgspec.structs.replace(new.manifest, files=files),
        rejects=msgspec.structs.replace(new.rejects, files=rejects),
    )


def _literal(column: Column, value: Scalar) -> pl.Expr:
    """Return a key's value in its column's type: what people type is text. Raises InvalidInput."""
    wanted = pl.UInt64() if column.name == ROW_ID else TO_POLARS[column.dtype]
    try:
        text = pl.Series([value if not isinstance(value, bool) else str(value).lower()], dtype=None)
        if column.dtype is DType.BOOL:
            made = text.cast(pl.String).replace_strict(
                {"true": True, "false": False}, return_dtype=pl.Boolean
            )
        elif column.dtype is DType.DATETIME:
            made = text.cast(pl.String).str.to_datetime(time_unit="us", time_zone="UTC")
        elif column.dtype is DType.DATE:
            made = text.cast(pl.String).str.to_date()
        else:
            made = text.cast(wanted, strict=True)
    except pl.exceptions.PolarsError as error:
        raise InvalidInput(f"{str(value)[:60]!r} is no {column.dtype}, as {column.name!r} is") from error
    return pl.lit(made[0], dtype=wanted)


def _info(row: Row[Any]) -> ResultInfo:
    new = _decoded(row.body, NewResult)
    return ResultInfo(
        name=row.name, number=row.number, new=new, actor=row.actor, created_at=from_us(row.created_us)
    )


def _decoded(body: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Corrupt(f"the record of a batch cannot be read: {error}") from error
