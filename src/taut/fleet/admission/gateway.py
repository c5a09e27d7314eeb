"""A gateway's side: which replicas may be used for a request, and under which epoch.

A gateway is a replica itself: without a lease of its own it starts nothing. Checks of a request are reads of what the last
answer left in memory, a dictionary look-up and a few comparisons.
"""

from __future__ import annotations

from typing import Final, Self

import msgspec

from taut.core.errors import Denied
from taut.fleet.admission.messages import Answer, Ticket
from taut.fleet.admission.replica import Lease, ReplicaView
from taut.fleet.admission.terms import Risk

_replace: Final = msgspec.structs.replace


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The epoch of one request, taken once at its ingress and carried to every replica that it visits."""

    epoch: int
    degraded: bool


class GatewayView(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway knows of the others. `own`: of itself."""

    own: ReplicaView
    listed: dict[str, Lease] = {}

    def hear(self, answer: Answer, *, now_s: float) -> Self:
        """Take an answer: its roster replaces what was listed. Raises as `ReplicaView.hear` does, changing nothing.

        One that refuses this gateway its lease leaves nobody listed.
        """
        own = self.own.hear(answer, now_s=now_s)
        asked_s = self.own.asked[answer.answers]
        listed = {one.replica: Lease.of(one, asked_s=asked_s, terms=own.terms) for one in answer.roster}
        if answer.learning and answer.ticket is not None:
            listed = self.listed | listed
        return _replace(self, own=own, listed=listed)

    def pin(self, risk: Risk, *, now_s: float) -> Pin:
        """Pin a new request. Raises Unavailable or Denied where this gateway may start nothing of that risk."""
        served = self.own.may_serve(self.own.floor, risk, now_s=now_s)
        return Pin(epoch=self.own.floor, degraded=served.degraded)

    def usable(self, pool: str, pin: Pin, risk: Risk, *, now_s: float) -> tuple[Ticket, ...]:
        """Return the tickets of a pool's replicas that may be used for a pinned request now."""
        return tuple(
            one.ticket
            for one in self.listed.values()
            if one.ticket.pool == pool and self._is_good(one, pin, risk, now_s)
        )

    def check(
        self, replica: str, incarnation: int, key: str, pin: Pin, risk: Risk, *, now_s: float
    ) -> Ticket:
        """Return the ticket of the process that answers as `replica` with `key` on its connection.

        Raises Denied where that process has none that is good for this request.
        """
        listed = self.listed.get(replica)
        if listed is None or not self._is_holder(listed.ticket, incarnation, key):
            raise Denied(f"{replica}#{incarnation} has no ticket with its key: use another")
        if not self._is_good(listed, pin, risk, now_s):
            raise Denied(
                f"the ticket of {replica} is over, or of an older epoch than {self.own.floor}: use another"
            )
        return listed.ticket

    def _is_holder(self, ticket: Ticket, incarnation: int, key: str) -> bool:
        return (ticket.incarnation, ticket.key) == (incarnation, key)

    def _is_good(self, listed: Lease, pin: Pin, risk: Risk, now_s: float) -> bool:
        ticket = listed.ticket
        if ticket.epoch < self.own.floor or self.own.revoked & {ticket.replica, ticket.key, ticket.svid}:
            return False
        return now_s < listed.until_s or (pin.degraded and listed.in_grace(risk, now_s))
