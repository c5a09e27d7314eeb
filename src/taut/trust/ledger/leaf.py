"""A leaf's canonical bytes: the canonical JSON of its six fields, and the checks on what may become one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.values import Entry, Leaf

BODY_BYTES_MAX: Final = 32 * 1024
DETAILS_BYTES_MAX: Final = 1024 * 1024
_KIND: Final = re.compile(r"[a-z][a-z0-9._\-]{0,63}")


class _Form(msgspec.Struct):
    """Fields in alphabetical order, so that plain encoding is the canonical one (a test compares the two)."""

    actor: str
    at_us: int
    body: msgspec.Raw
    id: str
    kind: str
    subject: str


_encode: Final = msgspec.json.Encoder().encode


def leaf_bytes(*, id: str, kind: str, subject: str, actor: str, at_us: int, body: bytes) -> bytes:
    """Return what is hashed: the canonical JSON of the six fields. `body` is canonical JSON already.

    Tampered rows are encoded too, whatever they hold; their hash is then another one.
    """
    return _encode(_Form(actor, at_us, msgspec.Raw(body), id, kind, subject))


def row_bytes(row: Any) -> bytes:
    """Return the canonical bytes of a row of `ledger_leaves` or `ledger_pending`."""
    return _encode(_Form(row.actor, row.at_us, msgspec.Raw(row.body.encode()), row.id, row.kind, row.subject))


def proof_bytes(leaf: Leaf) -> bytes:
    """Return the canonical bytes of a leaf that was read back from JSON."""
    return leaf_bytes(
        id=leaf.id,
        kind=leaf.kind,
        subject=leaf.subject,
        actor=leaf.actor,
        at_us=leaf.at_us,
        body=canonical_json(leaf.body),
    )


def check_entry(entry: Entry, body: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of `body`, the entry's own or with a commitment added.

    Raises InvalidInput for a kind, subject, actor or body outside the bounds that `Entry` names.
    """
    if not _KIND.fullmatch(entry.kind):
        raise InvalidInput(
            f"ledger kind {entry.kind[:80]!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '-', '_', beginning "
            "with a letter"
        )
    _check_text(entry.subject, "subject", 512)
    _check_text(entry.actor, "actor", 256)
    encoded = canonical_json(body)
    if len(encoded) > BODY_BYTES_MAX:
        raise InvalidInput(
            f"body of {entry.kind} about {entry.subject} is {len(encoded)} bytes: at most {BODY_BYTES_MAX} fit a "
            "leaf; log its digest and keep it in `details`"
        )
    return encoded


def _check_text(text: str, what: str, length_max: int) -> None:
    if not (0 < len(text) <= length_max and text.isprintable()):
        raise InvalidInput(
            f"ledger {what} {text[:80]!r} is not allowed: use 1 to {length_max} printable characters"
        )


def leaf_of_row(row: Any, *, seq: int | None, details: dict[str, Any] | None = None) -> Leaf:
    """Read a leaf from its row. Raises Corrupt when the body is no JSON object."""
    try:
        body = msgspec.json.decode(row.body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Corrupt(
            f"leaf {row.id} holds no JSON: run `taut ledger verify` to see what was changed"
        ) from error
    return Leaf(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        actor=row.actor,
        at_us=row.at_us,
        body=body,
        seq=seq,
        details=details,
    )
