"""Keeping a project's threat model: drawn from the plan that holds, stored by digest when it changed, reviewed by a person."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from taut.core.canonical import canonical_json
from taut.core.errors import Conflict, InvalidInput
from taut.core.times import from_us
from taut.ports.records import transact
from taut.project.manifest import Manifest
from taut.trust.ledger import Entry, Leaf
from taut.trust.threats import Change, Map, Setting, Threat, changes, draw, markdown, threats_of
from taut.workflows.rooms import Rooms

RENEWED: Final = "threat_model.renewed"
REVIEWED: Final = "threat_model.reviewed"
_NAMES_MAX: Final = 50
_REASON_MAX: Final = 500
_SUBJECT: Final = "threat_model:project"


class ThreatModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model as it is now, beside what is stored and reviewed.

    stored: whether the stored one is this one; else `since` says what changed after it (by a setting, or a plan whose
    renewal was cut off). reviewed_at, reviewed_by: of this very model, None where nobody did.
    """

    digest: str
    map: Map
    threats: tuple[Threat, ...]
    page: str
    stored: bool
    since: Change
    reviewed_at: datetime | None = None
    reviewed_by: str = ""


def now(rooms: Rooms, setting: Setting) -> ThreatModel:
    """Draw the model of the plan that holds. Raises NotFound where none is applied."""
    drawn = draw(rooms.plans.require(), setting)
    before = stored_map(rooms)
    review = _newest(rooms, REVIEWED)
    seen = review is not None and review.body.get("map") == drawn.digest
    threats = threats_of(drawn, setting)
    return ThreatModel(
        digest=drawn.digest, map=drawn, threats=threats, page=markdown(drawn, threats),
        stored=before is not None and before.digest == drawn.digest, since=changes(before, drawn),
        reviewed_at=from_us(review.at_us) if seen and review else None, reviewed_by=review.actor if seen and review else "",
    )  # fmt: skip


def compare(rooms: Rooms, manifest: Manifest, setting: Setting) -> Change:
    """Return which flows a plan would add, take away or change."""
    current = rooms.plans.current()
    return changes(None if current is None else draw(current, setting), draw(manifest, setting))


def renew(rooms: Rooms, setting: Setting, *, actor: str) -> Change:
    """Store the model, with a leaf that names what changed, unless it is the stored one already."""
    model = now(rooms, setting)
    if model.stored:
        return Change()
    rooms.blobs.put(canonical_json(model.map))
    body: dict[str, object] = {
        "map": model.digest,
        "page": rooms.blobs.put(model.page.encode()),
        "flows": len(model.map.flows),
    }
    for name, flows in msgspec.structs.asdict(model.since).items():
        body[name] = list(flows[:_NAMES_MAX])
    transact(rooms.records, lambda tx: rooms.ledger.append(tx, Entry(RENEWED, _SUBJECT, actor, body)))
    return model.since


def review(rooms: Rooms, setting: Setting, *, digest: str, reason: str, actor: str) -> ThreatModel:
    """Record that a person looked at the model of this digest and what he concluded.

    Raises Conflict where the model is another by now, InvalidInput without a reason.
    """
    said = " ".join(reason.split())
    if not said or len(said) > _REASON_MAX or not said.isprintable():
        raise InvalidInput(f"a review needs its conclusion, 1 to {_REASON_MAX} printable characters: say it")
    renew(rooms, setting, actor=actor)
    model = now(rooms, setting)
    if model.digest != digest:
        raise Conflict(f"the model is {model.digest} now, not {digest}: look at it again")
    entry = Entry(REVIEWED, _SUBJECT, actor, {"map": digest, "reason": said})
    transact(rooms.records, lambda tx: rooms.ledger.append(tx, entry))
    return now(rooms, setting)


def stored_map(rooms: Rooms) -> Map | None:
    """Return the map that was stored last, verified by digest."""
    leaf = _newest(rooms, RENEWED)
    return None if leaf is None else msgspec.json.decode(rooms.blobs.read(str(leaf.body["map"])), type=Map)


def _newest(rooms: Rooms, kind: str) -> Leaf | None:
    found = rooms.ledger.show(kind=kind, limit=1)
    return found[0] if found else None
