"""What the data plane should serve now, composed from every room that has a say."""

from __future__ import annotations

from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.lifecycle.release import Route
from taut.ports.records import transact
from taut.project.declared import endpoint_of
from taut.project.manifest import EndpointSpec, Manifest
from taut.serving.snapshot import EndpointConfig, ServedModel, ServingSnapshot
from taut.trust.policy import Policy
from taut.trust.quota import Limit
from taut.workflows.rooms import Rooms

DEFAULT_QUOTA = Limit(rate_per_s=100_000.0, burst=200_000.0)
BURST_SECONDS = 2.0


def compose(rooms: Rooms, *, policy: Policy, max_age_s: float, gateways: int) -> ServingSnapshot:
    """Compose the snapshot of this moment under a new epoch.

    max_age_s: how long gateways may serve it without hearing from control.
    Raises Corrupt when an artifact that should be served is not what was signed; nothing changes then.
    """
    manifest = rooms.plans.require() if rooms.plans.current_info() else Manifest()
    with rooms.records.read() as tx:
        routes = rooms.releases.routes(tx)
    endpoints = tuple(_endpoint(rooms, manifest, route) for route in routes)
    return ServingSnapshot(
        epoch=transact(rooms.records, rooms.releases.raise_epoch),
        issued_at_us=to_us(rooms.clock.now()),
        max_age_s=max_age_s,
        endpoints=endpoints,
        identity=rooms.identity.verifier_data(),
        policy=policy.project,
        policy_digest=policy.digest,
        gateways=gateways,
    )


def _endpoint(rooms: Rooms, manifest: Manifest, route: Route) -> EndpointConfig:
    spec = endpoint_of(manifest, route.endpoint)
    return EndpointConfig(
        name=route.endpoint,
        live=_model(rooms, route.version, route.release),
        fallback=_fallback(rooms, spec, route),
        audit=spec.audit,
        risk=next((model.risk for model in manifest.models if model.name == spec.model), "medium"),
        quota=_quota(spec),
    )


def _quota(spec: EndpointSpec) -> Limit:
    if spec.quota_per_s is None:
        return DEFAULT_QUOTA
    return Limit(rate_per_s=spec.quota_per_s, burst=max(1.0, spec.quota_per_s * BURST_SECONDS))


def _fallback(rooms: Rooms, spec: EndpointSpec, route: Route) -> ServedModel | None:
    """The version that the live release replaced, where the builder declared it as the fallback."""
    if spec.fallback is None:
        return None
    replaced = rooms.releases.show(route.release).replaces
    if replaced is None:
        return None
    before = rooms.releases.show(replaced)
    return _model(rooms, VersionRef.parse(before.version), before.release)


def _model(rooms: Rooms, version: VersionRef, release: str) -> ServedModel:
    digest, path = rooms.place_model(version)
    signature = rooms.registry.signature(version)
    return ServedModel(
        version=str(version), release=release, artifact=digest, path=path, signature=signature,
        feature_columns={
            lookup.feature_set: rooms.features.online_columns(lookup.feature_set) for lookup in signature.lookups
        },
    )  # fmt: skip
