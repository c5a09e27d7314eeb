"""Online: the latest features of an entity, in microseconds. Control writes, gateways read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from taut.core.evidence import Scalar


class OnlineRow(msgspec.Struct, frozen=True, array_like=True):
    """One entity's features, packed. `event_time_us` and the values are what was true at that time.

    values: in the order of the feature set's columns. source: the materialisation that wrote the row.
    """

    event_time_us: int
    values: tuple[Scalar, ...]
    source: str


class OnlineReader(Protocol):
    """Reads one packed row an entity.

    Guarantees: a row is whole (never half of one write and half of another); an entity that was never written, or
    was deleted, reads as None. Reading never blocks on a writer. Values are the very ones written, types included.

    Not guaranteed: reading the very last write; rows of two entities from the same moment.

    Errors: Unavailable when the store does not answer within its bound; Corrupt for a row that cannot be decoded.
    """

    async def get(self, feature_set: str, key: tuple[Scalar, ...]) -> OnlineRow | None: ...

    def get_now(self, feature_set: str, key: tuple[Scalar, ...]) -> OnlineRow | None:
        """Read without a loop, for stores inside the process; a store that needs the network raises Unavailable."""
        ...


class OnlineWriter(Protocol):
    """Writes packed rows.

    Guarantees: `put` is idempotent and never replaces a newer `event_time_us` by an older one; a batch that returned
    is durable.
    """

    def put(self, feature_set: str, rows: Iterable[tuple[tuple[Scalar, ...], OnlineRow]]) -> int:
        """Write rows and return how many changed something."""
        ...

    def delete(self, feature_set: str, keys: Iterable[tuple[Scalar, ...]]) -> int: ...

    def count(self, feature_set: str) -> int: ...
