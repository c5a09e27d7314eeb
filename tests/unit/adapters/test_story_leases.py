"""The thread that renews leases goes on whatever the database says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from taut.adapters.stories.leases import Leases
from taut.core.errors import Conflict, Corrupt, TautError, Unavailable


class Journal:
    """Fails as often as it is told to, then renews."""

    lease_us = 30_000

    def __init__(self, error: TautError, times: int) -> None:
        self.error, self.left = error, times

    def insist(self, do: Callable[[Any], Any], *, patient: bool = True) -> None:
        if self.left > 0:
            self.left -= 1
            raise self.error


class Run:
    id = "story_1"
    claim = None
    lost = False

    def __init__(self) -> None:
        self.heard = threading.Event()

    def renewed(self) -> None:
        self.heard.set()


@pytest.mark.parametrize("error", [Unavailable("away"), Conflict("lost"), Corrupt("a page is damaged")])
def test_leases_are_renewed_again_after_any_error_of_the_database(error: TautError) -> None:
    run = Run()
    leases = Leases(Journal(error, times=3))  # type: ignore[arg-type]  # what Leases needs of a journal

    with leases.renewing(run):  # type: ignore[arg-type]  # and of a run
        assert run.heard.wait(90)
    assert not run.lost
