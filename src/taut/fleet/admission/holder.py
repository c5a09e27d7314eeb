"""One incarnation at work: its key, its view, the floor on its disk; bytes in, bytes out, and leave to serve.

Whoever has the connection (a gateway on control's stream, a worker on its gateway's socket) carries the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from taut.core.evidence import Check
from taut.fleet.admission.gateway import GatewayView, Pin
from taut.fleet.admission.messages import (
    Answer,
    Bundle,
    Invitation,
    Leaving,
    Shown,
    Ticket,
    Vouched,
    Worker,
)
from taut.fleet.admission.replica import ReplicaView, Served
from taut.fleet.admission.terms import Risk, Terms
from taut.fleet.admission.wire import ReplicaKey, open_answer
from taut.ports.keys import PublicKey
from taut.ports.world import Clock


class Holder:
    """Holds a replica's lease. One thread changes it (`attest`, `beat`, `hear`, `load`); any may ask for leave.

    artifacts: digest of what this process really runs. trusted: admission's public keys. floor: the highest epoch that an
    earlier incarnation of this replica kept. keep_floor: makes a higher one durable, before it is used; what it raises is
    raised by `hear`, which then changed nothing.

    Guarantees: as `ReplicaView` and `GatewayView` say, on this process's monotonic clock.
    """

    def __init__(
        self,
        invitation: Invitation,
        terms: Terms,
        *,
        artifacts: str,
        trusted: Sequence[PublicKey],
        clock: Clock,
        floor: int = 0,
        keep_floor: Callable[[int], None],
    ) -> None:
        self._key: Final = ReplicaKey()
        self._trusted: Final = tuple(trusted)
        self._clock: Final = clock
        self._keep_floor: Final = keep_floor
        self._vouched = 0
        own = ReplicaView(
            terms=terms,
            invitation=invitation,
            key=self._key.thumbprint,
            artifacts=artifacts,
            floor=floor,
        )
        self._view = GatewayView(own=own)

    @property
    def view(self) -> GatewayView:
        """Return what this incarnation knows now, as one value."""
        return self._view

    def attest(self) -> bytes:
        """Return the first word of this process."""
        return self._key.sign(self._view.own.attest())

    def beat(self) -> bytes:
        """Return the question for the next lease. Ask every second or so."""
        own, beat = self._view.own.beat(now_s=self._clock.monotonic_s())
        self._view = msgspec.structs.replace(self._view, own=own)
        return self._key.sign(beat)

    def shown(self, step: Literal["warmed", "probed"], checks: tuple[Check, ...]) -> bytes:
        """Return what warming or probing found, for admission to judge."""
        mine = self._view.own.invitation
        message = Shown(
            replica=mine.replica, incarnation=mine.incarnation, key=self._key.thumbprint, step=step, checks=checks
        )  # fmt: skip
        return self._key.sign(message)

    def vouched(self, workers: tuple[Worker, ...]) -> bytes:
        """Return what became of this gateway's workers, for admission to judge and to put on record."""
        mine = self._view.own.invitation
        self._vouched += 1
        message = Vouched(
            replica=mine.replica, incarnation=mine.incarnation, key=self._key.thumbprint, number=self._vouched,
            workers=workers,
        )  # fmt: skip
        return self._key.sign(message)

    def leaving(self) -> bytes:
        """Return that this replica drains."""
        mine = self._view.own.invitation
        return self._key.sign(
            Leaving(replica=mine.replica, incarnation=mine.incarnation, key=self._key.thumbprint)
        )

    def hear(self, data: bytes) -> Answer:
        """Take an answer of admission, and return it. Raises Corrupt, Denied or Conflict for what is none, or none for now; see
        `ReplicaView.hear`. Then nothing has changed, and the lease runs on to its end.
        """
        answer = open_answer(data, self._trusted)
        view = self._view.hear(answer, now_s=self._clock.monotonic_s())
        if view.own.floor > self._view.own.floor:
            self._keep_floor(view.own.floor)
        self._view = view
        return answer

    def load(self, bundle: Bundle) -> None:
        """Note that one of `view.own.offered` is loaded; see `ReplicaView.load`. Then beat at once."""
        self._view = msgspec.structs.replace(self._view, own=self._view.own.load(bundle))

    def pin(self, risk: Risk) -> Pin:
        """Pin a request that comes in here; see `GatewayView.pin`."""
        return self._view.pin(risk, now_s=self._clock.monotonic_s())

    def check(self, replica: str, incarnation: int, key: str, pin: Pin, risk: Risk) -> Ticket:
        """Check whom a pinned request would go to; see `GatewayView.check`."""
        return self._view.check(replica, incarnation, key, pin, risk, now_s=self._clock.monotonic_s())

    def may_serve(self, epoch: int, risk: Risk) -> Served:
        """Return leave to serve a request that was pinned elsewhere; see `ReplicaView.may_serve`."""
        return self._view.own.may_serve(epoch, risk, now_s=self._clock.monotonic_s())
