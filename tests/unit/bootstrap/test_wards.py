"""A gateway's own workers and admission: rows only for who is on record, by grace where nobody answers, never for high risk."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from seats import Fleet, Seated, open_fleet, run, settled

from taut.adapters.world import SystemRandom
from taut.bootstrap.wards import ModelWard
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import Stage, worker_svid
from taut.serving.gateway import Gateway
from taut.testing.serving import DataPlane, open_gateway

NAMES = ("token", "nonce", "artifacts", "golden", "latency", "must_block", "must_pass", "tenant_isolation")
SHOWED = tuple(Check(name=name, outcome=Outcome.PASSED) for name in NAMES)


class Asked:
    """What became of one worker: what it is recorded as, and why it was refused."""

    def __init__(self, ward: ModelWard, checks: tuple[Check, ...] = SHOWED) -> None:
        self.named: list[str] = []
        self.refused: list[str] = []
        self.number = ward.charge().incarnation
        ward.showed(self.number, checks, self.named.append, self.refused.append)


@pytest.fixture
def fleet(plane: DataPlane) -> Iterator[Fleet]:
    with open_fleet(plane) as opened:
        yield opened


@pytest.fixture
def gateway(plane: DataPlane) -> Iterator[Gateway]:
    with open_gateway(plane.home, SystemRandom()) as made:
        yield made


async def _admitted(fleet: Fleet, gateway: Gateway, pid: int = 1) -> Seated:
    seated = Seated(fleet, gateway)
    snapshot = fleet.plane.snapshot(fleet.plane.endpoint())
    seated.install(snapshot)
    fleet.tell(fleet.reception.offer(snapshot.epoch, snapshot.policy_digest))
    fleet.connect("gateway-0", seated.applicant, pid)
    await seated.applicant.admitted.wait()
    return seated


def _hang_up(fleet: Fleet) -> None:
    del fleet.connected["gateway-0"]


def _kinds(fleet: Fleet, svid: str) -> list[str]:
    ledger = fleet.store._ledger
    return [leaf.kind for leaf in reversed(ledger.show(subject=svid))]


def test_a_worker_waits_for_its_gateway_and_is_on_record_before_it_may_be_given_rows(
    fleet: Fleet, gateway: Gateway
) -> None:
    async def story() -> None:
        seated = Seated(fleet, gateway)
        ward = seated.applicant.wards.ward("delay@1", "sha256:m", "high")
        early = Asked(ward)
        assert ward.leave.until_ns == 0
        snapshot = fleet.plane.snapshot(fleet.plane.endpoint())
        seated.install(snapshot)
        fleet.tell(fleet.reception.offer(snapshot.epoch, snapshot.policy_digest))
        fleet.connect("gateway-0", seated.applicant, 1)
        await settled(lambda: early.named != [])

        svid = worker_svid("gateway-0", 1, "delay@1", early.number)
        assert (early.named, early.refused) == (["delay@1#1"], [])
        assert _kinds(fleet, svid) == ["fleet.admitted"]
        assert svid in fleet.store.state.workers["gateway-0"]
        assert ward.leave.until_ns == seated.applicant.door.leave.until_ns > 0
        assert ward.leave.epoch == snapshot.epoch

        ward.drains(early.number)
        ward.ended(early.number, "made room")
        await settled(lambda: _kinds(fleet, svid) == ["fleet.admitted", "fleet.draining", "fleet.gone"])

    run(story)


def test_a_worker_that_shows_too_little_is_refused_at_once_and_that_is_on_record(
    fleet: Fleet, gateway: Gateway
) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)
        ward = seated.applicant.wards.ward("delay@1", "sha256:m", "low")
        liar = Asked(ward, (*SHOWED[1:], Check(name="token", outcome=Outcome.FAILED)))

        assert (liar.named, len(liar.refused)) == ([], 1)
        svid = worker_svid("gateway-0", 1, "delay@1", liar.number)
        await settled(lambda: _kinds(fleet, svid) == ["fleet.quarantined"])

    run(story)


def test_a_worker_that_starts_while_control_is_away_goes_on_by_grace_and_is_recorded_so_and_high_risk_waits(
    fleet: Fleet, gateway: Gateway
) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)
        wards = seated.applicant.wards
        _hang_up(fleet)
        low, high = (Asked(wards.ward("delay@1", "sha256:m", risk)) for risk in ("low", "high"))
        await settled(lambda: low.named != [])
        assert (low.named, high.named) == (["delay@1#1~"], [])

        fleet.connect("gateway-0", seated.applicant, 1)
        await settled(lambda: high.named != [])
        assert (low.named, high.named) == (["delay@1#1~", "delay@1#1"], ["delay@1#2"])

    run(story)


def test_leave_by_grace_is_only_for_classes_that_have_it(fleet: Fleet, gateway: Gateway) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)
        low, high = (seated.applicant.wards.ward("m@1", "a", risk) for risk in ("low", "high"))

        lease = seated.applicant.door.leave
        assert high.leave.until_ns == lease.until_ns < low.leave.until_ns == lease.grace_until_ns["low"]

        fleet.reception.revoke("gateway-0")
        seated.applicant.due()
        await settled(lambda: low.leave.until_ns == 0)
        assert high.leave.until_ns == 0

    run(story)


def test_a_worker_that_is_revoked_is_ended(fleet: Fleet, gateway: Gateway) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)
        ward = seated.applicant.wards.ward("delay@1", "sha256:m", "high")
        one, other = Asked(ward), Asked(ward)
        await settled(lambda: bool(one.named and other.named))

        fleet.tell(fleet.reception.revoke(worker_svid("gateway-0", 1, "delay@1", one.number)))

        assert (one.refused, other.refused) == (["it was revoked"], [])

    run(story)


def test_what_admission_forgot_is_told_again(fleet: Fleet, gateway: Gateway) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)
        one = Asked(seated.applicant.wards.ward("delay@1", "sha256:m", "high"))
        await settled(lambda: one.named != [])
        svid = worker_svid("gateway-0", 1, "delay@1", one.number)

        fleet.store._state = msgspec.structs.replace(fleet.store.state, workers={})
        seated.applicant.due()
        await settled(lambda: _kinds(fleet, svid) == ["fleet.admitted"] * 2)

        assert (one.refused, svid in fleet.store.state.workers["gateway-0"]) == ([], True)

    run(story)


def test_a_gateway_that_ends_says_that_it_drains_and_serves_by_its_last_lease(
    fleet: Fleet, gateway: Gateway
) -> None:
    async def story() -> None:
        seated = await _admitted(fleet, gateway)

        seated.applicant.close()
        await settled(lambda: fleet.stage() is Stage.DRAINING)

        assert seated.status() == 401  # by the guard: it takes what is on its way
        fleet.ended.add(1)
        fleet.reception.tick()
        assert fleet.stage() is Stage.GONE

    run(story)
