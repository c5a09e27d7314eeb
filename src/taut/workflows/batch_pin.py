"""Pinning a batch: what is scored by what, fixed before anything is done."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.canonical import digest_json
from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import VersionRef, check_name
from taut.core.schema import FeatureLookup, ModelSignature
from taut.lifecycle.batch import Scored
from taut.lifecycle.features import JoinedFeatures, Materialisation
from taut.lifecycle.registry import ModelState
from taut.project.declared import endpoint_of, judged_specs
from taut.project.words import nearest
from taut.serving.batch import answer_schema, needs_of
from taut.workflows.rooms import Rooms

CHUNK_ROWS: Final = 131_072
CHUNK_ROWS_MAX: Final = 4_000_000


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What is scored, pinned: nothing that is released, ingested or built meanwhile changes it.

    rows: of the snapshot. endpoint, release: those through which the version was found; None where it was named. keys: columns of the
    snapshot that name its rows. max_rejected: share of rows.
    """

    scored: Scored
    rows: int
    endpoint: str | None = None
    release: str | None = None
    keys: tuple[str, ...] = ()
    event_time: str | None = None
    chunk_rows: int = CHUNK_ROWS
    max_rejected: float = 0.1
    max_age_s: float | None = None
    actor: str

    @property
    def model(self) -> VersionRef:
        return VersionRef.parse(self.scored.version)

    @property
    def snapshot(self) -> VersionRef:
        return VersionRef.parse(self.scored.snapshot)

    @property
    def work(self) -> str:
        """Names the chunks: any attempt at the same work carries on with what another kept."""
        return digest_json([self.scored, self.chunk_rows])


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as people ask for it. target: an endpoint or model, or a version of its model."""

    target: str
    dataset: str
    to: str
    chunk_rows: int = CHUNK_ROWS
    max_rejected: float = 0.1
    max_age_s: float | None = None
    actor: str


def pin_batch(rooms: Rooms, asked: Asked) -> Batch:
    """Find what is to be scored by what, and fix it.

    Raises NotFound for an endpoint, model, dataset, snapshot or feature set that is not there; InvalidInput where the
    snapshot does not have what the model needs, in its types.
    """
    check_name(asked.to, what="result")
    if not 1 <= asked.chunk_rows <= CHUNK_ROWS_MAX:
        raise InvalidInput(f"chunks of {asked.chunk_rows} rows: choose 1 to {CHUNK_ROWS_MAX:,}")
    if not 0 <= asked.max_rejected <= 1:
        raise InvalidInput(f"max_rejected is {asked.max_rejected}: it is a share of the rows, from 0 to 1")
    endpoint, release, version = _target(rooms, asked.target)
    signature = rooms.registry.signature(version)
    info = _snapshot(rooms, asked.dataset)
    spec = rooms.data.spec(info.ref)
    needs = needs_of(signature, event_time=spec.event_time)
    needs.check(info.schema, where=str(info.ref))
    named = [*spec.entity, *([spec.event_time] if spec.event_time else [])]
    keys = tuple(name for name in dict.fromkeys(named) if name in info.schema.names)
    taken = {column.name for column in answer_schema(signature)} & set(keys)
    if taken:
        raise InvalidInput(
            f"key column {sorted(taken)[0]!r} of {info.ref} is also the name of an answer: rename it in the dataset"
        )
    return Batch(
        scored=Scored(
            name=asked.to, version=str(version), snapshot=str(info.ref), features=_features(rooms, signature),
            artifact=rooms.registry.show(version).candidate.artifact.digest,
        ),
        rows=info.rows, endpoint=endpoint, release=release, keys=keys, event_time=needs.event_time, chunk_rows=asked.chunk_rows,
        max_rejected=asked.max_rejected, max_age_s=asked.max_age_s, actor=asked.actor,
    )  # fmt: skip


def _target(rooms: Rooms, target: str) -> tuple[str | None, str | None, VersionRef]:
    """Return (endpoint, release, version): the live version of an endpoint, the newest of a model that may serve."""
    name, at, _ = target.partition("@")
    manifest = rooms.plans.require()
    endpoints = {spec.name: spec.model for spec in manifest.endpoints}
    models = {spec.name for spec in judged_specs(manifest)}
    if name not in endpoints and name not in models:
        raise NotFound(
            f"the project has no endpoint or model {name[:80]!r}{nearest(name, {*endpoints, *models})}"
        )
    model = endpoints.get(name, name)
    if at:
        version = VersionRef.parse(target.rpartition("@")[2], name=model)
        return (name if name in endpoints else None), None, version
    if name in endpoints:
        endpoint_of(manifest, name)
        with rooms.records.read() as tx:
            route = next((route for route in rooms.releases.routes(tx) if route.endpoint == name), None)
        if route is None:
            raise NotFound(
                f"endpoint {name} has no live release: release one, or name a version that is approved, such as {name}@1"
            )
        return name, route.release, route.version
    for state in (ModelState.LIVE, ModelState.APPROVED):
        found = rooms.registry.list(model=model, state=state, limit=1)
        if found:
            return None, None, found[0].ref
    raise NotFound(f"model {model} has no approved version: train one and approve it")


def _snapshot(rooms: Rooms, text: str) -> Any:
    name, at, _ = text.partition("@")
    if not at:
        return rooms.data.show(name)
    return rooms.data.snapshot(VersionRef.parse(text))


def _features(rooms: Rooms, signature: ModelSignature) -> dict[str, str]:
    """Return feature set -> its newest materialisation. Raises InvalidInput where it is not what the model takes."""
    found = {}
    for lookup in signature.lookups:
        made = rooms.features.materialisation(lookup.feature_set)
        known = {column.name: column.dtype for column in made.schema.columns}
        wanted = [item.column for item in signature.inputs if item.feature_set == lookup.feature_set]
        wrong = [column.name for column in wanted if known.get(column.name) is not column.dtype]
        if made.spec.entity != lookup.entity:
            wrong = [*made.spec.entity]
        if wrong:
            raise InvalidInput(
                f"feature set {lookup.feature_set} is not what the model was trained on any more ({wrong[0]!r} differs): "
                "build it again as it was, or train a new version"
            )
        found[lookup.feature_set] = made.id
    return found


def joined_as_signed(made: Materialisation, lookup: FeatureLookup) -> JoinedFeatures:
    """Return how a feature set is joined for a model: by the keys and up to the age that its signature says.

    The set's own declaration may have changed since; requests go by the signature too.
    """
    age = None if lookup.max_age_s is None else f"{lookup.max_age_s:f}s"
    spec = msgspec.structs.replace(made.spec, max_age=age)
    return JoinedFeatures(
        materialisation=msgspec.structs.replace(made, spec=spec),
        on=dict(zip(lookup.keys, lookup.entity, strict=True)),
    )
