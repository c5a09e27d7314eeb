"""What control lends of every limit: no more than the whole less all that may be in use.

Doorman's rule (source: youtube/doorman, doc/design.md), without its trust in clocks that agree: each holder is counted by the
most that any lease lets him use which may have reached him, until he says that he uses a later one, or its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from taut.core.errors import InvalidInput
from taut.trust.quota.limit import SAFE_PART, WHOLE
from taut.trust.quota.messages import Claim, Key, KeyShare, Lease
from taut.trust.quota.shares import fair_shares

LONG_S: Final = 1e9
"""As good as for ever: nobody used it since the installation began."""
_MAX_HOLDERS: Final = 4096


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """ttl_s: life of a lease from its granting. skew: by how much clocks may run apart. grace_s: how long a safe share may be
    used where nobody answers. max_keys: that may have shares of their own. cool_s: how long a key
    keeps them after it was short last.
    """

    ttl_s: float = 4.5
    skew: float = 0.05
    grace_s: float = 3600.0
    max_keys: int = 256
    cool_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.ttl_s <= self.grace_s and 0 <= self.skew <= 0.2):
            raise InvalidInput("the terms of leases make no sense: see what each may be")

    def holder_s(self, granted_s: float) -> float:
        """Return how long a holder may use by his clock what lasts `granted_s` by control's (as in admission)."""
        return granted_s * (1 - 2 * self.skew)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One lease that may be in use. until_s, safe_until_s: by control's clock."""

    number: int
    share: int
    safe: int
    keys: dict[Key, int]
    until_s: float
    safe_until_s: float

    def of(self, key: Key | None, now_s: float) -> int:
        if now_s < self.until_s:
            return self.share if key is None else self.keys.get(key, self.share)
        return self.safe if now_s < self.safe_until_s else 0


class Holder(msgspec.Struct, kw_only=True):
    """One gateway. holds: oldest first. claim: what it said last, at heard_s; None of who has not spoken since control began."""

    name: str
    holds: list[Hold]
    claim: Claim | None = None
    heard_s: float = -LONG_S

    def most(self, key: Key | None, now_s: float) -> int:
        """Return the most that it may be using of a key, or of those that have no shares of their own."""
        return max((hold.of(key, now_s) for hold in self.holds), default=0)


class Leases:
    """Lends shares of all limits to processes by name. One thread at a time; time is given, monotonic, in seconds.

    A name is one process's: who restarts comes under another, and what the old one held is over when it surely ended (`end`) or
    with its time, since its last word may arrive after the first one of the new.

    grantor: names this run of control, so that what another one lent is not taken for its own. known: who may hold something
    that an earlier run lent, and the safe share of each; nobody where all of them have ended. keep: makes that durable, before anything is lent by it.

    Guarantees: for every key the shares of all holders that are in use, by their own clocks, never exceed `WHOLE`, if clocks run
    apart by at most `skew`. What an earlier run lent is learned from claims: until all of that is over, only what is claimed is
    lent (`learning`).
    Not guaranteed: a share for everybody. Who comes unannounced waits until the others have less.
    """

    def __init__(
        self,
        *,
        grantor: str,
        now_s: float,
        known: Mapping[str, int] | None = None,
        keep: Callable[[dict[str, int]], None] = lambda _: None,
        terms: Terms | None = None,
    ) -> None:
        self.terms: Final = terms or Terms()
        self._grantor: Final = grantor
        self._keep: Final = keep
        self._limits = ""
        self._expected = 1
        self._number = 0
        self._holders: Final[dict[str, Holder]] = {}
        self._short: Final[dict[Key, float]] = {}  # when a key was short last
        self._learning_until_s = now_s + self.terms.ttl_s if known else now_s
        self._freed_s = -LONG_S
        self._seen_s = now_s
        for name, safe in (known or {}).items():
            held = self._left_over(safe, safe, {}, now_s)
            self._holders[name] = Holder(name=name, holds=[held])
        self._kept: dict[str, int] = dict(known or {})

    def expect(self, n: int, *, limits: str) -> None:
        """Say how many holders there shall be, before they come, and which limits they must enforce to have a lease."""
        self._expected, self._limits = max(1, n), limits

    def learning(self, now_s: float) -> bool:
        return now_s < self._learning_until_s

    def hear(self, name: str, claim: Claim, now_s: float) -> Lease | None:
        """Take a claim and answer it; None where it gets nothing new now, and what it has runs on to its end."""
        holder = self._known(name, claim, now_s)
        if holder is None:
            return None
        if self._limits not in ("", claim.limits):
            return None
        self._note_short(claim, now_s)
        return self._lend(holder, now_s)

    def pushes(self, among: Iterable[str], now_s: float) -> dict[str, Lease]:
        """Return leases for those who must have less because another waits, and for who waited. Ask after each `hear`.

        among: who can be reached now.
        """
        if self.learning(now_s) or not self._anybody_waits(now_s):
            return {}
        found = {}
        for name in among:
            holder = self._holders.get(name)
            if holder is None or not self._may_lend(holder, now_s):
                continue
            newest = holder.holds[-1].share if holder.holds else 0
            share = self._share(holder, now_s)
            if share < newest or (newest < share and newest < self._fair(now_s) // 2):
                lease = self._lend(holder, now_s)
                if lease is not None:
                    found[name] = lease
        return found

    def end(self, name: str) -> None:
        """Hear that a gateway has surely ended: nobody uses what it held."""
        if self._holders.pop(name, None) is not None:
            self._freed_s = max(self._freed_s, self._seen_s)

    def holders(self, now_s: float) -> tuple[Holder, ...]:
        """Return who may be using something, by name."""
        for holder in list(self._holders.values()):
            self._prune(holder, now_s)
        return tuple(self._holders[name] for name in sorted(self._holders))

    def _known(self, name: str, claim: Claim, now_s: float) -> Holder | None:
        """Bring a holder up to what he says; None where there are too many."""
        self._seen_s = now_s
        holder = self._holders.get(name)
        if holder is None:
            if len(self._holders) >= _MAX_HOLDERS:
                return None
            holder = self._holders[name] = Holder(name=name, holds=[])
        if holder.claim is None:
            lent_before = claim.grantor not in ("", self._grantor)
            keys = {one.key: one.share for one in claim.keys}
            if lent_before:
                holder.holds.append(self._left_over(claim.share, claim.safe, keys, now_s))
        holder.claim, holder.heard_s = claim, now_s
        self._prune(holder, now_s)
        return holder

    def _left_over(self, share: int, safe: int, keys: dict[Key, int], now_s: float) -> Hold:
        """Return what an earlier run lent, as if it had been lent now: how long ago it was, nobody knows."""
        terms = self.terms
        return Hold(
            number=0, share=share, safe=safe, keys=keys, until_s=now_s + terms.ttl_s, safe_until_s=now_s + terms.grace_s
        )  # fmt: skip

    def _prune(self, holder: Holder, now_s: float) -> None:
        """Drop what is not in use any more, and note when something was freed by it."""
        claim, before = holder.claim, holder.holds
        if claim is not None and claim.grantor == self._grantor:
            holder.holds = [hold for hold in before if hold.number >= claim.lease]
        for hold in before:
            freed_s = hold.until_s if hold.until_s <= now_s else now_s
            if hold not in holder.holds or hold.until_s <= now_s:
                self._freed_s = max(self._freed_s, freed_s)
        holder.holds = [hold for hold in holder.holds if now_s < hold.safe_until_s]
        if not holder.holds and now_s - holder.heard_s > self.terms.ttl_s:
            self._holders.pop(holder.name, None)  # silent, and nothing of it is in use

    def _note_short(self, claim: Claim, now_s: float) -> None:
        for use in claim.uses:
            if use.pressed and (use.key in self._short or len(self._short) < self.terms.max_keys):
                self._short[use.key] = now_s
        for key in [key for key, at_s in self._short.items() if now_s - at_s > self.terms.cool_s]:
            del self._short[key]

    def _lend(self, holder: Holder, now_s: float) -> Lease | None:
        if self.learning(now_s):
            return self._renewed(holder, now_s)
        before = holder.most(None, now_s)
        share = self._share(holder, now_s)
        special = {key: self._share_of(key, holder, share, now_s) for key in self._special(now_s)}
        keys = {key: found for key, found in special.items() if found is not None}
        idle_s = max(0.0, now_s - self._freed_s) if share > before else 0.0
        safe = min(share, self._fair(now_s) // SAFE_PART)
        return self._granted(holder, share, safe, keys, idle_s, now_s)

    def _renewed(self, holder: Holder, now_s: float) -> Lease | None:
        """Lend what is held once more: of the others nobody knows what they hold."""
        if not holder.holds:
            return None
        newest = holder.holds[-1]
        if now_s >= newest.until_s or newest.share < newest.safe:
            return None  # its lease is over, and a safe share in use
        return self._granted(holder, newest.share, newest.safe, newest.keys, 0.0, now_s)

    def _granted(
        self, holder: Holder, share: int, safe: int, keys: dict[Key, int], idle_s: float, now_s: float
    ) -> Lease | None:
        left_s = holder.heard_s + self.terms.ttl_s - now_s  # a push counts from the same asking
        if left_s <= 0:
            return None
        assert holder.claim is not None, "who has not spoken is lent nothing"
        self._write_down(holder, safe, now_s)
        self._number += 1
        grace_s = self.terms.grace_s
        hold = Hold(
            number=self._number, share=share, safe=safe, keys=keys, until_s=now_s + left_s, safe_until_s=holder.heard_s + grace_s
        )  # fmt: skip
        holder.holds = [*(old for old in holder.holds if not _covers(hold, old)), hold]
        return Lease(
            grantor=self._grantor,
            number=self._number,
            asked_s=holder.claim.asked_s,
            ttl_s=self.terms.holder_s(self.terms.ttl_s),
            grace_s=self.terms.holder_s(grace_s),
            share=share,
            safe=safe,
            idle_s=idle_s,
            keys=tuple(KeyShare(key[0], key[1], found) for key, found in sorted(keys.items())),
        )

    def _write_down(self, holder: Holder, safe: int, now_s: float) -> None:
        """Keep who holds something and how much safely, wherever one comes or may have more; who ended is dropped with that."""
        if self._kept.get(holder.name, -1) >= safe:
            return
        kept = {one.name: max((hold.safe for hold in one.holds), default=0) for one in self.holders(now_s)}
        kept[holder.name] = max(safe, kept.get(holder.name, 0))
        self._keep(kept)
        self._kept = kept

    def _fair(self, now_s: float) -> int:
        return WHOLE // max(self._expected, len(self._living(now_s)))

    def _living(self, now_s: float) -> list[Holder]:
        return [one for one in self._holders.values() if now_s - one.heard_s < self.terms.ttl_s]

    def _share(self, holder: Holder, now_s: float) -> int:
        return max(0, min(self._fair(now_s), WHOLE - self._reserved(None, holder, now_s)))

    def _reserved(self, key: Key | None, besides: Holder, now_s: float) -> int:
        return sum(one.most(key, now_s) for one in self._holders.values() if one is not besides)

    def _special(self, now_s: float) -> Iterable[Key]:
        """Return the keys of which shares may differ: those that are short, and those that were."""
        out = {
            key
            for one in self._holders.values()
            for hold in one.holds
            if now_s < hold.until_s
            for key in hold.keys
        }
        return out | self._short.keys()

    def _share_of(self, key: Key, holder: Holder, share: int, now_s: float) -> int | None:
        """Return a holder's share of one key; None where it may be that of all the others again."""
        left = WHOLE - self._reserved(key, holder, now_s)
        if key not in self._short:
            return None if share <= left else max(0, left)
        wants = {one.name: _asked(one, key) for one in self._living(now_s)}
        wanted = fair_shares(wants)[holder.name] * len(wants) // max(len(wants), self._expected)
        return max(0, min(wanted, left))

    def _may_lend(self, holder: Holder, now_s: float) -> bool:
        fresh = now_s - holder.heard_s < self.terms.ttl_s / 2
        return fresh and holder.claim is not None and self._limits in ("", holder.claim.limits)

    def _anybody_waits(self, now_s: float) -> bool:
        fair = self._fair(now_s)
        return any(
            (one.holds[-1].share if one.holds else 0) < fair // 2
            for one in self._living(now_s)
            if self._may_lend(one, now_s)
        )


def _asked(holder: Holder, key: Key) -> int:
    for use in () if holder.claim is None else holder.claim.uses:
        if use.key == key:
            return min(use.asked, WHOLE)
    return 0


def _covers(new: Hold, old: Hold) -> bool:
    return (
        new.share >= old.share
        and new.safe >= old.safe
        and new.until_s >= old.until_s
        and all(share <= new.of(key, -LONG_S) for key, share in old.keys.items())
        and all(share >= old.of(key, -LONG_S) for key, share in new.keys.items())
    )
