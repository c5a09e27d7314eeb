"""Shadows: versions that are asked what the live ones have just answered, beside the path, and are heard by nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from taut.core.errors import TautError, Unavailable
from taut.ports.online import OnlineReader
from taut.serving.errors import Internal
from taut.serving.gateway.compiled import Active, Endpoint, Route
from taut.serving.gateway.guard import Caller
from taut.serving.gateway.ids import RequestIds
from taut.serving.gateway.made import Made
from taut.serving.gateway.outcomes import LogFailure
from taut.serving.gateway.scorer import Features, Scorer
from taut.serving.gateway.scoring import Scoring
from taut.serving.gateway.tensors import Batch
from taut.serving.gateway.ticket import Ticket, World
from taut.serving.predictions import SHADOW_OF, SHADOWED, PredictionLog, encode_record
from taut.serving.runtime import LoadedModel, Outputs
from taut.serving.tasks import end_task
from taut.serving.trials import NOBODYS, Pairing, Pairs, Sampling, ShadowReading, lots_of

_WAITING_MOST: Final = 64
_WAITING_BYTES_MOST: Final = 4 * 2**20


class _Asked(msgspec.Struct):
    """What became of a request before the shadow. made: None where it failed, and `error` says how."""

    ticket: Ticket
    batch: Batch | None = None
    made: Made | None = None
    took_ns: int = 0
    error: str = ""


class Mirror:
    """Asks shadows, one request after the other, and counts what they answer beside the live versions. One event loop owns it.

    Guarantees: a request waits here only once its answer is made; what waits is bounded, and what finds no room is dropped and counted; models in this process
    run in a thread of their own; a shadow answers nobody, draws on no quota, keeps nothing in a cache, trips no breaker of
    the live version's, and writes records of its own only, whose status is `SHADOWED`.
    Not guaranteed: that a shadow takes nothing from others: it has the same processors, and where it looks features up, the same store.
    """

    def __init__(
        self, *, log: PredictionLog, online: OnlineReader | None, world: World, ids: RequestIds, log_failure: LogFailure
    ) -> None:  # fmt: skip
        self._log: Final = log
        self._pool: Final = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._scoring: Final = Scoring(online=online, pool=self._pool, counter_ns=world.counter_ns)
        self._world: Final = world
        self._ids: Final = ids
        self._log_failure: Final = log_failure
        self._active: Active | None = None
        self._samplings: tuple[Sampling, ...] = ()
        self._pairs: dict[str, Pairs] = {}
        self._waiting: Final[deque[tuple[Sampling, Pairing]]] = deque()
        self._waiting_bytes = 0
        self._working: asyncio.Task[None] | None = None

    def adopt(self, active: Active) -> None:
        """Serve a compiled snapshot's shadows from now on, and forget the others."""
        self._active = active
        self._samplings = tuple(one.sampling for one in active.endpoints.values() if one.sampling is not None)
        self._pairs = {
            one.release: self._pairs.get(one.release) or Pairs(one.release) for one in self._samplings
        }
        for one in self._samplings:
            one.pairs, one.take = self._pairs[one.release], self.take

    def reading(self) -> tuple[ShadowReading, ...]:
        """Return what was counted of each shadow since it began here, and whether it is ready."""
        return tuple(
            one.pairs.reading(ready=_ready(one.endpoint), fault=one.fault or _fault(one.endpoint))
            for one in self._samplings
        )

    def take(self, sampling: Sampling, pairing: Pairing) -> None:
        """Take a request whose answer is made."""
        size = len(pairing.body)
        full = len(self._waiting) >= _WAITING_MOST or self._waiting_bytes + size > _WAITING_BYTES_MOST
        if full or not _ready(sampling.endpoint):
            sampling.pairs.dropped += 1
            return
        self._waiting.append((sampling, pairing))
        self._waiting_bytes += size
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def idle(self) -> None:
        """Return when nothing waits."""
        while self._working is not None and not self._working.done():
            await asyncio.wait((self._working,))

    async def close(self) -> None:
        """Ask no shadow any more."""
        self._waiting.clear()
        if self._working is not None and not self._working.done():
            await end_task(self._working)
        self._pool.shutdown(wait=False)

    async def _work(self) -> None:
        while self._waiting:
            sampling, pairing = self._waiting.popleft()
            self._waiting_bytes -= len(pairing.body)
            try:
                await self._compare(sampling, pairing)
            except Unavailable:
                sampling.pairs.dropped += 1  # the log is full, or no worker has time
            except Exception as error:  # noqa: BLE001 - raised here, it would end all shadows; the operator hears of it
                self._log_failure(pairing.request_id, error)

    async def _compare(self, sampling: Sampling, pairing: Pairing) -> None:
        endpoint, pairs = sampling.endpoint, sampling.pairs
        asked = await self._ask(endpoint, pairing)
        self._record(endpoint, pairing, asked)
        mark = lots_of(sampling.release, pairing.unit)[1]
        pairs.see(mark)
        outputs, live = None if asked.made is None else asked.made.outputs, pairing.live
        if outputs is None or live is None:
            if (outputs is None) != (live is None):
                pairs.fail(mark, shadow=outputs is None, now_us=pairing.now_us)
            return
        assert asked.batch is not None
        if asked.batch.count != _rows(live):
            pairs.dropped += 1  # the first part of a stream
            return
        pairs.compare(live, outputs)
        await self._time(sampling, pairing, asked)

    async def _ask(self, endpoint: Endpoint, pairing: Pairing) -> _Asked:
        """Ask the shadow as if the request were its own. Raises Unavailable where that says nothing of it."""
        assert self._active is not None
        now_us, start_ns, route = (
            self._world.now_us(),
            self._world.counter_ns(),
            Route(endpoint, pairing.kind),
        )
        caller = Caller(pairing.caller.deadline_ms, 0, pairing.caller.subject)
        ticket = Ticket(
            self._ids.next(now_us), now_us, start_ns, start_ns, self._active, route, pairing.session, caller,
            deadline_ns=start_ns + caller.deadline_ms * 1_000_000,
        )  # fmt: skip
        asked = _Asked(ticket)
        try:
            asked.batch = _decoded(endpoint, pairing)
            asked.made = await self._scoring.later(ticket, endpoint, asked.batch)
            asked.took_ns = self._world.counter_ns() - ticket.scored_ns
        except TautError as error:
            if error.code in NOBODYS:  # dropped, as where the live version met it
                raise
            asked.error = f"{error.code}: {error.message}"[:500]
        except Exception as error:  # noqa: BLE001 - as in the gateway: a version over which we fail has failed
            self._log_failure(pairing.request_id, error)
            asked.error = Internal.code
        return asked

    def _record(self, endpoint: Endpoint, pairing: Pairing, asked: _Asked) -> None:
        if endpoint.config.audit == "off":
            return
        ticket, made = asked.ticket, asked.made
        answer = Outputs() if made is None else made.outputs
        nodes = () if made is None else made.nodes
        origin = (f"{SHADOW_OF}{pairing.request_id}", 0, nodes, ticket.worker)
        who = pairing.session.principal.id
        self._log.append(
            encode_record(
                ticket.request_id, ticket.now_us, endpoint.record_head, who, pairing.caller.subject, SHADOWED, 0,
                answer=answer, error=asked.error, origin=origin,
            )
        )  # fmt: skip

    async def _time(self, sampling: Sampling, pairing: Pairing, asked: _Asked) -> None:
        """Count how long both models took: those in this process, of every second pair, run once more, in turns and in one place."""
        live, shadow = sampling.live, sampling.endpoint.live
        assert asked.batch is not None
        assert asked.made is not None
        here = [isinstance(one.resident.model, LoadedModel) for one in (live, shadow)]
        if not all(here):
            if pairing.took_ns and not (live.served.nodes or shadow.served.nodes):
                sampling.pairs.time(pairing.took_ns, asked.took_ns)
            return
        pairs = sampling.pairs
        pairs.raced += 1
        if pairs.raced % 2:
            return
        runs = [
            _run(live, pairing.batch, pairing.features),
            _run(shadow, asked.batch, asked.made.features),
        ]
        order = (0, 1) if pairs.raced % 4 else (1, 0)
        live.resident.pin()
        shadow.resident.pin()
        try:
            loop, counter = asyncio.get_running_loop(), self._world.counter_ns
            took = await loop.run_in_executor(self._pool, _race, [runs[at] for at in order], counter)
        finally:
            live.resident.unpin()
            shadow.resident.unpin()
        sampling.pairs.time(took[order.index(0)], took[order.index(1)])


def _race(runs: Sequence[Callable[[], object]], counter_ns: Callable[[], int]) -> list[int]:
    """Return what each takes the second time, when what it needs is near the processor."""
    took = []
    for run in runs:
        run()
        start_ns = counter_ns()
        run()
        took.append(counter_ns() - start_ns)
    return took


def _run(scorer: Scorer, batch: Batch, features: Features) -> Callable[[], object]:
    return lambda: scorer.score(batch, features)


def _decoded(endpoint: Endpoint, pairing: Pairing) -> Batch:
    """Read the request by the shadow's own signature."""
    if pairing.kind == "v1":
        rows = endpoint.rows.decode(pairing.body)
        return Batch(rows, len(rows))
    return endpoint.tensors.decode(pairing.body, pairing.json_bytes).batch


def _rows(outputs: Outputs) -> int:
    return len(outputs.values or outputs.labels)


def _ready(endpoint: Endpoint | None) -> bool:
    return endpoint is not None and endpoint.resident.model is not None


def _fault(endpoint: Endpoint | None) -> str:
    return "" if endpoint is None or endpoint.resident.model is not None else endpoint.resident.fault
