"""Bus on Kafka: outputs and offsets in one transaction (consume, process, produce), readers of what was committed.

Messages are keyed by their event, so that the same event lies on one partition and one consumer sees it again. Kafka
keeps no ids: which events of a topic are known again is held here, read from its end when this process first writes
there. Topics are made by the broker (`auto.create.topics.enable`) or beforehand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from taut.adapters.bus.kafka_client import (
    ANSWER_S,
    Window,
    asked,
    classic,
    delivery_of,
    heard,
    message_of,
    named,
    read,
)
from taut.adapters.bus.kafka_consumer import KafkaSubscription
from taut.core.cloudevents import Event, check_json, is_json
from taut.core.errors import Unavailable
from taut.ports.bus import WAITING_COUNTED, Delivery, TopicState, check_name
from taut.ports.world import Clock, Random


class KafkaBus:
    """Topics on one cluster.

    servers: `host:port`, several with commas. options: further properties of librdkafka, such as those of SASL and
    TLS. lease_s: the session time-out, after which a dead consumer's partitions go to others. window: how many of a
    topic's last events are known again.
    """

    def __init__(
        self,
        servers: str,
        clock: Clock,
        random: Random,
        *,
        options: dict[str, str] | None = None,
        lease_s: float = 10.0,
        window: int = 200_000,
    ) -> None:
        self.common: Final[dict[str, Any]] = {
            "bootstrap.servers": servers, "log_level": 0, "error_cb": heard, **(options or {}),
        }  # fmt: skip
        self.clock: Final = clock
        self.random: Final = random
        self.lease_s: Final = lease_s
        self._window: Final = window
        self._windows: Final[dict[str, Window]] = {}
        self._lock: Final = threading.Lock()
        self._producer: Any = None

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        check_name("topic", topic)
        for event in events:
            if is_json(event.content_type):
                check_json(event.data)
        with self._lock:
            if self._producer is None:
                self._producer = asked(
                    lambda: Producer({**classic(self.common), "enable.idempotence": True, "linger.ms": 5})
                )
            fresh = self.window(topic).fresh(events)
            failed: list[KafkaError] = []
            for event in fresh.values():
                self._produce(
                    topic, event, lambda error, _message: failed.append(error) if error is not None else None
                )
            left = self._producer.flush(ANSWER_S)
            if failed or left:
                self._windows.pop(topic, None)  # which of them are there is read again
                self._producer = None
                raise (
                    named(failed[0])
                    if failed
                    else Unavailable("Kafka did not confirm in time: check its brokers")
                )
            self.window(topic).add(fresh)
        return len(fresh)

    def _produce(self, topic: str, event: Event, told: Callable[..., None]) -> None:
        while True:
            try:
                self._producer.produce(topic, on_delivery=told, **message_of(event))
                return
            except BufferError:
                self._producer.poll(0.1)

    def subscribe(self, topic: str, group: str) -> KafkaSubscription:
        check_name("topic", topic)
        check_name("group", group)
        reader = self._reader(group)
        try:
            self._places(reader, topic)  # the topic must be there before a group is told of it
        finally:
            reader.close()
        return KafkaSubscription(
            self.common, topic, group, random=self.random, lease_s=self.lease_s, window=self.window
        )

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        """Kafka knows what was settled, not what was handed out: what is under way shows here too."""
        consumer = self._reader(group)
        try:
            starts = self._committed(consumer, topic)
            return [delivery_of(message) for message in read(consumer, starts, limit=limit)]
        finally:
            consumer.close()

    def state(self, topic: str, group: str) -> TopicState:
        """Length is in offsets: on a topic that is written in transactions, their markers count too."""
        consumer = self._reader(group)
        try:
            length = behind = 0
            places = self._committed(consumer, topic)
            for place in places:
                low, high = asked(partial(consumer.get_watermark_offsets, place, timeout=ANSWER_S))
                length += high - low
                behind += high - (low if place.offset < 0 else max(low, place.offset))
            if 0 < behind <= WAITING_COUNTED:
                behind = sum(1 for _ in read(consumer, places, limit=WAITING_COUNTED))
            return TopicState(length=length, waiting=behind, pending=0)
        finally:
            consumer.close()

    def close(self) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.flush(ANSWER_S)

    def window(self, topic: str) -> Window:
        """Return which events of a topic are known again, read from its end at first."""
        found = self._windows.get(topic)
        if found is None:
            found = Window(self._window)
            consumer = self._reader("taut-window")
            try:
                places = self._places(consumer, topic)
                each = max(1, self._window // max(1, len(places)))
                for place in places:
                    low, high = asked(partial(consumer.get_watermark_offsets, place, timeout=ANSWER_S))
                    place.offset = max(low, high - each)
                for message in read(consumer, places, limit=2 * self._window):
                    if message.key() is not None:
                        found.add([message.key().decode("utf-8", "replace")])
            finally:
                consumer.close()
            self._windows[topic] = found
        return found

    def _reader(self, group: str) -> Any:
        """Return a consumer that joins no group."""
        return asked(
            lambda: Consumer(
                {
                    **classic(self.common), "group.id": group, "enable.auto.commit": False, "enable.partition.eof": True,
                    "auto.offset.reset": "earliest", "isolation.level": "read_committed",
                    "allow.auto.create.topics": True,
                }
            )
        )  # fmt: skip

    def _places(self, consumer: Any, topic: str) -> list[Any]:
        found = asked(lambda: consumer.list_topics(topic, timeout=ANSWER_S)).topics[topic]
        if found.error is not None and found.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise named(found.error)
        return [TopicPartition(topic, number) for number in found.partitions]

    def _committed(self, consumer: Any, topic: str) -> list[Any]:
        places = self._places(consumer, topic)
        found: list[Any] = asked(lambda: consumer.committed(places, timeout=ANSWER_S)) if places else []
        return found
