"""What every engine of stories must do. Subclass `StoriesConformance` in a test module and give the fixture `world`."""

from __future__ import annotations

import pytest

from taut.testing.conformance.stories.changing import Changing
from taut.testing.conformance.stories.dying import Dying
from taut.testing.conformance.stories.running import Running
from taut.testing.conformance.stories.waiting import Waiting
from taut.testing.conformance.stories.world import LEASE_S, Killed, World, effects, metadata

__all__ = ["LEASE_S", "Killed", "StoriesConformance", "World", "effects", "metadata"]


class StoriesConformance(Running, Dying, Waiting, Changing):
    """The promises of `taut.ports.stories.Stories`."""

    @pytest.fixture
    def world(self) -> World:
        pytest.fail("a subclass gives the world")
