"""What every test may ask for: real servers, and Records on each of its databases."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from sqlalchemy import MetaData

from taut.adapters.records import open_postgres, open_sqlite
from taut.ports.records import Records
from taut.testing.records import create_tables

if TYPE_CHECKING:  # onnxruntime takes its time, and most tests never serve
    from taut.testing.serving import DataPlane

# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("taut", deadline=None)
hypothesis.settings.load_profile("taut")

pytest_plugins = ["servers", "brokers", "holders", "grouping"]

OpenRecords = Callable[..., Records]


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over what every test needs: hundreds of thousands of objects, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["sqlite", "postgres"])
def open_records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenRecords]:
    """A function that opens the test's own database, with the tables of the metadata that it is given.

    Runs the test once a dialect. Every call opens the same database anew, as another process would.
    """
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    opened: list[Records] = []

    def open_(*metadatas: MetaData) -> Records:
        records: Records = open_postgres(url) if url else open_sqlite(tmp_path / "taut.db")
        opened.append(records)
        create_tables(records, *metadatas)
        return records

    yield open_
    for records in opened:
        records.close()


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    """A data plane's snapshots and keys, with nothing issued yet."""
    from taut.adapters.keys.file import FileKeys
    from taut.adapters.world import SystemRandom
    from taut.testing.serving import DataPlane

    return DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
