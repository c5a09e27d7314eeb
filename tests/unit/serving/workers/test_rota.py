"""Who of a lane's workers runs where, step by step: a failure costs a pause, and nobody leaves before another is there."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.devices import cpu, parse_devices
from taut.core.errors import Corrupt
from taut.serving.placement import Move, Placement, Trial
from taut.serving.runtime import Cost
from taut.serving.workers import Rota, wire

DEVICES = (cpu(2), *parse_devices("cuda:0=2.5", cores=2).accelerators)
SLOW, FAST = Cost(base_us=100, row_us=1000), Cost(base_us=100, row_us=1)
GOOD = Placement(device="cuda:0", trials=(Trial(device="cpu", cost=SLOW), Trial(device="cuda:0", cost=FAST)))
BAD = Placement(
    trials=(Trial(device="cpu", cost=SLOW), Trial(device="cuda:0", refused="no room", again=True)),
    lost="cuda:0: no room",
)
CHEAPER = Placement(trials=GOOD.trials)
PLAIN = Placement()


class Worker:
    """A member of a lane, played."""

    def __init__(self, *, accelerated: bool) -> None:
        self.accelerated = accelerated
        self.ready, self.leaving, self.answered = False, False, 0
        self.placement: Placement | None = None
        self.cost: Cost | None = None
        self.batch: list[object] = []
        self.rota: Rota | None = None

    def leave(self) -> None:
        self.leaving = True
        assert self.rota is not None
        self.rota.members.remove(self)  # type: ignore[arg-type]  # played


def hire(rota: Rota, placement: Placement, *, at: float) -> Worker:
    """Let a worker come as the lane does."""
    worker = Worker(accelerated=rota.accelerated(at))
    worker.rota, worker.ready = rota, True
    worker.placement = placement if worker.accelerated else PLAIN
    worker.cost = FAST if worker.placement.accelerated else SLOW
    rota.members.append(worker)  # type: ignore[arg-type]  # played
    rota.welcome(worker, at)  # type: ignore[arg-type]
    return worker


def moved(rota: Rota, worker: Worker, *, at: float) -> None:
    word = msgspec.json.encode(Move(placement=Placement(lost="lost"), cost=SLOW))
    body = b"".join(wire.moved_buffers(word, [b"answer"]))
    assert rota.moved(worker, body, at) == b"answer"  # type: ignore[arg-type]


def where(rota: Rota) -> dict[str, int]:
    return rota.reading().workers


def test_a_lane_without_accelerators_asks_for_none_and_sizes_nothing_by_them() -> None:
    rota = Rota()
    hire(rota, GOOD, at=0.0)

    assert (rota.accelerated(0.0), rota.due(1e9), rota.slowest(), rota.lost) == (False, False, None, "")


def test_a_worker_may_take_a_processor_for_each_thread_that_it_was_offered() -> None:
    rota = Rota(DEVICES)
    claims = Worker(accelerated=False)

    assert rota.threads(None) == 2  # while it is yet to choose
    for device, threads in (("cpu", 1), ("cpu:2", 2), ("cuda:0", 1), ("cpu:64", 1)):
        claims.placement = Placement(device=device)
        assert rota.threads(claims) == threads  # type: ignore[arg-type]  # played
    assert Rota().threads(claims) == 1  # type: ignore[arg-type]


def test_who_fell_to_the_cpu_leaves_once_another_is_on_the_accelerator() -> None:
    rota = Rota(DEVICES, workers=2, pause_s=5.0)
    first, second = hire(rota, GOOD, at=0.0), hire(rota, GOOD, at=0.0)
    assert (where(rota), rota.slowest()) == ({"cuda:0": 2}, FAST)

    moved(rota, first, at=10.0)
    assert (where(rota), rota.slowest(), rota.lost) == ({"cpu": 1, "cuda:0": 1}, SLOW, "lost")
    assert not rota.accelerated(14.9)  # whoever is hired now keeps off it
    assert rota.due(15.0)
    assert not rota.due(15.1)  # one at a time
    hire(rota, GOOD, at=16.0)

    assert (where(rota), rota.slowest(), rota.lost) == ({"cuda:0": 2}, FAST, "")
    assert (first.leaving, second.leaving, rota.due(1e9)) == (True, False, False)


def test_an_accelerator_that_stays_away_is_asked_for_more_and_more_rarely() -> None:
    rota = Rota(DEVICES, pause_s=5.0)
    now_s, tries = 0.0, []
    kept = hire(rota, BAD, at=now_s)
    while now_s < 3600:
        now_s += 1.0
        if rota.due(now_s):
            tries.append(now_s)
            assert hire(rota, BAD, at=now_s).leaving  # it is not needed beside the one that serves
    gaps = [later - sooner for sooner, later in pairwise(tries)]

    assert not kept.leaving
    assert gaps[:4] == [10, 20, 40, 80]
    assert max(gaps) == 600
    assert rota.failures == len(tries) + 1


def test_the_pause_is_short_again_after_fifty_batches_there() -> None:
    rota = Rota(DEVICES, pause_s=5.0)
    worker = hire(rota, GOOD, at=0.0)
    moved(rota, worker, at=0.0)
    assert rota.due(5.0)
    again = hire(rota, GOOD, at=5.0)
    again.answered = 50
    rota.answered(again)  # type: ignore[arg-type]  # played
    moved(rota, again, at=100.0)

    assert rota.accelerated(105.0)


def test_who_was_to_try_and_dies_over_it_is_replaced_by_nobody_and_who_serves_is() -> None:
    rota = Rota(DEVICES, workers=1, pause_s=5.0)
    kept = hire(rota, BAD, at=0.0)
    assert rota.due(5.0)
    unborn = Worker(accelerated=True)
    rota.gone(unborn, "ended", 6.0)  # type: ignore[arg-type]  # played
    assert not rota.short(0)

    assert rota.due(100.0)
    rota.members.remove(kept)  # type: ignore[arg-type]  # it dies while another is on the way to try
    rota.gone(kept, "ended", 101.0)  # type: ignore[arg-type]
    assert rota.short(1)
    assert hire(rota, GOOD, at=102.0).leaving is False
    assert hire(rota, GOOD, at=103.0).leaving is True  # both came: there is one too many


def test_a_device_that_the_cpu_outdoes_is_not_asked_for_again() -> None:
    rota = Rota(DEVICES)
    hire(rota, CHEAPER, at=0.0)

    assert (rota.accelerated(0.0), rota.due(1e9), rota.lost, rota.failures) == (False, False, "", 0)


def test_what_would_be_refused_again_is_said_once_and_left_alone() -> None:
    told: list[str] = []
    rota = Rota(DEVICES, workers=2, tell=lambda _what, why: told.append(why))
    absent = Placement(
        trials=(Trial(device="cuda:0", refused="no such provider"),), lost="cuda:0: no such provider"
    )
    hire(rota, absent, at=0.0)
    hire(rota, absent, at=0.0)

    assert told == ["cuda:0: no such provider"]
    assert (rota.wanted, rota.due(1e9), rota.lost) == (False, False, "cuda:0: no such provider")


@pytest.mark.parametrize(("answered", "blamed"), [(0, 1), (49, 1), (50, 0)])
def test_a_worker_that_dies_early_on_an_accelerator_is_blamed_on_it(answered: int, blamed: int) -> None:
    rota = Rota(DEVICES)
    worker = hire(rota, GOOD, at=0.0)
    worker.answered = answered
    rota.members.clear()
    rota.gone(worker, "ended", 1.0)  # type: ignore[arg-type]  # played

    assert (rota.failures, rota.accelerated(2.0)) == (blamed, not blamed)


def test_a_worker_that_dies_while_it_loads_there_lets_the_next_keep_off() -> None:
    rota = Rota(DEVICES, pause_s=5.0)
    unborn = Worker(accelerated=True)
    rota.gone(unborn, "ended", 0.0)  # type: ignore[arg-type]  # played

    assert (rota.accelerated(4.0), hire(rota, GOOD, at=4.0).placement) == (False, PLAIN)
    assert rota.due(5.0)


def test_a_worker_that_is_on_no_accelerator_moves_nowhere() -> None:
    rota = Rota()
    worker = hire(rota, PLAIN, at=0.0)

    with pytest.raises(Corrupt, match="on no accelerator"):
        moved(rota, worker, at=0.0)


@given(st.binary(max_size=80))
def test_no_word_of_a_worker_on_its_device_can_do_more_than_be_corrupt(body: bytes) -> None:
    rota = Rota(DEVICES)
    worker = hire(rota, GOOD, at=0.0)
    try:
        rota.moved(worker, body, 1.0)  # type: ignore[arg-type]  # played
    except Corrupt:
        assert rota.failures == 0
