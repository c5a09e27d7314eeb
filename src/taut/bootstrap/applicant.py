"""A gateway as a replica: it joins, shows that it enforces, and has leave to serve for as long as its lease lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from taut.adapters.world import SystemClock
from taut.bootstrap.grace import NOTHING, GraceFile
from taut.bootstrap.replicas import PROBING, FloorFile
from taut.bootstrap.wards import Wards
from taut.core.errors import Conflict, TautError
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import Bundle, ReplicaView, Seat
from taut.serving.gateway import Admitted, Gateway, Leave
from taut.serving.gateway.probing import ask
from taut.serving.gateway.replies import Answering
from taut.serving.gateway.warming import warm
from taut.serving.predictions import Mark, PredictionLog
from taut.serving.snapshot import Say, ServingSnapshot

_ENDPOINTS_MAX: Final = 8
_FORGED: Final = "eyJhbGciOiJub25lIn0.e30."


class Log(Protocol):
    """Where a gateway says what happens to it."""

    def info(self, event: str, **fields: Any) -> None: ...

    def warning(self, event: str, **fields: Any) -> None: ...


class Applicant:
    """Holds one gateway's seat at admission, and keeps its leave true. One event loop owns it; a `Talk` and a `Switch`.

    log: of the gateway's records, which say by what leave each was served. inner: answers as the gateway does; it is what is probed, and what `door` lets requests through to. said: hears what happens.
    ended: called once when this process can be admitted no more, so that another must take its place. workers: makes what admits this
    gateway's workers, of its seat and of what says words to admission.
    """

    def __init__(
        self,
        gateway: Gateway,
        inner: Answering,
        *,
        artifacts: str,
        floor: FloorFile,
        grace: GraceFile,
        log: PredictionLog,
        said: Log,
        ended: Callable[[], None],
        workers: Callable[[Seat, Callable[[Iterable[bytes]], None]], Wards],
    ) -> None:
        self._gateway: Final = gateway
        self._inner: Final = inner
        self._grace: Final = grace
        self._log: Final = log
        self._said: Final = said
        self._ended: Final = ended
        self._seat: Final = Seat(
            artifacts=artifacts, enforces=self._enforces, clock=SystemClock(), floor=floor.read(), keep_floor=floor.keep
        )  # fmt: skip
        self.wards: Final = workers(self._seat, self._speak)
        self._leaves = False
        self.door: Final = Admitted(inner, gateway, monotonic_ns=time.monotonic_ns, lapsed=self._lapsed)
        self.admitted: Final = asyncio.Event()
        self._news: Final = asyncio.Event()
        self._held: ServingSnapshot | None = None
        self._say: Say | None = None
        self._showing: asyncio.Task[None] | None = None
        self._trouble = ""
        self._over = False
        self._left = NOTHING

    @property
    def incarnation(self) -> int:
        """Return which incarnation this process is, 0 before it was invited."""
        return self._seat.incarnation

    @property
    def joins(self) -> bool:
        """Return whether control let this process in, which has yet to show what it does, or did."""
        return self._seat.view is not None and not self._seat.over

    def resume(self) -> bool:
        """Go on by what is left of the grace of the process before, where control did not answer this one; tell whether there is any.
        It is no admission: what allows no grace is refused. It lasts while this process joins anew, unless control has another word."""
        if not self._seat.unanswered:
            return False
        self._left = self._grace.read()
        left = self._left.grace_until_ns
        if left:
            self._said.warning(
                "control does not answer: going on by what is left of grace", risks=sorted(left)
            )
            self._allow(Leave(grace_until_ns=left, why=self._seat.why))
        return bool(left)

    def close(self) -> None:
        """Keep what the next process may go on by, and say that this one drains: what it has it finishes by its last lease."""
        self._keep_grace()
        self._speak(self._seat.leaving())
        self._leaves = True

    # a Talk

    @property
    def talk(self) -> Applicant:
        return self

    def opened(self, say: Say) -> None:
        self._say = say
        self.wards.reconnected()
        self.due()

    def due(self) -> None:
        self._speak([self._seat.beat()])
        self._settle()

    def heard(self, data: bytes) -> None:
        try:
            self._speak(self._seat.take(data))
            self._trouble = ""
        except TautError as error:
            if error.message != self._trouble:
                self._trouble = error.message
                self._said.warning("a word of admission was not taken", why=error.message)
        self._settle()
        self._news.set()

    # a Switch

    async def ready(self, snapshot: ServingSnapshot) -> None:
        """Return once the policy of a snapshot is committed; at once where it is the one that is enforced already, or where
        nothing is served. Raises Conflict where it was withdrawn.
        """
        active, own = self._gateway.active, self._seat.view
        if own is None or active is None or active.snapshot.policy_digest == snapshot.policy_digest:
            return
        self._held = snapshot
        self._speak(self._seat.look() or [self._seat.beat()])
        asked = own.number if (own := self._seat.view) is not None else 0
        while (own := self._seat.view) is not None and own.lease is not None:
            if self._is_committed(own):
                return
            if own.heard[0] >= asked and not any(_is_of(snapshot, one) for one in self._seat.bundles):
                self._held = None
                raise Conflict(
                    f"the policy of snapshot {snapshot.epoch} was withdrawn before it was committed: the next one brings another"
                )
            self._news.clear()
            await self._news.wait()

    def installed(self) -> None:
        self._held = None
        self._speak(self._seat.look())
        self._settle()

    # inside

    def _enforces(self, bundle: Bundle) -> bool:
        active = self._gateway.active
        here = (None if active is None else active.snapshot, self._held)
        return any(one is not None and _is_of(one, bundle) for one in here)

    def _speak(self, words: Iterable[bytes]) -> None:
        if self._say is not None:
            for word in words:
                self._say(word)

    def _settle(self) -> None:
        """Bring the leave up to what the seat knows, and do what it waits for."""
        own = self._seat.view
        if own is not None and own.lease is not None and self._is_committed(own):
            return  # what is held is about to be installed: until then what was there is within its own lease
        if self._seat.unanswered or self._leaves:
            return  # what `resume` left holds until control says a word, and the last lease of who drains to its end
        if self._left is not NOTHING and not self._goes_on(own):
            self._left = NOTHING
        self._allow(self._leave(own))
        if self._grace.is_due():
            asyncio.get_running_loop().run_in_executor(None, self._keep_grace)
        if self.door.leave.until_ns > time.monotonic_ns() and not self.admitted.is_set():
            self._log.mark(Mark(self.incarnation))
            self.admitted.set()
            self._said.info("admitted", incarnation=self.incarnation, epoch=0 if own is None else own.floor)
        if self._seat.over and not self._over:
            self._over = True
            self._said.warning("this process can be admitted no more", why=self._seat.over)
            self._ended()
        if self._seat.synced and (self._showing is None or self._showing.done()):
            self._showing = asyncio.create_task(self._show())

    def _is_committed(self, own: ReplicaView) -> bool:
        """Tell whether requests may begin under the policy that is held."""
        held = self._held
        return held is not None and any(
            _is_of(held, one) and one.epoch <= own.floor for one in self._seat.bundles
        )

    def _allow(self, leave: Leave) -> None:
        self.door.leave = leave
        self.wards.settle(leave)

    def _goes_on(self, own: ReplicaView | None) -> bool:
        """Tell whether what `resume` left may be used while this process joins: until it has a lease of its own, is refused, a
        later policy is committed than it serves, or whose grace it was is revoked. What ended so does not come back."""
        if self._seat.refused or (own is not None and own.revoked & set(self._left.identities)):
            self._grace.forget()
            return False
        return own is None or (own.lease is None and own.drain_until_s is None and self._epoch >= own.floor)

    @property
    def _epoch(self) -> int:
        return 0 if self._gateway.active is None else self._gateway.active.epoch

    def _leave(self, own: ReplicaView | None) -> Leave:
        if own is None or own.lease is None:
            return Leave(grace_until_ns=self._left.grace_until_ns, why=self._seat.why)
        epoch = self._epoch
        if epoch < own.floor:
            return Leave(why=f"it serves under epoch {epoch}, and policy epoch {own.floor} is committed")
        if own.drain_until_s is not None:
            return Leave(why="it is draining")
        if own.revoked & {own.invitation.replica, own.key}:
            return Leave(why="it was revoked")
        grace: dict[str, int] = {
            risk: int(until_s * 1e9) for risk, until_s in own.lease.grace_until_s.items()
        }
        return Leave(until_ns=int(own.lease.until_s * 1e9), grace_until_ns=grace, why="")

    def _keep_grace(self) -> None:
        leave, own = self.door.leave, self._seat.view
        if own is None or own.lease is None or not leave.grace_until_ns:
            return  # what is kept already is all that is left
        ticket = own.lease.ticket
        try:
            self._grace.keep(leave.grace_until_ns, identities=(ticket.replica, ticket.key, ticket.svid))
        except TautError as error:
            self._said.warning("what is left of grace cannot be kept for the next process", why=error.message)

    def _lapsed(self, degraded: bool) -> None:
        self._log.mark(Mark(self.incarnation, degraded))
        if degraded:
            self._said.warning("requests are served by grace alone, since control does not renew the lease")
        else:
            self._said.info("the lease was renewed, requests are served under it again")

    async def _show(self) -> None:
        """Warm and probe, and say what was found."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, warm, self._gateway.active)
        self._speak(
            [self._seat.shown("warmed", (_check("golden", found.failed), _check("latency", found.slow)))]
        )
        self._speak(
            [self._seat.shown("probed", await probe(self._inner, self._gateway, self._seat.credentials))]
        )
        self._speak([self._seat.beat()])


async def probe(inner: Answering, gateway: Gateway, credentials: Mapping[str, str]) -> tuple[Check, ...]:
    """Ask the gateway through its own port what must be refused, what must be answered, and what is another's.

    credentials: bearers of those in PROBING. What the gateway answers them must be what the policy says that it loaded.
    """
    active = gateway.active
    names = [] if active is None else sorted(active.endpoints)[:_ENDPOINTS_MAX]
    blocked: list[str] = []
    let_pass: list[str] = []
    apart: list[str] = []
    for name in names or ["probe"]:
        path = f"/v1/predict/{name}"
        blocked += await _unless(inner, "POST", path, "", (401,))
        blocked += await _unless(inner, "POST", path, _FORGED, (401,))
    let_pass += await _unless(inner, "GET", "/v2", "", (200,))
    for name in names:
        assert active is not None, "it has endpoints"
        endpoint, now = active.endpoints[name], datetime.now(UTC)
        context = {"plane": "data", "risk": endpoint.config.risk, "now": now}
        for who, found in (("insider", let_pass), ("stranger", apart)):
            wanted = active.policy.decide(PROBING[who], "predict", endpoint.resource, context)
            status = 200 if wanted.allow else 403
            found += await _unless(inner, "GET", f"/v2/models/{name}", credentials.get(who, ""), (status,))
    apart += await _unless(inner, "GET", "/v2/models/another-tenant", credentials.get("stranger", ""), (404,))
    return _check("must_block", blocked), _check("must_pass", let_pass), _check("tenant_isolation", apart)


async def _unless(
    inner: Answering, method: str, path: str, bearer: str, wanted: tuple[int, ...]
) -> list[str]:
    body = b"{}" if method == "POST" else b""
    try:
        status, _ = await ask(inner, method, path, bearer=bearer, body=body)
    except TautError as error:
        return [error.message]
    return [] if status in wanted else [f"{method} {path} was answered {status}, not {wanted[0]}"]


def _check(name: str, faults: Sequence[str]) -> Check:
    if not faults:
        return Check(name=name, outcome=Outcome.PASSED)
    return Check(name=name, outcome=Outcome.FAILED, message="; ".join(faults)[:500])


def _is_of(snapshot: ServingSnapshot, bundle: Bundle) -> bool:
    """Tell whether a snapshot enforces what a bundle names: its policy, and nothing older than its epoch."""
    return snapshot.policy_digest == bundle.policy and snapshot.epoch >= bundle.epoch
