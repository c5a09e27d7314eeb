"""Asking one version: in this process, beside the loop, or its workers, watched by its breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import numpy.typing as npt

from taut.core.errors import DeadlineExceeded
from taut.serving.errors import BadAnswer, BreakerOpen, WorkerLost
from taut.serving.gateway.breakers import Breaker
from taut.serving.gateway.compiled import Endpoint
from taut.serving.gateway.hedging import hedged
from taut.serving.gateway.scorer import Features, Scorer
from taut.serving.gateway.tensors import Batch
from taut.serving.gateway.ticket import Ticket
from taut.serving.graphs import RESERVE, GraphModel, GraphRun, NodeWork
from taut.serving.runtime import Outputs
from taut.serving.workers import Lane, Wait
from taut.trust.identity.principals import Principal


def ticket_principal(ticket: Ticket) -> Principal:
    assert ticket.session is not None, "identity comes first"
    return ticket.session.principal


class Watched:
    """Lets a breaker know how what is done inside ends. Raises BreakerOpen instead of beginning while it is open."""

    __slots__ = ("_breaker", "_caller", "_counter_ns", "_permit")

    def __init__(self, breaker: Breaker | None, ticket: Ticket, counter_ns: Callable[[], int]) -> None:
        self._breaker: Final = breaker
        self._caller: Final = ticket_principal(ticket).id
        self._counter_ns: Final = counter_ns
        self._permit = 0

    def __enter__(self) -> None:
        breaker = self._breaker
        if breaker is None:
            return
        now_ns = self._counter_ns()
        self._permit = breaker.enter(now_ns)
        if not self._permit:
            raise BreakerOpen(
                f"{breaker.of} failed too often of late ({breaker.why}): try again",
                retry_after_s=breaker.retry_after_s(now_ns),
            )

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        breaker = self._breaker
        if breaker is None:
            return
        now_ns = self._counter_ns()
        if error is None:
            breaker.succeeded(self._permit, self._caller, now_ns)
        elif isinstance(error, BadAnswer | WorkerLost):
            # the message may quote the request that failed; what others are told does not
            answered = isinstance(error, BadAnswer)
            why = "it answers what its signature rules out" if answered else "its workers die or hang"
            breaker.failed(self._permit, self._caller, now_ns, why)
        else:  # shed, late, or the request's own fault: a line that is too long is no reason to close the shop
            breaker.left(self._permit, now_ns)


class Models:
    """Asks loaded versions. pool: runs batches that would hold the loop up."""

    def __init__(self, pool: Executor, counter_ns: Callable[[], int]) -> None:
        self._pool: Final = pool
        self._counter_ns: Final = counter_ns

    async def run(
        self,
        scorer: Scorer,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        features: Features,
        deadline_ns: int,
    ) -> Outputs:
        """Score where it holds nobody up; load the model first where it is not in memory."""
        resident = scorer.resident
        resident.pin()
        try:
            if resident.model is None:
                await self._load(scorer, ticket, endpoint, deadline_ns)
            resident.used_ns = self._counter_ns()
            lane = resident.lane
            if lane is not None:
                return await self._ask(lane, scorer, ticket, endpoint, batch, features, deadline_ns)
            return await self._run(scorer, ticket, endpoint, batch, features, deadline_ns)
        finally:
            resident.unpin()

    async def _load(self, scorer: Scorer, ticket: Ticket, endpoint: Endpoint, deadline_ns: int) -> None:
        """Wait until the model is in memory; that time is none of the model's."""
        start_ns = self._counter_ns()
        owner = endpoint.residents
        assert owner is not None, "without anybody who loads, all models are in memory"
        await owner.ready(scorer.resident, timeout_s=(deadline_ns - start_ns) / 1e9)
        waited_ns = self._counter_ns() - start_ns
        ticket.waited_ns += waited_ns
        ticket.scored_ns += waited_ns

    async def _run(
        self,
        scorer: Scorer,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        features: Features,
        deadline_ns: int,
    ) -> Outputs:
        score, beside = scorer.score, not endpoint.inline_us  # a shadow's model never holds the loop up
        if scorer.served.nodes:
            if not beside or scorer.graph.local is None:
                return await self._graph(scorer, ticket, endpoint, batch, features, deadline_ns)
            score = partial(self.graph_now, scorer, ticket, endpoint)
        elif not beside and batch.count <= scorer.rows_within(endpoint.inline_us):
            return scorer.score(batch, features)
        loop = asyncio.get_running_loop()
        scored = loop.run_in_executor(self._pool, score, batch, features)
        try:
            outputs = await asyncio.wait_for(scored, (deadline_ns - self._counter_ns()) / 1e9)
            late_s = scorer.late_s()
            if late_s:
                await asyncio.wait_for(asyncio.sleep(late_s), (deadline_ns - self._counter_ns()) / 1e9)
        except TimeoutError:
            raise DeadlineExceeded("the answer was not ready in time: allow more time or send less") from None
        return outputs

    def graph_now(
        self, scorer: Scorer, ticket: Ticket, endpoint: Endpoint, batch: Batch, features: Features
    ) -> Outputs:
        """Score by a graph that runs in this process whole, without waiting."""
        model, work = scorer.graph, self._work(ticket, endpoint)
        assert model.local is not None, "workers are asked through their lanes"
        columns = scorer.feed(batch, features)
        return work.done(model.local.outcome(columns, batch.count, timed=work), model.versions)

    async def _graph(
        self,
        scorer: Scorer,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        features: Features,
        deadline_ns: int,
    ) -> Outputs:
        """Score by a graph; what can be left out is waited for no longer than leaves time to answer without it."""
        model, work, caller = scorer.graph, self._work(ticket, endpoint), ticket.caller
        if model.graph.tolerant:
            deadline_ns -= int((deadline_ns - ticket.started_ns) * RESERVE)
        run = GraphRun(
            model, work, pool=self._pool, counter_ns=self._counter_ns, deadline_ns=deadline_ns,
            priority=0 if caller is None else caller.priority, caller=ticket_principal(ticket).id,
            observe=endpoint.meter.queue.observe,
            watch=lambda node: Watched(scorer.node_breakers.get(node), ticket, self._counter_ns),
        )  # fmt: skip
        outputs = work.done(await run.outcome(scorer.feed(batch, features), batch.count), model.versions)
        ticket.worker = ",".join(work.workers)
        return outputs

    def _work(self, ticket: Ticket, endpoint: Endpoint) -> NodeWork:
        work = NodeWork(endpoint.meter, self._counter_ns)
        if ticket.nodes is not None:
            work.marks += ticket.nodes.marks  # of the version that this one stands in for
        ticket.nodes = work
        return work

    async def _ask(
        self,
        lane: Lane,
        scorer: Scorer,
        ticket: Ticket,
        endpoint: Endpoint,
        batch: Batch,
        features: Features,
        deadline_ns: int,
    ) -> Outputs:
        """Ask the workers; a second one beside the first where the endpoint hedges."""
        session, caller = ticket.session, ticket.caller
        assert session is not None
        assert caller is not None
        feed, way = scorer.feed(batch, features), endpoint.way
        wait = Wait()

        def attempt() -> Coroutine[Any, Any, npt.NDArray[Any]]:
            return lane.run(
                feed, batch.count, within_s=(deadline_ns - self._counter_ns()) / 1e9, priority=caller.priority,
                caller=session.principal.id, wait=wait,
            )  # fmt: skip

        try:
            if way is None or way.hedge_s is None or scorer is not endpoint.live:
                tensor = await attempt()
            else:
                tensor = await hedged(
                    attempt, after_s=way.hedge_s, spare=lambda: lane.idle > 0, budget=way.hedges
                )
        finally:
            waited_ns = int(wait.seconds * 1e9)
            ticket.waited_ns += waited_ns
            ticket.scored_ns += waited_ns
        endpoint.meter.queue.observe(waited_ns)
        ticket.worker = wait.worker
        model = scorer.model
        assert not isinstance(model, GraphModel), "its nodes are asked instead"
        return model.check(tensor, batch.count)
