"""Rotation of the installation's keys: a new one wraps and signs, old ones open and verify until nothing needs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, get_args

import msgspec

from taut.core.errors import InvalidInput
from taut.core.times import from_us
from taut.ports.keys import Keys, Purpose
from taut.ports.records import Records, transact
from taut.trust.ledger import Entry, Leaf, Ledger

if TYPE_CHECKING:
    from taut.ports.secrets import Secrets
    from taut.trust.envelope import InstallationKeys
    from taut.trust.identity import Identity
    from taut.trust.sealing import Sealer
    from taut.workflows.rooms import Publish

TENANT: Final = "tenant"
LOG: Final = "log"
WHAT: Final = (TENANT, LOG, *get_args(Purpose))
WRAPPING: Final = frozenset({TENANT, "subject", "data"})
"""Keys that wrap others: their rotation goes on until those are wrapped anew."""

_PREDICTIONS: Final = "predictions"
_ROTATED: Final = "keys.rotated"
_REWRAPPED: Final = "keys.rewrapped"
_AT_ONCE: Final = 2000
_BEGUN: Final = "installation.begun"

Progress = Callable[[str, float | None], None]


class Holdings(Protocol):
    """The rooms that a rotation touches."""

    @property
    def records(self) -> Records: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def sealer(self) -> Sealer: ...
    @property
    def data_keys(self) -> InstallationKeys: ...
    @property
    def identity(self) -> Identity: ...
    @property
    def publish(self) -> Publish: ...


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """One key. versions: that still open and verify. since: when the current one was made, None where nothing was yet.

    behind: persons' keys that are under an older version. whole: nothing waits to be wrapped anew after a rotation.
    """

    key: str
    versions: int
    current: str
    since: datetime | None
    behind: int = 0
    whole: bool = True


class Rewrapped(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys were wrapped anew."""

    subjects: int
    data_keys: int
    secrets: int


def states(rooms: Holdings) -> tuple[KeyState, ...]:
    """Return every key with its age, which the ledger knows: the holders of keys do not all tell it."""
    begun = _newest(rooms.ledger, kind=_BEGUN)
    first = None if begun is None else from_us(begun.at_us)
    with rooms.records.read() as tx:
        version, behind = rooms.sealer.tenant.current(tx), rooms.sealer.tenant.behind(tx)
        versions = len(rooms.sealer.tenant.open(tx))
        logs = rooms.data_keys.count(tx, _PREDICTIONS)
    found = [
        _state(rooms, TENANT, versions=versions, current=str(version), first=first, behind=behind),
        _state(rooms, LOG, versions=logs, current=str(logs), first=first),
    ]
    for purpose in get_args(Purpose):
        held = rooms.keys.public_keys(purpose=purpose)
        found.append(_state(rooms, purpose, versions=len(held), current=held[0].key_id, first=first))
    return tuple(found)


def rotate(rooms: Holdings, what: str, *, actor: str, progress: Progress) -> KeyState:
    """Make a new version of a key, and wrap anew what the old one wrapped.

    What was signed stays valid, and gateways know the new key before control goes on. Cut off at any moment, `finish`
    or the next rotation carries on; nothing is unreadable in between. Raises InvalidInput for a key that is none.
    """
    if what not in WHAT:
        raise InvalidInput(f"no key {what[:40]!r}: rotate one of {', '.join(WHAT)}")
    if what == TENANT:
        current = str(transact(rooms.records, rooms.sealer.tenant.rotate))
    elif what == LOG:
        current = str(transact(rooms.records, lambda tx: rooms.data_keys.renew(tx, _PREDICTIONS)))
    elif what == "token":
        current = rooms.identity.rotate_token_key(actor=actor).key_id
    else:
        current = rooms.keys.rotate(purpose=_purpose(what)).key_id
    _note(rooms, _ROTATED, what, actor, {"current": current})
    if what in WRAPPING:
        rewrap(rooms, what, actor=actor, progress=progress)
    elif what in (LOG, "snapshot", "token"):
        rooms.publish()
    return next(state for state in states(rooms) if state.key == what)


def finish(rooms: Holdings, *, actor: str, progress: Progress) -> dict[str, Rewrapped]:
    """Carry on what rotations that were cut off left; empty where nothing waits."""
    return {
        what: rewrap(rooms, what, actor=actor, progress=progress)
        for what in sorted(WRAPPING)
        if not _whole(rooms.ledger, what)
    }


def rewrap(rooms: Holdings, what: str, *, actor: str, progress: Progress) -> Rewrapped:
    """Wrap anew what `what` wraps, in transactions of a bounded number of keys each. Doing it again does no harm."""
    subjects = data_keys = secrets = 0
    if what == TENANT:
        while True:
            done = transact(rooms.records, lambda tx: rooms.sealer.tenant.rewrap(tx, limit=_AT_ONCE))
            subjects += done
            progress(f"{subjects} persons' keys are wrapped anew", None)
            if done < _AT_ONCE:
                break
    else:
        data_keys = _rewrap_data_keys(rooms, what)
        secrets = rooms.secrets.rewrap() if what == "data" else 0
    result = Rewrapped(subjects=subjects, data_keys=data_keys, secrets=secrets)
    _note(rooms, _REWRAPPED, what, actor, msgspec.to_builtins(result))
    return result


def _rewrap_data_keys(rooms: Holdings, purpose: str) -> int:
    """Each in a transaction of its own: a holder far away answers slowly, and others want to write."""
    tenant = rooms.sealer.tenant
    with rooms.records.read() as tx:
        names = tenant.names(tx, purpose=purpose)
    for name in names:
        transact(rooms.records, partial(tenant.rewrap_named, name=name))
    return len(names)


def _state(
    rooms: Holdings, key: str, *, versions: int, current: str, first: datetime | None, behind: int = 0
) -> KeyState:
    rotated = _newest(rooms.ledger, kind=_ROTATED, subject=_subject(key))
    since = first if rotated is None else from_us(rotated.at_us)
    whole = key not in WRAPPING or (_whole(rooms.ledger, key) and not behind)
    return KeyState(key=key, versions=versions, current=current, since=since, behind=behind, whole=whole)


def _whole(ledger: Ledger, what: str) -> bool:
    """Say whether the last thing that the ledger tells of a key is not a rotation alone."""
    newest = _newest(ledger, kind="keys.", subject=_subject(what))
    return newest is None or newest.kind != _ROTATED


def _newest(ledger: Ledger, *, kind: str, subject: str | None = None) -> Leaf | None:
    found = ledger.show(kind=kind, subject=subject, limit=1)
    return found[0] if found else None


def _note(rooms: Holdings, kind: str, what: str, actor: str, body: dict[str, object]) -> None:
    entry = Entry(kind=kind, subject=_subject(what), actor=actor, body=body)
    transact(rooms.records, lambda tx: rooms.ledger.append(tx, entry))


def _subject(what: str) -> str:
    return f"keys:{what}"


def _purpose(what: str) -> Purpose:
    for purpose in get_args(Purpose):
        if purpose == what:
            known: Purpose = purpose
            return known
    raise InvalidInput(f"no purpose {what!r}")
