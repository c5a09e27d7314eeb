"""The supply chain: which packages there are, bills of materials of them and of models, and what is known to be wrong with them."""

from __future__ import annotations

from taut.trust.supply.advisories import Advisories, Audit, Vulnerability, parse_max_age
from taut.trust.supply.cyclonedx import (
    Component,
    Edges,
    bill,
    hash_of,
    library,
    library_edges,
    properties,
    roots,
)
from taut.trust.supply.own import bill_of_taut
from taut.trust.supply.packages import Locked, Package, installed, normal_name, packages_of, purl, read_lock

__all__ = [
    "Advisories",
    "Audit",
    "Component",
    "Edges",
    "Locked",
    "Package",
    "Vulnerability",
    "bill",
    "bill_of_taut",
    "hash_of",
    "installed",
    "library",
    "library_edges",
    "normal_name",
    "packages_of",
    "parse_max_age",
    "properties",
    "purl",
    "read_lock",
    "roots",
]
