"""Registry: model versions that are signed, judged by the model gate, approved by people and verified at every load."""

from __future__ import annotations

from taut.lifecycle.registry.artifact import Scan, scan
from taut.lifecycle.registry.export import verify_export
from taut.lifecycle.registry.registry import Registry
from taut.lifecycle.registry.tables import metadata
from taut.lifecycle.registry.values import (
    Approval,
    Candidate,
    Change,
    Derived,
    GateInputs,
    Loaded,
    ModelState,
    Score,
    VersionInfo,
)
from taut.trust.signing.models import File

__all__ = [
    "Approval",
    "Candidate",
    "Change",
    "Derived",
    "File",
    "GateInputs",
    "Loaded",
    "ModelState",
    "Registry",
    "Scan",
    "Score",
    "VersionInfo",
    "metadata",
    "scan",
    "verify_export",
]
