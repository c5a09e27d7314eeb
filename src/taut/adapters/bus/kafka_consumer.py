"""A consumer of a Kafka group: outputs and offsets in one transaction, and what a lost partition takes with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from taut.adapters.bus.kafka_client import ANSWER_S, Window, asked, classic, delivery_of, message_of, named
from taut.core.cloudevents import Event
from taut.core.errors import Conflict
from taut.ports.bus import Delivery, Settled
from taut.ports.world import Random

_TRANSACTION_MS: Final = 20_000
_COMMITS: Final = 2
_TAKEN: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID, KafkaError.STALE_MEMBER_EPOCH,
    }
)  # fmt: skip


class KafkaSubscription:
    """One consumer of a group, with a transactional producer of its own.

    A partition that is taken away takes with it what was received from it: `settle` says Conflict then, and nothing
    was published. turn: partition -> which assignment it is of; deliveries of an earlier one are nobody's.
    """

    def __init__(
        self,
        common: dict[str, Any],
        topic: str,
        group: str,
        *,
        random: Random,
        lease_s: float,
        window: Callable[[str], Window],
    ) -> None:
        self._common: Final = common
        self._random: Final = random
        self._window: Final = window
        self._topic: Final = topic
        self._lock: Final = threading.Lock()
        self._turns: Final[dict[int, int]] = {}
        self._turn = 0
        self._held: Final[dict[str, int]] = {}
        self._metadata: Any = None
        self._rewind = False
        self._unsure = False
        self._producer: Any = None
        self._consumer: Any = asked(
            lambda: Consumer(
                {
                    **common, "group.id": group, "enable.auto.commit": False, "auto.offset.reset": "earliest",
                    "isolation.level": "read_committed", "allow.auto.create.topics": True,
                    **(
                        {} if common.get("group.protocol") == "consumer"
                        else {"session.timeout.ms": int(lease_s * 1000)}
                    ),
                }
            )
        )  # fmt: skip
        self._consumer.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        if self._rewind:
            self._go_back()
        first = asked(lambda: self._consumer.poll(wait_s))
        if first is None:
            return []
        more = asked(lambda: self._consumer.consume(limit - 1, timeout=0.0)) if limit > 1 else []
        found = []
        for message in [first, *more]:
            if message.error() is None:
                found.append(delivery_of(message))
            elif (
                not message.error().retriable() and message.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART
            ):
                raise named(message.error())
        # taken here, since another thread's call waits until a poll ends; an old one is refused by the broker
        metadata = asked(self._consumer.consumer_group_metadata)
        with self._lock:
            self._metadata = metadata
            for delivery in found:
                self._held[delivery.position] = self._turns.get(_partition(delivery), 0)
        return found

    def settle(self, settled: Sequence[Settled]) -> int:
        with self._lock:
            mine = [item for item in settled if item.delivery.position in self._held]
            for item in mine:
                if self._held[item.delivery.position] != self._turns.get(_partition(item.delivery), -1):
                    self._drop()
                    raise Conflict(
                        "a partition went to another consumer, which answers what was received from it"
                    )
            metadata = self._metadata
        if not mine:
            return 0
        offsets: dict[int, int] = {}
        for item in mine:
            partition, _, offset = item.delivery.position.partition(":")
            offsets[int(partition)] = max(offsets.get(int(partition), 0), int(offset) + 1)
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        published = 0
        if not (self._unsure and self._committed(places)):
            published = self._transact(mine, places, metadata)
        self._unsure = False
        with self._lock:
            self._forget(mine)
        return published

    def close(self) -> None:
        asked(self._consumer.close)

    def _transact(self, mine: Sequence[Settled], places: list[Any], metadata: Any) -> int:
        outputs: dict[str, list[Event]] = {}
        for item in mine:
            for output in item.outputs:
                outputs.setdefault(output.topic, []).append(output.event)
        fresh = {topic: self._window(topic).fresh(events) for topic, events in outputs.items()}
        try:
            producer = self._open_producer()
            producer.begin_transaction()
            for topic, events in fresh.items():
                for event in events.values():
                    self._produce(producer, topic, event)
            producer.send_offsets_to_transaction(places, metadata, ANSWER_S)
            self._commit(producer)
        except KafkaException as error:
            self._undo(error.args[0])
        for topic, events in fresh.items():
            self._window(topic).add(events)
        return sum(len(events) for events in fresh.values())

    def _commit(self, producer: Any) -> None:
        """Commit; a commit that was not answered in time is resumed, since it can no longer be undone."""
        for _ in range(_COMMITS):
            try:
                producer.commit_transaction(ANSWER_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
        producer.commit_transaction(ANSWER_S)

    def _produce(self, producer: Any, topic: str, event: Event) -> None:
        while True:
            try:
                producer.produce(topic, **message_of(event))
                return
            except BufferError:
                producer.poll(0.1)

    def _open_producer(self) -> Any:
        if self._producer is None:
            producer = Producer(
                {
                    **classic(self._common), "transactional.id": f"taut-{self._random.bytes(12).hex()}",
                    "transaction.timeout.ms": _TRANSACTION_MS, "linger.ms": 5,
                }
            )  # fmt: skip
            producer.init_transactions(ANSWER_S)
            self._producer = producer
        return self._producer

    def _undo(self, error: KafkaError) -> None:
        """Abort, and raise what can be done. Where it cannot be known whether it was committed, that is asked first."""
        producer, self._producer, self._unsure = self._producer, None, True
        if producer is not None and not error.fatal():
            try:
                producer.abort_transaction(ANSWER_S)
                self._producer = producer
            except KafkaException:
                pass  # a new producer follows; the broker ends the old one's transaction itself
        if error.code() in _TAKEN:
            with self._lock:
                self._drop()
            raise Conflict(f"Kafka gave what was received to another consumer: {error.str()}")
        raise named(error)

    def _committed(self, places: list[Any]) -> bool:
        asked_for = [TopicPartition(place.topic, place.partition) for place in places]
        found = asked(lambda: self._consumer.committed(asked_for, timeout=ANSWER_S))
        return all(there.offset >= place.offset for there, place in zip(found, places, strict=True))

    def _go_back(self) -> None:
        """Return to what is committed: what was received since is nobody's."""
        places = asked(self._consumer.assignment)
        for place in asked(lambda: self._consumer.committed(places, timeout=ANSWER_S)) if places else []:
            if place.offset < 0:
                place.offset = OFFSET_BEGINNING
            asked(partial(self._consumer.seek, place))
        with self._lock:
            self._rewind = False
            self._turn += 1
            for place in places:
                self._turns[place.partition] = self._turn

    def _assigned(self, _consumer: Any, places: list[Any]) -> None:
        with self._lock:
            self._turn += 1
            for place in places:
                self._turns[place.partition] = self._turn

    def _revoked(self, _consumer: Any, places: list[Any]) -> None:
        with self._lock:
            for place in places:
                self._turns.pop(place.partition, None)

    def _drop(self) -> None:
        """Take nothing that was received so far for this consumer's, until `receive` has gone back to what is committed.

        All of it: to commit a later offset of the same partition would pass over what was dropped.
        """
        self._rewind = True
        self._turns.clear()
        self._held.clear()

    def _forget(self, settled: Iterable[Settled]) -> None:
        for item in settled:
            self._held.pop(item.delivery.position, None)


def _partition(delivery: Delivery) -> int:
    return int(delivery.position.partition(":")[0])
