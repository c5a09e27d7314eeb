"""What admission knows, and what follows from it: who may serve, with how much quota, who is late, who would be missing."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from taut.core.errors import Conflict, Denied, NotFound
from taut.fleet.admission.epochs import Epochs
from taut.fleet.admission.holds import Hold, Holds, in_force, reserved, with_hold
from taut.fleet.admission.members import NEVER, Member
from taut.fleet.admission.messages import Loaded, Ticket, Worker, proof_of
from taut.fleet.admission.terms import Stage, Terms

_replace: Final = msgspec.structs.replace


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest scale event of a pool."""

    scale_id: str
    n: int


class Books(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Admission's state. Nothing here changes what is known but the grants, which `_granted` writes down with the ticket.

    scale_seq: place of the newest scale event that was taken. revoked: names, keys and SVIDs, only ever more.
    learning_until_s: after a restart leases are out of which nobody knows how long they last; until then nothing may be
    concluded from who was not heard. past: the highest incarnation of those that were forgotten; none is used again.
    workers: gateway -> SVID -> who it vouched for, as long as both live.
    """

    terms: Terms
    epochs: Epochs
    members: dict[str, Member] = {}
    targets: dict[str, Target] = {}
    scale_seq: int = 0
    revoked: frozenset[str] = frozenset()
    holds: Holds = ()
    learning_until_s: float = NEVER
    past: int = 0
    workers: dict[str, dict[str, Worker]] = {}

    def roster(self, *, now_s: float) -> tuple[Ticket, ...]:
        """Return the tickets that are in force, with what is left of each. A gateway needs no more to choose."""
        found, bundle = [], self.epochs.committed.digest
        fair = {pool.name: self._fair(pool.name) for pool in self.terms.pools}
        for member in self.members.values():
            ticket = self._ticket(member, member.quota, fair=fair[member.pool], bundle=bundle)
            passed_s = now_s - member.granted_s
            if ticket is not None and passed_s < ticket.ttl_s:
                grace = tuple(_replace(one, ttl_s=one.ttl_s - passed_s) for one in ticket.grace)
                found.append(_replace(ticket, ttl_s=ticket.ttl_s - passed_s, grace=grace))
        return tuple(found)

    def _may_serve(self, member: Member) -> bool:
        """Tell whether a replica that showed everything may have a lease now."""
        return (
            member.stage in (Stage.PROBED, Stage.ADMITTED)
            and self.epochs.floor in member.proved
            and not self.revoked & {member.replica, member.key, member.svid}
        )

    def _is_guarded(self, pool: str, n: int, now_s: float, *, without: str = "") -> bool:
        """Tell whether `n` replicas of a pool are within what those serve that it needs, also without one of them."""
        need = self.terms.pool(pool).needs
        if need is None:
            return True
        guards = sum(
            one.pool == need.pool and one.replica != without and self._serves(one, now_s)
            for one in self.members.values()
        )
        return n <= guards * need.each

    def _admitted(self, pool: str) -> int:
        return sum(one.pool == pool and one.stage is Stage.ADMITTED for one in self.members.values())

    def _serves(self, member: Member, now_s: float) -> bool:
        """Tell whether a replica holds a lease that it may still be using, at the committed epoch."""
        return (
            member.stage is Stage.ADMITTED
            and self._may_serve(member)
            and now_s < member.granted_s + self.terms.ttl_s
        )

    def _grant(self, member: Member) -> int:
        """Return the quota of a new ticket: a fair share, and no more than nobody else may be using."""
        pool = self.terms.pool(member.pool)
        return max(
            0, min(self._fair(member.pool), pool.quota - reserved(self.holds, pool.name, besides=member.svid))
        )

    def _fair(self, pool: str) -> int:
        takers = sum(
            one.pool == pool and one.stage in (Stage.PROBED, Stage.ADMITTED) for one in self.members.values()
        )
        return self.terms.pool(pool).quota // max(1, takers)

    def _ticket(self, member: Member, quota: int, *, fair: int, bundle: str) -> Ticket | None:
        if not (member.stage is Stage.ADMITTED and self._may_serve(member)):
            return None
        pool = self.terms.pool(member.pool)
        return Ticket(
            svid=member.svid,
            replica=member.replica,
            pool=member.pool,
            incarnation=member.incarnation,
            key=member.key,
            epoch=self.epochs.floor,
            bundle=bundle,
            artifacts=pool.artifacts,
            quota=quota,
            safe_quota=min(quota, int(fair * self.terms.safe_share)),
            ttl_s=self.terms.ttl_s,
            grace=self.terms.grace,
        )

    def _granted(self, member: Member, now_s: float) -> tuple[Self, Ticket | None]:
        if not (member.stage is Stage.ADMITTED and self._may_serve(member)):
            return self, None
        state = _replace(self, holds=in_force(self.holds, now_s))
        quota = state._grant(member)
        member = _replace(member, granted_s=now_s, quota=quota)
        fair, bundle = self._fair(member.pool), self.epochs.committed.digest
        ticket = state._ticket(member, quota, fair=fair, bundle=bundle)
        if ticket is None:
            return self, None
        holds = state.holds
        for amount, length_s in ((quota, ticket.ttl_s), (ticket.safe_quota, self.terms.grace_s)):
            if length_s > 0:
                hold = Hold(
                    pool=member.pool,
                    holder=member.svid,
                    quota=amount,
                    length_s=length_s,
                    until_s=now_s + length_s,
                )
                holds = with_hold(holds, hold)
        return _replace(state, holds=holds)._with(member), ticket

    def _short(self, epoch: int, now_s: float) -> list[str]:
        """Return the pools in which too few of those that serve now would serve at `epoch`."""
        short = []
        for pool in self.terms.pools:
            serving = [
                one for one in self.members.values() if one.pool == pool.name and self._serves(one, now_s)
            ]
            if sum(epoch in one.proved for one in serving) < min(pool.minimum, len(serving)):
                short.append(pool.name)
        return short

    def _overdue(self, member: Member, now_s: float) -> str:
        terms = self.terms
        if member.comes and now_s - member.since_s >= terms.join_s:
            return f"not admitted within {terms.join_s:g} s"
        if member.stage is Stage.ADMITTED and now_s - member.heard_s >= terms.join_s:
            return f"silent for {terms.join_s:g} s"
        if member.stage is Stage.ADMITTED and now_s - max(member.granted_s, member.since_s) >= terms.join_s:
            return f"did not load the committed epoch within {terms.join_s:g} s"
        if member.stage is Stage.DRAINING and now_s - member.since_s >= terms.drain_s + terms.ttl_s:
            return f"did not end within {terms.drain_s:g} s of draining"
        return ""

    def _proved(self, member: Member, loaded: tuple[Loaded, ...]) -> tuple[int, ...] | None:
        """Return the epochs that a member has shown to have loaded; None where it lied."""
        proved = set(member.proved)
        known = {bundle.epoch: bundle for bundle in self.epochs.bundles}
        for one in loaded:
            bundle = known.get(one.epoch)
            if bundle is None or one.epoch in proved:
                continue  # of an epoch that is over, or shown before
            if one.mac != proof_of(bundle, nonce=member.nonce):
                return None
            proved.add(one.epoch)
        return tuple(sorted(proved & set(known)))

    def _with(self, member: Member) -> Self:
        return _replace(self, members={**self.members, member.replica: member})

    def _there(self, replica: str) -> Member:
        member = self.members.get(replica)
        if member is None:
            raise NotFound(f"there is no replica {replica!r}: provision it first")
        return member

    def _of(self, replica: str, incarnation: int) -> Member:
        member = self._there(replica)
        if member.incarnation != incarnation:
            raise Denied(
                f"{replica} is in its incarnation {member.incarnation}, this speaks for {incarnation}: it must join anew"
            )
        return member

    def _in(self, replica: str, incarnation: int, stage: Stage) -> Member:
        member = self._of(replica, incarnation)
        if member.stage is not stage:
            raise Conflict(f"{replica} is {member.stage}, not {stage}: one step after the other")
        return member
