"""Brokers of the test session, one of each kind; a test takes topics of its own on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taut.testing.brokers import KafkaMock, NatsServer, RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka_mock() -> KafkaMock:
    return KafkaMock()
