"""What the data room is given: ports and the trusted things, in one value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from taut.lifecycle.data.reading import SourceTable
from taut.lifecycle.data.retry import Retry, with_retries
from taut.ports.blobs import Blobs
from taut.ports.records import Records
from taut.ports.tables import Tables
from taut.ports.world import Clock, Ids, Random
from taut.trust.ledger import Ledger
from taut.trust.lineage import Lineage
from taut.trust.sealing import Sealer

T = TypeVar("T")

Progress = Callable[[str, float], None]
"""Called with a message and the fraction done, 0 to 1."""


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the room's parts may reach. scratch: for copies of source files while they are read."""

    records: Records
    blobs: Blobs
    tables: Tables
    ledger: Ledger
    lineage: Lineage
    sealer: Sealer
    sources: SourceTable
    clock: Clock
    ids: Ids
    random: Random
    retry: Retry = Retry()
    scratch: Path | None = None

    def persist(self, do: Callable[[], T]) -> T:
        """Call `do`, again with backoff while something that it needs does not answer."""
        return with_retries(do, retry=self.retry, clock=self.clock, random=self.random)
