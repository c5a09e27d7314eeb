"""A snapshot made ready to serve: models loaded, decoders built, routes laid out, records' heads encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import Corrupt, InvalidInput, Unavailable
from taut.core.schema import Column, FeatureLookup, ModelSignature
from taut.serving.gateway.tensors import Batch, TensorDecoder, label_datatype, output_names
from taut.serving.meters import EndpointMeter
from taut.serving.predictions import FeatureRow, Lookup, RecordHead, encode_head
from taut.serving.runtime import Feed, LoadedModel, Matrix, Outputs, RowDecoder, load
from taut.serving.runtime.rows import Value
from taut.serving.runtime.score import feature_value
from taut.serving.snapshot import EndpointConfig, GatewaySettings, ServedModel, ServingSnapshot
from taut.serving.workers import Fleet, Lane, LaneSettings, Order, WorkerModel
from taut.trust.identity.verifier import TokenVerifier
from taut.trust.policy import Policy
from taut.trust.quota import Quota

Features = Sequence[Sequence[FeatureRow | None]]
"""Row -> lookup -> what was found, in the order of the signature's lookups."""
Rows = Sequence[Sequence[Value]]
Model = LoadedModel | WorkerModel
_OPEN_TIMEOUT_S: Final = 60.0


class Scorer:
    """One loaded version: turns rows of the request and features into outputs.

    lane: the workers that run the model; None where it runs in this process.
    """

    def __init__(self, served: ServedModel, model: Model) -> None:
        self.served: Final = served
        self.model: Final = model
        self.lane: Final[Lane | None] = model.lane if isinstance(model, WorkerModel) else None
        self._assemble: Final = _assembler(served)
        self._row_major: Final = model.row_major
        columns = [item.column for item in served.signature.inputs]
        self._matrix: Final = Matrix(columns) if model.row_major else None

    @property
    def direct(self) -> bool:
        """Whether the model takes one FP32 tensor of just the request's columns."""
        return self._assemble is None and self._matrix is not None

    def score(self, batch: Batch, features: Features) -> Outputs:
        """Return checked outputs of a model that runs in this process.

        Raises what `feed` does, and BadAnswer for nonsense.
        """
        assert isinstance(self.model, LoadedModel), "workers are asked through their lane"
        return self.model.run(self.feed(batch, features), batch.count)

    def feed(self, batch: Batch, features: Features) -> Feed:
        """Return the model's tensors.

        Raises InvalidInput for a feature that is missing, Unavailable for one that is just being rewritten.
        """
        if batch.packed:
            assert self._matrix is not None, "batches are packed for direct models only"
            return self._matrix.feed(batch.rows, batch.count)
        rows: Rows = batch.rows
        given = rows if self._assemble is None else self._assemble(rows, features)
        return self.model.encode(given if self._row_major else list(zip(*given, strict=True)))


def _assembler(served: ServedModel) -> Callable[[Rows, Features], Rows] | None:
    """Return what puts request columns and features into the model's order; None where the request already is."""
    signature = served.signature
    positions = {column.name: index for index, column in enumerate(signature.request)}
    if [item.column.name for item in signature.inputs] == list(positions) and not signature.lookups:
        return None
    sets = {lookup.feature_set: index for index, lookup in enumerate(signature.lookups)}
    takes: list[Callable[[int, Sequence[Value], Sequence[FeatureRow | None]], Value]] = []
    for item in signature.inputs:
        name = item.column.name
        if item.feature_set is None:
            takes.append(_request_taker(positions[name]))
            continue
        forms = served.feature_columns.get(item.feature_set, {})
        places = {source: columns.index(name) for source, columns in forms.items() if name in columns}
        if not places:
            raise InvalidInput(
                f"{served.version}: feature {name!r} is no column of {item.feature_set!r} in the snapshot: issue it again"
            )
        takes.append(_feature_taker(item.column, sets[item.feature_set], places, signature))

    def assemble(rows: Rows, features: Features) -> Rows:
        found = features or [()] * len(rows)
        return [
            [take(index, row, looked_up) for take in takes]
            for index, (row, looked_up) in enumerate(zip(rows, found, strict=True))
        ]

    return assemble


def _request_taker(position: int) -> Callable[[int, Sequence[Value], object], Value]:
    return lambda _index, row, _found: row[position]


def _feature_taker(
    column: Column, lookup: int, places: Mapping[str, int], signature: ModelSignature
) -> Callable[[int, Sequence[Value], Sequence[FeatureRow | None]], Value]:
    """places: materialisation -> where the feature stands in its rows."""
    feature_set = signature.lookups[lookup].feature_set

    def take(index: int, _row: Sequence[Value], found: Sequence[FeatureRow | None]) -> Value:
        entry = found[lookup]
        if entry is not None and entry.source not in places:
            raise Unavailable(
                f"feature {column.name!r} of {feature_set!r}: its row is of {entry.source}, which is being put online: "
                "try again shortly"
            )
        value = None if entry is None else feature_value(column, entry.values[places[entry.source]])
        if value is None and not column.nullable:
            why = (
                "no row for this entity, or one that is too old"
                if entry is None
                else "null in the online store"
            )
            raise InvalidInput(
                f"row {index}, feature {column.name!r} of {feature_set!r}: {why}; materialise the set, or make it nullable"
            )
        return value

    return take


class Endpoint:
    """One endpoint, compiled. meter: replaced by the gateway's own when it begins to serve this."""

    def __init__(
        self, config: EndpointConfig, snapshot: ServingSnapshot, models: Mapping[str, Model]
    ) -> None:
        live = config.live
        signature = live.signature
        self.meter = EndpointMeter()
        self.config: Final = config
        self.name: Final = config.name
        self.resource: Final = f"endpoint:{config.name}"
        self.signature: Final = signature
        self.live: Final = Scorer(live, models[model_key(live, config)])
        stand_in = config.fallback
        if stand_in is not None and not _same_face(stand_in.signature, signature):
            stand_in = None
        self.fallback: Final = (
            None if stand_in is None else Scorer(stand_in, models[model_key(stand_in, config)])
        )
        self.lanes: Final = tuple(
            one.lane for one in (self.live, self.fallback) if one is not None and one.lane is not None
        )
        self.lookups: Final = signature.lookups
        self.keys: Final = tuple(_key_positions(signature, lookup) for lookup in signature.lookups)
        settings = snapshot.settings
        self.rows: Final = RowDecoder(signature.request, max_rows=settings.max_rows)
        names = [column.name for column in signature.request]
        self.event_time: Final = None if signature.event_time is None else names.index(signature.event_time)
        if self.event_time is not None and self.event_time != len(names) - 1:
            raise InvalidInput(f"{live.version}: the event time must be the last column of a request")
        self.tensors: Final = TensorDecoder(
            signature.request if self.event_time is None else signature.request[:-1],
            optional=None if self.event_time is None else signature.request[-1],
            outputs=output_names(signature),
            max_rows=settings.max_rows,
            packed=self.live.direct and (self.fallback is None or self.fallback.direct),
        )
        self.inline_rows: Final = self.live.model.rows_within(settings.inline_us)
        self.label_type: Final = label_datatype(signature)
        self.limited: Final = config.quota is not None
        ages = [age for age in (snapshot.max_age_s, config.max_age_s) if age is not None]
        self.stale_us: Final = snapshot.issued_at_us + int(min(ages) * 1e6)
        self.record_head: Final = encode_head(
            RecordHead(
                endpoint=config.name,
                version=live.version,
                release=live.release,
                epoch=snapshot.epoch,
                columns=tuple(column.name for column in signature.request),
                lookups=tuple(
                    Lookup(lookup.feature_set, _columns(live, lookup.feature_set))
                    for lookup in signature.lookups
                ),
            )
        )
        self.number: Final = live.version.rpartition("@")[2]
        self.head: Final = _head(live, snapshot.epoch)
        self.fallback_head: Final = (
            b"" if stand_in is None else _head(stand_in, snapshot.epoch, fallback=True)
        )


def _columns(served: ServedModel, feature_set: str) -> tuple[str, ...]:
    """Return the columns of a set, none while they change: each row's materialisation says them then."""
    forms = set(served.feature_columns.get(feature_set, {}).values())
    return forms.pop() if len(forms) == 1 else ()


def _same_face(left: ModelSignature, right: ModelSignature) -> bool:
    """Whether a request that was read for one model can be scored by the other, and the answer read as the one's."""
    return (
        (left.request, left.lookups, left.output) == (right.request, right.lookups, right.output)
        and left.classes == right.classes
        and left.event_time == right.event_time
        and label_datatype(left) == label_datatype(right)  # (0, 1) equals (False, True)
    )


def _head(served: ServedModel, epoch: int, *, fallback: bool = False) -> bytes:
    head = (
        f"content-type: application/json\r\ntaut-model-version: {served.version}\r\ntaut-release: {served.release}\r\n"
        f"taut-policy-epoch: {epoch}\r\ntaut-cache: off\r\n"
    )
    if fallback:
        head += f"taut-fallback: {served.version}\r\n"
    return head.encode("ascii")


def _key_positions(signature: ModelSignature, lookup: FeatureLookup) -> tuple[int, ...]:
    names = [column.name for column in signature.request]
    return tuple(names.index(key) for key in lookup.keys)


class Route(msgspec.Struct, frozen=True):
    """Where an inference path leads. kind: `v1` for instances, `v2` for tensors."""

    endpoint: Endpoint
    kind: str


class Active:
    """Everything that requests of one epoch work with. Never changed; replaced whole, and freed with its last request."""

    def __init__(
        self, snapshot: ServingSnapshot, *, policy: Policy, models: dict[str, Model], quota: Quota
    ) -> None:
        self.snapshot: Final = snapshot
        self.epoch: Final = snapshot.epoch
        self.settings: Final = snapshot.settings
        self.verifier: Final = TokenVerifier(snapshot.identity)
        self.policy: Final = policy
        self.models: Final = models
        self.quota: Final = quota
        self.endpoints: Final = {
            config.name: Endpoint(config, snapshot, models) for config in snapshot.endpoints
        }
        self.routes: Final = dict(_routes(self.endpoints))
        self.stale_us: Final = snapshot.issued_at_us + int(snapshot.max_age_s * 1e6)


def _routes(endpoints: Mapping[str, Endpoint]) -> list[tuple[str, Route]]:
    found = []
    for name, endpoint in endpoints.items():
        found += [
            (f"/v1/predict/{name}", Route(endpoint, "v1")),
            (f"/v2/models/{name}/infer", Route(endpoint, "v2")),
            (f"/v2/models/{name}/versions/{endpoint.number}/infer", Route(endpoint, "v2")),
        ]
    return found


def compile_snapshot(
    snapshot: ServingSnapshot, *, home: Path, before: Active | None, fleet: Fleet | None = None
) -> Active:
    """Load and check everything that a snapshot names. Slow: run it off the event loop.

    home: against which relative artifact paths are read. before: whose models, policy and quota are kept where they
    are the same, so that a new epoch costs what changed and buckets are not refilled by it. fleet: where models run that
    want worker processes; without one all run here.
    Raises Corrupt when an artifact is not the one that was signed or the policy differs from its digest; InvalidInput
    when a model does not fit its signature.
    """
    if before is not None and before.snapshot.policy == snapshot.policy:
        policy = before.policy
    else:
        policy = Policy(snapshot.policy)
    if policy.digest != snapshot.policy_digest:
        raise Corrupt(
            f"the policy's digest is {policy.digest}, the snapshot says {snapshot.policy_digest}: upgrade the gateway "
            "and control to the same version"
        )
    models: dict[str, Model] = {}
    for config in snapshot.endpoints:
        for served in (config.live, config.fallback):
            if served is not None and model_key(served, config) not in models:
                key = model_key(served, config)
                kept = None if before is None else before.models.get(key)
                models[key] = kept or _place(served, config, snapshot.settings, home=home, fleet=fleet)
    limits = {
        config.name: config.quota.share(snapshot.gateways)
        for config in snapshot.endpoints
        if config.quota is not None
    }
    old_limits = None if before is None else _limits(before.snapshot)
    quota = before.quota if before is not None and old_limits == _limits(snapshot) else Quota(limits)
    return Active(snapshot, policy=policy, models=models, quota=quota)


def _limits(snapshot: ServingSnapshot) -> list[tuple[str, object, int]]:
    return [(config.name, config.quota, snapshot.gateways) for config in snapshot.endpoints]


def model_key(served: ServedModel, config: EndpointConfig) -> str:
    """Return what tells loaded models apart: the artifact, what was promised of it, and where it is to run."""
    place = f"{config.runtime} {config.risk} {config.workers} {config.latency_ms}"
    return f"{served.artifact} {digest_bytes(msgspec.json.encode(served.signature))} {place}"


def _place(
    served: ServedModel, config: EndpointConfig, settings: GatewaySettings, *, home: Path, fleet: Fleet | None
) -> Model:
    """Load a model here or in workers, as its endpoint says or as it was measured."""
    data = _read(served, home)
    if fleet is None or config.runtime == "inline":
        return load(data, served.signature)
    if config.runtime == "auto" and config.risk != "high":
        model = load(data, served.signature)
        if model.cost is None or model.cost.base_us + model.cost.row_us <= settings.worker_us:
            return model
    return fleet.open(
        model_key(served, config),
        served.version,
        data,
        Order(signature=served.signature, memory_bytes=settings.worker_memory_bytes),
        LaneSettings(
            workers=config.workers, latency_s=config.latency_ms / 1e3, hang_s=settings.worker_hang_s
        ),
        timeout_s=_OPEN_TIMEOUT_S,
    )


def _read(served: ServedModel, home: Path) -> bytes:
    """Return the artifact's bytes. Raises Corrupt when they are not those that were signed."""
    path = home / served.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Corrupt(
            f"{served.version}: {path} cannot be read ({error.strerror}): restore the artifact"
        ) from error
    found = digest_bytes(data)
    if found != served.artifact:
        raise Corrupt(
            f"{served.version}: {path} has digest {found}, signed was {served.artifact}: restore the artifact"
        )
    return data
