from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from signin_world import World


@pytest.fixture(scope="session")
def key_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys for every world of these tests: none of them changes one, and making them takes longest."""
    return tmp_path_factory.mktemp("signin") / "keys"


@pytest.fixture
def world(key_folder: Path) -> Iterator[World]:
    world = World(key_folder)
    yield world
    world.records.close()
