"""A stream in one process: answers, dead letters, waits, bounds, and deaths at seeded calls."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from taut.adapters.bus.records import RecordsBus
from taut.adapters.bus.tables import metadata
from taut.adapters.world import SystemClock, SystemRandom
from taut.core.cloudevents import Event
from taut.core.errors import Denied, InvalidInput, NotFound, Unauthenticated, Unavailable
from taut.ports.bus import Bus, Delivery, Settled, Subscription, TopicState
from taut.serving.gateway import Gateway, compile_snapshot
from taut.serving.predictions import PredictionReader
from taut.serving.stream import Counts, Scoring, StreamPlan, StreamProcessor, answer_id, read_letter
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway, with_fields
from taut.testing.world import SeededRandom
from taut.trust.quota import Limit

ROW = b'{"x0": 1.0, "x1": 0.5, "x2": -0.25}'
LEASE_S = 0.2


def row_event(index: int, data: bytes = ROW) -> Event:
    return Event(id=f"e{index}", source="tests", type="row", data=data)


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        install(made, plane)
        yield made


@pytest.fixture
def records() -> Iterator[MemoryRecords]:
    made = memory_records(metadata)
    yield made
    made.close()


@pytest.fixture
def bus(records: MemoryRecords) -> RecordsBus:
    return RecordsBus(records, SystemClock(), SeededRandom(), lease_s=LEASE_S)


def install(gateway: Gateway, plane: DataPlane, **more: Any) -> None:
    snapshot = plane.snapshot(plane.endpoint(**more))
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=gateway.active))


def plan(**more: Any) -> StreamPlan:
    return StreamPlan(endpoint="delay", source="in", target="out", dead_letters="dead", group="g", **more)


class Stream:
    """A stream to run as often as a test likes, each time as a new process would."""

    def __init__(self, gateway: Gateway, bus: Bus, bearer: str, plan_: StreamPlan | None = None) -> None:
        self.gateway, self.bus, self.bearer, self.plan = gateway, bus, bearer, plan_ or plan()
        self.notes: list[tuple[str, str]] = []

    def processor(self) -> StreamProcessor:
        scoring = Scoring(self.gateway, self.plan, bearer=lambda: self.bearer, now=lambda: datetime.now(UTC))
        return StreamProcessor(
            self.bus, scoring, self.plan, random=SeededRandom(), receive_s=0.03,
            note=lambda *said: self.notes.append(said),
        )  # fmt: skip

    def run(self, **more: Any) -> Counts:
        async def work() -> Counts:
            return await self.processor().run(until_empty=True, **more)

        return asyncio.run(work())


def all_of(bus: Bus, topic: str) -> list[Event]:
    found = bus.peek(topic, "never-subscribed", limit=100_000)
    assert all(delivery.event is not None for delivery in found)
    return [delivery.event for delivery in found if delivery.event is not None]


def test_each_event_is_answered_with_what_a_request_would_get(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(index, b'{"x0": %d, "x1": 0, "x2": 0}' % index) for index in range(100)])

    counts = Stream(gateway, bus, plane.token()).run()

    answers = all_of(bus, "out")
    assert (counts.received, counts.answered, counts.dead, counts.new) == (100, 100, 0, 100)
    assert [answer.inputid for answer in answers] == [f"e{index}" for index in range(100)]
    assert [answer.id for answer in answers] == [answer_id("delay", "tests", f"e{i}") for i in range(100)]
    documents = [json.loads(answer.data) for answer in answers]
    probabilities = [document["predictions"][0]["probability"] for document in documents]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] == 0.5
    reader = PredictionReader(plane.home / "log" / "predictions")
    for document in documents[:3]:
        record = reader.find(document["request_id"])
        assert (record.head.version, record.head.release) == (document["model_version"], document["release"])
        assert record.principal == "ana"
    assert len(list(reader.records())) == 100


POISON = {
    "no JSON": (b"{", "malformed"),
    "two values": (b'{"x0": 1},{"x0": 2}', "malformed"),
    "closes the list": (b'{"x0": 1}],"instances":[{"x0": 2}', "malformed"),
    "no object": (b"17", "invalid_input"),
    "a list of rows": (b"[" + ROW + b"]", "invalid_input"),
    "a column too few": (b'{"x0": 1.0, "x1": 0.5}', "invalid_input"),
    "a column too many": (b'{"x0": 1, "x1": 0, "x2": 0, "x3": 0}', "invalid_input"),
    "a wrong type": (b'{"x0": "one", "x1": 0, "x2": 0}', "invalid_input"),
    "not a number": (b'{"x0": NaN, "x1": 0, "x2": 0}', "malformed"),
    "no UTF-8": (b'{"x0": "\xff"}', "malformed"),
}


class Planted(RecordsBus):
    """A bus on which anybody may put anything, as on Redis."""

    def plant(self, records: MemoryRecords, topic: str, data: bytes, position: int) -> None:
        from taut.adapters.bus.tables import events, topics
        from taut.ports.records import insert_many

        document = (
            b'{"specversion":"1.0","id":"p%d","source":"tests","type":"row","data":' % position + data + b"}"
        )
        with records.begin() as tx:
            row = (topic, position, f"{position}", document)
            insert_many(tx, events, ("topic", "position", "key", "event"), [row])
            tx.execute(topics.delete().where(topics.c.topic == topic))
            tx.execute(topics.insert().values(topic=topic, length=position))


@pytest.mark.parametrize("name", POISON)
def test_poison_goes_to_the_dead_letters_with_the_reason_and_holds_nobody_up(
    gateway: Gateway, plane: DataPlane, records: MemoryRecords, name: str
) -> None:
    data, code = POISON[name]
    bus = Planted(records, SystemClock(), SeededRandom(), lease_s=LEASE_S)
    for position, body in enumerate([ROW, data, ROW], start=1):
        bus.plant(records, "in", body, position)

    counts = Stream(gateway, bus, plane.token()).run()

    assert (counts.answered, counts.dead) == (2, 1)
    assert [answer.inputid for answer in all_of(bus, "out")] == ["p1", "p3"]
    (dead,) = all_of(bus, "dead")
    letter = read_letter(dead)
    assert letter.reason.code == code, letter
    assert letter.reason.message
    assert (letter.topic, letter.position, letter.endpoint) == ("in", "2", "delay")
    assert letter.delivery().raw or letter.delivery().event


def test_poison_too_large_for_a_letter_is_named_and_not_carried(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(1, b'"' + b"x" * 600_000 + b'"')])

    assert Stream(gateway, bus, plane.token()).run().dead == 1

    (dead,) = all_of(bus, "dead")
    letter = read_letter(dead)
    assert len(dead.data) < 2000
    assert (dead.inputid, letter.position, letter.cut_bytes > 600_000) == ("e1", "1", True)
    assert "too many" in letter.delivery().fault


def test_an_answer_that_the_signature_rules_out_makes_a_dead_letter(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    served = plane.served(matrix_model(3, weight=float("nan")), matrix_signature(3))
    snapshot = plane.snapshot(with_fields(plane.endpoint(), live=served))
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
    bus.publish("in", [row_event(1)])

    assert Stream(gateway, bus, plane.token()).run().dead == 1

    letter = read_letter(all_of(bus, "dead")[0])
    assert letter.reason.code == "bad_answer"
    found = PredictionReader(plane.home / "log" / "predictions").find(letter.request_id)
    assert found.error.startswith("bad_answer")


@pytest.mark.parametrize(
    ("bearer", "error"),
    [("nonsense", Unauthenticated), ("auditor", Denied)],
)
def test_a_stream_that_may_not_predict_ends_and_loses_nothing(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus, bearer: str, error: type[Exception]
) -> None:
    bus.publish("in", [row_event(index) for index in range(5)])
    token = plane.token(roles=("auditor",)) if bearer == "auditor" else bearer

    with pytest.raises(error):
        Stream(gateway, bus, token).run()

    assert all_of(bus, "out") == all_of(bus, "dead") == []
    assert Stream(gateway, bus, plane.token()).run().answered == 5


def test_an_endpoint_that_is_not_served_ends_the_stream(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(1)])
    with pytest.raises(NotFound, match="elsewhere"):
        Stream(gateway, bus, plane.token(), with_fields(plan(), endpoint="elsewhere")).run()


def test_a_quota_is_waited_for_and_no_event_is_put_aside(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    install(gateway, plane, quota=Limit(rate_per_s=200, burst=20))
    bus.publish("in", [row_event(index) for index in range(100)])

    counts = Stream(gateway, bus, plane.token()).run()

    assert (counts.answered, counts.dead) == (100, 0)
    assert counts.waits > 0
    assert [answer.inputid for answer in all_of(bus, "out")] == [f"e{index}" for index in range(100)]


def test_an_event_that_comes_twice_has_one_answer(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus, records: MemoryRecords
) -> None:
    planted = Planted(records, SystemClock(), SeededRandom(), lease_s=LEASE_S)
    planted.plant(records, "in", ROW, 1)
    planted.plant(records, "in", ROW, 2)
    with records.begin() as tx:  # the same id twice, as a producer that is not taut may send
        tx.exec_driver_sql("UPDATE bus_events SET event = CAST(replace(event, '\"p2\"', '\"p1\"') AS BLOB)")

    counts = Stream(gateway, bus, plane.token()).run()

    assert (counts.received, counts.answered, counts.new) == (2, 2, 1)
    assert len(all_of(bus, "out")) == 1


def test_dead_letters_are_replayed_once_and_put_aside_again_when_they_fail_again(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(1), row_event(2, b'{"x0": 1, "x1": 2}'), row_event(3, b'{"x9": 1}')])
    assert Stream(gateway, bus, plane.token()).run().dead == 2
    served = plane.served(matrix_model(2), matrix_signature(2), version="delay@2")
    snapshot = plane.snapshot(with_fields(plane.endpoint(), live=served))  # mended: it takes two columns
    gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
    again = StreamPlan(
        endpoint="delay", source="dead", target="out", dead_letters="dead", group="g-replay", replay=True
    )

    counts = Stream(gateway, bus, plane.token(), again).run(at_most=2)

    assert (counts.answered, counts.dead) == (1, 1)
    assert [answer.inputid for answer in all_of(bus, "out")] == ["e1", "e2"]
    letters = [read_letter(event) for event in all_of(bus, "dead")]
    assert [letter.replays for letter in letters] == [0, 0, 1]
    assert letters[-1].delivery().event == row_event(3, b'{"x9": 1}')
    assert Stream(gateway, bus, plane.token()).run().received == 0


def test_no_more_events_are_in_flight_than_the_plan_says(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(index) for index in range(500)])

    class Slow(Faulty):
        def settle(self, settled: Sequence[Settled]) -> int:
            SystemClock().sleep(0.01)
            return self.inner.settle(settled)

    counts = Stream(gateway, FaultyBus(bus, Slow), plane.token(), plan(max_in_flight=50)).run()

    assert counts.answered == 500
    assert 20 < counts.in_flight_max <= 50


def test_large_events_are_taken_in_small_batches(gateway: Gateway, plane: DataPlane, bus: RecordsBus) -> None:
    large = b'{"x0": 1.0, "x1": 0.5, "x2": -0.25' + b" " * 100_000 + b"}"
    bus.publish("in", [row_event(index, large) for index in range(100)])
    taken: list[int] = []

    class Watched(Faulty):
        def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
            found = self.inner.receive(limit=limit, wait_s=wait_s)
            taken.append(len(found))
            return found

    stream = Stream(gateway, FaultyBus(bus, Watched), plane.token(), plan(max_bytes=5 * 500_000))
    assert stream.run().answered == 100
    assert max(taken[1:]) <= 5  # after the first batch has told how large they are


class Faulty:
    """A subscription to be changed by tests."""

    def __init__(self, inner: Subscription) -> None:
        self.inner = inner

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        return self.inner.receive(limit=limit, wait_s=wait_s)

    def settle(self, settled: Sequence[Settled]) -> int:
        return self.inner.settle(settled)

    def close(self) -> None:
        self.inner.close()


class FaultyBus:
    """A bus whose subscriptions a test changes."""

    def __init__(self, inner: Bus, change: Callable[[Subscription], Subscription]) -> None:
        self.inner, self.change = inner, change

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        return self.inner.publish(topic, events)

    def subscribe(self, topic: str, group: str) -> Subscription:
        return self.change(self.inner.subscribe(topic, group))

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        return self.inner.peek(topic, group, limit=limit)

    def state(self, topic: str, group: str) -> TopicState:
        return self.inner.state(topic, group)

    def close(self) -> None:
        self.inner.close()


class Death(Exception):
    """The process is gone: nothing of it runs on."""


class Deaths:
    """Kills at seeded calls: before the broker heard, or after it did and before its answer came."""

    def __init__(self, seed: int, *, deaths: int, gone: type[Exception]) -> None:
        self.random = random.Random(seed)
        self.left = deaths
        self.gone = gone

    def call(self, do: Callable[[], Any]) -> Any:
        chance = self.random.random()
        if self.left and chance < 0.15:
            self.left -= 1
            raise self.gone("before")
        found = do()
        if self.left and chance > 0.85:
            self.left -= 1
            raise self.gone("after")
        return found


class Dying(Faulty):
    def __init__(self, inner: Subscription, deaths: Deaths) -> None:
        super().__init__(inner)
        self.deaths = deaths

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        found: list[Delivery] = self.deaths.call(lambda: self.inner.receive(limit=limit, wait_s=wait_s))
        return found

    def settle(self, settled: Sequence[Settled]) -> int:
        found: int = self.deaths.call(lambda: self.inner.settle(settled))
        return found

    def close(self) -> None:
        """A dead process says no good-bye."""


@pytest.mark.parametrize("seed", range(8))
def test_whatever_dies_when_no_event_is_lost_and_none_has_two_answers(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus, seed: int
) -> None:
    poison = {7, 40}
    bus.publish("in", [row_event(i, b"{}" if i in poison else ROW) for i in range(60)])
    deaths = Deaths(seed, deaths=6, gone=Death)
    dying = FaultyBus(bus, lambda inner: Dying(inner, deaths))
    stream = Stream(gateway, dying, plane.token(), plan(max_in_flight=25, max_attempts=100))

    for _ in range(20):
        try:
            stream.run()
        except* Death:
            pass
        if bus.state("in", "g").pending == bus.state("in", "g").waiting == 0:
            break
        SystemClock().sleep(LEASE_S)

    assert deaths.left == 0 or bus.state("in", "g").pending == 0
    answered = [answer.inputid for answer in all_of(bus, "out")]
    assert sorted(answered) == sorted(f"e{i}" for i in range(60) if i not in poison)
    assert sorted(dead.inputid for dead in all_of(bus, "dead")) == ["e40", "e7"]


def test_a_stream_that_forgets_its_ids_would_be_caught(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    """The planted fault: an output that is published outside the settling, as a naive stream does."""

    class Naive(Faulty):
        def settle(self, settled: Sequence[Settled]) -> int:
            outputs = [output.event for item in settled for output in item.outputs]
            bus.publish("out", [with_fields(made, id=SystemRandom().bytes(8).hex()) for made in outputs])
            if bus.state("out", "g").length == len(outputs):
                raise Death("after it published, before it acknowledged")
            return self.inner.settle([Settled(item.delivery) for item in settled])

        def close(self) -> None:
            """A dead process says no good-bye."""

    bus.publish("in", [row_event(i) for i in range(60)])
    stream = Stream(gateway, FaultyBus(bus, Naive), plane.token())
    with pytest.raises(ExceptionGroup):
        stream.run()
    SystemClock().sleep(LEASE_S)
    stream.run()

    assert len(all_of(bus, "out")) > 60


def test_a_broker_that_goes_away_is_waited_for_and_nothing_is_done_twice(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(i) for i in range(60)])
    away = Deaths(3, deaths=12, gone=Unavailable)

    class Away(Dying):
        def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
            self.deaths.call(lambda: None)  # what an adapter did not get, it does not hold
            return self.inner.receive(limit=limit, wait_s=wait_s)

    stream = Stream(
        gateway, FaultyBus(bus, lambda inner: Away(inner, away)), plane.token(), plan(max_in_flight=25)
    )

    while bus.state("in", "g").waiting or bus.state("in", "g").pending or not stream.notes:
        stream.run()
        SystemClock().sleep(LEASE_S / 2)

    assert sorted(answer.inputid for answer in all_of(bus, "out")) == sorted(f"e{i}" for i in range(60))
    assert {"broker-away", "broker-back"} <= {name for name, _ in stream.notes}


def test_an_event_that_ends_the_process_each_time_is_put_aside_and_its_neighbours_are_answered(
    gateway: Gateway, plane: DataPlane, bus: RecordsBus
) -> None:
    bus.publish("in", [row_event(i) for i in range(30)])

    class Killed(Scoring):
        async def score(self, deliveries: Sequence[Delivery], pause: Any) -> list[Settled]:
            if any(item.event is not None and item.event.id == "e13" for item in deliveries):
                raise Death("a fault in native code")
            return await super().score(deliveries, pause)

    deaths = 0
    for _ in range(12):
        scoring = Killed(gateway, plan(), bearer=plane.token, now=lambda: datetime.now(UTC))
        dead_bus = FaultyBus(bus, lambda inner: Dying(inner, Deaths(0, deaths=0, gone=Death)))

        async def work(scoring: Scoring = scoring, dead_bus: FaultyBus = dead_bus) -> None:
            processor = StreamProcessor(
                dead_bus, scoring, plan(), random=SeededRandom(), note=lambda *_: None, receive_s=0.03
            )
            await processor.run(until_empty=True)

        try:
            asyncio.run(work())
        except* Death:
            deaths += 1
        if bus.state("in", "g").pending == bus.state("in", "g").waiting == 0:
            break
        SystemClock().sleep(LEASE_S * 1.1)

    assert 3 <= deaths <= 6
    assert sorted(a.inputid for a in all_of(bus, "out")) == sorted(f"e{i}" for i in range(30) if i != 13)
    (dead,) = all_of(bus, "dead")
    assert (dead.inputid, read_letter(dead).reason.code) == ("e13", "crashed")


@pytest.mark.parametrize(
    "more",
    [
        {"target": "in"},
        {"dead_letters": "in"},
        {"dead_letters": "out"},
        {"source": "a b"},
        {"max_in_flight": 4},
    ],
)
def test_a_plan_that_could_never_end_or_never_work_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        StreamPlan(
            **{"endpoint": "e", "source": "in", "target": "out", "dead_letters": "dead", "group": "g", **more}
        )
