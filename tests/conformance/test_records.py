"""Records in SQLite, in PostgreSQL and in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from taut.ports.records import Records
from taut.testing.conformance.records import ConcurrentRecordsConformance, RecordsConformance, metadata
from taut.testing.records import memory_records


class TestDatabases(ConcurrentRecordsConformance):
    @pytest.fixture
    def records(self, open_records: Callable[..., Records]) -> Records:
        return open_records(metadata)


class TestMemory(RecordsConformance):
    @pytest.fixture
    def records(self) -> Iterator[Records]:  # type: ignore[override]  # a fixture that yields
        records = memory_records(metadata)
        yield records
        records.close()
