"""The manifest of a version: what it is, by digest, under our signature."""

from __future__ import annotations

import msgspec

from taut.core.refs import VersionRef
from taut.lifecycle.registry.values import Candidate
from taut.ports.keys import Keys
from taut.trust.signing import SignedStatement, sign_statement
from taut.trust.signing.models import PAYLOAD_TYPE


def sign_manifest(keys: Keys, ref: VersionRef, candidate: Candidate) -> SignedStatement:
    """Sign what a version is: its files by digest, its signature, its run and what that came from, its rules."""
    payload = {
        "version": str(ref),
        "files": candidate.files,
        "signature": candidate.signature,
        "run": candidate.run,
        "author": candidate.author,
        "label": candidate.label,
        "snapshots": candidate.snapshots,
        "features": candidate.features,
        "code": {"bundle": candidate.bundle, "lock": candidate.lock},
        "data": candidate.data,
        "seed": candidate.seed,
        "gates": candidate.rules,
        "approvals": candidate.approvals,
    }
    if candidate.variant is not None:
        made = candidate.variant
        payload["variant"] = {"name": made.name, "origin": made.origin, "tolerances": made.tolerances}
    if candidate.nodes:
        payload["nodes"] = candidate.nodes
    body = msgspec.to_builtins(payload)
    return sign_statement(keys, purpose="model", payload_type=PAYLOAD_TYPE, payload=body)
