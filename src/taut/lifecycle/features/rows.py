"""Materialisations and the online state, as values and as rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Row, delete, func, insert, select

from taut.core.canonical import canonical_json
from taut.core.errors import NotFound
from taut.core.refs import Kind, Ref
from taut.core.schema import Schema
from taut.core.times import from_us, to_us
from taut.lifecycle.features.shape import feature_names
from taut.lifecycle.features.tables import materialisations, online
from taut.ports.records import Tx
from taut.ports.tables import TableManifest
from taut.project.manifest import FeaturesSpec

_SPEC: Final = msgspec.json.Decoder(FeaturesSpec)
_SOURCES: Final = msgspec.json.Decoder(dict[str, str])
_MANIFEST: Final = msgspec.json.Decoder(TableManifest)


class Materialisation(msgspec.Struct, frozen=True, kw_only=True):
    """One computation of a feature set, kept for ever. Equal inputs are one materialisation.

    id: SET@NUMBER. sources: dataset -> snapshot. digest: of the manifest, so of every byte of the rows.
    future_rows: rows whose event time lay after the computation; joins may use them, serving waits for their time.
    """

    id: str
    spec: FeaturesSpec
    inputs_digest: str
    sources: dict[str, str]
    bundle: str
    manifest: TableManifest
    digest: str
    entities: int
    future_rows: int
    event_time_min: datetime
    event_time_max: datetime
    created_at: datetime
    created_by: str

    @property
    def ref(self) -> Ref:
        return Ref(Kind.FEATURES, self.id)

    @property
    def rows(self) -> int:
        return self.manifest.rows

    @property
    def schema(self) -> Schema:
        return self.manifest.schema

    @property
    def features(self) -> tuple[str, ...]:
        return feature_names(self.manifest.schema, self.spec)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A materialisation of which rows may be online, and the moment at which they were due."""

    materialisation: str
    at: datetime


class OnlineState(msgspec.Struct, frozen=True, kw_only=True):
    """What of a feature set is online.

    materialisation: the last one whose rows were all written; None before the first. unfinished: those that are being
    written, or whose writing was cut short: some of their rows may be there.
    """

    materialisation: str | None = None
    entities: int = 0
    event_time_max: datetime | None = None
    written_at: datetime
    unfinished: tuple[Trace, ...] = ()

    def traces(self) -> tuple[Trace, ...]:
        """Return all of which rows may be online."""
        if self.materialisation is None:
            return self.unfinished
        return (Trace(materialisation=self.materialisation, at=self.written_at), *self.unfinished)


_TRACES: Final = msgspec.json.Decoder(tuple[Trace, ...])


def insert_materialisation(tx: Tx, made: Materialisation) -> None:
    tx.execute(
        insert(materialisations).values(
            id=made.id,
            feature_set=made.spec.name,
            number=int(made.id.rpartition("@")[2]),
            inputs_digest=made.inputs_digest,
            spec=_text(made.spec),
            sources=_text(made.sources),
            bundle=made.bundle,
            manifest=_text(made.manifest),
            digest=made.digest,
            rows=made.rows,
            entities=made.entities,
            future_rows=made.future_rows,
            event_time_min_us=to_us(made.event_time_min),
            event_time_max_us=to_us(made.event_time_max),
            created_at_us=to_us(made.created_at),
            created_by=made.created_by,
        )
    )


def next_number(tx: Tx, feature_set: str) -> int:
    query = select(func.max(materialisations.c.number)).where(materialisations.c.feature_set == feature_set)
    return int(tx.execute(query).scalar() or 0) + 1


def find_by_inputs(tx: Tx, feature_set: str, inputs_digest: str) -> Materialisation | None:
    """Return the newest materialisation of exactly these inputs."""
    query = (
        select(materialisations)
        .where(
            materialisations.c.feature_set == feature_set, materialisations.c.inputs_digest == inputs_digest
        )
        .order_by(materialisations.c.number.desc())
        .limit(1)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else _materialisation(row)


def pick_materialisation(tx: Tx, feature_set: str, id_: str | None) -> Materialisation:
    """Return the materialisation `id_` of a set, or its newest one. Raises NotFound."""
    query = select(materialisations).where(materialisations.c.feature_set == feature_set)
    if id_ is not None:
        query = query.where(materialisations.c.id == id_)
    row = tx.execute(query.order_by(materialisations.c.number.desc()).limit(1)).one_or_none()
    if row is None:
        which = f"no materialisation {id_[:80]!r}" if id_ else "nothing was built yet"
        raise NotFound(
            f"feature set {feature_set[:63]!r}: {which}: run `taut features build`, then list with `show`"
        )
    return _materialisation(row)


def list_materialisations(tx: Tx, feature_set: str, *, limit: int) -> tuple[Materialisation, ...]:
    """Return materialisations, the newest first."""
    query = (
        select(materialisations)
        .where(materialisations.c.feature_set == feature_set)
        .order_by(materialisations.c.number.desc())
        .limit(limit)
    )
    return tuple(_materialisation(row) for row in tx.execute(query))


def list_feature_sets(tx: Tx) -> tuple[str, ...]:
    query = select(materialisations.c.feature_set).distinct().order_by(materialisations.c.feature_set)
    return tuple(tx.execute(query).scalars())


def set_online_state(tx: Tx, feature_set: str, state: OnlineState) -> None:
    tx.execute(delete(online).where(online.c.feature_set == feature_set))
    tx.execute(
        insert(online).values(
            feature_set=feature_set,
            materialisation=state.materialisation,
            entities=state.entities,
            event_time_max_us=None if state.event_time_max is None else to_us(state.event_time_max),
            written_at_us=to_us(state.written_at),
            unfinished=_text(state.unfinished),
        )
    )


def get_online_state(tx: Tx, feature_set: str) -> OnlineState | None:
    row = tx.execute(select(online).where(online.c.feature_set == feature_set)).one_or_none()
    if row is None:
        return None
    return OnlineState(
        materialisation=row.materialisation,
        entities=row.entities,
        event_time_max=None if row.event_time_max_us is None else from_us(row.event_time_max_us),
        written_at=from_us(row.written_at_us),
        unfinished=_TRACES.decode(row.unfinished),
    )


def _materialisation(row: Row[Any]) -> Materialisation:
    return Materialisation(
        id=row.id,
        spec=_SPEC.decode(row.spec),
        inputs_digest=row.inputs_digest,
        sources=_SOURCES.decode(row.sources),
        bundle=row.bundle,
        manifest=_MANIFEST.decode(row.manifest),
        digest=row.digest,
        entities=row.entities,
        future_rows=row.future_rows,
        event_time_min=from_us(row.event_time_min_us),
        event_time_max=from_us(row.event_time_max_us),
        created_at=from_us(row.created_at_us),
        created_by=row.created_by,
    )


def _text(value: object) -> str:
    return canonical_json(value).decode("utf-8")
