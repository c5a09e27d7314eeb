"""The ledger's values as the JSON that commands and the API give; field names are promises to users."""

from __future__ import annotations

from typing import Any

import msgspec

from taut.core.times import from_us
from taut.trust.ledger.values import Checkpoint, Fault, Leaf, LedgerReport


def report_as_json(report: LedgerReport) -> dict[str, Any]:
    """Return {"ok", "size", "root", "faults", …}; the root in hexadecimal."""
    return {
        "ok": report.ok,
        "size": report.size,
        "root": report.root.hex(),
        "faults": [_fault_as_json(fault) for fault in report.faults],
        "more_faults": report.more_faults,
        "warnings": list(report.warnings),
        "pending": report.pending,
        "checkpoints": report.checkpoints,
    }


def _fault_as_json(fault: Fault) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(fault).items() if value is not None}


def checkpoint_as_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "note": checkpoint.note,
    }


def leaf_as_json(leaf: Leaf) -> dict[str, Any]:
    """Return a leaf with its time both in microseconds, as it is hashed, and for people."""
    shown = {
        "seq": leaf.seq,
        "id": leaf.id,
        "at": from_us(leaf.at_us).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "at_us": leaf.at_us,
        "kind": leaf.kind,
        "subject": leaf.subject,
        "actor": leaf.actor,
        "body": leaf.body,
    }
    return shown if leaf.details is None else {**shown, "details": leaf.details}
