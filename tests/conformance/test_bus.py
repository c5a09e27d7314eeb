"""Bus in Records on both databases, on Redis streams, on NATS JetStream and on Kafka's mock cluster."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from taut.adapters.bus.kafka import KafkaBus
from taut.adapters.bus.kafka_consumer import KafkaSubscription
from taut.adapters.bus.nats import NatsBus
from taut.adapters.bus.records import RecordsBus
from taut.adapters.bus.redis import RedisBus
from taut.adapters.bus.tables import metadata
from taut.adapters.world import SystemClock, SystemRandom
from taut.core.cloudevents import Event
from taut.ports.bus import Bus, Delivery, Output, Settled, Subscription
from taut.ports.records import Records
from taut.testing.brokers import KafkaMock, NatsServer, RedisServer
from taut.testing.conformance.bus import LEASE_S, BusSuite, LeasedBusSuite, event, events, ids, take


class TestRecordsBus(LeasedBusSuite):
    @pytest.fixture(autouse=True)
    def _records(self, open_records: Callable[..., Records]) -> None:
        self._opened = open_records(metadata)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        yield RecordsBus(self._opened, SystemClock(), SystemRandom(), lease_s=LEASE_S)


class TestRedisBus(LeasedBusSuite):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self._url = redis_server.url

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        bus = RedisBus(self._url, SystemClock(), SystemRandom(), lease_s=LEASE_S)
        yield bus
        bus.close()


def redis_bus(server: RedisServer, **more: Any) -> RedisBus:
    return RedisBus(server.url, SystemClock(), SystemRandom(), lease_s=LEASE_S, **more)


def test_entries_of_other_producers_are_read_on_redis(redis_server: RedisServer) -> None:
    import redis

    topic = f"t{uuid.uuid4().hex}"
    client = redis.Redis.from_url(redis_server.url)
    client.xadd(
        topic, {"ce_id": "1", "ce_source": "s", "ce_type": "t", "ce_specversion": "1.0", "data": b"{}"}
    )
    client.xadd(topic, {"data": b'{"x": 1}'})
    client.xadd(topic, {"event": b'{"specversion":"1.0","id":"3","source":"s","type":"t","data":[1]}'})
    client.xadd(topic, {"event": b"no JSON"})
    client.xadd(topic, {"ce_id": "5", "data": b"{}"})
    client.xadd(topic, {"something": b"else"})
    client.close()
    with closing(redis_bus(redis_server)) as bus:
        subscription = bus.subscribe(topic, "g")
        found = take(subscription, 6)
        subscription.close()
    binary, bare, structured, nonsense, half, neither = found
    assert binary.event == Event(id="1", source="s", type="t", data=b"{}")
    assert bare.event == Event(id=bare.position, source=f"topic:{topic}", type="message", data=b'{"x": 1}')
    assert structured.event == Event(id="3", source="s", type="t", data=b"[1]")
    assert [item.event for item in (nonsense, half, neither)] == [None] * 3
    assert ("CloudEvent" in nonsense.fault, "specversion" in half.fault, "data" in neither.fault) == (
        True,
    ) * 3
    assert nonsense.raw == b"no JSON"


def test_what_redis_remembers_of_a_topic_is_bounded(redis_server: RedisServer) -> None:
    import redis

    topic = f"t{uuid.uuid4().hex}"
    client = redis.Redis.from_url(redis_server.url)
    with closing(redis_bus(redis_server, window=100)) as bus:
        for start in range(0, 1000, 50):
            assert bus.publish(topic, events(50, start=start)) == 50
            assert bus.publish(topic, events(50, start=start)) == 0
    kept = [int(client.scard(f"{topic}:taut:{n}")) for n in (0, 1)]  # type: ignore[arg-type]  # not a pipeline
    client.close()
    assert 0 < sum(kept) <= 200


def test_a_group_that_redis_forgot_is_made_again(redis_server: RedisServer) -> None:
    import redis

    topic = f"t{uuid.uuid4().hex}"
    with closing(redis_bus(redis_server)) as bus:
        subscription = bus.subscribe(topic, "g")
        client = redis.Redis.from_url(redis_server.url)
        client.delete(topic)
        client.close()
        bus.publish(topic, events(2))
        assert ids(take(subscription, 2)) == ["e0", "e1"]
        subscription.close()


def test_effect_event_and_offset_are_one_transaction_in_records(open_records: Callable[..., Records]) -> None:
    records = open_records(metadata)
    bus = RecordsBus(records, SystemClock(), SystemRandom(), lease_s=LEASE_S)
    bus.publish("t", events(1))
    subscription = bus.subscribe("t", "g")
    (held,) = take(subscription, 1)
    settled = [Settled(held, (Output("out", event("answer")),))]
    with contextlib.suppress(ZeroDivisionError), records.begin() as tx:
        subscription.settle_in(tx, settled)
        bus.publish_in(tx, "t", [event("outbox")])
        raise ZeroDivisionError  # the effect failed
    assert (bus.state("out", "g").length, bus.state("t", "g").length, bus.state("t", "g").pending) == (
        0,
        1,
        1,
    )
    with records.begin() as tx:
        assert subscription.settle_in(tx, settled) == 1
        bus.publish_in(tx, "t", [event("outbox")])
    subscription.forget(settled)
    assert (bus.state("out", "g").length, bus.state("t", "g").length, bus.state("t", "g").pending) == (
        1,
        2,
        0,
    )


class TestNatsBus(LeasedBusSuite):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self._url = nats_server.url

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        bus = NatsBus(self._url, SystemClock(), lease_s=LEASE_S)
        yield bus
        bus.close()


class Mirrored:
    """A subscription on the mock cluster, which answers the offsets of a transaction and forgets them.

    They are committed once more, as a consumer without transactions does, so that groups go on where they were. What
    this cannot show is that offsets and outputs are one step: that is Kafka's own, and no mock's.
    """

    def __init__(self, inner: KafkaSubscription) -> None:
        self.inner = inner

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        return self.inner.receive(limit=limit, wait_s=wait_s)

    def settle(self, settled: Sequence[Settled]) -> int:
        new = self.inner.settle(settled)
        offsets: dict[int, int] = {}
        for item in settled:
            partition, _, offset = item.delivery.position.partition(":")
            offsets[int(partition)] = max(offsets.get(int(partition), 0), int(offset) + 1)
        places = (
            [TopicPartition(settled[0].delivery.topic, *place) for place in offsets.items()]
            if settled
            else []
        )
        if places:
            self.inner._consumer.commit(offsets=places, asynchronous=False)
        return new

    def close(self) -> None:
        self.inner.close()


class MirroringBus(KafkaBus):
    def subscribe(self, topic: str, group: str) -> Subscription:  # type: ignore[override]  # a test's own
        return Mirrored(super().subscribe(topic, group))


class TestKafkaBus(BusSuite):
    """On the mock cluster inside the client: its protocol, groups and transactions, and no broker's durability."""

    counts_attempts = False
    one_order = False

    @pytest.fixture(autouse=True)
    def _cluster(self, kafka_mock: KafkaMock) -> None:
        self._servers = kafka_mock.url.removeprefix("kafka://")

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        options = {"group.protocol": "consumer"}  # of Kafka 4: the mock's older one waits 3 s at each joining
        bus = MirroringBus(self._servers, SystemClock(), SystemRandom(), options=options)
        yield bus
        bus.close()
