"""The result cache of one endpoint: answers by what was asked, bounded in bytes and in time, one computation at a time.

What an entry is found by, and so what it can never be shared across:

* the *slot*: endpoint, model version with its artifact, signature and feature columns, and the policy's digest. A slot has
  a cache of its own, so a release or another policy begins with an empty one, and nothing else does;
* the caller's rights as the policy sees them: kind, roles and scopes. The built-in policies look at nothing else where
  `predict` is decided. A project's own policy may look at the caller's id: with any that bears on `predict`, and where the
  builder says `shared=False`, the id is part of the key too, and nobody shares with anybody;
* the request's rows, decoded, event times included, and the rows of features that were found for them, with the
  materialisation, event time and values of each. They are looked up for every request, hits too: an update misses.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from taut.core.errors import Unavailable
from taut.serving.predictions import FeatureRow
from taut.serving.runtime import Outputs
from taut.serving.snapshot import EndpointConfig, ServingSnapshot
from taut.trust.identity.principals import Principal

ROWS_MAX: Final = 256
"""Requests with more rows are not cached: they hardly come twice, and their keys would cost as much as their answers."""
ENTRY_BYTES: Final = 384
"""What an entry costs beside its answer: its key, its place in the table, the objects themselves."""
FOREVER_US: Final = 2**62
_KEY_BYTES: Final = 32
_SHARE_OF_ALL: Final = 8  # an answer larger than this part of the cache would push out too many others

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Outputs).decode
Features = Sequence[Sequence[FeatureRow | None]]


class CacheKeys:
    """What makes two requests the same. Stateless."""

    def slot(self, config: EndpointConfig, snapshot: ServingSnapshot) -> str:
        """Return what an endpoint's entries hold for; the release's name is not in it, answers carry the present one."""
        live = msgspec.structs.replace(config.live, release="", path="")
        parts = (config.name, live, snapshot.policy_digest)
        return blake2b(_encode(parts), digest_size=_KEY_BYTES).hexdigest()

    def fresh(self, principal: Principal, rows: Any, features: Features, *, personal: bool) -> bytes:
        """Return the key of an answer. rows: packed or decoded. personal: only this principal may share."""
        return self._digest(("fresh", self.rights(principal, personal=personal), rows, features))

    def stale(self, principal: Principal, rows: Any, *, personal: bool) -> bytes:
        """Return the key under which the last answer lies for when nothing else can be had, whatever the features."""
        return self._digest(("stale", self.rights(principal, personal=personal), rows, ()))

    def rights(self, principal: Principal, *, personal: bool) -> tuple[object, ...]:
        """Return the class of principals whose rights are the same by every policy that may hold here."""
        return (principal.kind, principal.roles, principal.scopes, principal.id if personal else None)

    def _digest(self, parts: tuple[object, ...]) -> bytes:
        return blake2b(_encode(parts), digest_size=_KEY_BYTES).digest()


class Entry(NamedTuple):
    """One answer. payload: outputs, encoded. made_ns: by the monotonic clock. until_us: by the wall's, never given after."""

    payload: bytes
    made_ns: int
    until_us: int

    def outputs(self) -> Outputs:
        return _decode(self.payload)


class Flight:
    """One computation that others wait for. priority: of the request that leads it."""

    def __init__(self, priority: int) -> None:
        self.priority: Final = priority
        self._outcome: Final[asyncio.Future[Outputs | Unavailable | None]] = (
            asyncio.get_running_loop().create_future()
        )

    def settle(self, outcome: Outputs | Unavailable | None) -> None:
        """Tell the followers. None: what went wrong was the leader's own affair. Only the first word counts."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    async def outcome(self, timeout_s: float) -> Outputs | Unavailable | None:
        """Return what was settled. Raises TimeoutError."""
        done, _ = await asyncio.wait((self._outcome,), timeout=timeout_s)
        if not done:
            raise TimeoutError
        return self._outcome.result()


class ResultCache:
    """Answers by key; those that were not asked for longest go first. One event loop owns it.

    max_bytes: of all entries together, ENTRY_BYTES for each included. flights: what is being computed, by key.
    """

    def __init__(self, max_bytes: int) -> None:
        self.flights: Final[dict[bytes, Flight]] = {}
        self.used_bytes = 0
        self.evicted = 0
        self._max_bytes = max_bytes
        self._entries: Final[OrderedDict[bytes, Entry]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shrink()

    def get(self, key: bytes, now_ns: int, now_us: int, ttl_ns: int) -> Entry | None:
        """Return an entry that is not older than `ttl_ns`; one that is goes."""
        found = self._entries.get(key)
        if found is None:
            return None
        if now_ns - found.made_ns > ttl_ns or now_us > found.until_us:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found

    def put(self, key: bytes, outputs: Outputs, now_ns: int, until_us: int = FOREVER_US) -> None:
        """Keep an answer, as bytes: nobody can change it, and its size is known."""
        payload = _encode(outputs)
        if (ENTRY_BYTES + len(payload)) * _SHARE_OF_ALL > self._max_bytes:
            return
        self._drop(key)
        self._entries[key] = Entry(payload, now_ns, until_us)
        self.used_bytes += ENTRY_BYTES + len(payload)
        self._shrink()

    def _drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.used_bytes -= ENTRY_BYTES + len(found.payload)

    def _shrink(self) -> None:
        while self.used_bytes > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.used_bytes -= ENTRY_BYTES + len(oldest.payload)
            self.evicted += 1
