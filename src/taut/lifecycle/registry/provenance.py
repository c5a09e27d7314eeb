"""How a version was made, as a statement that other tools read: in-toto Statement v1 with SLSA's provenance v1.

Source: in-toto attestation framework v1.1 (statement, resource descriptor); SLSA v1.1, https://slsa.dev/provenance/v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from taut import __version__
from taut.core.errors import Corrupt
from taut.core.refs import VersionRef
from taut.lifecycle.registry.values import Candidate
from taut.ports.keys import Keys, PublicKey
from taut.trust.signing import SignedStatement, sign_statement, verify_statement
from taut.trust.signing.models import Manifest

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
_BUILDER: Final = "urn:taut:builder:v1"
_BUILD_TYPES: Final = {name: f"urn:taut:build:{name}:v1" for name in ("train", "optimise", "compose")}

Json = dict[str, Any]


def sign_provenance(
    keys: Keys, ref: VersionRef, candidate: Candidate, parents: Mapping[str, str]
) -> SignedStatement:
    """Sign how a version was made, with the key for provenance.

    parents: versions that it was made from, with the digests of their artifacts.
    """
    payload = {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(ref, {name: file.digest for name, file in candidate.files.items()}),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": _definition(candidate, parents),
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"taut": __version__}},
                "metadata": _metadata(candidate),
            },
        },
    }
    return sign_statement(keys, purpose="provenance", payload_type=PAYLOAD_TYPE, payload=payload)


def read_provenance(
    statement: SignedStatement, public_keys: Iterable[PublicKey], ref: VersionRef, manifest: Manifest
) -> Json:
    """Verify a statement and return it, when it speaks of the version whose verified manifest is given.

    Raises Denied when no trusted key signed it; Corrupt when it was changed, or speaks of other files, code, packages or
    data than the manifest.
    """
    found = verify_statement(statement, public_keys, payload_type=PAYLOAD_TYPE)
    try:
        definition = found["predicate"]["buildDefinition"]
        told = (found["_type"], found["predicateType"], found["subject"])
        materials = {item["name"]: item.get("digest") for item in definition["resolvedDependencies"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"the provenance of {ref} lacks what a provenance has: {error}") from error
    subjects = _subjects(ref, {name: file.digest for name, file in manifest.files.items()})
    if told != (STATEMENT_TYPE, PREDICATE_TYPE, subjects):
        raise Corrupt(f"the provenance of {ref} speaks of something else: it was swapped; restore it")
    signed = {**manifest.payload["code"], "table": manifest.payload["data"]}
    for name, digest in signed.items():
        if materials.get(name) != _digest(digest):
            raise Corrupt(f"the provenance of {ref} names another {name} than its signed manifest")
    return found


def _subjects(ref: VersionRef, files: Mapping[str, str]) -> list[Json]:
    return [{"name": f"{ref}/{name}", "digest": _digest(digest)} for name, digest in sorted(files.items())]


def _definition(candidate: Candidate, parents: Mapping[str, str]) -> Json:
    activity = "optimise" if candidate.variant else "compose" if candidate.nodes else "train"
    asked: Json = {"model": candidate.model, "label": candidate.label, "seed": candidate.seed, "params": candidate.params}  # fmt: skip
    if candidate.variant is not None:
        asked["variant"] = candidate.variant.name
    if candidate.nodes:
        asked["nodes"] = candidate.nodes
    return {
        "buildType": _BUILD_TYPES[activity],
        "externalParameters": asked,
        "internalParameters": {"environment": candidate.environment},
        "resolvedDependencies": [
            {"name": "bundle", "uri": "taut:bundle", "digest": _digest(candidate.bundle)},
            {"name": "lock", "uri": "taut:lock", "digest": _digest(candidate.lock)},
            {"name": "table", "uri": "taut:table", "digest": _digest(candidate.data)},
            *(_named("snapshot", it, candidate.materials.get(it)) for it in sorted(candidate.snapshots.values())),
            *(_named("features", it, None) for it in sorted(candidate.features.values())),
            *(_named("model", it, digest) for it, digest in sorted(parents.items())),
        ],
    }  # fmt: skip


def _metadata(candidate: Candidate) -> Json:
    found = {"invocationId": candidate.run}
    if candidate.times is not None:
        began, ended = (time.isoformat().replace("+00:00", "Z") for time in candidate.times)
        found |= {"startedOn": began, "finishedOn": ended}
    return found


def _named(kind: str, name: str, digest: str | None) -> Json:
    found: Json = {"name": name, "uri": f"taut:{kind}:{name}"}
    return found if digest is None else {**found, "digest": _digest(digest)}


def _digest(text: str) -> dict[str, str]:
    algorithm, _, value = text.partition(":")
    return {algorithm: value}
