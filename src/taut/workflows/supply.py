"""What a model version is made of, as a bill of materials: artifact, code, packages, data, and the models before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from taut import __version__
from taut.core.errors import Corrupt, NotFound
from taut.core.evidence import Check, Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.registry import Candidate, VersionInfo
from taut.project.manifest import DatasetSpec
from taut.trust.supply import (
    Component,
    Vulnerability,
    bill,
    hash_of,
    library,
    library_edges,
    packages_of,
    properties,
    roots,
)
from taut.workflows.rooms import Rooms

_SAID_MAX: Final = 5
_TASKS: Final = {"probability": "classification", "value": "regression"}


def model_bill(rooms: Rooms, ref: VersionRef) -> dict[str, Any]:
    """Return the bill of materials of a version as CycloneDX 1.6, with its model card (ML-BOM).

    What it names is believed first: signature, files and provenance of the version are verified. Raises as
    `Registry.load` and `verify_provenance` do, and NotFound where the packages of its run were not kept.
    """
    rooms.registry.verify(ref)
    rooms.registry.verify_provenance(ref)
    info = rooms.registry.show(ref)
    candidate = info.candidate
    libraries = packages_of(locked_versions(rooms, candidate.lock))
    data = list(_datasets(rooms, candidate))
    before = list(_before(rooms, candidate))
    code: Component = {
        "type": "file", "bom-ref": f"taut:bundle:{candidate.bundle}", "name": "code of the project",
        "hashes": hash_of(candidate.bundle),
    }  # fmt: skip
    _, card = rooms.registry.card(ref)
    subject = _model(info, [str(one["bom-ref"]) for one in data], card["limits"])
    edges = {
        **library_edges(libraries),
        subject["bom-ref"]: [one["bom-ref"] for one in (code, *data, *before)],
        code["bom-ref"]: roots(libraries),
    }
    components = [code, *data, *before, *(library(one) for one in libraries)]
    return bill(subject, components, edges, at=info.created_at, tool_version=__version__)


def audit_of(rooms: Rooms, lock: str) -> Callable[[], Check] | None:
    """Return the model gate's look for known vulnerabilities in the packages of a run; None where nobody mirrors any.

    A look that could not be made raises, so that the gate rejects.
    """
    advisories = rooms.watches.advisories
    if advisories is None:
        return None

    def look() -> Check:
        found = advisories.audit(locked_versions(rooms, lock), now=rooms.clock.now())
        if found.found:
            said = "; ".join(told(one) for one in found.found[:_SAID_MAX])
            more = f"; and {len(found.found) - _SAID_MAX} more" if len(found.found) > _SAID_MAX else ""
            said = f"{said}{more}"
            return Check(name="dependencies", outcome=Outcome.FAILED, message=said, observed=len(found.found))
        said = f"none of {found.packages} packages is among {found.advisories:,} advisories of {found.newest:%Y-%m-%d}"
        return Check(name="dependencies", outcome=Outcome.PASSED, message=said, observed=0)

    return look


def told(one: Vulnerability) -> str:
    """Say a vulnerability in a line."""
    mended = f", mended in {' or '.join(one.fixed_in)}" if one.fixed_in else ""
    return f"{one.package} {one.version} has {one.id}{mended}"


def locked_versions(rooms: Rooms, lock: str) -> dict[str, str]:
    """Return name -> version of the packages that a run had. Raises NotFound where they were not kept."""
    if rooms.blobs.size(lock) is None:
        raise NotFound(f"the packages {lock} of the run were not kept: train again")
    try:
        return msgspec.json.decode(rooms.blobs.read(lock), type=dict[str, str])
    except msgspec.DecodeError as error:
        raise Corrupt(f"the list of packages {lock} cannot be read: {error}") from error


def _model(info: VersionInfo, datasets: list[str], limits: list[str]) -> Component:
    candidate, signature = info.candidate, info.candidate.signature
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(info.ref),
        "name": info.ref.name,
        "version": str(info.ref.number),
        "description": candidate.description or f"{info.ref}, trained by run {candidate.run}",
        "authors": [{"name": candidate.author}],
        "hashes": hash_of(candidate.artifact.digest),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": _TASKS[signature.output],
                "modelArchitecture": candidate.model_kind or signature.form,
                "datasets": [{"ref": ref} for ref in datasets],
                "inputs": [{"format": f"{one.column.name}: {one.column.dtype}"} for one in signature.inputs],
                "outputs": [{"format": signature.output}],
            },
            "quantitativeAnalysis": {
                "performanceMetrics": [
                    {"type": name, "value": f"{value:.6g}", "slice": "held out"}
                    for name, value in sorted(candidate.metrics.items())
                ]
            },
            "considerations": {"technicalLimitations": limits},
        },
        "properties": properties(
            {
                "form": signature.form, "state": info.state, "risk": candidate.risk, "run": candidate.run,
                "seed": candidate.seed, "training-table": candidate.data, "lock": candidate.lock,
                **{f"file:{name}": file.digest for name, file in sorted(candidate.files.items())},
            }
        ),
    }  # fmt: skip


def _datasets(rooms: Rooms, candidate: Candidate) -> Iterator[Component]:
    for version in sorted(candidate.snapshots.values()):
        ref = VersionRef.parse(version)
        spec, snapshot = rooms.data.spec(ref), rooms.data.snapshot(ref)
        digest = candidate.materials.get(version)
        yield {
            "type": "data",
            "bom-ref": f"taut:snapshot:{version}",
            "name": ref.name,
            "version": str(ref.number),
            **({} if digest is None else {"hashes": hash_of(digest)}),
            "data": [_contents(spec)],
            "properties": properties(
                {"rows": snapshot.rows, "contract": snapshot.contract_digest, "batch": snapshot.batch}
            ),
        }
    for name, made in sorted(candidate.features.items()):
        yield {
            "type": "data", "bom-ref": f"taut:features:{made}", "name": name, "version": made,
            "data": [{"type": "dataset", "name": name}],
        }  # fmt: skip


def _contents(spec: DatasetSpec) -> dict[str, Any]:
    personal = [column.name for column in spec.contract.columns if column.personal is not None]
    found: dict[str, Any] = {
        "type": "dataset",
        "name": spec.name,
        "classification": spec.classification or ("confidential" if personal else "internal"),
    }
    if spec.description:
        found["description"] = spec.description
    if personal:
        found["sensitiveData"] = personal
    if spec.owner:
        found["governance"] = {"owners": [{"contact": {"name": spec.owner}}]}
    return found


def _before(rooms: Rooms, candidate: Candidate) -> Iterator[Component]:
    """Yield the versions that this one was made from: a variant's origin, a graph's nodes."""
    versions = [*candidate.nodes.values(), *([candidate.variant.origin] if candidate.variant else [])]
    for version in dict.fromkeys(versions):
        info = rooms.registry.show(VersionRef.parse(version))
        yield {
            "type": "machine-learning-model", "bom-ref": _ref(info.ref), "name": info.ref.name,
            "version": str(info.ref.number), "hashes": hash_of(info.candidate.artifact.digest),
        }  # fmt: skip


def _ref(ref: VersionRef) -> str:
    return f"taut:model:{ref}"
