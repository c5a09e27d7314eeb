"""Freezing declarations into a manifest, with every reference resolved and every problem named at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from taut.core.errors import InvalidInput, TautError
from taut.core.schema import DType
from taut.project.alerting import Contain, Receiver
from taut.project.contract import dataset_faults
from taut.project.datasets import Dataset
from taut.project.declare import Collection, Declaration
from taut.project.drills import Drill, drill_faults
from taut.project.endpoints import Endpoint, Project
from taut.project.graph_check import Answering, answering, graph_faults
from taut.project.graphs import Graph
from taut.project.manifest import (
    ContractSpec,
    DatasetSpec,
    EndpointSpec,
    FeaturesSpec,
    FreezeSpec,
    Manifest,
    ModelSpec,
    QuotaSpec,
)
from taut.project.pipelines import FeatureSet, Model
from taut.project.playbooks import Playbook, playbook_faults
from taut.project.policies import read_policy_files
from taut.project.quotas import Quota
from taut.project.rules import slo_faults
from taut.project.scaling import Autoscale, autoscale_faults
from taut.project.triggers import trigger_faults
from taut.project.windows import Freeze, window
from taut.project.words import nearest

_TIMES = (DType.DATE, DType.DATETIME)
Environment = Literal["development", "staging", "production"]


def freeze(
    collection: Collection, root: Path, *, bundle: str = "", environment: str | None = None
) -> Manifest:
    """Turn what a project declared into a manifest.

    root: the project's folder. bundle: digest of its code. environment: overrides what the project says.
    Raises InvalidInput that lists every problem with its place in the project's files.
    """
    problems: list[str] = []
    datasets = [
        spec
        for declaration in collection.of("dataset")
        if (spec := _dataset(declaration, root, problems)) is not None
    ]
    features = [cast(FeatureSet, item.thing).spec for item in collection.of("feature set")]
    models = [cast(Model, item.thing).spec for item in collection.of("model")]
    graphs = [cast(Graph, item.thing).spec for item in collection.of("graph")]
    endpoints = [
        endpoint
        for declaration in collection.of("endpoint")
        if (endpoint := _endpoint(declaration, root, problems)) is not None
    ]
    settings = [cast(Project, item.thing) for item in collection.of("project")]
    stage = environment or (settings[0].environment if settings else "development")
    manifest = Manifest(
        project=settings[0].name if settings else "default",
        environment=cast(Environment, stage),
        datasets=tuple(sorted(datasets, key=_by_name)),
        features=tuple(sorted(features, key=_by_name)),
        models=tuple(sorted(models, key=_by_name)),
        graphs=tuple(sorted(graphs, key=_by_name)),
        endpoints=tuple(sorted(endpoints, key=_by_name)),
        policies=read_policy_files(root),
        receivers=tuple(
            sorted((cast(Receiver, item.thing).spec for item in collection.of("receiver")), key=_by_name)
        ),
        containments=tuple(
            sorted((cast(Contain, item.thing).spec for item in collection.of("containment")), key=_by_name)
        ),
        playbooks=tuple(
            sorted((cast(Playbook, item.thing).spec for item in collection.of("playbook")), key=_by_name)
        ),
        freezes=tuple(
            sorted((cast(Freeze, item.thing).spec for item in collection.of("freeze")), key=_by_name)
        ),
        drills=tuple(sorted((cast(Drill, item.thing).spec for item in collection.of("drill")), key=_by_name)),
        quotas=tuple(sorted((cast(Quota, item.thing).spec for item in collection.of("quota")), key=_by_name)),
        autoscalers=tuple(
            sorted((cast(Autoscale, item.thing).spec for item in collection.of("autoscaler")), key=_by_name)
        ),
        bundle=bundle,
        root=str(root),
    )
    if not problems:  # a dataset that could not be read would make every reference to it look wrong too
        places = {(item.kind, item.name): f"{item.place}: " for item in collection.declarations}
        found = (*check_contracts(manifest), *check_references(manifest))
        problems += [places.get((kind, name), "") + said for kind, name, said in found]
        problems += list(_undeclared(collection))
    if problems:
        count = "" if len(problems) == 1 else f"{len(problems)} problems in the project:\n- "
        raise InvalidInput(count + "\n- ".join(problems))
    return _valid(manifest)


Problem = tuple[str, str, str]
"""Kind and name of the thing, and what is wrong with it."""


def check_contracts(manifest: Manifest) -> Iterator[Problem]:
    """Yield where a dataset contradicts itself. Pure, so that the plan gate repeats it on what it was sent."""
    for dataset in manifest.datasets:
        for said in dataset_faults(dataset):
            yield "dataset", dataset.name, f"dataset {dataset.name!r}: {said}"


def check_references(manifest: Manifest) -> Iterator[Problem]:
    """Yield what is wrong with names, references and columns across a manifest. Pure, like `check_contracts`."""
    datasets = {spec.name: spec for spec in manifest.datasets}
    features = {spec.name: spec for spec in manifest.features}
    models = {spec.name: spec for spec in manifest.models}
    endpoints = {spec.name: spec for spec in manifest.endpoints}
    for kind, specs in (
        ("dataset", manifest.datasets), ("feature set", manifest.features),
        ("model", manifest.models), ("graph", manifest.graphs), ("endpoint", manifest.endpoints),
        ("receiver", manifest.receivers), ("containment", manifest.containments), ("quota", manifest.quotas),
        ("autoscaler", manifest.autoscalers), ("playbook", manifest.playbooks), ("freeze", manifest.freezes),
        ("drill", manifest.drills),
    ):  # fmt: skip
        names = [spec.name for spec in cast(tuple[Any, ...], specs)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield kind, name, f"{kind} {name!r} is there twice: rename or remove one"
    for feature in manifest.features:
        for source in feature.sources:
            if source not in datasets:
                yield (
                    "feature set",
                    feature.name,
                    f"feature set {feature.name!r}: no dataset {source!r}{nearest(source, datasets)}",
                )
    for model in manifest.models:
        for said in _check_model(model, datasets, features):
            yield "model", model.name, f"model {model.name!r}: {said}"
    for graph in manifest.graphs:
        for said in graph_faults(graph, models):
            yield "graph", graph.name, f"graph {graph.name!r}: {said}"
    answers, graphs = answering(manifest), {spec.name for spec in manifest.graphs}
    for endpoint in manifest.endpoints:
        for said in _check_endpoint(endpoint, answers, endpoints, graphs):
            yield "endpoint", endpoint.name, f"endpoint {endpoint.name!r}: {said}"
    yield from _check_named_endpoints(manifest, endpoints)
    yield from _check_autoscalers(manifest)
    yield from playbook_faults(manifest)
    yield from drill_faults(manifest)


def _check_named_endpoints(manifest: Manifest, endpoints: dict[str, EndpointSpec]) -> Iterator[Problem]:
    for containment in manifest.containments:
        for name in containment.allow:
            if name not in endpoints:
                said = f"containment {containment.name!r}: no endpoint {name!r}{nearest(name, endpoints)}"
                yield "containment", containment.name, said
    for one in manifest.freezes:
        for said in _check_freeze(one, endpoints):
            yield "freeze", one.name, f"freeze {one.name!r}: {said}"
    for quota in manifest.quotas:
        for said in _check_quota(quota, endpoints):
            yield "quota", quota.name, f"quota {quota.name!r}: {said}"


def _check_freeze(spec: FreezeSpec, endpoints: dict[str, EndpointSpec]) -> Iterator[str]:
    for name in spec.endpoints:
        if name not in endpoints:
            yield f"no endpoint {name!r}{nearest(name, endpoints)}"
    try:
        window(spec, datetime(2026, 1, 1, tzinfo=UTC))
    except InvalidInput as error:
        yield error.message


def _check_quota(quota: QuotaSpec, endpoints: dict[str, EndpointSpec]) -> Iterator[str]:
    for name in quota.endpoints:
        if name not in endpoints:
            yield f"no endpoint {name!r}{nearest(name, endpoints)}"
    priced = any(
        one.price for name, one in endpoints.items() if not quota.endpoints or name in quota.endpoints
    )
    if (quota.usd_per_day or quota.usd_per_month) and not priced:
        yield "it counts dollars, and none of its endpoints has a price: give one price=taut.Price(...)"


def _check_autoscalers(manifest: Manifest) -> Iterator[Problem]:
    for spec in manifest.autoscalers:
        for said in autoscale_faults(spec):
            yield "autoscaler", spec.name, f"autoscaler {spec.name!r}: {said}"


def _check_model(
    spec: ModelSpec, datasets: dict[str, DatasetSpec], features: dict[str, FeaturesSpec]
) -> Iterator[str]:
    dataset = datasets.get(spec.dataset)
    if dataset is None:
        yield f"no dataset {spec.dataset!r}{nearest(spec.dataset, datasets)}"
        return
    contract = dataset.contract
    yield from _column(contract, spec.label, "label")
    if spec.label_at is not None:
        yield from _column(contract, spec.label_at, "label_at", types=_TIMES)
    for column in spec.request:
        yield from _column(contract, column, "request")
    yield from _check_gates(spec, contract)
    for hidden in (spec.label, spec.label_at):
        if hidden is not None and hidden in spec.request:
            yield f"request names {hidden!r}, which nobody knows before the answer: remove it"
    if dataset.event_time is None:
        yield f"dataset {dataset.name!r} has no event_time, by which it is split and joined: name that column"
    yield from _check_joins(spec, features)
    yield from trigger_faults(spec, set(datasets), {column.name: column for column in contract.columns})


def _check_gates(spec: ModelSpec, contract: ContractSpec) -> Iterator[str]:
    names = [rule.name for rule in spec.gates]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"gates have {name!r} more than once: keep one"
    if spec.features:  # what they give is known once they are built
        return
    for rule in spec.gates:
        for column in rule.columns:
            yield from _column(contract, column, f"gate {rule.kind}")


def _check_joins(spec: ModelSpec, features: dict[str, FeaturesSpec]) -> Iterator[str]:
    keys: set[str] = set()
    for name in spec.features:
        feature = features.get(name)
        if feature is None:
            yield f"no feature set {name!r}{nearest(name, features)}"
            continue
        keys.update(feature.entity)
        for column in feature.entity:
            if column not in spec.request and column not in spec.on.values():
                yield (
                    f"feature set {name!r} is keyed by {column!r}, which no request column gives: add it to request, "
                    f'or map one to it, on={{"request column": {column!r}}}'
                )
    for left, right in spec.on.items():
        if left not in spec.request:
            yield f"on maps {left!r}, which is no request column{nearest(left, spec.request)}"
        if (
            right not in keys and left not in keys
        ):  # a key under its own name joins as it is, whatever it is called elsewhere
            yield f"on maps {left!r} to {right!r}, which keys none of its feature sets{nearest(right, keys)}"


def _check_endpoint(
    spec: EndpointSpec,
    models: dict[str, Answering],
    endpoints: dict[str, EndpointSpec],
    graphs: set[str],
) -> Iterator[str]:
    model = models.get(spec.model)
    if model is None:
        yield f"no model {spec.model!r}{nearest(spec.model, models)}"
        return
    if spec.audit == "off" and model.risk != "low":
        yield f'audit="off" is for low risk only, and model {model.name!r} is of {model.risk} risk'
    if spec.slo is not None:
        yield from slo_faults(spec.slo)
    if spec.hedge_after is not None and (spec.workers < 2 or spec.runtime == "inline"):
        yield 'hedge_after asks a second worker: give it workers=2 or more, and no runtime="inline"'
    if spec.hedge_after is not None and spec.model in graphs:
        yield "hedge_after asks a second worker of one model, and this is a graph: remove it"
    if spec.spares and spec.runtime == "inline":
        yield 'spares wait for workers, and runtime="inline" has none: leave one of them out'
    if spec.placement not in ("auto", "cpu") and spec.runtime == "inline":
        yield f'placement={spec.placement!r} is for workers, and runtime="inline" has none: leave one of them out'
    if spec.profile == "throughput" and spec.runtime == "inline":
        yield 'profile="throughput" is for batches, which only workers make, and runtime="inline" has none: leave one of them out'
    for fallback in spec.fallback:
        if fallback.endpoint is not None:
            yield from _check_simpler(
                spec, model, endpoints.get(fallback.endpoint), fallback.endpoint, models
            )


def _check_simpler(
    spec: EndpointSpec, model: Answering, other: EndpointSpec | None, name: str, models: dict[str, Answering]
) -> Iterator[str]:
    """Yield why the model of endpoint `name` cannot stand in, as far as that can be said before it is trained."""
    said = f"fallback simpler_model names endpoint {name!r}"
    simpler = None if other is None else models.get(other.model)
    if other is None or simpler is None or name == spec.name:
        yield f"{said}, which is {'itself' if name == spec.name else 'not declared'}"
        return
    if simpler.label != model.label:
        yield f"{said}, whose model predicts {simpler.label!r}, not {model.label!r}"
    for word, own, known in (
        ("request column", simpler.request, model.request),
        ("feature set", simpler.features, model.features),
    ):
        more = sorted(set(own) - set(known))
        if more:
            yield f"{said}, whose model needs {word} {more[0]!r}, which this one does not"
    if model.risk == "high" and simpler.risk != "high":
        yield f"{said}, whose model is of {simpler.risk} risk: a model of high risk is stood in for by such a one only"


def _column(
    contract: ContractSpec, name: str, word: str, *, types: tuple[DType, ...] | None = None
) -> Iterator[str]:
    found = next((column for column in contract.columns if column.name == name), None)
    if found is None:
        yield f"{word} names a column {name!r}{nearest(name, [column.name for column in contract.columns])}"
    elif types is not None and found.dtype not in types:
        yield f"{word} {name!r} is of type {found.dtype}: it must be {' or '.join(types)}"


def _dataset(declaration: Declaration, root: Path, problems: list[str]) -> DatasetSpec | None:
    dataset = cast(Dataset, declaration.thing)
    try:
        return dataset.spec(root)
    except TautError as error:
        problems.append(f"{declaration.place}: dataset {dataset.name!r}: {error}")
        return None


def _endpoint(declaration: Declaration, root: Path, problems: list[str]) -> EndpointSpec | None:
    endpoint = cast(Endpoint, declaration.thing)
    try:
        return endpoint.frozen(root)
    except TautError as error:
        problems.append(f"{declaration.place}: endpoint {endpoint.name!r}: {error}")
        return None


def _undeclared(collection: Collection) -> Iterator[str]:
    """Things that the project uses but that were made outside it, for example by an installed package."""
    declared = {id(declaration.thing) for declaration in collection.declarations}
    for item in collection.declarations:
        used: list[tuple[str, Any]] = []
        if isinstance(item.thing, FeatureSet):
            used = [("dataset", source) for source in item.thing.sources]
        elif isinstance(item.thing, Model):
            used = [("dataset", item.thing.dataset), *(("feature set", each) for each in item.thing.features)]
        elif isinstance(item.thing, Endpoint):
            used = [("graph" if isinstance(item.thing.model, Graph) else "model", item.thing.model)]
        elif isinstance(item.thing, Graph):
            used = [("model", model) for model in item.thing.models]
        for kind, thing in used:
            if id(thing) not in declared:
                yield (
                    f"{item.place}: {item.kind} {item.name!r} uses {kind} {thing.name!r} of {thing.place}, which is not "
                    "declared while this project loads: declare it in the project's own files"
                )


def _valid(manifest: Manifest) -> Manifest:
    """Prove that the manifest survives being written and read, types and all."""
    try:
        return msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidInput(f"a declaration holds a value of the wrong type: {error}") from error


def _by_name(spec: Any) -> str:
    return cast(str, spec.name)
