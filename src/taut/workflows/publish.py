"""What the data plane should serve now, composed from every room that has a say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import structs

from taut.core.errors import Corrupt, Denied
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.core.units import parse_duration, parse_size
from taut.lifecycle.release import Beside, Route, Share
from taut.ports.records import Tx, transact
from taut.project.declared import endpoint_of, judged_of
from taut.project.manifest import CacheSpec, EndpointSpec, FallbackSpec, Manifest, QuotaSpec
from taut.serving.snapshot import (
    ArmConfig,
    CacheConfig,
    DefaultAnswer,
    EndpointConfig,
    GatewayState,
    Machine,
    OtherModel,
    PlantedFault,
    PreviousVersion,
    ServedModel,
    ServingSnapshot,
    ShadowConfig,
    StaleAnswer,
    StandIn,
    TrialConfig,
)
from taut.trust.incidents import Fault
from taut.trust.policy import Policy
from taut.trust.quota import Allowance, Kind, Limit, Price, budget
from taut.workflows.rooms import Published, Rooms

DEFAULT_QUOTA = Limit(rate_per_s=100_000.0, burst=200_000.0)
LATENCY_MS = 1000.0  # what an answer may take where no SLO says it
BURST_SECONDS = 2.0
DAY_S = 86_400.0
_AMOUNTS: dict[str, tuple[Kind, float, float]] = {
    "requests_per_s": ("requests", 1.0, 0.0),
    "model_time_per_s": ("model_ms", 1e3, 0.0),
    "requests_per_day": ("requests", 1.0, DAY_S),
    "model_time_per_day": ("model_ms", 1e3, DAY_S),
    "gpu_time_per_day": ("gpu_ms", 1e3, DAY_S),
    "usd_per_day": ("usd_micros", 1e6, DAY_S),
    "usd_per_month": ("usd_micros", 1e6, 30 * DAY_S),
}
"""What each amount of a declared quota counts, how many of that its own unit is, and over which window; 0 by the second."""


def what_changes(rooms: Rooms) -> tuple[object, ...]:
    """Return a value that differs as soon as gateways have something new to learn; cheap, and asked often."""
    with rooms.records.read() as tx:
        routes, tried = rooms.releases.routes(tx), rooms.releases.shares(tx)
        beside = _beside(rooms, tx)
    return (
        rooms.identity.version(),
        rooms.plans.current_id(),
        routes,
        tried,
        beside,
        rooms.alarms.contained(),
        rooms.watches.suspects(),
    )


def compose(
    rooms: Rooms,
    *,
    policy: Policy,
    max_age_s: float,
    gateways: int,
    machines: Sequence[Machine] = (),
    url: str = "",
    log_key: str = "",
    above: int = 0,
) -> ServingSnapshot:
    """Compose the snapshot of this moment under a new epoch.

    max_age_s: how long gateways may serve it without hearing from control. gateways: how many run on this machine. machines:
    further ones. url: of the data plane here. log_key: what the prediction log is sealed to. above: the last epoch that they may know.
    A live release of an endpoint that the project does not declare any more is not served.
    Raises Corrupt when an artifact that should be served is not what was signed; nothing changes then.
    """
    manifest = rooms.plans.current() or Manifest()
    declared = {spec.name for spec in manifest.endpoints}
    with rooms.records.read() as tx:
        routes, tried = rooms.releases.routes(tx), rooms.releases.shares(tx)
        shadows, kept = ({one.endpoint: one for one in found} for found in _beside(rooms, tx))
    shares = {share.endpoint: share for share in tried}
    live = {route.endpoint: route for route in routes if route.endpoint in declared}
    faults = rooms.alarms.drills.faults()
    endpoints = tuple(
        structs.replace(
            planted(_endpoint(rooms, manifest, route, live, shares.get(route.endpoint)), faults),
            shadow=_shadow(rooms, shadows.get(route.endpoint)),
            kept=_ready(rooms, kept.get(route.endpoint)),
        )
        for route in live.values()
    )
    return ServingSnapshot(
        epoch=transact(rooms.records, lambda tx: rooms.releases.raise_epoch(tx, above=above)),
        issued_at_us=to_us(rooms.clock.now()),
        max_age_s=max_age_s,
        endpoints=endpoints,
        identity=rooms.identity.verifier_data(),
        policies=policy.files,
        resources=policy.resources,
        policy_digest=policy.digest,
        contained=rooms.alarms.contained(),
        allowances=tuple(allowance_of(spec) for spec in manifest.quotas),
        gateways=gateways + sum(machine.gateways for machine in machines),
        machines=tuple(machines),
        url=url,
        log_key=log_key,
    )


def planted(config: EndpointConfig, faults: Mapping[str, Fault]) -> EndpointConfig:
    """Return an endpoint with the faults that drills plant in its releases."""

    def plant(model: ServedModel) -> ServedModel:
        fault = faults.get(model.release)
        if fault is None:
            return model
        return structs.replace(model, fault=PlantedFault(failing=fault.failing, slow_ms=fault.slow_ms))

    if not faults:
        return config
    trial = config.trial
    if trial is not None:
        arms = tuple(structs.replace(arm, model=plant(arm.model)) for arm in trial.arms)
        trial = structs.replace(trial, arms=arms)
    return structs.replace(config, live=plant(config.live), trial=trial)


def outcome(epoch: int, states: Sequence[GatewayState]) -> Published:
    """Say what became of a snapshot from what gateways reported.

    What a gateway serves counts before its last word, which may be about a later snapshot.
    """
    waiting = [state for state in states if state.serving < epoch]
    refused = {
        state.gateway: state.ack.reason
        for state in waiting
        if state.ack is not None and state.ack.epoch >= epoch
    }
    applied = {state.gateway for state in states if state.serving >= epoch}
    return Published(
        epoch=epoch,
        applied=tuple(sorted(applied)),
        refused=dict(sorted(refused.items())),
        silent=tuple(sorted({state.gateway for state in waiting} - set(refused) - applied)),
    )


def _endpoint(
    rooms: Rooms, manifest: Manifest, route: Route, live: Mapping[str, Route], tried: Share | None
) -> EndpointConfig:
    spec = endpoint_of(manifest, route.endpoint)
    judged = judged_of(manifest, spec.model)
    config = EndpointConfig(
        name=route.endpoint,
        live=_model(rooms, route.version, route.release),
        fallbacks=tuple(found for one in spec.fallback for found in _stand_in(rooms, one, route, live)),
        fallback_when=spec.fallback_when,
        cache=_cache(spec.cache),
        hedge_after_ms=None
        if spec.hedge_after is None
        else parse_duration(spec.hedge_after).total_seconds() * 1e3,
        audit=spec.audit,
        risk="medium" if judged is None else judged.risk,
        runtime=spec.runtime,
        profile=spec.profile,
        placement=spec.placement,
        workers=spec.workers,
        spares=spec.spares,
        keep_loaded=spec.keep_loaded,
        latency_ms=LATENCY_MS if spec.slo is None else spec.slo.latency_p95_ms or LATENCY_MS,
        quota=_quota(spec),
        model_time=_model_time(spec),
        price=_price(spec),
        round_scores=spec.round_scores,
        round_suspects=spec.round_suspects,
        suspects=() if spec.round_suspects is None else _suspects(rooms, route.endpoint),
    )
    trial = None if tried is None else _trial(rooms, tried)
    return config if trial is None else config.with_trial(trial)


def _trial(rooms: Rooms, tried: Share) -> TrialConfig | None:
    """Return what is tried; None where an artifact is not what was signed: that must not keep what is live from being served."""
    try:
        arms = tuple(
            ArmConfig(model=_model(rooms, arm.version, tried.release), weight=arm.weight, slot=arm.slot)
            for arm in tried.arms
        )
    except (Corrupt, Denied):
        return None
    return TrialConfig(release=tried.release, stage=tried.stage, arms=arms)


def _beside(rooms: Rooms, tx: Tx) -> tuple[tuple[Beside, ...], tuple[Beside, ...]]:
    """Return what lies ready to take over, and what lies ready for the way back."""
    return rooms.releases.shadows.shares(tx), rooms.releases.shadows.kept(tx)


def _shadow(rooms: Rooms, beside: Beside | None) -> ShadowConfig | None:
    model = _ready(rooms, beside)
    return None if beside is None or model is None else ShadowConfig(model=model, share=beside.share)


def _ready(rooms: Rooms, beside: Beside | None) -> ServedModel | None:
    """Return what lies ready beside the live version; None where it is not what was signed, as of canaries."""
    try:
        return None if beside is None else _model(rooms, beside.version, beside.release)
    except (Corrupt, Denied):
        return None


def _suspects(rooms: Rooms, endpoint: str) -> tuple[str, ...]:
    return tuple(who for resource, who in rooms.watches.suspects() if resource == f"endpoint:{endpoint}")


def _quota(spec: EndpointSpec) -> Limit:
    if spec.quota_per_s is None:
        return DEFAULT_QUOTA
    return Limit(rate_per_s=spec.quota_per_s, burst=max(1.0, spec.quota_per_s * BURST_SECONDS))


def _model_time(spec: EndpointSpec) -> Limit | None:
    if spec.model_time_per_s is None:
        return None
    rate_per_s = spec.model_time_per_s * 1e3
    return Limit(rate_per_s=rate_per_s, burst=rate_per_s * BURST_SECONDS, kind="model_ms")


def _limit(name: str, amount: float, whose: str) -> Limit:
    kind, unit, window_s = _AMOUNTS[name]
    if window_s:
        return budget(amount * unit, window_s, kind=kind, level=whose)
    burst = amount * unit * BURST_SECONDS
    least = 1.0 if kind == "requests" else burst  # one request must be able to pass
    return Limit(rate_per_s=amount * unit, burst=max(least, burst), kind=kind, level=whose)


def _price(spec: EndpointSpec) -> Price | None:
    if spec.price is None:
        return None
    return Price(
        request_micros=spec.price.per_request * 1e6, model_second_micros=spec.price.per_model_second * 1e6
    )


def allowance_of(spec: QuotaSpec) -> Allowance:
    """Return a declared quota as gateways know it."""
    whose = "each caller" if spec.each else "its members together" if spec.members else "all callers together"
    limits = tuple(_limit(name, amount, whose) for name, amount in spec.amounts.items())
    return Allowance(
        name=spec.name, limits=limits, members=spec.members, each=spec.each, endpoints=spec.endpoints
    )


def _cache(spec: CacheSpec | None) -> CacheConfig | None:
    if spec is None:
        return None
    ttl_s = parse_duration(spec.ttl).total_seconds()
    return CacheConfig(ttl_s=ttl_s, max_bytes=parse_size(spec.memory), shared=spec.shared)


def _stand_in(rooms: Rooms, spec: FallbackSpec, route: Route, live: Mapping[str, Route]) -> Iterator[StandIn]:
    """Yield what stands in, where it may serve now: a stand-in must not keep what is live from being served."""
    try:
        match spec.kind:
            case "previous_version":
                replaced = rooms.releases.show(route.release).replaces
                if replaced is not None:
                    before = rooms.releases.show(replaced)
                    yield PreviousVersion(
                        model=_model(rooms, VersionRef.parse(before.version), before.release)
                    )
            case "simpler_model":
                other = live.get(spec.endpoint or "")
                if other is not None:
                    yield OtherModel(model=_model(rooms, other.version, other.release))
            case "cached_answer":
                yield StaleAnswer(max_stale_s=parse_duration(spec.max_stale or "0s").total_seconds())
            case "default_answer":
                yield DefaultAnswer(value=spec.value, probabilities=spec.probabilities)
    except (Corrupt, Denied):
        return


def _model(rooms: Rooms, version: VersionRef, release: str) -> ServedModel:
    digest, path = rooms.place_model(version)
    signature = rooms.registry.signature(version)
    candidate = rooms.registry.show(version).candidate
    return ServedModel(
        version=str(version), release=release, artifact=digest, path=path, signature=signature,
        feature_columns={
            lookup.feature_set: rooms.features.online_columns(lookup.feature_set) for lookup in signature.lookups
        },
        redefined={
            name: redefined
            for name, trained in candidate.features.items()
            if (redefined := rooms.features.redefined(name, trained))
        },
        nodes={name: _model(rooms, VersionRef.parse(one), release) for name, one in candidate.nodes.items()},
    )  # fmt: skip
