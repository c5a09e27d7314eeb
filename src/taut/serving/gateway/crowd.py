"""How many connections a gateway holds, and who goes when there are more: those that have been idle for longest."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Collection
from typing import Any, Final, Protocol

from taut.core.errors import TautError, Unavailable

MAX_CONNECTIONS: Final = 16_384
_AT_ONCE: Final = 64  # so many are let go at once, since looking for them takes a walk over all
_REST_S: Final = 1.0  # whoever was active within it is not idle: his next request may be on its way
_RETRY_S: Final = 2.0
_GOODBYE_S: Final = 0.3
_MARGIN: Final = 1.1
_RESERVE: Final = (
    512  # descriptors for everything else: log, snapshots, workers, sockets within the installation
)


def connections_within(descriptors: int) -> int:
    """Return how many connections a process may hold that can have `descriptors` open files."""
    return max(16, min(MAX_CONNECTIONS, int((descriptors - _RESERVE) / _MARGIN)))


class Guest(Protocol):
    """A connection. began_s, idle_s: see `GatewayProtocol`."""

    began_s: float | None
    idle_s: float | None
    heard: bool
    transport: Any


class Crowd:
    """At most `bound` of `connections`, the server's own set of those that are open.

    leaving: set when the server drains; connections that are made yet, having been accepted before, end with one answer.
    """

    def __init__(self, connections: Collection[Any], *, bound: int = MAX_CONNECTIONS) -> None:
        self._connections: Final = connections
        self._bound: Final = bound
        self.leaving = False

    @property
    def full(self) -> bool:
        """Whether there are so many that none may stay for a last word: at most a tenth beyond the bound."""
        return len(self._connections) > self._bound * _MARGIN

    def admit(self, guest: Guest, now_s: float) -> TautError | None:
        """Return None when there is room, or some was made; else what to tell a connection that is one too many.

        Those go that wait for a request, or never sent a byte, for longest. A request under way is never given up.
        """
        if len(self._connections) <= self._bound:
            return None
        since = [
            (found, one)
            for one in self._connections
            if one is not guest and (found := _idle_since(one)) is not None and now_s - found > _REST_S
        ]
        if not since:
            return Unavailable(
                f"{self._bound} connections are open and busy: keep fewer, or come back shortly",
                retry_after_s=_RETRY_S,
            )
        for _, one in heapq.nsmallest(min(_AT_ONCE, 1 + self._bound // 16), since, key=lambda pair: pair[0]):
            leave(one)
        return None


def _idle_since(one: Guest) -> float | None:
    if one.idle_s is not None:
        return one.idle_s
    return None if one.heard else one.began_s


def leave(one: Guest) -> None:
    """Close while nothing is due. Over TLS the other side's goodbye, which may never come, is waited for only shortly."""
    one.idle_s = one.began_s = None
    one.heard = True
    one.transport.close()
    if one.transport.get_extra_info("ssl_object") is not None:
        asyncio.get_running_loop().call_later(_GOODBYE_S, one.transport.abort)
