"""A leaf's canonical bytes: the canonical JSON of its six fields, and the checks on what may become one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from taut.core.canonical import canonical_json
from taut.core.errors import Corrupt, InvalidInput
from taut.trust.ledger.merkle import leaf_hash
from taut.trust.ledger.values import Entry, Leaf

BODY_BYTES_MAX: Final = 32 * 1024
DETAILS_BYTES_MAX: Final = 1024 * 1024
SUBJECT_LENGTH_MAX: Final = 512
ACTOR_LENGTH_MAX: Final = 256
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
    """Return the canonical bytes of a row of `store.select_leaves`."""
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


def encode_entry(entry: Entry, body: dict[str, Any], *, id: str, at_us: int) -> tuple[str, bytes]:
    """Return (canonical JSON of `body`, leaf hash); `body` is the entry's own, or with a commitment added.

    Raises InvalidInput for a kind, subject, actor or body outside the bounds that `Entry` names.
    """
    kind, actor, subject = _check_kind(entry.kind), _check_actor(entry.actor), entry.subject
    if not (0 < len(subject) <= SUBJECT_LENGTH_MAX and subject.isprintable()):
        raise _refusal("subject", subject, SUBJECT_LENGTH_MAX)
    encoded = canonical_json(body)
    if len(encoded) > BODY_BYTES_MAX:
        raise InvalidInput(
            f"body of {kind} about {subject} is {len(encoded)} bytes: at most {BODY_BYTES_MAX} fit a leaf; log its "
            "digest and keep it in `details`"
        )
    return encoded.decode(), leaf_hash(_encode(_Form(actor, at_us, msgspec.Raw(encoded), id, kind, subject)))


# Kinds and actors are few and come again and again; remembering the good ones halves the checks' cost.
@lru_cache(maxsize=1024)
def _check_kind(kind: str) -> str:
    if not _KIND.fullmatch(kind):
        raise InvalidInput(
            f"ledger kind {kind[:80]!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '-', '_', beginning "
            "with a letter"
        )
    return kind


@lru_cache(maxsize=1024)
def _check_actor(actor: str) -> str:
    if not (0 < len(actor) <= ACTOR_LENGTH_MAX and actor.isprintable()):
        raise _refusal("actor", actor, ACTOR_LENGTH_MAX)
    return actor


def _refusal(what: str, text: str, length_max: int) -> InvalidInput:
    return InvalidInput(
        f"ledger {what} {text[:80]!r} is not allowed: use 1 to {length_max} printable characters"
    )


def leaf_of_row(row: Any) -> Leaf:
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
        seq=row.seq,
    )
