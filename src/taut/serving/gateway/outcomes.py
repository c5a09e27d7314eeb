"""What becomes of requests: answers and refusals are counted and traced, refusals recorded and put into words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taut.core.errors import Denied, Exhausted, TautError, Unauthenticated, Unavailable
from taut.serving.errors import Internal
from taut.serving.gateway.guard import Session
from taut.serving.gateway.replies import Reply, Statuses, refusal
from taut.serving.gateway.ticket import Ticket, World
from taut.serving.gateway.traced import request_span
from taut.serving.meters import Meters
from taut.serving.predictions import PredictionLog, encode_record
from taut.serving.tracing import Trace, Tracer
from taut.trust.quota import Account, Kind, Quota, QuotaSpent

LogFailure = Callable[[str, BaseException], None]
"""Called with the request id and what failed, for failures that are ours."""

_OURS: Final = 500  # from here on a status says that not the caller failed
_HUNG_UP: Final = 499  # the status that proxies log for a caller who did not wait


class Outcomes:
    """The ends of one gateway's requests. One event loop owns it.

    answers, refusals: how many there were since the gateway began.
    """

    def __init__(
        self,
        *,
        log: PredictionLog,
        statuses: Statuses,
        world: World,
        log_failure: LogFailure,
        tracer: Tracer | None,
        quota: Quota,
    ) -> None:
        self._log: Final = log
        self._append: Final = log.append
        self._statuses: Final = statuses
        self._counter_ns: Final = world.counter_ns
        self._monotonic_s: Final = world.monotonic_s
        self._log_failure: Final = log_failure
        self._tracer: Final = tracer
        self._quota: Final = quota
        self.meters: Final = Meters()
        self.answers = self.refusals = 0

    def counted(self, ticket: Ticket, reply: Reply) -> Reply:
        """Count an answer, trace it where it is traced, and return it."""
        model_ns, tally = ticket.model_ns, ticket.tally
        if model_ns and tally is not None:
            tally.scored += 1
            tally.model_ns += model_ns
        if ticket.account is not None:
            self._charge(ticket, ticket.account, model_ns)
        total_ns = self._counter_ns() - ticket.started_ns
        ticket.route.endpoint.meter.answered(ticket.guard_ns, ticket.model_ns, total_ns)
        if ticket.trace is not None:
            self._trace(ticket, ticket.trace, reply.status)
        return reply

    async def durably(self, ticket: Ticket, reply: Reply) -> Reply:
        """Return an answer once its record would survive a loss of power; a refusal where it cannot be kept."""
        try:
            await self._log.synced()
        except TautError as error:
            return self.refuse(ticket, error, record=False)
        return self.counted(ticket, reply)

    def refuse(self, ticket: Ticket, error: TautError, *, record: bool = True) -> Reply:
        """Refuse, and record the refusal of a known caller who is within his quota."""
        if record and ticket.session is not None and not isinstance(error, Exhausted | Unauthenticated):
            try:
                self._record_refusal(ticket, ticket.session, error)
            except Exhausted:
                pass  # denied and beyond his quota: he gets his answer, and cannot fill the log
            except Unavailable as full:
                error = full
        self.refusals += 1
        self._count_refusal(ticket, self._statuses.get(error.code, 500), error.code)
        spent = error if isinstance(error, QuotaSpent) else None
        return refusal(
            error, statuses=self._statuses, request_id=ticket.request_id, epoch=ticket.active.epoch,
            guard_us=ticket.guard_ns // 1000, more={"quota": spent.fields} if spent else {}, lines=spent.headers if spent else b"",
        )  # fmt: skip

    def failed(self, ticket: Ticket, error: BaseException) -> Reply:
        """Answer where we failed: who asks learns nothing of how, the operator all."""
        self._log_failure(ticket.request_id, error)
        self.refusals += 1
        self._count_refusal(ticket, 500, Internal.code)
        return self._internal(ticket.request_id, ticket.active.epoch)

    def left(self, ticket: Ticket) -> None:
        """Count a caller who hung up before he was answered."""
        self._count_refusal(ticket, _HUNG_UP, "cancelled")

    def refuse_outside(self, error: Exception, request_id: str, epoch: int, *, close: bool = False) -> Reply:
        """Refuse what is no inference, or did not get as far as one."""
        self.refusals += 1
        if not isinstance(error, TautError):
            self._log_failure(request_id, error)
            self.meters.outside.add(500, Internal.code)
            return self._internal(request_id, epoch)
        self.meters.outside.add(self._statuses.get(error.code, 500), error.code)
        return refusal(error, statuses=self._statuses, request_id=request_id, epoch=epoch, close=close)

    def _internal(self, request_id: str, epoch: int) -> Reply:
        return refusal(Internal(), statuses=self._statuses, request_id=request_id, epoch=epoch)

    def _record_refusal(self, ticket: Ticket, session: Session, error: TautError) -> None:
        endpoint = ticket.route.endpoint
        if endpoint.config.audit == "off":
            return
        if isinstance(error, Denied):
            self._quota.take((endpoint.name, session.principal.id), 1.0, self._monotonic_s())
        subject = "" if ticket.caller is None else ticket.caller.subject
        head = endpoint.undrawn_head if ticket.arm is None else endpoint.record_head
        self._append(
            encode_record(
                ticket.request_id, ticket.now_us, head, session.principal.id, subject,
                self._statuses.get(error.code, 500), ticket.guard_ns // 1000, error=f"{error.code}: {error.message}"[:500],
            )
        )  # fmt: skip

    def _charge(self, ticket: Ticket, account: Account, model_ns: int) -> None:
        """Charge a caller with the time that models took for him, of a batch that he shared with others all of it, and its
        price."""
        endpoint, model_ms = ticket.route.endpoint, model_ns / 1e6
        costs: dict[Kind, float] = {"model_ms": model_ms}
        lane = endpoint.live.lane
        if lane is not None and lane.rota.wanted and not lane.rota.lost:
            costs["gpu_ms"] = model_ms
        if endpoint.price is not None:
            costs["usd_micros"] = endpoint.price.micros(model_ms, requests=0 if ticket.part else 1)
        self._quota.settle(account, costs, self._monotonic_s())

    def _count_refusal(self, ticket: Ticket, status: int, code: str) -> None:
        if ticket.scored_ns and ticket.tally is not None:  # a model began, whatever became of it
            took_ns = self._counter_ns() - ticket.scored_ns
            ticket.tally.scored += 1
            ticket.tally.model_ns += took_ns
            if ticket.account is not None:
                self._charge(ticket, ticket.account, took_ns)
        ticket.route.endpoint.meter.refusals.add(status, code)
        if ticket.arm is not None and status >= _OURS:
            ticket.arm.fail(code, ticket.now_us)
        if ticket.trace is not None:
            self._trace(ticket, ticket.trace, status, code)

    def _trace(self, ticket: Ticket, trace: Trace, status: int, code: str = "") -> None:
        assert self._tracer is not None
        ended_ns = self._counter_ns()
        self._tracer.finish(request_span(ticket, trace, status=status, code=code, ended_ns=ended_ns))
