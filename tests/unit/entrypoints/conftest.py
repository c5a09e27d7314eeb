"""An installation for tests: real rooms, tables in memory, everything else below the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.testing.records import memory_records


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Platform(Config(home=home), stack)
        records = memory_records(*all_metadata())
        stack.callback(records.close)
        made.records = records
        yield made
