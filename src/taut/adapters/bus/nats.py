"""Bus on NATS JetStream: a stream a topic, a durable pull consumer a group, every message acknowledged explicitly.

An output carries its key as `Nats-Msg-Id`, by which the server knows it again within the stream's duplicate window;
outputs are published and confirmed before their deliveries are acknowledged, and acknowledgements are confirmed too.
A server that is to keep what it acknowledged over a power cut needs `sync_interval: always`: its default does not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import TimeoutError as NoAnswer
from typing import Any, Final, TypeVar

import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from taut.adapters.bus.messages import with_headers
from taut.core.cloudevents import STRUCTURED, Event, check_json, encode_event, is_json
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.bus import Delivery, Settled, TopicState, check_name
from taut.ports.world import Clock

T = TypeVar("T")

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 10.0
_AT_ONCE: Final = 256
_PREFIX: Final = "ce-"
_ACK: Final = b"+ACK"
_AGAIN: Final = b"-NAK"
_WORKING: Final = b"+WPI"


class NatsBus:
    """Topics on one NATS server or cluster.

    url: `nats://` or `tls://`, several with commas. lease_s: how long a consumer may hold what it was handed (the
    consumer's ack wait). duplicate_window_s: of streams that this bus makes; a stream that is there keeps its own.
    """

    def __init__(
        self, url: str, clock: Clock, *, lease_s: float = 30.0, duplicate_window_s: float = 900.0
    ) -> None:
        self._servers: Final = url.split(",")
        self.clock: Final = clock
        self.lease_s: Final = lease_s
        self._window_s: Final = duplicate_window_s
        self._loop: Final = asyncio.new_event_loop()
        self._thread: Final = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._connecting: Final = threading.Lock()
        self._client: Any = None
        self._streams: Final[dict[str, str]] = {}
        self._thread.start()

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        check_name("topic", topic)
        for event in events:
            if is_json(event.content_type):
                check_json(event.data)
        return self.ask(self._publish([(topic, event) for event in events]))

    def subscribe(self, topic: str, group: str) -> NatsSubscription:
        check_name("topic", topic)
        check_name("group", group)
        return NatsSubscription(self, topic, group, self.ask(self._join(topic, group)))

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        return self.ask(self._peek(topic, group, limit))

    def state(self, topic: str, group: str) -> TopicState:
        return self.ask(self._state(topic, group))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self.ask(client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, work: Coroutine[Any, Any, T], *, within_s: float = _ANSWER_S) -> T:
        """Do `work` on the loop of the connection; name its errors by what can be done about them."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(within_s + _CONNECT_S)
        except NoAnswer as error:
            future.cancel()
            raise Unavailable(f"NATS did not answer within {within_s:g} s: check the server") from error
        except nats.errors.MaxPayloadError as error:
            raise InvalidInput(
                f"NATS takes no message of this size ({error}): raise its max_payload"
            ) from error
        except APIError as error:
            if error.code is not None and error.code >= 500:
                raise Unavailable(f"JetStream does not take it now: {error.description}") from error
            raise InvalidInput(f"JetStream refused: {error.description}: check the topic's stream") from error
        except (NatsError, OSError) as error:
            raise Unavailable(f"NATS does not answer ({error}): start it, or check its address") from error

    # on the loop

    async def client(self) -> Any:
        """Return the connection, made on first use. Raises an error of NATS where there is none now."""
        if self._client is None:
            self._client = await asyncio.wait_for(
                nats.connect(
                    self._servers, connect_timeout=_CONNECT_S, max_reconnect_attempts=-1, reconnect_time_wait=0.1,
                    error_cb=_heard,
                ),
                _CONNECT_S,
            )  # fmt: skip
        if not self._client.is_connected:
            raise nats.errors.ConnectionReconnectingError
        return self._client

    async def settle(self, settled: Sequence[Settled], replies: Sequence[str]) -> int:
        outputs = [(output.topic, output.event) for item in settled for output in item.outputs]
        published = await self._publish(outputs)
        client = await self.client()
        for at in range(0, len(replies), _AT_ONCE):
            some = replies[at : at + _AT_ONCE]
            await asyncio.gather(*(client.request(reply, _ACK, timeout=_ANSWER_S) for reply in some))
        return published

    async def _publish(self, events: Sequence[tuple[str, Event]]) -> int:
        js = (await self.client()).jetstream(timeout=_ANSWER_S)
        for topic in {topic for topic, _ in events}:
            await self.stream(topic)
        new = 0
        for at in range(0, len(events), _AT_ONCE):
            acks = await asyncio.gather(
                *(
                    js.publish(
                        topic, encode_event(event), headers={"Nats-Msg-Id": event.key, "Content-Type": STRUCTURED}
                    )
                    for topic, event in events[at : at + _AT_ONCE]
                )
            )  # fmt: skip
            new += sum(not ack.duplicate for ack in acks)
        return new

    async def stream(self, topic: str) -> str:
        """Return the stream that holds a topic, made where there is none."""
        known = self._streams.get(topic)
        if known is not None:
            return known
        js = (await self.client()).jetstream(timeout=_ANSWER_S)
        try:
            name = await js.find_stream_name_by_subject(topic)
        except NotFoundError:
            name = topic.replace(".", "-")
            await js.add_stream(
                StreamConfig(name=name, subjects=[topic], duplicate_window=self._window_s, allow_direct=True)
            )
        self._streams[topic] = name
        return str(name)

    async def _join(self, topic: str, group: str) -> Any:
        js = (await self.client()).jetstream(timeout=_ANSWER_S)
        stream, durable = await self.stream(topic), _durable(group)
        await js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name=durable, deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self.lease_s, max_ack_pending=-1, filter_subject=topic,
            ),
        )  # fmt: skip
        return await js.pull_subscribe_bind(durable=durable, stream=stream)

    async def _state(self, topic: str, group: str) -> TopicState:
        js = (await self.client()).jetstream(timeout=_ANSWER_S)
        stream = await self.stream(topic)
        subjects = (await js.stream_info(stream, subjects_filter=topic)).state.subjects or {}
        length = int(subjects.get(topic, 0))
        try:
            consumer = await js.consumer_info(stream, _durable(group))
        except NotFoundError:
            return TopicState(length=length, waiting=length, pending=0)
        return TopicState(
            length=length, waiting=int(consumer.num_pending or 0), pending=int(consumer.num_ack_pending or 0)
        )

    async def _peek(self, topic: str, group: str, limit: int) -> list[Delivery]:
        js = (await self.client()).jetstream(timeout=_ANSWER_S)
        stream = await self.stream(topic)
        try:
            handed = (await js.consumer_info(stream, _durable(group))).delivered.stream_seq
        except NotFoundError:
            handed = 0
        found: list[Delivery] = []
        while len(found) < limit:
            try:
                message = await js.get_msg(stream, handed + 1, subject=topic, next=True)
            except NotFoundError:
                break
            handed = message.seq
            found.append(_delivery(topic, str(handed), message.headers, message.data or b""))
        return found


class NatsSubscription:
    """One consumer of a group."""

    def __init__(self, bus: NatsBus, topic: str, group: str, pull: Any) -> None:
        self._bus: Final = bus
        self._topic: Final = topic
        self._group: Final = group
        self._pull: Final = pull
        self._held: Final[dict[str, str]] = {}  # position -> where its acknowledgement goes
        self._lock: Final = threading.Lock()
        self._renewed_s = bus.clock.monotonic_s()

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        found = self._bus.ask(self._fetch(limit, wait_s), within_s=wait_s + _ANSWER_S)
        deliveries: list[Delivery] = []
        with self._lock:
            for message in found:
                position = str(message.metadata.sequence.stream)
                again = position in self._held
                self._held[position] = message.reply
                if not again:
                    attempts = message.metadata.num_delivered - 1
                    headers = message.headers
                    deliveries.append(
                        _delivery(self._topic, position, headers, message.data, attempts=attempts)
                    )
        return deliveries

    def settle(self, settled: Sequence[Settled]) -> int:
        with self._lock:
            mine = [item for item in settled if item.delivery.position in self._held]
            replies = [self._held[item.delivery.position] for item in mine]
        published = self._bus.ask(self._bus.settle(mine, replies))
        with self._lock:
            for item in mine:
                del self._held[item.delivery.position]
        return published

    def close(self) -> None:
        self._bus.ask(self._leave())

    async def _fetch(self, limit: int, wait_s: float) -> list[Any]:
        client = await self._bus.client()
        now_s = self._bus.clock.monotonic_s()
        if now_s - self._renewed_s > self._bus.lease_s / 4:
            self._renewed_s = now_s
            await self._tell(client, _WORKING)
        try:
            found: list[Any] = await self._pull.fetch(limit, timeout=max(0.01, wait_s))
        except TimeoutError:  # of NATS, or asyncio's where its time had passed before it could ask again
            return []
        return found

    async def _leave(self) -> None:
        client = await self._bus.client()
        await self._tell(client, _AGAIN)
        await client.flush()
        await self._pull.unsubscribe()

    async def _tell(self, client: Any, word: bytes) -> None:
        with self._lock:
            replies = list(self._held.values())
        for reply in replies:
            await client.publish(reply, word)


def _delivery(
    topic: str, position: str, headers: dict[str, str] | None, data: bytes, *, attempts: int = 0
) -> Delivery:
    named = {name.lower(): value for name, value in (headers or {}).items()}
    return with_headers(topic, position, named, data, prefix=_PREFIX, attempts=attempts)


def _durable(group: str) -> str:
    return group.replace(".", "-")


async def _heard(_error: Exception) -> None:
    """Errors of the connection show at the next call; they are no news between calls."""
