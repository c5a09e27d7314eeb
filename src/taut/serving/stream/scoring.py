"""From deliveries to what settles them: each event goes through the gateway's core as one request would.

An event's data is one row, an object of request columns, as in `instances` of `/v1/predict`. What an event itself is
at fault for becomes a dead letter; what the platform is at fault for (a quota, a stale snapshot, a store that is away,
a queue that is full) is waited for; what the operator must mend (identity, rights, no such endpoint) ends the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from taut.core.cloudevents import Event, check_json, is_json
from taut.core.errors import Denied, InvalidInput, NotFound, TautError, Unauthenticated
from taut.ports.bus import Delivery, Output, Settled
from taut.serving.gateway import Gateway, Reply
from taut.serving.stream.letters import DeadLetter, Reason, make_letter, read_letter
from taut.serving.stream.plan import ANSWER, StreamPlan, answer_id

Asking = Coroutine[Any, Any, Reply]
Pause = Callable[[int, str], Coroutine[Any, Any, None]]
"""Called with how often nothing has moved, and the reason; returns when it is time to try again."""

_ENDING: Final[dict[str, type[TautError]]] = {
    "unauthenticated": Unauthenticated, "denied": Denied, "not_found": NotFound,
}  # fmt: skip
_PLATFORM: Final = ("exhausted", "unavailable")
_TRIES: Final[dict[str, int]] = {"internal": 3, "deadline_exceeded": 3, "worker_lost": 3, "unavailable": 8}
"""How often an event is tried, alone, before a failure that may pass is held to be its own."""
_TURN: Final = 64
_WIDTH_MAX: Final = 256


class _Error(msgspec.Struct):
    code: str
    message: str
    request_id: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


_REFUSAL: Final = msgspec.json.Decoder(_Refusal).decode


class Again(msgspec.Struct, frozen=True):
    """An event that must be tried once more, and why."""

    code: str
    message: str
    request_id: str


class Scoring:
    """Scores deliveries of one plan through one gateway, on its event loop.

    bearer: gives the token or API key to act with, asked for once a batch. now: wall clock.
    """

    def __init__(
        self, gateway: Gateway, plan: StreamPlan, *, bearer: Callable[[], str], now: Callable[[], datetime]
    ) -> None:
        self._gateway: Final = gateway
        self._plan: Final = plan
        self._bearer: Final = bearer
        self._now: Final = now
        self._path: Final = f"/v1/predict/{plan.endpoint}"
        self._source: Final = f"taut/endpoints/{plan.endpoint}"
        self._width = 32  # answers that take waiting, asked for at once; shrinks where they are shed
        self._time = ""
        self._headers: list[tuple[bytes, bytes]] = []

    async def score(self, deliveries: Sequence[Delivery], pause: Pause) -> list[Settled]:
        """Return what settles the deliveries, in their order.

        Raises Unauthenticated, Denied or NotFound where no event could be answered; whatever `pause` raises.
        """
        self._set_time()
        found: list[Settled | None] = [None] * len(deliveries)
        tries = [0] * len(deliveries)
        todo = list(range(len(deliveries)))
        still = 0
        while todo:
            self._headers = [(b"authorization", b"Bearer " + self._bearer().encode("latin-1"))]
            before = len(todo)
            todo, why = await self._pass(deliveries, todo, found, tries)
            if todo:
                still = still + 1 if len(todo) == before else 0
                await pause(still, why)
        return [item for item in found if item is not None]

    def set_aside(self, delivery: Delivery, reason: Reason) -> Settled:
        """Return what settles a delivery that is not to be scored."""
        self._set_time()
        return self._letter(delivery, *self._unwrapped(delivery), reason)

    def _set_time(self) -> None:
        self._time = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    async def _pass(
        self, deliveries: Sequence[Delivery], todo: list[int], found: list[Settled | None], tries: list[int]
    ) -> tuple[list[int], str]:
        """Ask for each; return those to be tried again, and why. Stops at the first that the platform is at fault for."""
        slow: list[tuple[int, Asking]] = []
        again: list[int] = []
        why = ""
        for place, index in enumerate(todo):
            answer = self._ask(deliveries[index])
            if isinstance(answer, Settled):
                found[index] = answer
            elif isinstance(answer, Again):
                found[index] = self._given_up(deliveries[index], answer, index, tries, alone=True)
                if found[index] is None:
                    again.append(index)
                    why = answer.message
                    if answer.code in _PLATFORM:
                        again += todo[place + 1 :]
                        break
            else:
                slow.append((index, answer))
            if len(slow) >= self._width:
                why = await self._finish(deliveries, slow, found, tries, again) or why
                slow = []
                if again:
                    again += todo[place + 1 :]
                    break
            if place % _TURN == _TURN - 1:
                await asyncio.sleep(0)  # a new snapshot, and what else the loop has to do
        if slow:
            why = await self._finish(deliveries, slow, found, tries, again) or why
        return sorted(again), why

    async def _finish(
        self,
        deliveries: Sequence[Delivery],
        slow: list[tuple[int, Asking]],
        found: list[Settled | None],
        tries: list[int],
        again: list[int],
    ) -> str:
        """Wait for answers that take waiting; return why some must be tried again, or an empty text."""
        replies = await asyncio.gather(*(asking for _, asking in slow))
        why = ""
        for (index, _), reply in zip(slow, replies, strict=True):
            answer = self._judge(deliveries[index], *self._unwrapped(deliveries[index]), reply)
            if isinstance(answer, Again):
                found[index] = self._given_up(deliveries[index], answer, index, tries, alone=len(slow) == 1)
                if found[index] is None:
                    again.append(index)
                    why = answer.message
            else:
                found[index] = answer
        self._width = max(1, self._width // 2) if why else min(_WIDTH_MAX, self._width + 8)
        return why

    def _given_up(
        self, delivery: Delivery, answer: Again, index: int, tries: list[int], *, alone: bool
    ) -> Settled | None:
        """Return the dead letter of an event that failed alone too often while the gateway itself was ready."""
        bound = _TRIES.get(answer.code)
        if bound is None or not alone or self._gateway.reasons():
            return None
        tries[index] += 1
        if tries[index] < bound:
            return None
        reason = Reason(answer.code, f"tried {bound} times: {answer.message}")
        return self._letter(delivery, *self._unwrapped(delivery), reason, request_id=answer.request_id)

    def _ask(self, delivery: Delivery) -> Settled | Again | Asking:
        inner, letter = self._unwrapped(delivery)
        event = inner.event
        if event is None:
            return self._letter(delivery, inner, letter, Reason("malformed", inner.fault))
        try:
            body = _body(event)
        except InvalidInput as error:
            return self._letter(delivery, inner, letter, Reason("malformed", error.message))
        answer = self._gateway.answer("POST", self._path, self._headers, body)
        return self._judge(delivery, inner, letter, answer) if isinstance(answer, Reply) else answer

    def _judge(
        self, delivery: Delivery, inner: Delivery, letter: DeadLetter | None, reply: Reply
    ) -> Settled | Again:
        event = inner.event
        assert event is not None
        if reply.status == 200:
            made = Event(
                id=answer_id(self._plan.endpoint, event.source, event.id), source=self._source, type=ANSWER,
                data=reply.body, subject=event.subject, time=self._time, inputid=event.id, inputsource=event.source,
                traceparent=event.traceparent,
            )  # fmt: skip
            return Settled(delivery, (Output(self._plan.target, made),))
        said = _REFUSAL(reply.body).error
        if said.code in _ENDING:
            raise _ENDING[said.code](said.message)
        if said.code in _PLATFORM or said.code in _TRIES:
            return Again(said.code, said.message, said.request_id)
        reason = Reason(said.code, said.message)
        return self._letter(delivery, inner, letter, reason, request_id=said.request_id)

    def _unwrapped(self, delivery: Delivery) -> tuple[Delivery, DeadLetter | None]:
        """Return what is to be scored: the delivery itself, or what a dead letter wraps."""
        if not self._plan.replay:
            return delivery, None
        try:
            letter = read_letter(delivery.event)
            return letter.delivery(), letter
        except InvalidInput as error:
            fault = msgspec.structs.replace(delivery, event=None, fault=error.message)
            return fault, None

    def _letter(
        self,
        delivery: Delivery,
        inner: Delivery,
        letter: DeadLetter | None,
        reason: Reason,
        *,
        request_id: str = "",
    ) -> Settled:
        replays = 0 if letter is None else letter.replays + 1
        inner = msgspec.structs.replace(inner, attempts=delivery.attempts)
        made = make_letter(
            inner, reason, endpoint=self._plan.endpoint, time=self._time, request_id=request_id, replays=replays
        )  # fmt: skip
        return Settled(delivery, (Output(self._plan.dead_letters, made),))


def _body(event: Event) -> bytes:
    """Return the request that an event stands for. Raises InvalidInput where its data is not one JSON value."""
    if not is_json(event.content_type):
        raise InvalidInput(
            f"the event's data is {event.content_type[:80]!r}: send one row as application/json"
        )
    check_json(event.data)  # exactly one value, so that nothing in it can end the list that it is put into
    return b'{"instances":[' + event.data + b"]}"
