"""Bills of materials in CycloneDX 1.6, as JSON.

Source: CycloneDX v1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json. The same content gives the same bytes: the
serial number is made from it, and the time is that of what is described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from taut.core.canonical import digest_json
from taut.core.errors import InvalidInput
from taut.trust.supply.packages import Package, purl

Component = dict[str, Any]
"""One component in CycloneDX's own words; `bom-ref` names it within its bill."""

Edges = Mapping[str, Sequence[str]]
"""bom-ref -> those that it needs or was made from."""

SPEC_VERSION: Final = "1.6"


def bill(
    subject: Component,
    components: Sequence[Component],
    edges: Edges,
    *,
    at: datetime | None,
    tool_version: str,
) -> dict[str, Any]:
    """Return the bill of `subject`.

    components: all others, each once. at: when what is described was made, None where that is not known. Raises
    InvalidInput where an edge names what is not in the bill: a graph with loose ends proves nothing.
    """
    known = [str(one["bom-ref"]) for one in (subject, *components)]
    if len(set(known)) != len(known):
        twice = sorted({ref for ref in known if known.count(ref) > 1})
        raise InvalidInput(f"{twice[0]} is in the bill of materials twice: name each component once")
    loose = {ref for one, needs in edges.items() for ref in (one, *needs)} - set(known)
    if loose:
        raise InvalidInput(f"{min(loose)} is needed, but not in the bill of materials: add it")
    body: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            **({} if at is None else {"timestamp": at.isoformat().replace("+00:00", "Z")}),
            "lifecycles": [{"phase": "post-build"}],
            "tools": {"components": [{"type": "application", "name": "taut", "version": tool_version}]},
            "component": subject,
        },
        "components": sorted(components, key=lambda one: str(one["bom-ref"])),
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(edges[ref])} if edges.get(ref) else {})} for ref in sorted(known)
        ],
    }  # fmt: skip
    serial = uuid5(NAMESPACE_URL, digest_json(body))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "serialNumber": f"urn:uuid:{serial}", **body}  # fmt: skip


def library(package: Package) -> Component:
    """Describe a Python package.

    The hashes of the files that a lock allows are of one external reference: they are those of its distributions, of
    which one was installed.
    """
    ref = purl(package.name, package.version)
    found: Component = {
        "type": "library", "bom-ref": ref, "name": package.name, "version": package.version, "purl": ref,
    }  # fmt: skip
    if package.licence:
        said = {"acknowledgement": "declared"}
        if package.spdx:
            found["licenses"] = [{"expression": package.licence, **said}]
        else:
            found["licenses"] = [{"license": {"name": package.licence, **said}}]
    if package.hashes:
        hashes = [{"alg": "SHA-256", "content": digest} for digest in package.hashes]
        comment = "the files that the lock allows; one of them was installed"
        found["externalReferences"] = [
            {"type": "distribution", "url": ref, "comment": comment, "hashes": hashes}
        ]
    return found


def library_edges(packages: Sequence[Package]) -> dict[str, list[str]]:
    """Return what each package needs, by bom-ref."""
    refs = {package.name: purl(package.name, package.version) for package in packages}
    return {refs[one.name]: [refs[name] for name in one.needs if name in refs] for one in packages}


def roots(packages: Sequence[Package]) -> list[str]:
    """Return the bom-refs of the packages that no other one needs."""
    needed = {name for package in packages for name in package.needs}
    return [purl(one.name, one.version) for one in packages if one.name not in needed]


def hash_of(digest: str) -> list[dict[str, str]]:
    """Return one of taut's digests as CycloneDX writes it."""
    return [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]


def properties(found: Mapping[str, object]) -> list[dict[str, str]]:
    """Return facts as properties in taut's own namespace; those that are None are left out."""
    return [
        {"name": f"taut:{name}", "value": str(value)} for name, value in found.items() if value is not None
    ]
