"""A replica's own side: it stops by itself when its lease is over, whatever anybody else believes.

Every lease is counted from when the beat was sent that the ticket answers, by the replica's own monotonic clock, less the
margin for clocks that run apart. So no clock has to agree with another, and a message that was held up or repeated can
only carry a shorter lease. Source: Gray and Cheriton 1989, Leases, section 3.1 (a lease begins with its request).
"""

from __future__ import annotations

from typing import Final, Self

import msgspec

from taut.core.errors import Conflict, Denied, Unavailable
from taut.fleet.admission.members import NEVER
from taut.fleet.admission.messages import Answer, Attest, Beat, Bundle, Invitation, Loaded, Ticket, proof_of
from taut.fleet.admission.terms import Risk, Terms

_ASKED_MAX: Final = 16
_replace: Final = msgspec.structs.replace


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket as its holder may use it: until when by the holder's own clock, and in grace for each class of risk."""

    ticket: Ticket
    until_s: float
    grace_until_s: dict[Risk, float] = {}

    @classmethod
    def of(cls, ticket: Ticket, *, asked_s: float, terms: Terms) -> Lease:
        grace = {one.risk: asked_s + terms.holder_s(one.ttl_s) for one in ticket.grace}
        return cls(ticket=ticket, until_s=asked_s + terms.holder_s(ticket.ttl_s), grace_until_s=grace)

    def in_grace(self, risk: Risk, now_s: float) -> bool:
        return now_s < self.grace_until_s.get(risk, NEVER)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to serve one request: under which bundle, and whether only by grace, which is counted apart."""

    bundle: Bundle
    degraded: bool


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """What one incarnation knows about itself. It is made by its invitation and ends with its process.

    floor: the highest epoch that it heard committed; kept on disk by its owner and given back to the next incarnation.
    offered: the bundles that it should load. loaded: those that it has, by epoch, as its owner said. asked: beats that may still be answered, with when they were sent.
    heard: number and serial of the newest answer. before_until_s: until when a request may still be under the epoch
    before the floor's, having started before anybody could know of it.
    """

    terms: Terms
    invitation: Invitation
    key: str
    artifacts: str
    floor: int = 0
    offered: tuple[Bundle, ...] = ()
    loaded: dict[int, Bundle] = {}
    asked: dict[int, float] = {}
    number: int = 0
    heard: tuple[int, int] = (0, 0)
    lease: Lease | None = None
    before: int = 0
    before_until_s: float = NEVER
    drain_until_s: float | None = None
    revoked: frozenset[str] = frozenset()

    def attest(self) -> Attest:
        mine = self.invitation
        return Attest(
            replica=mine.replica,
            incarnation=mine.incarnation,
            token=mine.token,
            nonce=mine.nonce,
            key=self.key,
            artifacts=self.artifacts,
        )

    def beat(self, *, now_s: float) -> tuple[Self, Beat]:
        """Ask for the lease again. Call it every second or so, and at once after a new epoch was loaded."""
        number = self.number + 1
        asked = {**self.asked, number: now_s}
        while len(asked) > _ASKED_MAX:
            del asked[min(asked)]
        loaded = tuple(
            Loaded(epoch=epoch, mac=self._proof(bundle)) for epoch, bundle in sorted(self.loaded.items())
        )
        beat = Beat(
            replica=self.invitation.replica,
            incarnation=self.invitation.incarnation,
            key=self.key,
            number=number,
            loaded=loaded,
        )
        return _replace(self, number=number, asked=asked), beat

    def hear(self, answer: Answer, *, now_s: float) -> Self:
        """Take an answer of admission.

        Raises Denied for what is not to this key and incarnation or answers nothing that it asked, Conflict for what a
        newer answer overtook and for a floor below one that was heard: then nothing changes, and the lease runs out.
        """
        mine = self.invitation
        if (answer.replica, answer.incarnation, answer.key) != (mine.replica, mine.incarnation, self.key):
            raise Denied(
                f"an answer to {answer.replica}#{answer.incarnation} is not for {mine.replica}: refuse it"
            )
        asked_s = self.asked.get(answer.answers)
        if asked_s is None and answer.answers > self.heard[0]:
            raise Denied(f"{mine.replica} did not ask what beat {answer.answers} is answered with: refuse it")
        if asked_s is None or not self._is_news(answer):
            raise Conflict(
                f"answer {answer.answers}.{answer.serial} to {mine.replica} was overtaken: drop it"
            )
        draining = self.drain_until_s
        if answer.drain_s is not None and draining is None:
            draining = now_s + answer.drain_s
        view = self._at_floor(answer)
        return _replace(
            view,
            heard=(answer.answers, answer.serial),
            asked={number: at_s for number, at_s in self.asked.items() if number >= answer.answers},
            lease=view._lease(answer.ticket, asked_s),
            drain_until_s=draining,
            revoked=self.revoked | set(answer.revoked),
        )

    def load(self, bundle: Bundle) -> Self:
        """Note that a bundle is loaded; the next beat proves it. Its digests are those of what this process really holds.

        Raises Conflict for an epoch that is not offered any more.
        """
        if bundle.epoch not in {one.epoch for one in self.offered}:
            raise Conflict(f"epoch {bundle.epoch} is not offered to {self.invitation.replica}: let go of it")
        offered = tuple(one for one in self.offered if one.epoch != bundle.epoch)
        return _replace(self, offered=offered, loaded={**self.loaded, bundle.epoch: bundle})

    def may_serve(self, epoch: int, risk: Risk, *, now_s: float) -> Served:
        """Return leave to serve a request that was pinned to `epoch` at its ingress, under that epoch's bundle.

        Raises Unavailable where the lease is over and no grace is left, or while it drains; Denied when revoked; Conflict
        for an epoch that is over or not here.
        """
        degraded = self._is_degraded(risk, now_s)
        if epoch < self.floor and not (epoch == self.before and now_s < self.before_until_s):
            raise Conflict(f"epoch {epoch} is over, the floor is {self.floor}: pin the request anew")
        bundle = self.loaded.get(epoch)
        if bundle is None:
            raise Conflict(f"epoch {epoch} is not loaded in {self.invitation.replica}: ask another")
        return Served(bundle=bundle, degraded=degraded)

    def must_abort(self, *, now_s: float) -> bool:
        """Tell whether what is still under way has to be aborted: it drained as long as it may."""
        return self.drain_until_s is not None and now_s >= self.drain_until_s

    def _is_degraded(self, risk: Risk, now_s: float) -> bool:
        name = self.invitation.replica
        if self.drain_until_s is not None:
            raise Unavailable(f"{name} is draining: ask another")
        if self.revoked & {name, self.key}:
            raise Denied(f"{name} was revoked: ask another")
        if self.lease is None:
            raise Unavailable(f"{name} is not admitted: ask another")
        if now_s < self.lease.until_s:
            return False
        if self.lease.in_grace(risk, now_s):
            return True
        raise Unavailable(f"the lease of {name} is over, and {risk} risk has no grace now: ask another")

    def _is_news(self, answer: Answer) -> bool:
        return (answer.answers, answer.serial) > self.heard and answer.floor >= self.floor

    def _at_floor(self, answer: Answer) -> Self:
        """Take the floor and what is offered above it, and let go of what nobody may ask for any more."""
        before, until_s = self.before, self.before_until_s
        if answer.floor > self.floor:
            before, until_s = self.floor, NEVER if self.lease is None else self.lease.until_s
        wanted = {one.epoch for one in answer.bundles} | {before, answer.floor}
        return _replace(
            self,
            floor=answer.floor,
            before=before,
            before_until_s=until_s,
            offered=tuple(one for one in answer.bundles if one.epoch not in self.loaded),
            loaded={epoch: bundle for epoch, bundle in self.loaded.items() if epoch in wanted},
        )

    def _lease(self, ticket: Ticket | None, asked_s: float) -> Lease | None:
        """Return the new lease; none where admission gave none, so that no grace outlives a refusal."""
        if ticket is None or ticket.epoch not in self.loaded or ticket.key != self.key:
            return None
        return Lease.of(ticket, asked_s=asked_s, terms=self.terms)

    def _proof(self, bundle: Bundle) -> bytes:
        return proof_of(bundle, nonce=self.invitation.nonce)
