"""Whether what was served was served by leave: replicas' own records held against what the ledger says of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

import msgspec

from taut.fleet.admission.messages import svid_of, worker_svid

_ENDS: Final = ("fleet.quarantined", "fleet.gone", "fleet.draining")
_FAULTS_MAX: Final = 20
_UNRECORDED: Final = "~"  # behind a worker that its gateway let go on by grace, without admission


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf of the ledger about the fleet. at_us: microseconds since the epoch, by control's clock."""

    kind: str
    subject: str
    at_us: int


class Answered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer that a replica recorded. incarnation: of it, 0 for none. degraded: by grace. epoch: under which it was served.
    at_us: when the request was taken up, by the replica's clock. worker: by which workers it was computed, as the record says."""

    replica: str
    incarnation: int
    degraded: bool
    epoch: int
    at_us: int
    worker: str = ""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """guarded: answers by leave. by_grace: those that grace alone allowed, which prove nothing. unguarded: all others; faults:
    why, of the first of them. last_old_s: how long after a commit an answer under an earlier epoch was begun, at most;
    last_ended_s: after a replica's end, one of its own."""

    guarded: int
    by_grace: int
    unguarded: int
    faults: tuple[str, ...] = ()
    last_old_s: float = 0.0
    last_ended_s: float = 0.0


class Judge:
    """Knows when each incarnation was admitted and ended, and when each epoch of policy was committed.

    ttl_s: for how long a lease may be used after it could have been renewed last; the bound of I2 and I6. Clocks of replicas
    must agree with control's within what `ttl_s` leaves; on one machine they are the same.
    """

    def __init__(self, pool: str, facts: Iterable[Fact], *, ttl_s: float) -> None:
        self._pool: Final = pool
        self._ttl_us: Final = int(ttl_s * 1e6)
        self._admitted: Final[dict[str, int]] = {}
        self._ended: Final[dict[str, int]] = {}
        commits: list[tuple[int, int]] = []
        for fact in facts:
            if fact.kind == "fleet.admitted":
                self._admitted[fact.subject] = fact.at_us
            elif fact.kind in _ENDS:
                self._ended[fact.subject] = min(fact.at_us, self._ended.get(fact.subject, fact.at_us))
            elif fact.kind == "fleet.committed":
                commits.append((fact.at_us, int(fact.subject.removeprefix("epoch:"))))
        commits.sort()
        self._times: Final = [at_us for at_us, _ in commits]
        self._epochs: Final = [epoch for _, epoch in commits]

    def judge(self, answers: Iterable[Answered]) -> Judgement:
        guarded = by_grace = unguarded = last_old_us = last_ended_us = 0
        faults: list[str] = []
        for one in answers:
            if one.degraded or _UNRECORDED in one.worker:
                by_grace += 1
                continue
            last_old_us = max(last_old_us, self._old_us(one))
            last_ended_us = max(last_ended_us, self._ended_us(one))
            fault = self._fault(one) or self._worker_fault(one)
            if not fault:
                guarded += 1
                continue
            unguarded += 1
            if len(faults) < _FAULTS_MAX:
                faults.append(
                    f"{one.replica}#{one.incarnation} at {one.at_us} under epoch {one.epoch}: {fault}"
                )
        return Judgement(
            guarded=guarded, by_grace=by_grace, unguarded=unguarded, faults=tuple(faults), last_old_s=last_old_us / 1e6,
            last_ended_s=last_ended_us / 1e6,
        )  # fmt: skip

    def _fault(self, one: Answered) -> str:
        svid = svid_of(self._pool, one.replica, one.incarnation)
        admitted_us, ended_us = self._admitted.get(svid), self._ended.get(svid)
        if one.incarnation == 0 or admitted_us is None:
            return "it was never admitted"
        if one.at_us < admitted_us:
            return f"it was admitted {(admitted_us - one.at_us) / 1e6:.3f} s later"
        if ended_us is not None and one.at_us > ended_us + self._ttl_us:
            return f"it had ended {(one.at_us - ended_us) / 1e6:.3f} s before"
        floor = self._floor(one.at_us - self._ttl_us)
        return f"epoch {floor} had been committed for longer than a lease" if one.epoch < floor else ""

    def _worker_fault(self, one: Answered) -> str:
        """A request may be taken up while its worker is still to come, so that only the worker's end is held against its time."""
        for named in filter(None, one.worker.split(",")):
            worker, _, number = named.rpartition("#")
            svid = (
                worker_svid(one.replica, one.incarnation, worker, int(number)) if number.isdigit() else named
            )
            if svid not in self._admitted:
                return f"its worker {named} was never admitted"
            ended_us = self._ended.get(svid)
            if ended_us is not None and one.at_us > ended_us + self._ttl_us:
                return f"its worker {named} had ended {(one.at_us - ended_us) / 1e6:.3f} s before"
        return ""

    def _ended_us(self, one: Answered) -> int:
        ended_us = self._ended.get(svid_of(self._pool, one.replica, one.incarnation))
        return 0 if ended_us is None else max(0, one.at_us - ended_us)

    def _floor(self, at_us: int) -> int:
        at = bisect_right(self._times, at_us)
        return self._epochs[at - 1] if at else 0

    def _old_us(self, one: Answered) -> int:
        """Return for how long the first epoch after the one that it was served under had been committed; 0 where none had."""
        at = bisect_right(self._epochs, one.epoch)
        return max(0, one.at_us - self._times[at]) if at < len(self._times) else 0
