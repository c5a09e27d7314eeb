"""What goes into the ledger and what comes out of it, as frozen values."""

from __future__ import annotations

from typing import Any

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened, on its way into the ledger.

    kind: what sort of thing, dotted, such as `verdict.data` or `key.created`; a-z, 0-9, `.`, `-`, `_`, 1 to 64.
    subject: the reference that it is about, 1 to 512 printable characters. actor: the principal, 1 to 256.
    body: JSON of at most 32 KiB; commitments (digests, counts, names), never personal data, since it is for ever.
    details: JSON of at most 1 MiB kept beside the leaf and erasable; the body only commits to it, salted.
    """

    kind: str
    subject: str
    actor: str
    body: dict[str, Any] = {}
    details: dict[str, Any] | None = None


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it was logged. `seq` is its place in the tree, None until it is sequenced; times are UTC."""

    id: str
    kind: str
    subject: str
    actor: str
    at_us: int
    body: dict[str, Any]
    seq: int | None = None
    details: dict[str, Any] | None = None


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement of what the first `size` leaves were. `note` is the C2SP signed note itself."""

    origin: str
    size: int
    root: bytes
    note: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """That `leaf` is in the tree that `checkpoint` signs; enough to check offline, see `verify_proof`."""

    leaf: Leaf
    index: int
    size: int
    path: tuple[bytes, ...]  # sibling hashes, from the leaf's up to the root's child
    checkpoint: str  # the signed note


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with the ledger, by name.

    kind: see docs/explanation/ledger.md for the table of kinds. seq, last: the leaves concerned, inclusive.
    """

    kind: str
    message: str
    seq: int | None = None
    last: int | None = None
    leaf: str | None = None


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found. `ok` means: no fault; `warnings` say what this verification could not have seen."""

    ok: bool
    size: int
    root: bytes
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    pending: int = 0  # leaves that are committed but not sequenced yet
    checkpoints: int = 0  # signed statements that were compared with the leaves, copies included
    more_faults: int = 0  # found, but beyond the bound on those listed
