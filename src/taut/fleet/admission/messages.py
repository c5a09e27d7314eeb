"""What the parties of admission say to one another. Every value here was authenticated before the core sees it.

A replica's words are authentic by its key, admission's by its own; see `wire`. The network may lose, delay, repeat and
reorder them, and a replica may lie.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from taut.core.canonical import canonical_json, digest_json
from taut.core.evidence import Check, Scalar
from taut.fleet.admission.terms import Grace, Stage


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a replica must enforce at one epoch, by digest. A replica fills it from what it really loaded."""

    epoch: int
    policy: str
    thresholds: str = ""
    detectors: str = ""

    @property
    def digest(self) -> str:
        return digest_json(self)


class Loaded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a bundle was loaded, proved by `proof_of`."""

    epoch: int
    mac: bytes


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the fleet hands to a process that it starts, out of band: who it is, and how it may join, once."""

    replica: str
    pool: str
    incarnation: int
    token: str  # secret until it was used
    nonce: str


class Attest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A process's first word. key: thumbprint of the key that it made and speaks with from now on."""

    replica: str
    incarnation: int
    token: str
    nonce: str
    key: str
    artifacts: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica asks for its lease again and says what it has loaded. number: grows with each beat of an incarnation."""

    replica: str
    incarnation: int
    key: str
    number: int
    loaded: tuple[Loaded, ...] = ()


class Shown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a replica found when it warmed, or was probed through its own port. The gate that judges it is admission's."""

    replica: str
    incarnation: int
    key: str
    step: Literal["warmed", "probed"]
    checks: tuple[Check, ...]


class Worker(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gateway says of a worker that it forked, and what of that is in admission's books.

    name: of the model, as the gateway calls it. incarnation: which of the gateway's workers; no number is used again. artifact:
    digest of the model that it was given. checks: of all its steps; admission judges them. stage: admitted, draining, gone or
    quarantined.
    """

    name: str
    incarnation: int
    artifact: str
    stage: Stage = Stage.ADMITTED
    checks: tuple[Check, ...] = ()
    reason: str = ""


class Vouched(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway says what became of its own workers. Nobody but it can reach them, so nobody else could say so.

    number: grows with each of an incarnation's, so that none comes twice.
    """

    replica: str
    incarnation: int
    key: str
    number: int
    workers: tuple[Worker, ...]


class Leaving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica says that it drains: it finishes what it has, and wants no lease any more."""

    replica: str
    incarnation: int
    key: str


Message = Attest | Beat | Shown | Vouched | Leaving


class Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That a replica may serve. Not bearer's: it holds for one key in one incarnation.

    bundle: digest of what it enforces at `epoch`. quota: requests a second; safe_quota: the same in grace.
    ttl_s, grace: from the moment of the asking on, before the holder's margin; see `Terms.holder_s`. Relative, so that no
    clock need agree with another and a late message cannot lengthen anything.
    """

    svid: str
    replica: str
    pool: str
    incarnation: int
    key: str
    epoch: int
    bundle: str
    artifacts: str
    quota: int
    safe_quota: int
    ttl_s: float
    grace: tuple[Grace, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Admission's answer to a beat, or a push, which answers the newest beat once more.

    answers: the beat's number: all durations count from when that beat was sent. serial: orders the answers to one beat.
    floor: the committed epoch. bundles: those that may be loaded, by epoch. revoked: every revoked identity, for ever.
    ticket: None where the lease is not renewed: the replica stops. drain_s: what it has to finish in, where it must go.
    roster: for a replica that chooses among others, all that may be used; who is not in it may not.
    learning: admission has just restarted, so that the roster may lack some: what was listed lives on to its own end.
    workers: SVIDs of those for whom this replica vouched and who are on record as admitted; who is not may be given no rows.
    """

    replica: str
    incarnation: int
    key: str
    answers: int
    serial: int
    floor: int
    bundles: tuple[Bundle, ...] = ()
    revoked: tuple[str, ...] = ()
    ticket: Ticket | None = None
    drain_s: float | None = None
    roster: tuple[Ticket, ...] = ()
    learning: bool = False
    workers: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that must be on record: a leaf of the ledger; `fleet.scaled` is an alert too."""

    kind: str
    subject: str
    body: dict[str, Scalar] = {}


def proof_of(bundle: Bundle, *, nonce: str) -> bytes:
    """Return a MAC over a whole bundle under what only this incarnation was given; source: RFC 2104.

    It shows that the incarnation has the bundle's content now, not that it enforces it: that is what probes are for.
    """
    return hmac.digest(nonce.encode(), canonical_json(bundle), hashlib.sha256)


def svid_of(pool: str, replica: str, incarnation: int) -> str:
    """Return the SPIFFE id of an incarnation."""
    return f"spiffe://taut/{pool}/{replica}/{incarnation}"


def worker_svid(gateway: str, incarnation: int, worker: str, number: int) -> str:
    """Return the SPIFFE id of a worker: its gateway's incarnation is part of it, since it cannot outlive that."""
    return svid_of("worker", f"{gateway}/{incarnation}/{worker}", number)
