"""One request from bytes to answer, free of HTTP machinery; the hot path of the data plane.

parse within limits → authenticate → authorise → quota → validate → features → runtime → response gate → record →
answer. What needs no waiting runs to its end without a suspension; what does comes back as a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import msgspec

from taut.core.errors import TautError, Unavailable
from taut.ports.online import OnlineReader
from taut.serving.gateway import pages, repository
from taut.serving.gateway.answers import render, render_binary
from taut.serving.gateway.begun import begin
from taut.serving.gateway.bodies import inflated
from taut.serving.gateway.cache import CacheKeys
from taut.serving.gateway.callers import Callers
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.gateway.events import Done, Streams
from taut.serving.gateway.features import NONE, look_up_now
from taut.serving.gateway.feedback import FEEDBACK, Feedback
from taut.serving.gateway.guard import Caller, Grant, Guard, check_fresh, json_bytes, stream_rows
from taut.serving.gateway.headers import single_headers
from taut.serving.gateway.ids import RequestIds
from taut.serving.gateway.made import Made
from taut.serving.gateway.mirror import Mirror
from taut.serving.gateway.outcomes import LogFailure, Outcomes
from taut.serving.gateway.reading import read_gateway
from taut.serving.gateway.replies import Headers, Pending, Reply, Statuses, binary_head
from taut.serving.gateway.scorer import Features
from taut.serving.gateway.scoring import Scoring
from taut.serving.gateway.tensors import Batch
from taut.serving.gateway.ticket import Ticket, World, check_deadline
from taut.serving.gateway.turns import TURN_NS, Turn, Turns
from taut.serving.memory import Resident
from taut.serving.meters import MeterReading
from taut.serving.predictions import LIVE, TAKEN, PredictionLog, encode_record
from taut.serving.runtime import Outputs
from taut.serving.tracing import Tracer
from taut.serving.trials import Sampling, Split, Trials, unit_of
from taut.trust.quota import Quota

_HIGH_PRIORITY: Final = 5
_RESERVED: Final = 0.8  # of the slots; the rest is for priorities from 5 up


class Gateway:
    """Answers requests with what the last snapshot said. One event loop owns it.

    log: the prediction log. online: where features are looked up; None where no endpoint has any. statuses: HTTP
    status by error code. pool: runs batches that would hold the loop up. log_failure: hears of failures that are ours.
    tracer: takes the spans of requests that are traced; None traces none. barred: says why it may serve nothing at all, where
    somebody stands before it who decides that.
    """

    def __init__(
        self,
        *,
        log: PredictionLog,
        online: OnlineReader | None,
        statuses: Statuses,
        world: World,
        pool: Executor,
        log_failure: LogFailure,
        tracer: Tracer | None = None,
        cache_keys: CacheKeys | None = None,
    ) -> None:
        self._log: Final = log
        self._append: Final = log.append
        self._feedback: Final = Feedback(log)
        self._online: Final = online
        self.scoring: Final = Scoring(online=online, pool=pool, counter_ns=world.counter_ns, keys=cache_keys)
        self._tracer: Final = tracer
        self.quota: Final = Quota()
        self.outcomes: Final = Outcomes(
            log=log, statuses=statuses, world=world, log_failure=log_failure, tracer=tracer, quota=self.quota
        )
        self._now_us: Final = world.now_us
        self.monotonic_s: Final = world.monotonic_s
        self._counter_ns: Final = world.counter_ns
        self._ids: Final = RequestIds(world.random)
        self._version: Final = world.version
        self._active: Active | None = None
        self._guard: Guard | None = None
        self._in_flight = 0
        self.streams: Final = Streams()
        self.callers: Final = Callers()
        self.trials: Final = Trials()
        self.mirror: Final = Mirror(
            log=log, online=online, world=world, ids=self._ids, log_failure=log_failure
        )
        self._turns: Final = Turns()
        self._started_us: Final = world.now_us()
        self._started_s: Final = world.monotonic_s()
        self.refused_snapshot = ""
        self.barred: Callable[[], list[str]] = list

    @property
    def active(self) -> Active | None:
        return self._active

    @property
    def max_body_bytes(self) -> int:
        return 8 * 2**20 if self._active is None else self._active.settings.max_body_bytes

    def install(self, active: Active) -> None:
        """Switch to a compiled snapshot: one assignment; requests that began before end with what they began with."""
        self.callers.sweep()  # while no guard keeps a tally
        guard = Guard(active, self.callers)
        for endpoint in active.endpoints.values():
            endpoint.turn = Turn(self._turns)
            for one in endpoint.versions:
                one.settle()  # a model may have come or gone since it was compiled
                one.meter = self.outcomes.meters.of(one.name, one.called)
            endpoint.begin_trial(self.trials)
        self.trials.keep(active.on_trial)
        self.mirror.adopt(active)
        self.outcomes.meters.keep(set(active.endpoints))
        self.scoring.adopt(active)
        self._log.seal_to(active.snapshot.log_key)
        self.quota.declare(active.limits, parts=active.snapshot.gateways, now_s=self.monotonic_s())
        self._active, self._guard, self.refused_snapshot = active, guard, ""

    def resettle(self, resident: Resident) -> None:
        """Hear that a model came into memory or left it."""
        for endpoint in () if self._active is None else self._active.asking(resident):
            endpoint.settle()
            self.scoring.watch(endpoint)

    def meters(self) -> MeterReading:
        """Return what was counted since this gateway began."""
        up_s = self.monotonic_s() - self._started_s
        return read_gateway(
            self._active, self.outcomes.meters, started_us=self._started_us, up_s=up_s, in_flight=self._in_flight,
            traces=None if self._tracer is None else self._tracer.reading(),
        )  # fmt: skip

    def reasons(self) -> list[str]:
        """Return why this gateway is not ready; nothing when it is."""
        active, refused = self._active, self.refused_snapshot
        reasons = pages.not_ready(active, self._log, self._online, self._now_us(), refused=refused)
        return self.barred() + reasons + self.scoring.store_reasons() + pages.lane_reasons(active)

    def endpoint_reasons(self) -> dict[str, tuple[str, ...]]:
        """Return why endpoints are not ready, beside the reasons of the whole gateway; those that are have none."""
        return pages.endpoints_not_ready(self._active, self.scoring, self._now_us())

    def answer(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        """Answer one request; a coroutine where that takes waiting. Never raises."""
        active = self._active
        route = None if active is None else active.routes.get(path)
        if route is None or active is None or method != "POST":
            return self._page(method, path, headers, body)
        now_us, start_ns = self._now_us(), self._counter_ns()
        ticket = Ticket(self._ids.next(now_us), now_us, start_ns, start_ns, active, route)
        turn, turns = route.endpoint.turn, self._turns
        if (turns.last is not turn or turn.spent_ns > TURN_NS) and turns.must_wait(turn, start_ns):
            return self._in_turn(ticket, headers, body)
        return self._at_once(ticket, headers, body)

    def _at_once(self, ticket: Ticket, headers: Headers, body: bytes) -> Reply | Pending:
        try:
            return self._predict(ticket, ticket.route.endpoint, single_headers(headers), body)
        except TautError as error:
            return self.outcomes.refuse(ticket, error)
        except Exception as error:  # noqa: BLE001 - whatever fails in us must not show a stack trace to a caller
            return self.outcomes.failed(ticket, error)
        finally:
            if ticket.begun_ns < self._turns.company_until_ns:
                ticket.route.endpoint.turn.spend(ticket.begun_ns, self._counter_ns())

    async def _in_turn(self, ticket: Ticket, headers: Headers, body: bytes) -> Reply:
        """Answer once those who asked other endpoints had their turn."""
        try:
            await ticket.route.endpoint.turn.come()
        except TautError as error:
            return self.outcomes.refuse(ticket, error)
        ticket.begun_ns = self._counter_ns()
        found = self._at_once(ticket, headers, body)
        return found if isinstance(found, Reply) else await found

    def _predict(
        self, ticket: Ticket, endpoint: Endpoint, headers: dict[bytes, bytes], body: bytes
    ) -> Reply | Pending:
        guard = self._guard
        assert guard is not None
        known = guard.recall(headers, endpoint, ticket.now_us)
        if known is None:
            caller, body = self._judge(ticket, guard, headers, body)
        else:
            ticket.session, grant = known
            caller = ticket.caller = guard.plain
            if self._tracer is not None:
                ticket.trace = self._tracer.begin(headers.get(b"traceparent"))
            self._spend(ticket, grant)
        endpoint = endpoint if endpoint.split is None else self._drawn(ticket, endpoint.split, caller, body)
        ticket.deadline_ns = ticket.started_ns + caller.deadline_ms * 1_000_000
        ticket.guarded_ns = guarded_ns = self._counter_ns()
        ticket.guard_ns = guarded_ns - ticket.begun_ns
        size = stream_rows(headers) if ticket.route.kind == "v1" else None
        batch = self._decode(ticket, endpoint, body)
        if size is not None:
            return self._stream(ticket, endpoint, batch, size)
        afar = endpoint.lookups and self._online is not None and not self._online.local
        if afar or batch.count > endpoint.short_rows:
            pending = self._slowly(ticket, endpoint, batch, caller)
            return begin(pending) if endpoint.prompt else pending
        features = NONE
        if endpoint.lookups:
            ticket.looked_ns = self._counter_ns()
            try:
                features = look_up_now(endpoint, self._online, batch.rows, ticket.now_us)
            except Unavailable:
                return self._slowly(ticket, endpoint, batch, caller)
            looked_ns = self._counter_ns()
            self.scoring.looked_up(looked_ns)
            endpoint.meter.features.observe(looked_ns - ticket.looked_ns)
            check_deadline(ticket, self._counter_ns)
        ticket.scored_ns = endpoint.resident.used_ns = self._counter_ns()
        if endpoint.plain:
            made, outputs = None, endpoint.live.score(batch, features)
        else:
            try:
                made = self.scoring.now(ticket, endpoint, batch, features)
            except TautError as error:
                if endpoint.way is None or not self.scoring.stands_in(endpoint.way, error):
                    raise
                return self._slowly(ticket, endpoint, batch, caller, (features, error))
            outputs = made.outputs
        reply = self._conclude(ticket, endpoint, batch, features, outputs, made)
        safe = endpoint.config.audit == "power-safe"
        return self.outcomes.durably(ticket, reply) if safe else self.outcomes.counted(ticket, reply)

    def _judge(
        self, ticket: Ticket, guard: Guard, headers: dict[bytes, bytes], body: bytes
    ) -> tuple[Caller, bytes]:
        """Look at everything that a request says of itself; return who asks, and the body as he had it."""
        endpoint, active = ticket.route.endpoint, ticket.active
        session = ticket.session = guard.identify(headers.get(b"authorization"), ticket.now_us)
        if self._tracer is not None:
            ticket.trace = self._tracer.begin(headers.get(b"traceparent"))
        caller = ticket.caller = guard.read_headers(headers)
        self._spend(ticket, guard.authorise(session, endpoint, ticket.now_us))
        check_fresh(endpoint, ticket.now_us)
        body = inflated(headers, body, active.settings.max_body_bytes)
        ticket.json_bytes = json_bytes(headers, body, ticket.route.kind)
        return caller, body

    def _spend(self, ticket: Ticket, grant: Grant) -> None:
        """Count a request against its caller's quotas at every level. Raises Exhausted."""
        ticket.tally, account = grant.tally, grant.account
        self.quota.draw(account, self.monotonic_s())
        if account.dues:
            ticket.account = account

    def _drawn(self, ticket: Ticket, split: Split | Sampling, caller: Caller, body: bytes) -> Endpoint:
        """Return the endpoint with the version that the caller is drawn to while a release is under way, or asks for by name.

        Where a shadow is under way, the live version answers whatever is drawn.
        """
        assert ticket.session is not None
        if ticket.route.pinned:
            return ticket.route.endpoint
        unit = ticket.session.principal.id
        if caller.subject:
            unit = unit_of(unit, caller.subject)
        if isinstance(split, Sampling):
            ticket.arm = split.draw(unit, ticket, caller, body)
            return ticket.route.endpoint
        arm = ticket.arm = split.arms.get(unit) or split.draw(unit)
        ticket.route = arm.routes[ticket.route.kind]
        endpoint: Endpoint = arm.endpoint
        return endpoint

    def _decode(self, ticket: Ticket, endpoint: Endpoint, body: bytes) -> Batch:
        if ticket.route.kind == "v1":
            rows = endpoint.rows.decode(body)
            return Batch(rows, len(rows))
        request = endpoint.tensors.decode(body, ticket.json_bytes)
        ticket.v2_id, ticket.v2_outputs, ticket.v2_binary = request.id, request.outputs, request.binary
        return request.batch

    def _conclude(
        self,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        features: Features,
        outputs: Outputs,
        made: Made | None,
    ) -> Reply:
        """Write the record, then build the answer. made: None where the live version answered, and nothing else could."""
        counter = self._counter_ns
        start_ns = counter()
        if start_ns > ticket.deadline_ns:
            check_deadline(ticket, counter)
        session, caller = ticket.session, ticket.caller
        assert session is not None
        assert caller is not None
        ticket.model_ns = start_ns - ticket.scored_ns
        if made is None:
            served, lines, origin = endpoint.live.served, endpoint.head, LIVE
        else:
            served, lines, origin = made.served, made.head, made.origin(ticket.worker)
        if endpoint.config.audit != "off":
            shared = endpoint.undrawn_head if ticket.arm is None else endpoint.record_head
            self._append(
                encode_record(
                    ticket.request_id, ticket.now_us, shared, session.principal.id, caller.subject,
                    200, ticket.guard_ns // 1000, batch.rows, features, outputs, "", origin,
                )
            )  # fmt: skip
        if endpoint.rounding is not None:
            outputs = endpoint.rounding.rounded(outputs, session.principal.id)
        ticket.guard_ns += counter() - start_ns
        self.outcomes.answers += 1
        if made is not None:
            made.count(endpoint.meter)
            if made.age_ns >= 0:
                ticket.model_ns = 0  # the cache's time is none of the model's
        if ticket.arm is not None:
            stood_in = made is not None and bool(made.fallback)
            ticket.arm.answered(batch, features, outputs, ticket.model_ns, stood_in, ticket.now_us)
        said = f"taut-request-id: {ticket.request_id}\r\ntaut-guard-us: {ticket.guard_ns // 1000}\r\n"
        head = lines + said.encode()
        if ticket.v2_binary:
            length, body = render_binary(
                endpoint, served, outputs, ticket.v2_id, ticket.v2_outputs, ticket.v2_binary
            )
            return Reply(200, binary_head(head, length), body)
        body = render(
            ticket.route.kind, endpoint, served, outputs, ticket.request_id, ticket.v2_id, ticket.v2_outputs
        )
        return Reply(200, head, body)

    async def _slowly(
        self,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        caller: Caller,
        failed: tuple[Features, TautError] | None = None,
    ) -> Reply:
        """Answer by whatever takes waiting. failed: what went wrong on the short way, where something may stand in."""
        try:
            self._enter(ticket.active, caller)
            endpoint.resident.pin()
            try:
                if failed is None:
                    made = await self.scoring.later(ticket, endpoint, batch)
                else:
                    made = await self.scoring.instead(ticket, endpoint, batch, *failed)
            finally:
                self._in_flight -= 1
                endpoint.resident.unpin()
            reply = self._conclude(ticket, endpoint, batch, made.features, made.outputs, made)
        except TautError as error:
            return self.outcomes.refuse(ticket, error)
        except asyncio.CancelledError:
            self.outcomes.left(ticket)
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails in us must not show a stack trace to a caller
            return self.outcomes.failed(ticket, error)
        if endpoint.config.audit == "power-safe":
            return await self.outcomes.durably(ticket, reply)
        return self.outcomes.counted(ticket, reply)

    def _stream(self, ticket: Ticket, endpoint: Endpoint, batch: Batch, size: int) -> Pending:
        """Answer `size` rows after the other as events; each part but the first has a request id of its own."""
        live, caller = endpoint.config.live, ticket.caller
        assert caller is not None

        def answer(rows: Sequence[Any], first: bool) -> Pending:
            part = ticket
            if not first:
                now_us, start_ns = self._now_us(), self._counter_ns()
                part = msgspec.structs.replace(
                    ticket, request_id=self._ids.next(now_us), now_us=now_us, started_ns=start_ns, guard_ns=0, looked_ns=0,
                    waited_ns=0, scored_ns=0, model_ns=0, nodes=None, part=True,
                )  # fmt: skip
            return self._slowly(part, endpoint, Batch(rows, len(rows)), caller)

        done = Done(ticket.request_id, live.version, live.release, batch.count)
        return self.streams.begin(
            batch.rows, size, answer, done, lambda error: self.outcomes.refuse(ticket, error)
        )

    def _enter(self, active: Active, caller: Caller) -> None:
        """Take a slot among the requests that wait for something; the last fifth is for high priorities."""
        slots = active.settings.max_in_flight
        self._in_flight += 1
        if self._in_flight > (slots if caller.priority >= _HIGH_PRIORITY else slots * _RESERVED):
            self._in_flight -= 1
            raise Unavailable("the gateway has too many requests under way: try again shortly")

    def _page(self, method: str, path: str, headers: Headers, body: bytes) -> Reply | Pending:
        """Answer everything that is no inference."""
        request_id = self._ids.next(now_us := self._now_us())
        epoch = 0 if self._active is None else self._active.epoch
        try:
            visit = pages.Visit(
                method, path, single_headers(headers), self._active, self._guard, now_us, self.reasons, self._version, self.scoring
            )  # fmt: skip
            if method == "POST" and path == FEEDBACK:
                taken = self._feedback.take(visit, body, request_id, now_s=self.monotonic_s())
                page = pages.Page({"request_id": request_id, "taken": taken}, TAKEN)
                return pages.reply(page, request_id=request_id, epoch=epoch)
            if method == "POST" and path.startswith(repository.REPOSITORY):
                return self._operate(visit, body, request_id, epoch)
            return pages.reply(pages.find(visit), request_id=request_id, epoch=epoch)
        except Exception as error:  # noqa: BLE001 - as in `answer`
            return self.outcomes.refuse_outside(error, request_id, epoch)

    async def _operate(self, visit: pages.Visit, body: bytes, request_id: str, epoch: int) -> Reply:
        try:
            return pages.reply(await repository.answer(visit, body), request_id=request_id, epoch=epoch)
        except Exception as error:  # noqa: BLE001 - as in `answer`
            return self.outcomes.refuse_outside(error, request_id, epoch)

    def turn_away(self, method: str, path: str, headers: Headers) -> Reply | None:
        """Answer a request whose body is not worth waiting for: of nobody, or for what takes none. None for all others."""
        active = self._active
        known = (
            path == FEEDBACK
            or path.startswith(repository.REPOSITORY)
            or (active is not None and path in active.routes)
        )
        if method != "POST" or not known:
            reply = self._page(method, path, headers, b"")
            assert isinstance(reply, Reply), "only what takes a body takes waiting"
            return reply._replace(close=True)
        try:
            if self._guard is None:
                raise Unavailable("the gateway is not ready: it has no snapshot")
            self._guard.identify(single_headers(headers).get(b"authorization"), self._now_us())
        except TautError as error:
            return self.refuse(error, close=True)
        return None

    def refuse(self, error: TautError, *, close: bool) -> Reply:
        """Return the answer to a request that did not get as far as `answer`: too large, malformed, too slow."""
        epoch = 0 if self._active is None else self._active.epoch
        return self.outcomes.refuse_outside(error, self._ids.next(self._now_us()), epoch, close=close)
