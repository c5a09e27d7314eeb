"""Leave of workers: no rows before one showed what it must, none without leave, on the gateway's side and on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from leave_worker import FEED, ROW, Bench, Ward, bench, until

from taut.serving.errors import NotAdmitted, WorkerLost
from taut.serving.workers import Lane, Unwarded, Wait
from taut.serving.workers.leave import EVER_NS, Kept, Leave


def ask(lane: Lane, wait: Wait | None = None, *, within_s: float = 20.0) -> Awaitable[Any]:
    return lane.run(FEED, 1, within_s=within_s, priority=5, caller="ada", wait=wait)


def story(told: Callable[[Bench], Awaitable[None]], *faults: dict[str, Any]) -> None:
    async def run(made: Bench) -> None:
        async with asyncio.timeout(60):
            await told(made)

    with bench(*faults) as made:
        asyncio.run(run(made))


def test_a_worker_gets_no_rows_before_it_is_admitted_and_its_answer_says_who_it_is() -> None:
    async def told(made: Bench) -> None:
        ward, wait = Ward(), Wait()
        lane = made.lane(ward)
        await lane.start()
        asked = asyncio.ensure_future(ask(lane, wait))
        await until(lambda: lane.waiting_rows == 1)
        assert (lane.alive, asked.done()) == (0, False)
        assert ward.faults(1) == []
        assert {one.name for one in ward.showed_[1]} == {
            "token", "nonce", "artifacts", "golden", "latency", "must_block", "must_pass", "tenant_isolation",
        }  # fmt: skip

        ward.grant(1)

        assert np.array_equal(await asked, ROW)
        assert (wait.worker, lane.alive) == ("m@1#1", 1)
        lane.close()
        assert ward.ended_ == {1: "is not needed any more"}

    story(told)


def test_nothing_is_given_once_the_leave_is_over_and_whoever_asks_is_told_so() -> None:
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward)
        await lane.start()
        ward.grant(1)
        await ask(lane)
        served = len(made.workers[0].stamps)
        ward.leave = Leave(0.0, 1, 0)

        with pytest.raises(NotAdmitted, match="lease is over"):
            await ask(lane)

        assert len(made.workers[0].stamps) == served
        ward.leave = Leave(float("inf"), 7)
        await ask(lane)
        assert made.workers[0].stamps[-1] == (1, 7, EVER_NS)
        lane.close()

    story(told)


def test_a_lease_that_lapses_while_a_worker_holds_a_batch_is_refused_by_the_worker_and_the_batch_is_asked_again() -> (
    None
):
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward)
        await lane.start()
        ward.grant(1)
        worker = made.workers[0]
        worker.gate.clear()
        worker.arrived.clear()
        ward.leave = Leave(float("inf"), 1, 1)  # the gateway believes in it still; by the clock it is over
        wait = Wait()
        asked = asyncio.ensure_future(ask(lane, wait))
        await until(worker.arrived.is_set)
        served = len(worker.stamps)

        ward.leave = Leave(float("inf"), 1)
        worker.gate.set()

        assert np.array_equal(await asked, ROW)
        assert len(worker.stamps) == served + 1  # the first time it was refused, not served
        ward.leave = Leave(float("inf"), 1, 1)
        with pytest.raises(WorkerLost, match="its leave was over"):
            await ask(lane)
        assert lane.lost == 0
        lane.close()

    story(told)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"artifact": "sha256:another"}, ["artifacts"]),
        ({"build": "another"}, ["artifacts"]),
        ({"takes_all": True}, ["must_block", "tenant_isolation"]),
    ],
)
def test_a_worker_that_is_not_what_was_forked_or_keeps_no_leave_is_found_out_and_replaced(
    fault: dict[str, Any], found: list[str]
) -> None:
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward)
        await lane.start()
        assert ward.faults(1) == found
        ward.refuse(1, "it did not show what it must")
        await until(lambda: 2 in ward.showed_)

        assert ward.ended_[1] == "is not admitted: it did not show what it must"
        assert ward.faults(2) == []
        ward.grant(2)
        assert np.array_equal(await ask(lane), ROW)
        assert made.workers[0].stamps == [] or fault.get("takes_all")
        lane.close()

    story(told, fault)


def test_a_worker_that_answers_the_golden_rows_otherwise_than_the_first_is_found_out() -> None:
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward, workers=2)
        await lane.start()
        await until(lambda: len(ward.showed_) == 2)

        faults = sorted(ward.faults(number) for number in (1, 2))

        assert faults == [[], ["golden"]]
        lane.close()

    story(told, {}, {"bias": 0.01})


def test_a_spare_is_examined_before_it_is_needed_and_takes_over_at_once() -> None:
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward, spares=1)
        await lane.start()
        await until(lambda: len(ward.showed_) == 2)
        for number in (1, 2):
            ward.grant(number)
        first, wait = next(iter(lane.rota.members)), Wait()
        assert (lane.alive, lane.spares) == (1, 1)
        first.end("was killed")

        assert lane.alive == 1
        assert np.array_equal(await ask(lane, wait), ROW)
        assert wait.worker == f"m@1#{3 - first.charge.incarnation}"
        assert ward.ended_ == {first.charge.incarnation: "was killed"}
        await until(lambda: 3 in ward.showed_)  # a restart is another incarnation, and begins anew
        assert lane.spares == 0
        lane.close()

    story(told)


def test_who_is_revoked_while_it_serves_is_ended_and_what_it_worked_on_is_asked_elsewhere() -> None:
    async def told(made: Bench) -> None:
        ward = Ward()
        lane = made.lane(ward)
        await lane.start()
        ward.grant(1)
        worker = made.workers[0]
        worker.gate.clear()
        worker.arrived.clear()
        wait = Wait()
        asked = asyncio.ensure_future(ask(lane, wait))
        await until(worker.arrived.is_set)
        ward.refuse(1, "it was revoked")
        await until(lambda: 2 in ward.showed_)
        ward.grant(2)

        assert np.array_equal(await asked, ROW)
        assert wait.worker == "m@1#2"
        lane.close()

    story(told)


def test_without_anybody_to_admit_them_workers_still_show_what_they_must() -> None:
    async def told(made: Bench) -> None:
        lane = made.lane(Unwarded("b"))
        await lane.start()

        assert np.array_equal(await ask(lane), ROW)
        assert len(made.workers) == 2
        lane.close()

    story(told, {"build": "another"})


def test_a_worker_keeps_its_incarnation_its_epoch_and_its_clock() -> None:
    now = [100]
    kept = Kept(3, monotonic_ns=lambda: now[0])

    assert kept.refusal(Leave(0.0, 5, 101).stamp(3)) == ""
    assert kept.refusal(Leave(0.0, 5, 101).stamp(2)) == "is for another incarnation"  # an older one's socket
    assert kept.refusal(Leave(0.0, 4, 101).stamp(3)) == "is of epoch 4, after one of 5"
    now[0] = 101
    assert kept.refusal(Leave(0.0, 5, 101).stamp(3)) == "came when its leave was over"
    assert kept.refusal(Leave(0.0, 6, 102).stamp(3)) == ""
