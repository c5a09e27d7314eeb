"""`taut stream` as processes on real brokers: kill -9 at seeded moments, a broker that goes away, bounded memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taut.adapters.bus.kafka import KafkaBus
from taut.adapters.bus.nats import NatsBus
from taut.adapters.bus.records import RecordsBus
from taut.adapters.bus.redis import RedisBus
from taut.adapters.keys.file import FileKeys
from taut.adapters.records import open_sqlite
from taut.adapters.records.migration import migrate
from taut.adapters.world import SystemClock, SystemRandom
from taut.core.cloudevents import Event
from taut.ports.bus import Bus, Delivery
from taut.serving.predictions import PredictionReader
from taut.serving.stream import read_letter
from taut.testing.brokers import KafkaMock, NatsServer, RedisServer
from taut.testing.serving import DataPlane
from taut.trust.quota import Limit

POISON = frozenset({17, 230, 555})


def row_event(index: int) -> Event:
    data = b'{"x0": %d, "x1": 0, "x2": 0}' % index
    return Event(id=f"e{index}", source="tests", type="row", data=b'{"x9": 1}' if index in POISON else data)


class Broker:
    """A broker of the test, and the address by which a process reaches it."""

    def __init__(self, url: str, bus: Bus, *, forgets: bool = False) -> None:
        self.url, self.bus, self.forgets = url, bus, forgets
        name = uuid.uuid4().hex[:8]
        self.source, self.target = f"in-{name}", f"out-{name}"

    def group(self) -> str:
        """The group of the next process; a new one where the broker forgets what a group settled anyway."""
        return f"group-{uuid.uuid4().hex[:6]}" if self.forgets else "taut-delay"

    def all_of(self, topic: str) -> list[Delivery]:
        return self.bus.peek(topic, "never-subscribed", limit=100_000)


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    made = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    made.issue(made.endpoint())
    return made


@contextmanager
def on_records(plane: DataPlane, _request: pytest.FixtureRequest) -> Iterator[Broker]:
    records = open_sqlite(plane.home / "taut.db")
    migrate(records)
    yield Broker("records:?lease=1s", RecordsBus(records, SystemClock(), SystemRandom()))
    records.close()


@contextmanager
def on_redis(_plane: DataPlane, request: pytest.FixtureRequest) -> Iterator[Broker]:
    server: RedisServer = request.getfixturevalue("redis_server")
    bus = RedisBus(server.url, SystemClock(), SystemRandom())
    yield Broker(f"{server.url}?lease=1s", bus)
    bus.close()


@contextmanager
def on_nats(_plane: DataPlane, request: pytest.FixtureRequest) -> Iterator[Broker]:
    server: NatsServer = request.getfixturevalue("nats_server")
    bus = NatsBus(server.url, SystemClock())
    yield Broker(f"{server.url}?lease=1s", bus)
    bus.close()


@contextmanager
def on_kafka(_plane: DataPlane, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The mock cluster forgets the offsets of transactions: each process begins at the beginning, in a group of its own
    (it would give the dead one's partitions back only after 45 s), and knows the answers that are there by their ids.
    """
    mock: KafkaMock = request.getfixturevalue("kafka_mock")
    bus = KafkaBus(mock.url.removeprefix("kafka://"), SystemClock(), SystemRandom())
    yield Broker(f"{mock.url}?group.protocol=consumer", bus, forgets=True)
    bus.close()


OPEN: dict[str, Callable[..., Any]] = {
    "records": on_records, "redis": on_redis, "nats": on_nats, "kafka": on_kafka,
}  # fmt: skip


@pytest.fixture(params=OPEN)
def broker(request: pytest.FixtureRequest, plane: DataPlane) -> Iterator[Broker]:
    with OPEN[request.param](plane, request) as opened:
        yield opened


def command(plane: DataPlane, broker: Broker) -> list[str]:
    """The words of `taut stream run` on the broker's topics."""
    place, _, query = broker.url.partition("?")
    source = f"{place.rstrip('/')}/{broker.source}" + (f"?{query}" if query else "")
    return [
        sys.executable, "-P", "-m", "taut.entrypoints.cli", "--json", "--home", str(plane.home), "--token", plane.token(ttl_s=3600), "stream", "run", "delay",
        "--from", source, "--to", broker.target, "--group", broker.group(),
    ]  # fmt: skip


class Stream:
    """One `taut stream run` as a process of its own, ended with the block."""

    def __init__(self, plane: DataPlane, broker: Broker, *words: str) -> None:
        self.said = (plane.home / f"stream-{uuid.uuid4().hex[:6]}.log").open("w+b")
        self.process = subprocess.Popen(
            [*command(plane, broker), *words], stdout=subprocess.PIPE, stderr=self.said
        )

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.said.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def done(self, *, within_s: float = 90.0) -> dict[str, Any]:
        """Wait for its end, which must be good, and return its document."""
        out, _ = self.process.communicate(timeout=within_s)
        self.said.seek(0)
        assert self.process.returncode == 0, self.said.read().decode()
        document: dict[str, Any] = json.loads(out)
        return document

    def end(self) -> dict[str, Any]:
        self.process.terminate()
        return self.done()


def wait_until(there: Callable[[], bool], *, within_s: float = 90.0) -> None:
    end = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def settled(broker: Broker) -> int:
    """How many events have their answer or their dead letter."""
    topics = (broker.target, f"{broker.source}-dead")
    if broker.forgets:  # its lengths count the marks of transactions
        return sum(len(broker.all_of(topic)) for topic in topics)
    return sum(broker.bus.state(topic, "check").length for topic in topics)


@pytest.mark.crash
def test_a_stream_that_is_killed_at_any_moment_loses_nothing_and_answers_nothing_twice(
    plane: DataPlane, broker: Broker
) -> None:
    portion, chance = 800, random.Random(11)
    count = 3 * portion
    for number in range(2):
        broker.bus.publish(broker.source, [row_event(number * portion + index) for index in range(portion)])
        before = broker.bus.state(broker.target, "check").length
        with Stream(plane, broker, "--in-flight", "100") as stream:
            goal = before + chance.randrange(1, 400)
            wait_until(lambda goal=goal: broker.bus.state(broker.target, "check").length >= goal)
            time.sleep(chance.random() * 0.02)
            stream.kill()
    broker.bus.publish(broker.source, [row_event(2 * portion + index) for index in range(portion)])
    with Stream(plane, broker, "--in-flight", "100") as stream:
        wait_until(lambda: settled(broker) >= count)
        counts = stream.end()

    answers = [delivery.event for delivery in broker.all_of(broker.target)]
    assert sorted(answer.inputid for answer in answers if answer) == sorted(
        f"e{index}" for index in range(count) if index not in POISON
    )
    letters = [delivery.event for delivery in broker.all_of(f"{broker.source}-dead")]
    assert sorted(letter.inputid for letter in letters if letter) == sorted(f"e{index}" for index in POISON)
    assert {read_letter(letter).reason.code for letter in letters} == {"invalid_input"}
    assert 0 < counts["new"] < count
    reader = PredictionReader(plane.home / "log" / "predictions")
    logged = {record.request_id for record in reader.records()}
    assert {json.loads(answer.data)["request_id"] for answer in answers if answer} <= logged


def test_a_stream_stands_still_while_its_broker_is_away_and_goes_on_when_it_is_back(
    plane: DataPlane, tmp_path: Path
) -> None:
    server = RedisServer(tmp_path / "own-redis")
    server.start()
    bus = RedisBus(server.url, SystemClock(), SystemRandom())
    try:
        broker = Broker(f"{server.url}?lease=1s", bus)
        bus.publish(broker.source, [row_event(index) for index in range(1500)])
        with Stream(plane, broker, "--in-flight", "50") as stream:
            wait_until(lambda: bus.state(broker.target, "check").length > 200)
            server.stop()
            time.sleep(0.5)
            assert stream.process.poll() is None
            server.start()
            wait_until(lambda: bus.state(broker.target, "check").length == 1500 - len(POISON))
            bus.publish(broker.source, [row_event(9999)])
            wait_until(lambda: bus.state(broker.target, "check").length == 1501 - len(POISON))
            stream.end()
            stream_said = (plane.home / stream.said.name).read_text()
        assert "broker-away" in stream_said
        assert "broker-back" in stream_said
        answers = [delivery.event.inputid for delivery in broker.all_of(broker.target) if delivery.event]
        assert len(answers) == len(set(answers)) == 1501 - len(POISON)
    finally:
        bus.close()
        server.stop()


def test_a_stream_that_is_held_up_keeps_what_waits_on_the_broker_and_not_in_its_memory(
    plane: DataPlane, redis_server: RedisServer
) -> None:
    plane.issue(plane.endpoint(quota=Limit(rate_per_s=200, burst=100)))
    bus = RedisBus(redis_server.url, SystemClock(), SystemRandom())
    broker = Broker(redis_server.url, bus)
    padding = b" " * 20_000
    for start in range(0, 4000, 500):  # 80 MB wait
        made = [
            Event(id=f"e{i}", source="t", type="row", data=b'{"x0": 1, "x1": 0, "x2": 0' + padding + b"}")
            for i in range(start, start + 500)
        ]
        bus.publish(broker.source, made)
    with Stream(plane, broker, "--in-flight", "200") as stream:
        wait_until(lambda: bus.state(broker.target, "check").length > 120)
        before_mib = resident_mib(stream.process.pid)
        wait_until(lambda: bus.state(broker.target, "check").length > 500)
        state = bus.state(broker.source, "taut-delay")
        assert state.pending <= 200
        assert resident_mib(stream.process.pid) < before_mib + 32
        stream.end()
    bus.close()


def test_a_model_in_a_worker_is_asked_no_faster_than_it_answers(
    plane: DataPlane, redis_server: RedisServer
) -> None:
    plane.issue(plane.endpoint(runtime="worker"))
    bus = RedisBus(redis_server.url, SystemClock(), SystemRandom())
    broker = Broker(redis_server.url, bus)
    bus.publish(broker.source, [row_event(index) for index in range(1000)])
    with Stream(plane, broker, "--until-empty") as stream:
        counts = stream.done()
    assert (counts["answered"], counts["dead"]) == (1000 - len(POISON), len(POISON))
    bus.close()


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024
