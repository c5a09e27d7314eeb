"""The bill of materials of taut itself: the packages that its lock allows, in the versions that are installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taut.core.errors import Conflict
from taut.trust.supply.cyclonedx import bill, library, library_edges, roots
from taut.trust.supply.packages import Locked, installed, packages_of, purl

_OWN = "taut"


def bill_of_taut(lock: Sequence[Locked], *, version: str) -> dict[str, Any]:
    """Return the bill of the packages of a lock that are installed here.

    A lock names packages of other platforms too; those are left out. Raises Conflict where a package is installed in a
    version that the lock does not allow.
    """
    here = installed()
    allowed: dict[str, set[str]] = {}
    for pin in lock:
        allowed.setdefault(pin.name, set()).add(pin.version)
    astray = sorted(name for name in allowed if name in here and here[name] not in allowed[name])
    if astray:
        said = ", ".join(f"{name} {here[name]}" for name in astray[:5])
        raise Conflict(
            f"installed in versions that the lock does not allow: {said}; install the lock, then repeat"
        )
    hashes = {(pin.name, pin.version): pin.hashes for pin in lock}
    packages = packages_of({name: here[name] for name in allowed if name in here}, hashes)
    me = purl(_OWN, version)
    subject = {
        "type": "application", "bom-ref": me, "name": _OWN, "version": version, "purl": me,
        "licenses": [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}],
    }  # fmt: skip
    edges = {**library_edges(packages), me: roots(packages)}
    return bill(subject, [library(one) for one in packages], edges, at=None, tool_version=version)
