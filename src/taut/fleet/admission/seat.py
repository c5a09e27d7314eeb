"""A replica's end of the connection: from the first word of its process to its leases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from taut.core.errors import Conflict
from taut.core.evidence import Check
from taut.fleet.admission.holder import Holder
from taut.fleet.admission.messages import Bundle, Worker
from taut.fleet.admission.replica import ReplicaView
from taut.fleet.admission.words import Answered, Join, Refused, Said, Welcome, decode_down, encode
from taut.ports.world import Clock


class Seat:
    """Takes what comes over the connection and says what is to be said next. One thread owns it.

    artifacts: digest of what this process runs. enforces: whether what this process has loaded is all that a bundle names.
    floor, keep_floor: as for a Holder. why: in words, why there is no lease; empty while there is one. over: why this
    incarnation is known no more, so that only another process can be admitted; empty while it is. credentials: bearers to be
    probed with. unanswered: nothing came yet. refused: admission's newest word was that it does not let this process in.
    workers: SVIDs of this gateway's workers that are on record as admitted, by the newest answer.
    """

    def __init__(
        self,
        *,
        artifacts: str,
        enforces: Callable[[Bundle], bool],
        clock: Clock,
        floor: int,
        keep_floor: Callable[[int], None],
    ) -> None:
        self._artifacts: Final = artifacts
        self._enforces: Final = enforces
        self._clock: Final = clock
        self._floor: Final = floor
        self._keep_floor: Final = keep_floor
        self._holder: Holder | None = None
        self._bundles: tuple[Bundle, ...] = ()
        self.credentials: dict[str, str] = {}
        self.workers: frozenset[str] = frozenset()
        self.why = "control has not answered yet"
        self.over = ""
        self.unanswered = True
        self.refused = False

    @property
    def view(self) -> ReplicaView | None:
        """Return what this incarnation knows; None before it was invited."""
        return None if self._holder is None else self._holder.view.own

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Return what may be enforced, by the newest answer: the committed bundle and the one that is prepared."""
        return self._bundles

    @property
    def incarnation(self) -> int:
        return 0 if self._holder is None else self._holder.view.own.invitation.incarnation

    @property
    def synced(self) -> bool:
        """Whether it has proved what is committed, and has yet to show that it enforces."""
        own = self.view
        return own is not None and own.lease is None and own.floor in own.loaded and not self.over

    def beat(self) -> bytes:
        """Return what is to be said every second, and first on each connection."""
        return encode(Join()) if self._holder is None else encode(Said(data=self._holder.beat()))

    def shown(self, step: Literal["warmed", "probed"], checks: tuple[Check, ...]) -> bytes:
        """Return what warming or probing found."""
        assert self._holder is not None, "only who was invited warms"
        return encode(Said(data=self._holder.shown(step, checks)))

    def vouched(self, workers: tuple[Worker, ...]) -> bytes:
        """Return what became of workers."""
        assert self._holder is not None, "only who was invited has workers that could be admitted"
        return encode(Said(data=self._holder.vouched(workers)))

    def leaving(self) -> list[bytes]:
        """Return that this replica drains; nothing where admission does not know it."""
        return [] if self._holder is None else [encode(Said(data=self._holder.leaving()))]

    def take(self, data: bytes) -> list[bytes]:
        """Take what came and return what is to be said at once. Raises Corrupt or Denied for what admission did not say."""
        word = decode_down(data)
        self.unanswered = False
        self.refused = isinstance(word, Refused)
        match word:
            case Welcome():
                return self._begin(word)
            case Refused():
                self.why = word.message
                if word.over and self._holder is not None:
                    self.over = word.message
                return []
            case Answered():
                return self._hear(word.data)

    def look(self) -> list[bytes]:
        """Look whether something of what is offered is enforced here by now; return what is to be said then."""
        holder = self._holder
        if holder is None:
            return []
        found = [one for one in holder.view.own.offered if self._enforces(one)]
        for bundle in found:
            holder.load(bundle)
        return [self.beat()] if found else []

    def _begin(self, word: Welcome) -> list[bytes]:
        if self._holder is not None:
            raise Conflict("a second invitation came to one process: it has joined already")
        self._holder = Holder(
            word.invitation, word.terms, artifacts=self._artifacts, trusted=word.trusted, clock=self._clock,
            floor=self._floor, keep_floor=self._keep_floor,
        )  # fmt: skip
        self.credentials = dict(word.credentials)
        self.why = "it has yet to show that it enforces"
        return [encode(Said(data=self._holder.attest())), self.beat()]

    def _hear(self, data: bytes) -> list[bytes]:
        holder = self._holder
        if holder is None:
            return []  # to a process that had the name before
        try:
            answer = holder.hear(data)
        except Conflict:
            return []  # a newer one overtook it
        self._bundles, self.workers = answer.bundles, frozenset(answer.workers)
        if not answer.bundles:
            self.refused = True
            self.over = "admission trusts this incarnation no more: it was quarantined or revoked"
        self.why = self._reason(answer.drain_s is not None)
        return self.look()

    def _reason(self, drains: bool) -> str:
        own = self.view
        assert own is not None, "an answer was heard"
        if self.over:
            return self.over
        if drains:
            return "it is draining"
        if own.lease is None:
            missing = own.floor not in own.loaded
            return (
                f"it has not loaded policy epoch {own.floor}"
                if missing
                else "it has yet to show that it enforces"
            )
        return ""
