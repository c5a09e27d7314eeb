"""The pipeline of a stream: one task receives, one scores, one settles, with a bound on what lies between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from taut.core.errors import Conflict, TautError, Unavailable
from taut.ports.bus import Bus, Delivery, Settled, Subscription
from taut.ports.world import Random
from taut.serving.stream.letters import Reason
from taut.serving.stream.plan import STAGES, Counts, StreamPlan
from taut.serving.stream.scoring import Scoring

T = TypeVar("T")
Note = Callable[[str, str], None]
"""Called with an event's name and words, for people: `waiting`, `broker-away`, `broker-back`, `taken-away`."""

_FIRST_BATCH: Final = 32
_BACKOFF_S: Final = 0.05
_BACKOFF_MAX_S: Final = 5.0


class StreamProcessor:
    """Consumes, scores and publishes until it is told to stop.

    Guarantees: an event is settled only together with its answer or its dead letter, which was recorded in the
    prediction log before; whatever dies when, no event is lost, and none has two answers on the target (as the bus
    says). No more than `max_in_flight` events are under way. An event that cannot be answered never holds up others.
    receive_s: the longest wait for events at a time, and so, about, for `stop` while none come.
    Not guaranteed: order where several processes share a group, or after one died; that what the prediction log
    recorded was published (the process may have died in between; the answer that was published is recorded too).
    """

    def __init__(
        self,
        bus: Bus,
        scoring: Scoring,
        plan: StreamPlan,
        *,
        random: Random,
        note: Note,
        receive_s: float = 0.5,
    ) -> None:
        self._bus: Final = bus
        self._scoring: Final = scoring
        self._plan: Final = plan
        self._random: Final = random
        self._note: Final = note
        self._receive_s: Final = receive_s
        self._received: Final[asyncio.Queue[list[Delivery] | None]] = asyncio.Queue(1)
        self._scored: Final[asyncio.Queue[list[Settled] | None]] = asyncio.Queue(1)
        self._reader: Final = ThreadPoolExecutor(1, thread_name_prefix="stream-receive")
        self._writer: Final = ThreadPoolExecutor(1, thread_name_prefix="stream-settle")
        self._stop: Final = asyncio.Event()
        self._limit = min(_FIRST_BATCH, plan.batch_events)
        self._in_flight = 0
        self._began_s = 0.0
        self.counts: Final = Counts()

    def stop(self) -> None:
        """Receive no more, finish what is under way, end. What waits for something that is away is given back."""
        self._stop.set()

    async def run(self, *, until_empty: bool = False, at_most: int | None = None) -> Counts:
        """Work until `stop`, or until the group has settled everything, or until `at_most` events were received.

        Raises Unauthenticated, Denied or NotFound when the stream may not or cannot be answered; InvalidInput when the
        broker refuses the topic.
        """
        try:
            subscription = await self._patiently(
                self._reader, lambda: self._bus.subscribe(self._plan.source, self._plan.group)
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive(subscription, until_empty=until_empty, at_most=at_most))
                    tasks.create_task(self._score(subscription))
                    tasks.create_task(self._settle_all(subscription))
            finally:
                await self._leave(subscription)
        except _Stopped:
            pass  # while the broker was away
        except BaseExceptionGroup as group:
            known = group.subgroup(TautError)
            if known is None:
                if group.subgroup(_Stopped) is None:
                    raise
            else:
                raise _first(known) from group
        finally:
            self._reader.shutdown()
            self._writer.shutdown()
        return self.counts

    async def _leave(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._reader.shutdown)  # it may be receiving still
        try:
            await loop.run_in_executor(self._writer, subscription.close)
        except (Unavailable, Conflict) as error:
            self._note(
                "broker-away", f"what was not settled comes again when its lease has passed: {error.message}"
            )

    # the three tasks

    async def _receive(self, subscription: Subscription, *, until_empty: bool, at_most: int | None) -> None:
        left = at_most
        while not self._stop.is_set() and left != 0:
            limit = self._limit if left is None else min(self._limit, left)
            found = await self._patiently(
                self._reader, partial(subscription.receive, limit=limit, wait_s=self._receive_s)
            )
            if not found:
                if until_empty and await self._nothing_left():
                    break
                continue
            left = None if left is None else left - len(found)
            if not self.counts.received:
                self._began_s = asyncio.get_running_loop().time()
            self.counts.received += len(found)
            self._in_flight += len(found)
            self.counts.in_flight_max = max(self.counts.in_flight_max, self._in_flight)
            self._size(found)
            await self._received.put(found)
        await self._received.put(None)

    async def _nothing_left(self) -> bool:
        """Whether the group has settled everything; what a dead consumer holds comes when its lease has passed."""
        ask = partial(self._bus.state, self._plan.source, self._plan.group)
        state = await self._patiently(self._reader, ask)
        return state.waiting == state.pending == 0

    def _size(self, found: list[Delivery]) -> None:
        """Choose how many to ask for next, by the bytes of these."""
        mean = sum(len(item.raw) or len(item.event.data) if item.event else len(item.raw) for item in found)
        mean = max(1, mean // len(found))
        wanted = min(self._plan.batch_events, self._plan.max_bytes // STAGES // mean)
        self._limit = max(1, min(wanted, 4 * self._limit))

    async def _score(self, subscription: Subscription) -> None:
        while (found := await self._received.get()) is not None:
            fresh = [item for item in found if item.attempts < 2]
            suspects = [item for item in found if item.attempts >= 2]
            if suspects:
                await self._score_one_by_one(subscription, suspects)
            if fresh:
                await self._scored.put(await self._scoring.score(fresh, self._pause))
        await self._scored.put(None)

    async def _score_one_by_one(self, subscription: Subscription, suspects: list[Delivery]) -> None:
        """Settle each before the next is touched, so that the first that is left after a death is the one at fault."""
        await self._scored.join()
        for place, item in enumerate(suspects):
            if place == 0 and item.attempts >= self._plan.max_attempts:
                reason = Reason("crashed", f"the process ended {item.attempts} times with this event in hand")
                settled = [self._scoring.set_aside(item, reason)]
            else:
                settled = await self._scoring.score([item], self._pause)
            await self._settle(subscription, settled)

    async def _settle_all(self, subscription: Subscription) -> None:
        while (settled := await self._scored.get()) is not None:
            await self._settle(subscription, settled)
            self._scored.task_done()

    async def _settle(self, subscription: Subscription, settled: list[Settled]) -> None:
        try:
            new = await self._patiently(self._writer, lambda: subscription.settle(settled))
        except Conflict as error:
            self._note("taken-away", error.message)
        else:
            self.counts.new += new
            for item in settled:
                if item.outputs[0].topic == self._plan.dead_letters:
                    self.counts.dead += 1
                else:
                    self.counts.answered += 1
        self._in_flight -= len(settled)
        self.counts.seconds = round(asyncio.get_running_loop().time() - self._began_s, 3)

    # waiting

    async def _patiently(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        """Call the broker, again for as long as it is away. Raises _Stopped when told to stop meanwhile."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            try:
                found = await loop.run_in_executor(pool, call)
            except Unavailable as error:
                if tries == 0:
                    self._note("broker-away", error.message)
                tries += 1
                await self._sleep(min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** min(tries, 10)))
            else:
                if tries:
                    self._note("broker-back", f"after {tries} tries")
                return found

    async def _pause(self, still: int, why: str) -> None:
        """Wait before events are tried again. still: how often nothing has moved."""
        if still == 1 or self.counts.waits == 0:
            self._note("waiting", why)
        self.counts.waits += 1
        await self._sleep(min(1.0, _BACKOFF_S * 2 ** min(still, 5)))

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds * (0.5 + self._random.uniform() / 2))
        except TimeoutError:
            return
        raise _Stopped


class _Stopped(Exception):
    """Told to stop while something was waited for; what was under way is given back."""


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
