"""A client of a Redis server, as the bus and the online store open it."""

from __future__ import annotations

from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taut.core.errors import InvalidInput

BUSY: Final = ("LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN")
"""How answers begin that say: not now."""


def open_redis(url: str, what: str, *, timeout_s: float) -> redis.Redis:
    """Return a client that connects when it is first asked and tries nothing again. what: it serves, for the message.

    Raises InvalidInput for an address that is none.
    """
    try:
        return redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2, health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
    except ValueError as error:
        raise InvalidInput(
            f"the address of {what} is not understood ({error}): redis://HOST:PORT/DATABASE"
        ) from None
