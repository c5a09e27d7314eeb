"""What a worker's threads may take of the processors, and when it stands still for it."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.serving.workers.share import IDLE_SHARE, Credit, processor_seconds

LOOK_S = 0.25


class Worker:
    """Threads that burn `burn` processors whenever they may, looked at every quarter of a second."""

    def __init__(self, *, burn: float, cpus: float = 1.0) -> None:
        self.credit = Credit(cpus, 0.0)
        self.burn, self.now_s, self.used_s, self.busy_s, self.goes_on = burn, 0.0, 0.0, 0.0, True

    def live(self, seconds: float, *, busy: bool) -> float:
        """Return the processor time that it took."""
        before = self.used_s
        for _ in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            self.used_s += self.burn * LOOK_S * self.goes_on
            self.busy_s += LOOK_S * busy
            self.goes_on = self.credit.settle(self.now_s, used_s=self.used_s, busy_s=self.busy_s)
        return self.used_s - before


def test_a_worker_that_keeps_one_processor_busy_with_its_batches_never_stands_still() -> None:
    worker = Worker(burn=1.0)

    assert worker.live(60, busy=True) == 60


def test_threads_that_spin_with_nothing_to_do_get_a_fifth_of_a_processor() -> None:
    worker = Worker(burn=8.0)
    worker.live(10, busy=False)

    assert worker.live(60, busy=False) == pytest.approx(IDLE_SHARE * 60, rel=0.2)


def test_a_burst_is_forgiven_and_not_saved_up_for_longer() -> None:
    worker = Worker(burn=0.0)
    worker.live(600, busy=False)
    worker.burn = 4.0

    assert worker.live(0.25, busy=True) == 1.0
    assert worker.goes_on
    worker.live(0.25, busy=True)
    assert not worker.goes_on


def test_what_is_owed_is_bounded_so_that_no_worker_stands_still_for_ever() -> None:
    worker = Worker(burn=64.0)
    worker.live(0.5, busy=True)
    worker.burn = 0.0
    worker.live(4.25, busy=True)

    assert worker.goes_on


@given(
    burns=st.lists(st.floats(0, 16), min_size=1, max_size=60),
    busy=st.booleans(),
    cpus=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_no_worker_takes_more_than_its_share_a_burst_and_one_look(
    burns: list[float], busy: bool, cpus: float
) -> None:
    worker = Worker(burn=0.0, cpus=cpus)
    for burn in burns:
        worker.burn = burn
        worker.live(LOOK_S, busy=busy)

    share = cpus * (1.0 if busy else IDLE_SHARE)
    forgiven = sum(max(0.0, burn * LOOK_S - 4 * cpus) for burn in burns)
    assert worker.used_s <= cpus + share * worker.now_s + max(burns) * LOOK_S + forgiven


@pytest.mark.skipif(processor_seconds(os.getpid()) is None, reason="process clocks are Linux's")
def test_the_clock_of_a_process_is_its_own_processor_time() -> None:
    was, before = (
        processor_seconds(os.getpid()),
        time.process_time(),
    )  # what the second call takes counts for both
    while time.process_time() < before + 0.02:
        pass

    assert was is not None
    assert 0.02 <= (processor_seconds(os.getpid()) or 0.0) - was < 5
    assert processor_seconds(2**22 + 1) is None
