"""What a manifest says to policy: its own policies, and what is known of the things that it declares."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

import msgspec

from taut.core.errors import InvalidInput
from taut.project.manifest import Classification, DatasetSpec, GraphSpec, Manifest
from taut.trust.identity import Principal
from taut.trust.policy import Attributes, Policy

_NARROWER: Final[tuple[str, ...]] = get_args(Classification)
_MONDAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_HOURS: Final = 24 * 7
NEEDED: Final = ("plan.apply", "policy.admin")
"""What somebody must still be able to do, so that policies can be changed again."""


def policy_of(manifest: Manifest | None) -> Policy:
    """Return the policies that hold under a manifest. Raises InvalidInput when they do not hold together."""
    if manifest is None:
        return Policy()
    return Policy(manifest.policies, resources=attributes_of(manifest))


def attributes_of(manifest: Manifest) -> dict[str, Attributes]:
    """Return what is known of everything that a manifest declares, as `kind:name`; under "" what holds for the rest.

    A model is classified as its dataset is, a graph as the narrowest of its models, an endpoint as what it serves.
    """
    common = Attributes(environment=manifest.environment)
    datasets = {spec.name: _of_dataset(spec, manifest.environment) for spec in manifest.datasets}
    found = {"": common, **{f"dataset:{name}": about for name, about in datasets.items()}}
    models: dict[str, Attributes] = {}
    for model in manifest.models:
        models[model.name] = msgspec.structs.replace(datasets.get(model.dataset, common), risk=model.risk)
    for graph in manifest.graphs:
        models[graph.name] = _of_graph(graph, models, common)
    for feature in manifest.features:
        used = [datasets[name] for name in feature.sources if name in datasets]
        found[f"features:{feature.name}"] = _joined(used, common)
    for endpoint in manifest.endpoints:
        found[f"endpoint:{endpoint.name}"] = models.get(endpoint.model, common)
    return found | {f"model:{name}": about for name, about in models.items()}


def rights_touched(old: Manifest | None, new: Manifest) -> tuple[str, ...]:
    """Return what a new manifest changes of what policies say, or of what they see in things that were there before.

    Whoever may change it changes rights: a dataset that is called public by and by is one that more may read. Without
    policies of the project nothing looks at what is known of things. Empty where rights stay as they are.
    """
    before = old or Manifest()
    left, right = {spec.name: spec for spec in before.policies}, {spec.name: spec for spec in new.policies}
    found = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    if old is not None and (before.policies or new.policies):
        seen, will = attributes_of(old), attributes_of(new)
        found += sorted(name or "project" for name in seen if will.get(name, will[""]) != seen[name])
    return tuple(found)


def policy_faults(manifest: Manifest, administrators: tuple[Principal, ...]) -> Iterator[str]:
    """Yield why a manifest's policies must not hold: what is wrong in them, or that they shut out whoever could mend them.

    administrators: everybody who is one; nobody is asked where none are named.
    """
    try:
        policy = policy_of(manifest)
    except InvalidInput as error:
        yield error.message
        return
    by = _shut_out(policy, administrators, manifest) if manifest.policies and administrators else ()
    if by:
        yield (
            f"no administrator could {' and '.join(NEEDED)} any more at any hour, because of {', '.join(by)}: leave one of "
            "them the right. Who is shut out already comes back with `taut break-glass start --reason ...`, under the "
            "built-in policies alone"
        )


def _shut_out(policy: Policy, administrators: tuple[Principal, ...], manifest: Manifest) -> tuple[str, ...]:
    """Return the reasons when no administrator may do what is needed at any hour of a week; nothing where one may."""
    reasons: set[str] = set()
    wanted = (("plan.apply", f"project:{manifest.project}"), ("policy.admin", "policy:project"))
    timed = any("hour" in spec.text or "weekday" in spec.text for spec in manifest.policies)
    for hour in range(_HOURS if timed else 1):
        now = _MONDAY + timedelta(hours=hour)
        for person, local in ((person, local) for person in administrators for local in (True, False)):
            context = {"plane": "control", "local": local, "now": now, "environment": manifest.environment}
            decisions = [policy.decide(person, action, resource, context) for action, resource in wanted]
            denied = [decision for decision in decisions if not decision.allow]
            if not denied:
                return ()
            for decision in denied:
                reasons.update(policy_places(policy, decision.policies) or decision.reasons)
    return tuple(sorted(reasons))


def policy_places(policy: Policy, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return policies by name and place, for people."""
    found = (policy.statement(id_) for id_ in ids)
    return tuple(f"{one.id} ({one.place})" if one.id != one.place else one.place for one in found if one)


def _of_dataset(spec: DatasetSpec, environment: str) -> Attributes:
    personal = spec.subject is not None or any(column.personal for column in spec.contract.columns)
    return Attributes(
        environment=environment,
        classification=spec.classification or ("confidential" if personal else "internal"),
        owner=spec.owner,
        purpose=spec.purpose,
    )


def _of_graph(graph: GraphSpec, models: dict[str, Attributes], common: Attributes) -> Attributes:
    used = [models[name] for name in (getattr(node, "model", None) for node in graph.nodes) if name in models]
    return msgspec.structs.replace(_joined(used, common), risk=graph.risk)


def _joined(used: list[Attributes], common: Attributes) -> Attributes:
    """Return what holds for a thing made of several: the narrowest class, and only the purposes that all allow."""
    if not used:
        return common
    narrowest = max(
        (one.classification for one in used), key=lambda word: _NARROWER.index(word) if word else -1
    )
    purposes = [set(one.purpose) for one in used if one.purpose]
    owners = {one.owner for one in used}
    return Attributes(
        environment=common.environment,
        classification=narrowest,
        owner=owners.pop() if len(owners) == 1 else "",
        purpose=tuple(sorted(set.intersection(*purposes))) if purposes else (),
    )
