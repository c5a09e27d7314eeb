"""Online: the latest features of an entity, in microseconds. Control writes, gateways read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    @property
    def local(self) -> bool:
        """Whether `get_now` takes microseconds, so that a loop may wait for it."""
        ...

    async def get(self, feature_set: str, keys: Sequence[tuple[Scalar, ...]]) -> list[OnlineRow | None]:
        """Read a row for each key, in their order, in one exchange with the store."""
        ...

    def get_now(self, feature_set: str, key: tuple[Scalar, ...]) -> OnlineRow | None:
        """Read without a loop. Blocks for as long as the store takes."""
        ...


class Stretch(msgspec.Struct, frozen=True):
    """Some rows of a feature set. end: from where to go on; empty where there are no more."""

    rows: tuple[OnlineRow, ...]
    end: bytes


class OnlineAuditor(Protocol):
    """Looks a store over, away from requests, which reading for them alone cannot: most rows are seldom asked for.

    Guarantees: what is read is what lies in the store now, also where it was put there behind the writer's back; readers of
    the same process go on with that too.

    Errors: Unavailable when the store is not there or does not answer; Corrupt for rows that are not what was written.
    """

    def walk(self, feature_set: str, after: bytes, limit: int) -> Stretch:
        """Read about `limit` rows from where the stretch before ended, `after`; from the beginning where it is empty.

        A walk to the end meets every row that is there all the while, some perhaps twice.
        """
        ...

    def newest_us(self, feature_set: str) -> int | None:
        """Return the newest event time of all rows; None where there are none. Takes time in proportion to them."""
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
