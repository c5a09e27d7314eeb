"""A consumer of NATS that waited for nothing has met no failure, whichever way the client says so."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import nats.errors
import pytest

from taut.adapters.bus.nats import NatsSubscription
from taut.testing.world import ManualClock


class Bus:
    """A connection on which nothing is said."""

    clock = ManualClock()
    lease_s = 30.0

    def ask(self, work: Coroutine[Any, Any, Any], *, within_s: float) -> Any:
        return asyncio.run(work)

    async def client(self) -> None:
        return None


class Pull:
    """The client's end of a consumer. On a busy machine its time has passed when it would ask the server again."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    async def fetch(self, _limit: int, *, timeout: float) -> list[Any]:
        raise self._error


@pytest.mark.parametrize("error", [nats.errors.TimeoutError, asyncio.TimeoutError])
def test_a_wait_that_brought_nothing_is_no_failure(error: type[Exception]) -> None:
    subscription = NatsSubscription(Bus(), "orders", "g", Pull(error))  # type: ignore[arg-type]  # what it needs of a bus

    assert subscription.receive(limit=10, wait_s=0.1) == []
