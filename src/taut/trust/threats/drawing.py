"""Drawing the map of a project from its manifest and the installation's setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taut.project.manifest import DatasetSpec, Manifest
from taut.trust.threats.values import Element, Flow, Kind, Map, Setting, Zone

_FIXED: Final = (
    Element(id="callers", name="callers of endpoints", kind=Kind.PARTY, zone=Zone.OUTSIDE),
    Element(id="people", name="people with accounts", kind=Kind.PARTY, zone=Zone.OUTSIDE),
    Element(id="owner", name="owner of the files", kind=Kind.PARTY, zone=Zone.HOME),
    Element(id="gateways", name="gateways", kind=Kind.PROCESS, zone=Zone.HOME),
    Element(id="grpc", name="gRPC", kind=Kind.PROCESS, zone=Zone.HOME),
    Element(id="control", name="control", kind=Kind.PROCESS, zone=Zone.HOME),
    Element(id="jobs", name="jobs with the project's code", kind=Kind.PROCESS, zone=Zone.CONFINED),
    Element(id="log", name="prediction log", kind=Kind.STORE, zone=Zone.HOME),
    Element(id="serving", name="snapshots and models to serve", kind=Kind.STORE, zone=Zone.HOME),
)
_SOCKET: Final = "Unix socket, for the owner alone"
_FILES: Final = "files of the home, for the owner alone"


def draw(manifest: Manifest, setting: Setting) -> Map:
    """Return the map of what a project's data does in an installation. Parties without a flow are left out."""
    elements = [*_FIXED, *_backing(manifest, setting), *_receivers(setting)]
    elements += [
        Element(id=f"source-{spec.name}", name=f"source of {spec.name}", kind=Kind.PARTY, zone=Zone.OUTSIDE)
        for spec in manifest.datasets
    ]
    elements += [
        Element(id=f"receiver-{spec.name}", name=f"receiver {spec.name} ({spec.kind})", kind=Kind.PARTY, zone=Zone.OUTSIDE)
        for spec in manifest.receivers
    ]  # fmt: skip
    flows = [
        *_platform(setting), *_stored(manifest, setting), *_data(manifest), *_models(manifest, setting),
        *_endpoints(manifest, setting), *_leaving(setting), *_told(manifest),
    ]  # fmt: skip
    used = {id_ for flow in flows for id_ in (flow.source, flow.target)}
    return Map(
        project=manifest.project,
        environment=manifest.environment,
        elements=tuple(sorted((one for one in elements if one.id in used), key=lambda one: one.id)),
        flows=tuple(sorted(flows, key=lambda flow: flow.name)),
    )


def personal_of(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the personal fields that a dataset declares, as `dataset.column`."""
    return tuple(f"{spec.name}.{one.name}" for one in spec.contract.columns if one.personal is not None)


def _backing(manifest: Manifest, setting: Setting) -> Iterator[Element]:
    def store(id_: str, name: str, own: bool) -> Element:
        return Element(id=id_, name=name, kind=Kind.STORE, zone=Zone.HOME if own else Zone.BACKING)

    yield store("records", f"database ({setting.records})", setting.records == "sqlite")
    yield store("blobs", f"objects ({setting.blobs})", setting.blobs == "file")
    yield store("keys", f"keys ({setting.keys})", setting.keys == "file")
    yield store("bus", f"topics of streams ({setting.bus})", setting.bus == "records")
    if any(spec.online for spec in manifest.features):
        yield store("online", "online features", True)
    if any(spec.runtime == "worker" for spec in manifest.endpoints):
        yield Element(id="workers", name="model workers", kind=Kind.PROCESS, zone=Zone.CONFINED)


def _receivers(setting: Setting) -> Iterator[Element]:
    for id_, name, there in (
        ("collector", f"collector of traces at {setting.otlp}", setting.otlp),
        ("provider", f"identity provider {setting.oidc}", setting.oidc),
        ("copy", "copy of the ledger's checkpoints", setting.ledger_copy),
    ):
        if there:
            yield Element(id=id_, name=name, kind=Kind.PARTY, zone=Zone.OUTSIDE)


def _platform(setting: Setting) -> Iterator[Flow]:
    port = _port(setting)
    yield Flow(
        source="people", target="control", what="commands and sign-ins", way=port,
        guard="identity, policy, a leaf for what is done",
    )  # fmt: skip
    yield Flow(
        source="control",
        target="people",
        what="what they may see",
        way=port,
        guard="policy; rows leave a leaf",
    )
    yield Flow(
        source="owner",
        target="control",
        what="commands",
        way=_SOCKET,
        guard="the kernel says who is there",
    )
    yield Flow(
        source="control", target="gateways", what="policy, quotas, routes", way=_SOCKET,
        guard="signed, with an epoch that only grows",
    )  # fmt: skip
    yield Flow(
        source="control", target="serving", what="models and snapshots", way=_FILES, guard="signed, by digest"
    )
    yield Flow(
        source="serving",
        target="gateways",
        what="models and snapshots",
        way=_FILES,
        guard="verified at each load",
    )
    yield Flow(source="grpc", target="gateways", what="calls", way=_SOCKET, guard="identity, policy, quota")
    yield Flow(source="callers", target="grpc", what="calls", way=port, guard="bounds; the gateway decides")


def _stored(manifest: Manifest, setting: Setting) -> Iterator[Flow]:
    own = setting.records == "sqlite"
    way = _FILES if own else "PostgreSQL's protocol, as its URL says"
    yield Flow(
        source="control", target="records", what="states, ledger, lineage", way=way,
        guard="the ledger is a signed Merkle tree; states are not signed",
    )  # fmt: skip
    personal = tuple(field for spec in manifest.datasets for field in personal_of(spec))
    guard = "named by digest; personal fields as declared"
    yield Flow(
        source="control", target="blobs", what="tables, bundles, models", personal=personal,
        way=_FILES if setting.blobs == "file" else "S3 over HTTPS",
        guard=guard + (", all encrypted" if setting.sealed else ""),
    )  # fmt: skip
    if setting.keys != "file":
        yield Flow(
            source="control",
            target="keys",
            what="what is to be signed and wrapped",
            way=setting.keys,
            guard="keys never leave their holder",
        )
    if setting.bus != "records":
        yield Flow(source="bus", target="control", what="requests of streams", way=setting.bus, guard="as the broker guards it; each is judged as a request")  # fmt: skip
        yield Flow(source="control", target="bus", what="answers of streams", way=setting.bus, guard="as the broker guards it")  # fmt: skip


def _data(manifest: Manifest) -> Iterator[Flow]:
    for spec in manifest.datasets:
        yield Flow(
            source=f"source-{spec.name}", target="control", what=f"rows of {spec.name}", way=_scheme(spec.source.url),
            personal=personal_of(spec), guard="contract, bounds, quarantine; personal fields handled as declared before storing",
        )  # fmt: skip
    for feature in manifest.features:
        if feature.online:
            yield Flow(source="control", target="online", what=f"features {feature.name}", way=_FILES, guard="the owner's files")  # fmt: skip
            yield Flow(source="online", target="gateways", what=f"features {feature.name}", way=_FILES, guard="read only; too old ones are not served")  # fmt: skip


def _models(manifest: Manifest, setting: Setting) -> Iterator[Flow]:
    held = f"must have {setting.sandbox}" if setting.sandbox else "what the kernel has"
    confined = f"no network, own files, limits ({held})"
    datasets = {spec.name: spec for spec in manifest.datasets}
    for model in manifest.models:
        spec = datasets.get(model.dataset)
        yield Flow(
            source="control", target="jobs", what=f"training rows of {model.name}", way="files of the run",
            personal=() if spec is None else personal_of(spec), guard=confined,
        )  # fmt: skip
        yield Flow(
            source="jobs", target="control", what=f"model {model.name}", way="files of the run",
            guard="never run by control; scanned, measured again, signed, approved",
        )  # fmt: skip
    for feature in manifest.features:
        yield Flow(source="control", target="jobs", what=f"rows for features {feature.name}", way="files of the run", guard=confined)  # fmt: skip


def _endpoints(manifest: Manifest, setting: Setting) -> Iterator[Flow]:
    port, guard = _port(setting), "identity, policy, quota, types and bounds"
    for spec in manifest.endpoints:
        sent = _sent(manifest, spec.model)
        yield Flow(
            source="callers",
            target="gateways",
            what=f"requests of {spec.name}",
            way=port,
            personal=sent,
            guard=guard,
        )
        yield Flow(
            source="gateways",
            target="callers",
            what=f"answers of {spec.name}",
            way=port,
            guard="finite, of the declared shape",
        )
        if spec.audit != "off":
            yield Flow(source="gateways", target="log", what=f"requests and answers of {spec.name}", way=_FILES, personal=sent, guard="written before the answer leaves; segments are sealed")  # fmt: skip
        if spec.runtime == "worker":
            yield Flow(source="gateways", target="workers", what=f"rows of {spec.name}", way=_SOCKET, personal=sent, guard="no network, no keys, limits")  # fmt: skip


def _sent(manifest: Manifest, asked: str) -> tuple[str, ...]:
    """Return the personal fields that callers send to a model, or to the models of a graph."""
    graph = next((spec for spec in manifest.graphs if spec.name == asked), None)
    names = {asked} if graph is None else {node.model for node in graph.nodes if node.kind == "model"}
    datasets = {spec.name: spec for spec in manifest.datasets}
    found = [
        field
        for model in manifest.models
        if model.name in names and model.dataset in datasets
        for field in personal_of(datasets[model.dataset])
        if field.partition(".")[2] in model.request
    ]
    return tuple(dict.fromkeys(found))


def _told(manifest: Manifest) -> Iterator[Flow]:
    for spec in manifest.receivers:
        guard = "names and figures, no rows" + ("; signed" if spec.secret and spec.kind == "webhook" else "")
        yield Flow(
            source="control", target=f"receiver-{spec.name}", what=f"alerts to {spec.name}", way=_scheme(spec.url), guard=guard,
        )  # fmt: skip


def _leaving(setting: Setting) -> Iterator[Flow]:
    if setting.otlp:
        yield Flow(source="gateways", target="collector", what="traces without values", way=_scheme(setting.otlp), guard="names and times only")  # fmt: skip
    if setting.oidc:
        yield Flow(source="control", target="provider", what="sign-ins", way=_scheme(setting.oidc), guard="code and PKCE; signatures of the provider's keys")  # fmt: skip
    if setting.ledger_copy:
        yield Flow(source="control", target="copy", what="signed checkpoints", way="a folder", guard="signed; no content")  # fmt: skip


def _port(setting: Setting) -> str:
    if not setting.tls:
        return "HTTP on loopback"
    return "TLS 1.3 with clients' certificates" if setting.client_certificates else "TLS 1.3"


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return scheme if separator else "files of the machine"
