"""What the registry keeps of a model version, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
import numpy.typing as npt
import polars as pl

from taut.core.evidence import Check, Decision, Evidence, Scalar, Verdict
from taut.core.refs import VersionRef
from taut.core.schema import ModelSignature
from taut.project.manifest import GateSpec
from taut.trust.signing.models import File


class ModelState(StrEnum):
    CANDIDATE = "candidate"  # registered; admitted but not approved by as many as it needs, or not yet judged
    REJECTED = "rejected"  # by the gate or by a person
    HELD = "held"  # the gate wants a person to decide
    APPROVED = "approved"
    LIVE = "live"
    RETIRED = "retired"


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """How a version was made from another instead of by its run.

    origin: that version. name: of the variant, one of each for a run. tolerances: metric -> by how much it may be worse
    than the origin's on the same rows. facts: for the card, what was measured of both.
    """

    origin: str
    name: str
    what: str
    tolerances: dict[str, float]
    facts: dict[str, Any] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A trained model on its way into the registry: what it is, what it came from, what it must satisfy.

    author: the principal who trained it; he may not approve it. metrics: as training reported them; the gate measures
    again. data: digest of the training table. checks: what training itself looked at. variant: of a model that was not made
    by the run itself.
    """

    model: str
    run: str
    author: str
    files: dict[str, File]
    signature: ModelSignature
    label: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float | str]] = {}
    snapshots: dict[str, str]
    features: dict[str, str] = {}  # feature set -> materialisation
    bundle: str
    lock: str
    data: str
    seed: int
    params: dict[str, Scalar] = {}
    rules: tuple[GateSpec, ...] = ()
    approvals: int = 0
    checks: tuple[Check, ...] = ()
    risk: str = "medium"
    description: str = ""
    model_kind: str = ""
    split: dict[str, Any] = {}  # facts for the card: times and counts
    environment: dict[str, Any] = {}  # facts for the card: libraries, hardware, isolation
    variant: Derived | None = None
    materials: dict[str, str] = {}  # snapshot -> digest of its files as they were read
    times: tuple[datetime, datetime] | None = None  # when the run began and ended
    nodes: dict[str, str] = {}  # of a graph: node -> the version that it is

    @property
    def artifact(self) -> File:
        """The model's own file."""
        return self.files[self.signature.file]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """One person's word. self_approved: by the author, where the installation has a single user."""

    id: str
    principal: str
    approved: bool
    reason: str
    at: datetime
    self_approved: bool = False


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it stands now."""

    ref: VersionRef
    state: ModelState
    candidate: Candidate
    created_at: datetime
    verdict: Verdict | None = None
    evidence: Evidence | None = None
    approvals: tuple[Approval, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def releasable(self) -> bool:
        return self.state in (ModelState.APPROVED, ModelState.LIVE)

    @property
    def approvals_needed(self) -> int:
        """How many people must say yes: what the model declares, one at least where the gate holds."""
        held = self.verdict is not None and self.verdict.decision is Decision.HOLD
        return max(self.candidate.approvals, 1 if held else 0)


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A version whose signature and every byte were verified just now.

    manifest: the signed payload. model: its artifact. parts: its other files by name, those of a graph's nodes.
    """

    ref: VersionRef
    files: dict[str, File]
    signature: ModelSignature
    manifest: dict[str, Any]
    model: bytes
    signed_by: str
    parts: dict[str, bytes] = {}

    @property
    def model_digest(self) -> str:
        return self.files[self.signature.file].digest


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a version's or an alias's history."""

    at: datetime
    actor: str
    what: str
    reason: str = ""


Score = Callable[[bytes, ModelSignature, pl.DataFrame], npt.NDArray[Any]]
"""Scores rows through the real runtime: (model, signature, rows with request columns and features) -> [n, classes] or
[n]. Raises a TautError where a request would be refused."""


class GateInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the model gate measures with.

    holdout: held-out rows with label, request columns and features. parity: such rows with what the trained model said
    about each in `p0`, `p1` …, as `Training.parity_sample` gives them. live: the version that answers now. latency_ms: of one
    row, where it was measured; else the gate measures it by asking `score`. audit: looks for known vulnerabilities in the
    packages of the run, a check named `dependencies`; None where nobody mirrors what is known. examined: a check for each rule
    that an examination decides. shuffled: what the model answered to the rows at `Probe.places` with that input exchanged among them.
    """

    score: Score
    holdout: pl.DataFrame
    parity: pl.DataFrame
    live: VersionRef | None = None
    latency_ms: float | None = None
    audit: Callable[[], Check] | None = None
    examined: tuple[Check, ...] = ()
    shuffled: Mapping[str, npt.NDArray[Any]] = {}
