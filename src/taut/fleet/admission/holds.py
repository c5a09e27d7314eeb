"""What quota is out: counted by the most that anybody could be using, whichever of his tickets reached him.

Doorman's rule (grant no more than the whole less all live leases; source: youtube/doorman, doc/design.md), without its
trust in clocks that agree.
"""

from __future__ import annotations

import msgspec


class Hold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One grant that may still be in use. holder: the incarnation's SVID. until_s: by the granter's clock.

    length_s: how long it was granted for: after a restart of the granter, whose clock begins anew, it counts again in full.
    """

    pool: str
    holder: str
    quota: int
    length_s: float
    until_s: float


Holds = tuple[Hold, ...]


def reserved(holds: Holds, pool: str, *, besides: str) -> int:
    """Return what the holders of a pool may be using, without one: of each the most that he was granted."""
    most: dict[str, int] = {}
    for hold in holds:
        if hold.pool == pool and hold.holder != besides:
            most[hold.holder] = max(most.get(hold.holder, 0), hold.quota)
    return sum(most.values())


def with_hold(holds: Holds, new: Hold) -> Holds:
    """Add a grant; what is no longer and no more than it is dropped, so a holder has a few at most."""
    if new.quota == 0:
        return holds
    return (*(hold for hold in holds if not _covers(new, hold)), new)


def in_force(holds: Holds, now_s: float) -> Holds:
    return tuple(hold for hold in holds if now_s < hold.until_s)


def released(holds: Holds, holder: str) -> Holds:
    """Drop what a holder that has surely ended held."""
    return tuple(hold for hold in holds if hold.holder != holder)


def counted_anew(holds: Holds, now_s: float) -> Holds:
    """Return what is out as if all of it had been granted now: how long ago it really was, nobody knows."""
    return tuple(msgspec.structs.replace(hold, until_s=now_s + hold.length_s) for hold in holds)


def _covers(new: Hold, old: Hold) -> bool:
    return (
        (new.pool, new.holder) == (old.pool, old.holder)
        and new.quota >= old.quota
        and new.until_s >= old.until_s
        and new.length_s >= old.length_s
    )
