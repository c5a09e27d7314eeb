"""How many gateways begin at once."""

from __future__ import annotations

import os

from taut.entrypoints.children import Child, Running, alive
from taut.entrypoints.slots import Slot, room_to_begin

OURSELVES = Running(os.getpid(), started=alive(os.getpid()))
NOW_S = OURSELVES.since_s


def slot(name: str, *, forked: bool = True, runs: bool = True, ready: bool = False) -> Slot:
    made = Slot(Child(name, (), survives=forked, forked=forked))
    made.running, made.ready = OURSELVES if runs else None, ready
    return made


def test_no_more_gateways_begin_at_once_than_twice_the_processors() -> None:
    begin = [slot(f"gateway-{n}") for n in range(3)]

    assert room_to_begin(begin, NOW_S, cores=2) == 1
    assert room_to_begin([*begin, slot("gateway-3")], NOW_S, cores=2) == 0


def test_who_serves_or_is_no_gateway_or_does_not_run_takes_no_room() -> None:
    others = [slot("control", forked=False), slot("gateway-0", ready=True), slot("gateway-1", runs=False)]

    assert room_to_begin(others, NOW_S, cores=2) == 4


def test_those_that_control_keeps_waiting_hold_up_nobody_for_longer_than_half_a_second() -> None:
    begin = [slot(f"gateway-{n}") for n in range(30)]

    assert room_to_begin(begin, NOW_S + 0.4, cores=2) == 0
    assert room_to_begin(begin, NOW_S + 0.6, cores=2) == 4
