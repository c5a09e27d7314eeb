"""A gateway admits its own workers: it examines them, asks admission to put them on record, and says until when they are given rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakSet

import msgspec

from taut.core.evidence import Check
from taut.fleet.admission import Seat, Stage, Worker, faults_of, worker_svid
from taut.ports.world import Random
from taut.serving.gateway import Leave as GatewayLeave
from taut.serving.workers import Charge, Granted, Leave, Refused

_PATIENCE_S: Final = 0.5
_NEWS_MAX: Final = 1024
_TOLD_MAX: Final = 16  # in one word, which is bounded
_TOKEN_BYTES: Final = 32
BY_GRACE: Final = "~"
"""Ends the name of a worker that is not on record: its gateway goes on by grace, and so does it."""


class Candidate(msgspec.Struct, kw_only=True):
    """A worker that showed what it must. asked: after which beat admission was asked to put it on record; -1 for not yet."""

    worker: Worker
    risk: str
    granted: Granted
    refused: Refused
    asked: int = -1
    recorded: bool = False


class Wards:
    """All workers of one gateway. One event loop owns it.

    gateway: its name. seat: at admission. speak: says words to admission. build: digest of what it runs, and its workers must.
    patience_s: for a word of admission, before grace is looked for.

    Guarantees: a worker is given rows only while its gateway may serve, and only once it is on record as admitted; where admission
    does not answer, for classes of risk with grace only, as what is not on record. One that admission does not take, or revokes, is
    ended.
    """

    def __init__(
        self,
        gateway: str,
        *,
        seat: Seat,
        speak: Callable[[Iterable[bytes]], None],
        build: str,
        random: Random,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._patience_s: Final = patience_s
        self._gateway: Final = gateway
        self._seat: Final = seat
        self._speak: Final = speak
        self._random: Final = random
        self._build: Final = build
        self._number = 0
        self._wards: Final[WeakSet[ModelWard]] = WeakSet()
        self._candidates: Final[dict[int, Candidate]] = {}
        self._news: list[Worker] = []
        self._leave = GatewayLeave()
        self._epoch = 0

    def ward(self, name: str, artifact: str, risk: str) -> ModelWard:
        """Return who admits the workers of a model."""
        made = ModelWard(self, name, artifact, risk, self.leave_of(risk))
        self._wards.add(made)
        return made

    def settle(self, leave: GatewayLeave) -> None:
        """Take what the gateway may do now, and do what workers wait for."""
        seat, own = self._seat, self._seat.view
        self._leave, self._epoch = leave, 0 if own is None else own.floor
        for ward in self._wards:
            ward.leave = self.leave_of(ward.risk)
        if own is None or own.lease is None:
            return
        for number, one in tuple(self._candidates.items()):
            svid = worker_svid(self._gateway, seat.incarnation, one.worker.name, number)
            if svid in seat.workers:
                if not one.recorded:
                    one.recorded = True
                    one.granted(_name_of(one.worker))
            elif svid in own.revoked:
                one.refused("it was revoked")
            elif one.recorded:
                one.recorded, one.asked = False, -1  # admission began anew and does not know it: ask again
            elif one.asked >= 0 and own.heard[0] > one.asked:
                one.refused("admission does not take what it showed")
        self._tell()

    def reconnected(self) -> None:
        """Ask again what may have been lost."""
        for one in self._candidates.values():
            if not one.recorded:
                one.asked = -1

    def leave_of(self, risk: str) -> Leave:
        until_ns = max(self._leave.until_ns, self._leave.grace_until_ns.get(risk, 0))
        return Leave(until_ns / 1e9, self._epoch, until_ns)

    # what its wards say

    def charge(self) -> Charge:
        self._number += 1
        return Charge(self._number, self._random.bytes(_TOKEN_BYTES).hex(), self._build)

    def showed(self, candidate: Candidate) -> None:
        number = candidate.worker.incarnation
        self._candidates[number] = candidate
        self._tell()
        asyncio.get_running_loop().call_later(self._patience_s, self._by_grace, number)

    def refuse(self, worker: Worker) -> None:
        """Have it put on record that a worker did not show what it must: admission judges that once more."""
        self._news = [*self._news[1 - _NEWS_MAX :], worker]
        self._tell()

    def report(self, worker: Worker) -> None:
        """Have it told that a worker drains or has ended, where admission knows of it."""
        found = self._candidates.get(worker.incarnation)
        if found is None:
            return
        if worker.stage is not Stage.DRAINING:
            del self._candidates[worker.incarnation]
        if found.asked >= 0 or found.recorded:
            self._news = [*self._news[1 - _NEWS_MAX :], worker]
            self._tell()

    def _tell(self) -> None:
        """Say to admission what it has not heard, where this gateway is one whose word counts."""
        own = self._seat.view
        if own is None or own.lease is None:
            return
        fresh = [one for one in self._candidates.values() if not one.recorded and one.asked < 0]
        for one in fresh:
            one.asked = own.number
        news, self._news = [*(one.worker for one in fresh), *self._news], []
        self._speak(
            self._seat.vouched(tuple(news[at : at + _TOLD_MAX])) for at in range(0, len(news), _TOLD_MAX)
        )

    def _by_grace(self, number: int) -> None:
        """Let a worker go on as its gateway does, where admission does not say a word."""
        one = self._candidates.get(number)
        if one is None or one.recorded:
            return
        if time.monotonic_ns() < self._leave.grace_until_ns.get(one.risk, 0):
            one.granted(_name_of(one.worker) + BY_GRACE)
        else:
            asyncio.get_running_loop().call_later(self._patience_s, self._by_grace, number)


class ModelWard:
    """Admits the workers of one model: a Ward. See there, and `Wards`."""

    def __init__(self, wards: Wards, name: str, artifact: str, risk: str, leave: Leave) -> None:
        self.leave = leave
        self.risk: Final = risk
        self._wards: Final = wards
        self._name: Final = name
        self._artifact: Final = artifact

    def charge(self) -> Charge:
        return self._wards.charge()

    def showed(
        self, incarnation: int, checks: tuple[Check, ...], granted: Granted, refused: Refused, /
    ) -> None:
        worker = self._worker(incarnation, Stage.ADMITTED, checks=checks)
        faults = faults_of(worker)
        if faults:
            self._wards.refuse(worker)
            refused("; ".join(faults))
        else:
            self._wards.showed(Candidate(worker=worker, risk=self.risk, granted=granted, refused=refused))

    def drains(self, incarnation: int, /) -> None:
        self._wards.report(self._worker(incarnation, Stage.DRAINING))

    def ended(self, incarnation: int, why: str, /) -> None:
        self._wards.report(self._worker(incarnation, Stage.GONE, reason=why))

    def _worker(
        self, incarnation: int, stage: Stage, *, checks: tuple[Check, ...] = (), reason: str = ""
    ) -> Worker:
        return Worker(
            name=self._name, incarnation=incarnation, artifact=self._artifact, stage=stage, checks=checks,
            reason=reason[:500],
        )  # fmt: skip


def _name_of(worker: Worker) -> str:
    return f"{worker.name}#{worker.incarnation}"
