"""The clock, identifiers and randomness of the machine, and their doubles."""

from __future__ import annotations

import re
from datetime import UTC, timedelta

import pytest

from taut.adapters.world import SystemClock, SystemIds, SystemRandom
from taut.testing.world import ManualClock, SeededRandom, SequenceIds


def test_the_system_clock_is_aware_and_its_monotonic_time_advances() -> None:
    clock = SystemClock()
    before = clock.monotonic_s()

    clock.sleep(0.01)

    assert clock.now().tzinfo is UTC
    assert clock.monotonic_s() - before >= 0.01


def test_identifiers_sort_by_time_of_making_and_carry_80_random_bits() -> None:
    clock = ManualClock()
    ids = SystemIds(clock, SeededRandom(1))
    made = []
    for _ in range(50):
        made.append(ids.new("run"))
        clock.advance(0.001)

    assert made == sorted(made)
    assert all(re.fullmatch(r"run_[0-9a-hjkmnp-tv-z]{26}", id_) for id_ in made)
    assert len({id_[-16:] for id_ in made}) == 50


def test_system_identifiers_do_not_repeat() -> None:
    ids = SystemIds()

    assert len({ids.new("x") for _ in range(2000)}) == 2000


def test_system_randomness_gives_the_asked_amount() -> None:
    random = SystemRandom()

    assert len(random.bytes(32)) == 32
    assert random.bytes(32) != random.bytes(32)
    assert all(0 <= random.uniform() < 1 for _ in range(100))


def test_a_manual_clock_moves_only_when_told_and_refuses_to_go_back() -> None:
    clock = ManualClock()
    start = clock.now()

    clock.sleep(5)
    clock.advance(timedelta(days=2))
    clock.jump(timedelta(hours=-1))

    assert clock.now() - start == timedelta(days=2, seconds=5, hours=-1)
    assert clock.monotonic_s() == timedelta(days=2, seconds=5).total_seconds()
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_doubles_repeat_from_their_seed() -> None:
    assert SeededRandom(7).bytes(16) == SeededRandom(7).bytes(16)
    assert SeededRandom(7).uniform() == SeededRandom(7).uniform()
    assert SequenceIds().new("a") == SequenceIds().new("a") == "a_" + "0" * 25 + "1"
