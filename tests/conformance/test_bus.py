"""Bus in Records on both databases, on Redis streams, on NATS JetStream and on Kafka's mock cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taut.adapters.bus.nats import NatsBus
from taut.adapters.bus.records import RecordsBus
from taut.adapters.bus.redis import RedisBus
from taut.adapters.bus.tables import metadata
from taut.adapters.world import SystemClock, SystemRandom
from taut.ports.bus import Bus
from taut.ports.records import Records
from taut.testing.brokers import NatsServer, RedisServer
from taut.testing.conformance.bus import LEASE_S, BusSuite


class TestRecordsBus(BusSuite):
    @pytest.fixture(autouse=True)
    def _records(self, open_records: Callable[..., Records]) -> None:
        self._opened = open_records(metadata)

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        yield RecordsBus(self._opened, SystemClock(), SystemRandom(), lease_s=LEASE_S)


class TestRedisBus(BusSuite):
    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self._url = redis_server.url

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        bus = RedisBus(self._url, SystemClock(), SystemRandom(), lease_s=LEASE_S)
        yield bus
        bus.close()


class TestNatsBus(BusSuite):
    @pytest.fixture(autouse=True)
    def _server(self, nats_server: NatsServer) -> None:
        self._url = nats_server.url

    @contextmanager
    def open(self, folder: Path) -> Iterator[Bus]:
        bus = NatsBus(self._url, SystemClock(), lease_s=LEASE_S)
        yield bus
        bus.close()
