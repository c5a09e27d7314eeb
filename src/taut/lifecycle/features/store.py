"""Builds feature sets, keeps what they came from, joins them to training frames and writes them online."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from taut.core.canonical import digest_json
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref
from taut.core.schema import FeatureLookup
from taut.core.times import from_us
from taut.core.units import parse_duration
from taut.lifecycle.features import rows
from taut.lifecycle.features.compute import compute_in_job
from taut.lifecycle.features.latest import write_online
from taut.lifecycle.features.pit import join_point_in_time
from taut.lifecycle.features.rows import Materialisation, OnlineState, Trace
from taut.lifecycle.features.shape import schema_for
from taut.lifecycle.features.skew import SkewReport, compare_online
from taut.ports.blobs import Blobs
from taut.ports.jobs import Jobs, Limits, Progress
from taut.ports.online import OnlineReader, OnlineWriter
from taut.ports.records import Records, Tx, transact
from taut.ports.tables import TableManifest, Tables
from taut.ports.world import Clock
from taut.project.bundle import parse_bundle
from taut.project.definition import definition_digest
from taut.project.manifest import FeaturesSpec, FunctionRef
from taut.trust.ledger import Entry, Ledger
from taut.trust.lineage import Lineage

_ATTEMPTS: Final = 32
_DEFINITIONS: Final = 256  # kept, of all sets


class JoinedFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """One feature set of a training frame: which materialisation, and how the base names the set's keys.

    on: base column -> entity column, where their names differ; entries about other sets are ignored.
    """

    materialisation: Materialisation
    on: Mapping[str, str] = {}


class LoadedFeatures:
    """Feature sets in memory: the one way in which rows get the features that were known at their time."""

    def __init__(self, features: Sequence[JoinedFeatures], frames: Sequence[pl.DataFrame]) -> None:
        self._sets: Final = tuple(zip(features, frames, strict=True))

    def join(self, base: pl.DataFrame, event_time: str, *, event_times: bool = False) -> pl.DataFrame:
        """Join them to a frame; see `FeatureStore.training_frame`."""
        joined = base
        for one, rows_ in self._sets:
            made = one.materialisation
            spec = made.spec
            joined = join_point_in_time(
                joined,
                rows_,
                name=spec.name,
                keys={left: right for right, left in _sides(spec, one.on).items()},
                event_time=event_time,
                feature_time=spec.event_time,
                columns=made.features,
                max_age=None if spec.max_age is None else parse_duration(spec.max_age),
                time_as=f"_event_time_{spec.name}" if event_times else None,
            )
        return joined


class _Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what a materialisation holds."""

    spec: FeaturesSpec
    sources: dict[str, str]  # dataset -> snapshot
    bundle: str

    @property
    def digest(self) -> str:
        return digest_json(self)

    @property
    def seed(self) -> int:
        return int(self.digest[-8:], 16)


class FeatureStore:
    """The stage of feature sets.

    Guarantees: a materialisation, its ledger leaf and its lineage commit together; equal inputs (spec, snapshots,
    code) are computed once; a training frame holds for each row the newest values known at its event time, whatever
    the order of the rows.
    Not guaranteed: that the builder's function itself looks at no later source row than the event time that it
    writes; a feature row is taken to be known from its event time on.

    scratch: where rows handed to a job lie meanwhile; None for the system's folder.
    """

    def __init__(
        self,
        *,
        records: Records,
        blobs: Blobs,
        tables: Tables,
        ledger: Ledger,
        lineage: Lineage,
        jobs: Jobs,
        online_writer: OnlineWriter,
        clock: Clock,
        scratch: Path | None = None,
    ) -> None:
        self._records: Final = records
        self._blobs: Final = blobs
        self._tables: Final = tables
        self._ledger: Final = ledger
        self._lineage: Final = lineage
        self._jobs: Final = jobs
        self._online: Final = online_writer
        self._clock: Final = clock
        self._scratch: Final = scratch
        self._definitions: Final[dict[tuple[str, FunctionRef], str]] = {}
        self._materialising: Final = threading.Lock()

    def build(
        self,
        spec: FeaturesSpec,
        sources: Mapping[str, tuple[Ref, pl.LazyFrame]],
        *,
        bundle: str,
        actor: str,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Materialisation:
        """Compute a feature set in a job and keep the result; the same inputs again return what is there.

        sources: dataset -> (snapshot, its rows). bundle: digest of the code bundle in Blobs.
        Raises InvalidInput when a source is missing, the function raises, or its result is no feature set;
        Exhausted when the job passed its limits; Unavailable when it was killed.
        """
        missing = [name for name in spec.sources if name not in sources]
        if missing:
            raise InvalidInput(f"feature set {spec.name!r} needs dataset {missing[0]!r}: ingest it first")
        used = {name: str(sources[name][0]) for name in spec.sources}
        inputs = _Inputs(spec=spec, sources=used, bundle=bundle)
        with self._records.read() as tx:
            known = rows.find_by_inputs(tx, spec.name, inputs.digest)
        if known is not None:
            return known
        frame = compute_in_job(
            self._jobs,
            self._blobs,
            spec,
            {name: sources[name][1] for name in spec.sources},
            bundle=bundle,
            seed=inputs.seed,
            limits=limits or Limits(),
            progress=progress,
            scratch=self._scratch,
        )
        manifest = self._tables.write([frame], schema=schema_for(frame, spec), first_row_id=0)

        def commit(tx: Tx) -> Materialisation:
            other = rows.find_by_inputs(tx, spec.name, inputs.digest)
            return other or self._commit(tx, inputs, frame, manifest, actor)

        return transact(self._records, commit, attempts=_ATTEMPTS)

    def materialize(
        self,
        spec: FeaturesSpec,
        *,
        actor: str,
        materialisation: str | None = None,
        until: datetime | None = None,
        announce: Callable[[], object] | None = None,
    ) -> OnlineState:
        """Write the newest due row of every entity online, and return what is there now. One call a set at a time.

        materialisation: its id; the newest one when None. until: rows after it are not due, as if it were now; for
        a replay of the past. Entities that are gone from it, or whose newest row went
        back in time since what was online before, lose their old row first. Safe to repeat after a crash.
        announce: called before the first row of a materialisation is written that was not online whole, so that
        readers learn what its values mean (`online_columns`); when it raises, nothing was written.
        Raises InvalidInput for a set that is not declared online; NotFound when nothing was built.
        """
        if not spec.online:
            raise InvalidInput(f"feature set {spec.name!r} is not online: declare it with online=True")
        with self._materialising:  # two at once would each take the other's rows for leftovers
            return self._materialize(self.materialisation(spec.name, materialisation), actor, until, announce)

    def _materialize(
        self,
        made: Materialisation,
        actor: str,
        until: datetime | None,
        announce: Callable[[], object] | None,
    ) -> OnlineState:
        spec = made.spec
        now = self._clock.now() if until is None else min(until, self._clock.now())
        before = transact(self._records, lambda tx: _begin_writing(tx, made, now), attempts=_ATTEMPTS)
        earlier = [
            (self.materialisation(spec.name, trace.materialisation), trace.at)
            for trace in before.traces()
            if trace.materialisation != made.id or trace.at > now
        ]
        if (
            announce is not None and made.id != before.materialisation
        ):  # an unfinished one may not have been said
            announce()
        written = write_online(self._tables, self._online, made, due=now, before=earlier)
        state = OnlineState(
            materialisation=made.id,
            entities=written.entities,
            event_time_max=None if written.event_time_max_us is None else from_us(written.event_time_max_us),
            written_at=now,
        )

        def commit(tx: Tx) -> None:
            rows.set_online_state(tx, spec.name, state)
            body: dict[str, object] = {
                "entities": state.entities, "changed": written.changed, "digest": made.digest
            }  # fmt: skip
            self._ledger.append(
                tx, Entry(kind="features.materialized", subject=str(made.ref), actor=actor, body=body)
            )

        transact(self._records, commit, attempts=_ATTEMPTS)
        return state

    def training_frame(
        self,
        base: pl.DataFrame,
        event_time: str,
        features: Sequence[JoinedFeatures],
        *,
        event_times: bool = False,
    ) -> pl.DataFrame:
        """Return `base`, row for row in its order, with the features known at each row's event time.

        event_times: add a column `_event_time_SET` a set, with the event time of the values used, for explanations.
        Raises InvalidInput when columns are missing, clash, or differ in type.
        """
        return self.loaded(features).join(base, event_time, event_times=event_times)

    def loaded(self, features: Sequence[JoinedFeatures]) -> LoadedFeatures:
        """Read feature sets once, to join them to many frames."""
        frames = [self._tables.scan(one.materialisation.manifest).collect() for one in features]
        return LoadedFeatures(features, frames)

    def lookup(self, spec: FeaturesSpec, on: Mapping[str, str]) -> FeatureLookup:
        """Return how a request finds its row of a feature set. on: as in `JoinedFeatures`."""
        sides = _sides(spec, on)
        return FeatureLookup(
            feature_set=spec.name,
            entity=spec.entity,
            keys=tuple(sides[name] for name in spec.entity),
            max_age_s=None if spec.max_age is None else parse_duration(spec.max_age).total_seconds(),
        )

    def materialisation(self, feature_set: str, id: str | None = None) -> Materialisation:
        """Return a materialisation, the newest of the set when `id` is None. Raises NotFound."""
        with self._records.read() as tx:
            return rows.pick_materialisation(tx, feature_set, id)

    def show(self, feature_set: str, *, limit: int = 20) -> tuple[Materialisation, ...]:
        """Return the materialisations of a set, the newest first."""
        with self._records.read() as tx:
            return rows.list_materialisations(tx, feature_set, limit=limit)

    def feature_sets(self) -> tuple[str, ...]:
        with self._records.read() as tx:
            return rows.list_feature_sets(tx)

    def online_state(self, feature_set: str) -> OnlineState | None:
        with self._records.read() as tx:
            return rows.get_online_state(tx, feature_set)

    def online_columns(self, feature_set: str) -> dict[str, tuple[str, ...]]:
        """Return materialisation -> columns, in the order of its rows' values, of all whose rows may be online."""
        with self._records.read() as tx:
            state = rows.get_online_state(tx, feature_set)
            ids = [] if state is None else [trace.materialisation for trace in state.traces()]
            return {id_: rows.pick_materialisation(tx, feature_set, id_).features for id_ in ids}

    def redefined(self, feature_set: str, known: str) -> tuple[str, ...]:
        """Return the materialisations whose rows may be online and that were not made by the definition of `known`.

        known: a materialisation of the set. A definition is the entity, the event time, the sources and the code that
        the function runs: what else changed in the project does not count. One that cannot be read is another.
        """
        wanted = self._definition(self.materialisation(feature_set, known))
        online = [self.materialisation(feature_set, id_) for id_ in self.online_columns(feature_set)]
        return tuple(made.id for made in online if made.id != known and self._definition(made) != wanted)

    def alike(self, feature_set: str, one: str, other: str) -> bool:
        """Tell whether two materialisations of a set were made by the same definition."""
        found = {self._definition(self.materialisation(feature_set, id_)) for id_ in (one, other)}
        return len(found) == 1

    def _definition(self, made: Materialisation) -> str:
        spec, key = made.spec, (made.bundle, made.spec.function)
        code = self._definitions.get(key)
        if code is None:
            try:
                code = definition_digest(parse_bundle(self._blobs.read(made.bundle)).files, spec.function)
            except (Corrupt, NotFound):
                return f"unknown: {made.id}"
            if len(self._definitions) >= _DEFINITIONS:
                self._definitions.clear()
            self._definitions[key] = code
        return digest_json(
            {"entity": spec.entity, "time": spec.event_time, "sources": spec.sources, "code": code}
        )

    def frame(self, made: Materialisation) -> pl.LazyFrame:
        """Return the rows of a materialisation, sorted by entity and event time."""
        return self._tables.scan(made.manifest)

    def check_skew(
        self, feature_set: str, reader: OnlineReader, *, sample: int = 1000, seed: int = 0
    ) -> SkewReport:
        """Compare online values with the materialisation that was written last. Raises NotFound when none was."""
        state = self.online_state(feature_set)
        if state is None or state.materialisation is None:
            raise NotFound(
                f"feature set {feature_set!r} is not online: run `taut features materialize` first"
            )
        made = self.materialisation(feature_set, state.materialisation)
        return compare_online(self._tables, reader, made, due=state.written_at, sample=sample, seed=seed)

    def _commit(
        self, tx: Tx, inputs: _Inputs, frame: pl.DataFrame, manifest: TableManifest, actor: str
    ) -> Materialisation:
        spec, now = inputs.spec, self._clock.now()
        times = frame.get_column(spec.event_time)
        made = Materialisation(
            id=f"{spec.name}@{rows.next_number(tx, spec.name)}",
            spec=spec,
            inputs_digest=inputs.digest,
            sources=inputs.sources,
            bundle=inputs.bundle,
            manifest=manifest,
            digest=digest_json(manifest),
            entities=frame.select(spec.entity).n_unique(),
            future_rows=int((times > now).sum()),
            event_time_min=from_us(int(times.dt.timestamp("us").min())),  # type: ignore[arg-type]  # never empty
            event_time_max=from_us(int(times.dt.timestamp("us").max())),  # type: ignore[arg-type]  # never empty
            created_at=now,
            created_by=actor,
        )
        rows.insert_materialisation(tx, made)
        facts: dict[str, Scalar] = {
            "rows": made.rows, "entities": made.entities, "future_rows": made.future_rows, "digest": made.digest,
        }  # fmt: skip
        body: dict[str, Any] = {
            **facts,
            "inputs": inputs.digest,
            "sources": inputs.sources,
            "bundle": inputs.bundle,
        }
        self._ledger.append(tx, Entry(kind="features.built", subject=str(made.ref), actor=actor, body=body))
        self._lineage.record(
            tx,
            activity="features.build",
            inputs=[*(Ref.parse(ref) for ref in inputs.sources.values()), Ref(Kind.BUNDLE, inputs.bundle)],
            outputs=[made.ref],
            facts=facts,
        )
        return made


def _begin_writing(tx: Tx, made: Materialisation, now: datetime) -> OnlineState:
    """Note that rows of `made` may be online from now on, and return the state before."""
    before = rows.get_online_state(tx, made.spec.name) or OnlineState(written_at=now)
    others = [trace for trace in before.unfinished if trace.materialisation != made.id]
    unfinished = (*others, Trace(materialisation=made.id, at=now))
    rows.set_online_state(tx, made.spec.name, msgspec.structs.replace(before, unfinished=unfinished))
    return before


def _sides(spec: FeaturesSpec, on: Mapping[str, str]) -> dict[str, str]:
    """Return entity column -> column of the other side, in the set's order."""
    named: dict[str, str] = {}
    for left, right in on.items():
        if right in spec.entity:
            if right in named:
                raise InvalidInput(
                    f"`on` maps both {named[right]!r} and {left!r} to {right!r} of feature set {spec.name!r}: keep one"
                )
            named[right] = left
    return {name: named.get(name, name) for name in spec.entity}
