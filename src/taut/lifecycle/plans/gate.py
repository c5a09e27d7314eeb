"""The plan gate: what must be true of a manifest and its bundle before they become the project."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.evidence import Check, Evidence, Gate, Outcome, Scalar, run_checks
from taut.core.refs import Kind, Ref
from taut.lifecycle.plans.diff import Change
from taut.lifecycle.plans.playbooks import playbook_faults
from taut.lifecycle.plans.policies import policy_faults
from taut.project.bundle import parse_bundle
from taut.project.declared import judged_specs
from taut.project.freeze import Problem, check_contracts, check_references
from taut.project.manifest import FunctionRef, Manifest
from taut.trust.identity import Principal

PLAN_GATE: Final = Gate(
    name="plan",
    required=frozenset(
        {"manifest", "contracts", "references", "bundle", "removals", "environment", "policies", "playbooks"}
    ),
)


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate must know besides the plan.

    live: endpoints that carry traffic now. administrators: whom policies must not shut out all together. services: by whose
    rights playbooks may act.
    """

    live: frozenset[str] = frozenset()
    administrators: tuple[Principal, ...] = ()
    services: tuple[Principal, ...] = ()
    allow_removal: bool = False


def plan_evidence(
    manifest: Manifest, bundle: bytes, changes: tuple[Change, ...], surroundings: Surroundings
) -> Evidence:
    """Look at everything that the gate decides by. Never raises: what cannot be looked at is evidence too."""
    checks = run_checks(
        (
            ("manifest", lambda: _manifest(manifest)),
            ("contracts", lambda: _problems("contracts", check_contracts(manifest))),
            ("references", lambda: _problems("references", check_references(manifest))),
            ("bundle", lambda: _bundle(manifest, bundle)),
            ("removals", lambda: _removals(changes, surroundings)),
            ("environment", lambda: _environment(manifest)),
            ("policies", lambda: _check("policies", policy_faults(manifest, surroundings.administrators))),
            ("playbooks", lambda: _check("playbooks", playbook_faults(manifest, surroundings.services))),
        )
    )
    facts: dict[str, Scalar] = {
        "project": manifest.project,
        "environment": manifest.environment,
        "changes": len(changes),
    }
    return Evidence(subject=str(Ref(Kind.PLAN, manifest.digest)), checks=checks, facts=facts)


def _check(name: str, said: Iterable[str]) -> Check:
    problems = tuple(said)
    if not problems:
        return Check(name=name, outcome=Outcome.PASSED)
    return Check(name=name, outcome=Outcome.FAILED, message="; ".join(problems))


def _manifest(manifest: Manifest) -> Check:
    again = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    return _check("manifest", () if again == manifest else ("it changes when it is written and read",))


def _problems(name: str, problems: Iterator[Problem]) -> Check:
    return _check(name, (said for _, _, said in problems))


def _bundle(manifest: Manifest, data: bytes) -> Check:
    if digest_bytes(data) != manifest.bundle:
        return _check(
            "bundle", (f"its bytes have digest {digest_bytes(data)}, the manifest names {manifest.bundle}",)
        )
    files = parse_bundle(data).files
    functions = [("feature set", spec.name, spec.function) for spec in manifest.features]
    functions += [("model", spec.name, spec.function) for spec in manifest.models]
    return _check(
        "bundle",
        (
            f"{kind} {name!r} is function {function.qualname!r} of module {function.module!r}, which the bundle lacks"
            for kind, name, function in functions
            if not _holds(files, function)
        ),
    )


def _holds(files: dict[str, bytes], function: FunctionRef) -> bool:
    path = function.module.replace(".", "/")
    return f"{path}.py" in files or f"{path}/__init__.py" in files


def _removals(changes: tuple[Change, ...], surroundings: Surroundings) -> Check:
    if surroundings.allow_removal:
        return _check("removals", ())
    return _check(
        "removals",
        (
            f"endpoint {change.name!r} carries traffic and would be removed: keep it, or pass --allow-removal"
            for change in changes
            if change.action == "remove" and change.kind == "endpoint" and change.name in surroundings.live
        ),
    )


def _environment(manifest: Manifest) -> Check:
    """Production asks for people, steps and records; development and staging do not."""
    if manifest.environment != "production":
        return _check("environment", ())
    models = {spec.name: spec for spec in judged_specs(manifest)}
    said = [
        f"model {spec.name!r} needs nobody's approval: production needs approval=taut.approval(1) or more"
        for spec in judged_specs(manifest)
        if spec.approvals < 1
    ]
    for endpoint in manifest.endpoints:
        risk = models[endpoint.model].risk if endpoint.model in models else "high"
        if risk == "high" and endpoint.release.kind == "direct":
            said.append(
                f"endpoint {endpoint.name!r} of high risk is released at once: use release=taut.Canary(...)"
            )
        if risk == "high" and endpoint.audit != "power-safe":
            said.append(f'endpoint {endpoint.name!r} of high risk keeps too little: use audit="power-safe"')
        if endpoint.audit == "off":
            said.append(
                f'endpoint {endpoint.name!r} keeps no record of its answers: production needs audit="crash-safe"'
            )
    return _check("environment", said)
