"""A gateway and its admission, with everything but the processes: joining, policy in two phases, liars."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from seats import FORBID, Fleet, Seated, open_fleet, run, settled

from taut.adapters.world import SystemRandom
from taut.bootstrap.applicant import Applicant
from taut.bootstrap.grace import GraceFile
from taut.bootstrap.replicas import FloorFile, highest_floor
from taut.core.errors import Conflict
from taut.fleet.admission import Stage
from taut.serving.gateway import Gateway, Reply, compile_snapshot
from taut.testing.serving import DataPlane, open_gateway


@pytest.fixture
def fleet(plane: DataPlane) -> Iterator[Fleet]:
    with open_fleet(plane) as opened:
        yield opened


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


def test_a_gateway_is_refused_until_it_is_admitted_and_joins_by_its_real_port(
    fleet: Fleet, gateway: Gateway, plane: DataPlane
) -> None:
    async def story() -> None:
        seated = Seated(fleet, gateway)
        snapshot = plane.snapshot(plane.endpoint())
        seated.install(snapshot)
        assert seated.status() == 503
        fleet.tell(fleet.reception.offer(snapshot.epoch, snapshot.policy_digest))

        fleet.connect("gateway-0", seated.applicant, 1)
        assert seated.status() == 503
        await seated.applicant.admitted.wait()

        assert (seated.status(), fleet.stage()) == (401, Stage.ADMITTED)  # the guard's own refusal
        assert seated.applicant.incarnation == 1

    run(story)


def test_a_policy_takes_effect_when_it_is_committed_and_not_before(
    fleet: Fleet, gateway: Gateway, plane: DataPlane
) -> None:
    async def story() -> None:
        with open_gateway(plane.home, SystemRandom()) as second_gateway:
            first, second = Seated(fleet, gateway), Seated(fleet, second_gateway, "gateway-1")
            before, after = (
                plane.snapshot(plane.endpoint()),
                plane.snapshot(plane.endpoint(), policy=FORBID),
            )
            fleet.tell(fleet.reception.offer(before.epoch, before.policy_digest))
            for pid, one in enumerate((first, second), start=1):
                one.install(before)
                fleet.connect(one.name, one.applicant, pid)
                await one.applicant.admitted.wait()
            fleet.tell(fleet.reception.offer(after.epoch, after.policy_digest))

            held = asyncio.create_task(first.applicant.ready(after))
            await settled(lambda: after.epoch in fleet.store.state.members["gateway-0"].proved)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not held.done()
            assert fleet.store.state.epochs.floor == before.epoch
            assert (first.status(), second.status()) == (401, 401)

            other = asyncio.create_task(second.applicant.ready(after))
            await asyncio.gather(held, other)
            assert fleet.store.state.epochs.floor == after.epoch
            assert (first.status(), second.status()) == (
                401,
                401,
            )  # until it is installed, by the lease of before
            first.install(after)
            second.install(after)
            assert (first.status(), second.status()) == (401, 401)

            second.gateway.install(compile_snapshot(before, home=plane.home, before=None))
            second.applicant.due()
            assert second.status() == 503
            assert f"policy epoch {after.epoch} is committed" in second.gateway.reasons()[0]

    run(story)


def test_a_policy_that_is_withdrawn_is_never_enforced(
    fleet: Fleet, gateway: Gateway, plane: DataPlane
) -> None:
    async def story() -> None:
        with open_gateway(plane.home, SystemRandom()) as second_gateway:
            first, second = Seated(fleet, gateway), Seated(fleet, second_gateway, "gateway-1")
            before, after = (
                plane.snapshot(plane.endpoint()),
                plane.snapshot(plane.endpoint(), policy=FORBID),
            )
            fleet.tell(fleet.reception.offer(before.epoch, before.policy_digest))
            for pid, one in enumerate((first, second), start=1):
                one.install(before)
                fleet.connect(one.name, one.applicant, pid)
                await one.applicant.admitted.wait()
            fleet.tell(fleet.reception.offer(after.epoch, after.policy_digest))
            held = asyncio.create_task(first.applicant.ready(after))
            await settled(lambda: after.epoch in fleet.store.state.members["gateway-0"].proved)

            fleet.tell(fleet.reception.offer(after.epoch + 1, before.policy_digest))

            with pytest.raises(Conflict, match="withdrawn"):
                await held
            assert first.status() == 401

    run(story)


class Open:
    """A planted fault: it lets everybody in."""

    max_body_bytes = 2**20

    def answer(self, *_: Any) -> Reply:
        return Reply(200, b"content-type: application/json\r\n", b"{}")

    def turn_away(self, *_: Any) -> None:
        return None

    def refuse(self, *_: Any, **_more: Any) -> Reply:
        return self.answer()


def test_a_gateway_that_lets_everybody_in_is_never_admitted(
    fleet: Fleet, gateway: Gateway, plane: DataPlane
) -> None:
    async def story() -> None:
        seated = Seated(fleet, gateway, inner=Open())
        snapshot = plane.snapshot(plane.endpoint())
        seated.install(snapshot)
        fleet.tell(fleet.reception.offer(snapshot.epoch, snapshot.policy_digest))

        fleet.connect("gateway-0", seated.applicant, 1)
        await seated.over.wait()

        assert fleet.stage() is Stage.QUARANTINED
        reason = fleet.store.state.members["gateway-0"].reason
        assert "must_block" in reason
        assert "tenant_isolation" in reason
        assert not seated.applicant.admitted.is_set()

    run(story)


class Watch:
    """What a gateway answers whenever it has heard a word of control."""

    def __init__(self, seated: Seated) -> None:
        self.statuses: list[int] = []
        hear = seated.applicant.heard

        def heard(data: bytes) -> None:
            hear(data)
            self.statuses.append(seated.status())

        seated.applicant.heard = heard  # type: ignore[method-assign]


async def _left_over(fleet: Fleet, gateway: Gateway, plane: DataPlane) -> None:
    """Have a gateway admitted, and leave its grace to the next process."""
    first = Seated(fleet, gateway)
    snapshot = plane.snapshot(plane.endpoint())
    first.install(snapshot)
    assert not first.applicant.resume()
    assert first.status() == 503  # nothing was left
    fleet.tell(fleet.reception.offer(snapshot.epoch, snapshot.policy_digest))
    fleet.connect("gateway-0", first.applicant, 1)
    await first.applicant.admitted.wait()
    first.applicant.close()
    del fleet.connected["gateway-0"]
    fleet.ended.add(1)


def _resumed(fleet: Fleet, gateway: Gateway, of: type[Applicant] = Applicant) -> Seated:
    second = Seated(fleet, gateway, of=of)
    assert second.status() == 503
    assert second.applicant.resume()
    assert (second.status(), second.applicant.door.degraded) == (401, True)
    return second


def test_what_is_left_of_grace_is_for_the_next_process_and_lasts_until_it_is_admitted_anew(
    fleet: Fleet, gateway: Gateway, plane: DataPlane
) -> None:
    async def story() -> None:
        await _left_over(fleet, gateway, plane)
        second = _resumed(fleet, gateway)
        watch = Watch(second)

        fleet.connect("gateway-0", second.applicant, 2)
        await second.applicant.admitted.wait()

        assert len(watch.statuses) > 2
        assert set(watch.statuses) == {401}  # not one moment without leave
        assert (second.status(), second.applicant.door.degraded) == (401, False)
        assert not second.applicant.resume()
        elsewhere = GraceFile(fleet.home / "serving" / "gateway-0.grace", boot=fleet.home / "no-such-file")
        assert elsewhere.read().grace_until_ns == {}

    run(story)


@pytest.mark.parametrize("identity", ["gateway-0", "spiffe://taut/gateway/gateway-0/1"])
def test_grace_ends_where_control_revoked_whose_it_was_and_nothing_is_left_to_the_next(
    fleet: Fleet, gateway: Gateway, plane: DataPlane, identity: str
) -> None:
    async def story() -> None:
        await _left_over(fleet, gateway, plane)
        fleet.reception.revoke(identity)
        second = _resumed(fleet, gateway)
        watch = Watch(second)

        fleet.connect("gateway-0", second.applicant, 2)
        await settled(lambda: 503 in watch.statuses)

        third = Seated(fleet, gateway)
        assert not third.applicant.resume()
        assert third.status() == 503

    run(story)


class GoesOnWhateverIsCommitted(Applicant):
    """A planted fault: grace lasts while it joins, whatever it serves."""

    def _goes_on(self, own: Any) -> bool:
        return own is None or own.lease is None


@pytest.mark.parametrize("of", [Applicant, GoesOnWhateverIsCommitted])
def test_grace_never_lets_a_policy_be_served_that_control_says_is_over(
    fleet: Fleet, gateway: Gateway, plane: DataPlane, of: type[Applicant]
) -> None:
    async def story() -> None:
        await _left_over(fleet, gateway, plane)
        later = plane.snapshot(plane.endpoint(), policy=FORBID)
        fleet.tell(fleet.reception.offer(later.epoch, later.policy_digest))
        assert fleet.store.state.epochs.floor == later.epoch  # nobody serves who would have to load it first
        second = _resumed(fleet, gateway, of)
        watch = Watch(second)

        fleet.connect("gateway-0", second.applicant, 2)
        await settled(lambda: second.applicant._seat.bundles != ())

        own = second.applicant._seat.view
        assert own is not None
        assert (own.floor, own.lease) == (later.epoch, None)
        assert watch.statuses[-1] == (503 if of is Applicant else 401)  # the fault serves what is over

    run(story)


def test_the_floor_of_a_home_is_the_highest_that_any_replica_kept(tmp_path: Path) -> None:
    assert highest_floor(tmp_path) == 0
    for name, floor in (("gateway-0", 3), ("gateway-1", 12), ("gateway-2", 7)):
        FloorFile(tmp_path / f"{name}.floor").keep(floor)
    (tmp_path / "gateway-3.floor").write_text("nonsense")

    assert highest_floor(tmp_path) == 12
