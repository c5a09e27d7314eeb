"""Admission's own rules, one by one; how they hold together is in tests/simulation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from taut.core.errors import Conflict, Denied, InvalidInput, NotFound, TautError, Unavailable
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import (
    Admission,
    Bundle,
    Epochs,
    GatewayView,
    Grace,
    Loaded,
    Need,
    Pool,
    ReplicaView,
    Stage,
    Step,
    Terms,
)
from taut.fleet.admission.holds import Hold, in_force, reserved, with_hold
from taut.fleet.log import ScaleEvent

pytestmark = pytest.mark.invariant

TERMS = Terms(pools=(Pool(name="model", artifacts="sha256:m", quota=90, minimum=1),))
WARM = ("golden", "latency")
PROBES = ("must_block", "must_pass", "tenant_isolation")


def passed(*names: str) -> tuple[Check, ...]:
    return tuple(Check(name=name, outcome=Outcome.PASSED) for name in names)


def scaled(n: int = 3, seq: int = 1) -> ScaleEvent:
    return ScaleEvent(seq=seq, scale_id=f"scale_{seq}", pool="model", n=n, reason="load", at_us=0)


def empty(terms: Terms = TERMS) -> Admission:
    return (
        Admission(terms=terms, epochs=Epochs(committed=Bundle(epoch=1, policy="p1"))).scaled(scaled()).state
    )


def invited(
    admission: Admission, replica: str = "r", pool: str = "model", now_s: float = 0.0
) -> tuple[Admission, ReplicaView]:
    step = admission.provision(replica, pool, token=f"t-{replica}", nonce=f"n-{replica}", now_s=now_s)
    assert step.invitation is not None
    view = ReplicaView(
        terms=admission.terms, invitation=step.invitation, key=f"k-{replica}", artifacts="sha256:m"
    )
    return step.state, view


def talk(admission: Admission, view: ReplicaView, now_s: float = 0.0) -> tuple[Admission, ReplicaView]:
    view, beat = view.beat(now_s=now_s)
    step = admission.hear(beat, now_s=now_s)
    assert step.answer is not None
    view = view.hear(step.answer, now_s=now_s)
    for bundle in view.offered:
        view = view.load(bundle)
    return step.state, view


def admitted(admission: Admission, replica: str = "r", pool: str = "model") -> tuple[Admission, ReplicaView]:
    admission, view = invited(admission, replica, pool)
    admission = admission.attest(view.attest(), now_s=0.0).state
    for _ in range(2):
        admission, view = talk(admission, view)
    admission = admission.warmed(replica, 1, passed(*WARM)).state
    admission = admission.probed(replica, 1, passed(*PROBES)).state
    return talk(admission, view)


def stage(admission: Admission, replica: str = "r") -> Stage:
    return admission.members[replica].stage


def test_a_replica_serves_only_after_every_step_in_order() -> None:
    admission, view = invited(empty())
    with pytest.raises(Denied):
        talk(admission, view)  # before it attested
    admission = admission.attest(view.attest(), now_s=0.0).state
    with pytest.raises(Conflict, match="one step after the other"):
        admission.warmed("r", 1, passed(*WARM))
    admission, view = talk(admission, view)
    with pytest.raises(Unavailable, match="not admitted"):
        view.may_serve(1, "low", now_s=0.0)
    admission, view = talk(admission, view)
    with pytest.raises(Conflict):
        admission.probed("r", 1, passed(*PROBES))
    admission = admission.warmed("r", 1, passed(*WARM)).state
    admission, view = talk(admission, view)
    assert view.lease is None
    admission = admission.probed("r", 1, passed(*PROBES)).state

    admission, view = talk(admission, view)

    assert stage(admission) is Stage.ADMITTED
    assert not view.may_serve(1, "high", now_s=0.0).degraded


@pytest.mark.parametrize("step", ["warmed", "probed"])
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.ERRORED, Outcome.SKIPPED])
def test_evidence_that_proves_nothing_leads_to_quarantine(step: str, outcome: Outcome) -> None:
    admission, view = invited(empty())
    admission = admission.attest(view.attest(), now_s=0.0).state
    for _ in range(2):
        admission, view = talk(admission, view)
    names = WARM
    if step == "probed":
        admission, names = admission.warmed("r", 1, passed(*WARM)).state, PROBES

    checks = (Check(name=names[0], outcome=outcome), *passed(*names[1:]))
    result: Step = getattr(admission, step)("r", 1, checks)

    assert stage(result.state) is Stage.QUARANTINED
    assert names[0] in str(result.events[0].body["reason"])


def test_a_probe_that_was_left_out_leads_to_quarantine() -> None:
    admission, view = invited(empty())
    admission = admission.attest(view.attest(), now_s=0.0).state
    for _ in range(2):
        admission, view = talk(admission, view)

    assert stage(admission.warmed("r", 1, passed("golden")).state) is Stage.QUARANTINED


def test_other_artifacts_than_the_pools_lead_to_quarantine() -> None:
    admission, view = invited(empty())

    step = admission.attest(msgspec.structs.replace(view.attest(), artifacts="sha256:x"), now_s=0.0)

    assert stage(step.state) is Stage.QUARANTINED


@pytest.mark.parametrize(
    "changes",
    [{"token": "x"}, {"token": ""}, {"nonce": "x"}, {"incarnation": 2}, {"key": ""}, {"replica": "s"}],
)
def test_who_shows_no_open_invitation_is_refused(changes: dict[str, Any]) -> None:
    admission, view = invited(empty())

    with pytest.raises((Denied, NotFound)):
        admission.attest(msgspec.structs.replace(view.attest(), **changes), now_s=0.0)


def test_a_replica_that_lies_about_what_it_loaded_is_quarantined() -> None:
    admission, view = admitted(empty())
    admission = admission.prepare(Bundle(epoch=2, policy="p2"), now_s=0.0).state
    view, beat = view.beat(now_s=1.0)
    lie = msgspec.structs.replace(beat, loaded=(Loaded(epoch=2, mac=b"x" * 32),))

    step = admission.hear(lie, now_s=1.0)

    assert stage(step.state) is Stage.QUARANTINED
    assert step.events[0].body["reason"] == "proved another content than its epoch has"


def test_a_replica_that_has_not_loaded_what_was_committed_gets_no_lease() -> None:
    admission, view = admitted(empty())
    admission = admission.prepare(Bundle(epoch=2, policy="p2"), now_s=0.0).state
    view, beat = view.beat(now_s=0.1)
    answer = admission.hear(beat, now_s=0.1).answer
    assert answer is not None
    slow = view.hear(answer, now_s=0.1)

    assert (slow.offered, list(slow.loaded)) == ((Bundle(epoch=2, policy="p2"),), [1])
    assert slow.beat(now_s=0.2)[1].loaded == beat.loaded
    with pytest.raises(Conflict, match="not offered"):
        slow.load(Bundle(epoch=3, policy="p3"))
    other = slow.load(Bundle(epoch=2, policy="what it really read"))
    step = admission.hear(other.beat(now_s=0.3)[1], now_s=0.3)
    assert stage(step.state) is Stage.QUARANTINED


def test_a_replica_that_restarts_must_be_admitted_again() -> None:
    admission, old = admitted(empty())

    admission, new = invited(admission)

    assert (stage(admission), new.invitation.incarnation) == (Stage.PROVISIONED, 2)
    with pytest.raises(Denied, match="join anew"):
        talk(admission, old, 1.0)
    with pytest.raises(Unavailable):
        new.may_serve(1, "low", now_s=1.0)


def test_no_replica_is_expected_that_no_scale_event_asked_for() -> None:
    fresh = Admission(terms=TERMS, epochs=Epochs(committed=Bundle(epoch=1, policy="p1")))
    with pytest.raises(Conflict, match="scale log first"):
        invited(fresh)
    admission = empty()
    for name in "abc":
        admission, _ = invited(admission, name)

    with pytest.raises(Conflict, match="asks for 3"):
        invited(admission, "d")


def test_who_ended_long_ago_is_forgotten_and_his_incarnation_is_never_used_again() -> None:
    admission, _ = admitted(empty())
    admission = admission.quarantine("r", "drifts").state.tick(now_s=TERMS.join_s).state
    assert "r" in admission.members  # what it holds may be in use still

    admission = admission.tick(now_s=TERMS.grace_s).state

    assert admission.members == {}
    assert invited(admission)[1].invitation.incarnation == 2
    assert invited(admission, "s")[1].invitation.incarnation == 2


def test_a_gap_in_the_scale_log_is_not_jumped() -> None:
    with pytest.raises(Conflict, match="read those between"):
        empty().scaled(scaled(seq=3))


def test_no_more_quota_is_out_than_there_is_while_the_fleet_grows() -> None:
    admission, first = admitted(empty(), "a")
    assert first.lease is not None
    assert first.lease.ticket.quota == 90

    admission, second = admitted(admission, "b")

    assert second.lease is not None
    assert second.lease.ticket.quota == 0  # all of it is out
    admission, first = talk(admission, first, 1.0)
    admission, second = talk(admission, second, 1.0)
    assert (first.lease and first.lease.ticket.quota, second.lease and second.lease.ticket.quota) == (45, 0)
    admission, second = talk(admission, second, 1.0 + TERMS.ttl_s)
    assert second.lease is not None
    assert second.lease.ticket.quota == 45


def test_detectors_lead_compute_up_and_follow_it_down() -> None:
    needy = Pool(name="model", artifacts="sha256:m", quota=90, needs=Need(pool="detector", each=1))
    terms = Terms(pools=(needy, Pool(name="detector", artifacts="sha256:m", quota=90)))
    admission, worker = admitted(empty(terms))
    assert stage(admission) is Stage.PROBED
    event = msgspec.structs.replace(scaled(n=1, seq=2), pool="detector")
    admission = admission.scaled(event).state

    admission, _ = admitted(admission, "d", "detector")
    admission, worker = talk(admission, worker)

    assert stage(admission) is Stage.ADMITTED
    with pytest.raises(Conflict, match="drain those first"):
        admission.drain("d", now_s=1.0)
    admission = admission.drain("r", now_s=1.0).state
    assert stage(admission.drain("d", now_s=1.0).state, "d") is Stage.DRAINING


def test_the_quota_of_a_process_that_has_surely_ended_is_free_at_once() -> None:
    admission, _ = admitted(empty(), "a")

    admission = admission.gone("a", 1).state

    assert admission.holds == ()


def test_after_a_restart_of_admission_everything_that_is_out_counts_in_full_again() -> None:
    admission, _ = admitted(empty(), "a")

    again = admission.restarted(now_s=1000.0)

    assert {hold.until_s for hold in again.holds} == {1000.0 + TERMS.ttl_s, 1000.0 + TERMS.grace_s}
    with pytest.raises(Conflict, match="does not know yet"):
        again.prepare(Bundle(epoch=2, policy="p2"), now_s=1000.0).state.commit(now_s=1001.0)


def test_after_a_restart_of_admission_gateways_use_what_they_had_to_its_own_end_and_no_longer() -> None:
    follows = Pool(name="gateway", artifacts="sha256:m", quota=90, follows=True)
    admission, worker = admitted(empty(Terms(pools=(*TERMS.pools, follows))))
    admission = admission.scaled(msgspec.structs.replace(scaled(seq=2), pool="gateway")).state
    admission, own = admitted(admission, "g", "gateway")
    own, beat = own.beat(now_s=1.0)
    answer = admission.hear(beat, now_s=1.0).answer
    assert answer is not None
    gateway = GatewayView(own=own).hear(answer, now_s=1.0)
    assert {ticket.replica for ticket in answer.roster} == {"r", "g"}

    admission = admission.restarted(now_s=2.0)
    own, beat = gateway.own.beat(now_s=2.0)
    answer = admission.hear(beat, now_s=2.0).answer
    assert answer is not None
    gateway = msgspec.structs.replace(gateway, own=own).hear(answer, now_s=2.0)

    assert (answer.learning, [ticket.replica for ticket in answer.roster]) == (True, ["g"])
    pin = gateway.pin("high", now_s=4.0)
    assert gateway.check("r", 1, worker.key, pin, "high", now_s=4.0).replica == "r"
    with pytest.raises(Denied, match="is over"):
        gateway.check(
            "r", 1, worker.key, pin, "high", now_s=4.2
        )  # listed at 1.0 with 3.5 s left, less the margin


def test_a_lease_counts_from_the_asking_and_not_from_the_answer() -> None:
    admission, view = admitted(empty())
    view, beat = view.beat(now_s=10.0)
    answer = admission.hear(beat, now_s=10.0).answer
    assert answer is not None

    view = view.hear(answer, now_s=13.0)

    assert view.lease is not None
    assert view.lease.until_s == pytest.approx(10.0 + TERMS.ttl_s * (1 - 2 * TERMS.skew))


def test_without_control_low_risk_goes_on_marked_and_bounded_and_high_risk_stops() -> None:
    _, view = admitted(empty())

    assert view.may_serve(1, "low", now_s=100.0).degraded
    with pytest.raises(Unavailable, match="high risk has no grace"):
        view.may_serve(1, "high", now_s=100.0)
    with pytest.raises(Unavailable):
        view.may_serve(1, "low", now_s=3600.0)


def test_a_refusal_leaves_no_grace() -> None:
    admission, view = admitted(empty())
    admission = admission.quarantine("r", "drifts").state

    admission, view = talk(admission, view, 1.0)

    with pytest.raises(Unavailable, match="not admitted"):
        view.may_serve(1, "low", now_s=1.0)


@pytest.mark.parametrize("identity", ["r", "k-r", "spiffe://taut/model/r/1"])
def test_a_revoked_replica_is_out_at_once_and_for_ever(identity: str) -> None:
    admission, view = admitted(empty())

    admission = admission.revoke(identity).state
    admission, view = talk(admission, view, 1.0)

    assert stage(admission) is Stage.QUARANTINED
    assert identity in view.revoked
    assert admission.revoke(identity).events == ()


def test_an_epoch_is_not_committed_before_enough_have_loaded_it_and_is_withdrawn_in_the_end() -> None:
    admission, view = admitted(empty())
    admission = admission.prepare(Bundle(epoch=2, policy="p2"), now_s=1.0).state
    with pytest.raises(Conflict, match="wait for them"):
        admission.commit(now_s=1.0)
    for now_s in range(2, 32):
        view, beat = view.beat(now_s=now_s)
        admission = admission.hear(msgspec.structs.replace(beat, loaded=()), now_s=now_s).state
        admission = admission.tick(now_s=now_s).state

    assert admission.epochs.floor == 1
    assert admission.epochs.prepared is None
    with pytest.raises(Conflict, match="next number"):
        admission.prepare(Bundle(epoch=2, policy="other"), now_s=40.0)


def test_a_request_keeps_its_epoch_through_a_commit_for_as_long_as_leases_last() -> None:
    admission, view = admitted(empty())
    admission = admission.prepare(Bundle(epoch=2, policy="p2"), now_s=1.0).state
    admission, view = talk(admission, view, 1.0)
    admission, view = talk(admission, view, 1.1)
    admission = admission.tick(now_s=1.2).state
    admission, view = talk(admission, view, 1.3)

    assert (view.floor, view.may_serve(2, "high", now_s=1.3).bundle.policy) == (2, "p2")
    assert view.may_serve(1, "high", now_s=1.3).bundle.policy == "p1"
    admission, view = talk(admission, view, 5.0)
    with pytest.raises(Conflict, match="epoch 1 is over"):
        view.may_serve(1, "high", now_s=5.8)


def test_a_restarted_replica_takes_no_epoch_below_the_one_on_its_disk() -> None:
    admission, _ = admitted(empty())
    admission, view = invited(admission)
    view = msgspec.structs.replace(view, floor=5)
    admission = admission.attest(view.attest(), now_s=0.0).state
    view, beat = view.beat(now_s=0.0)
    answer = admission.hear(beat, now_s=0.0).answer
    assert answer is not None

    with pytest.raises(Conflict, match="overtaken"):
        view.hear(answer, now_s=0.0)


def test_who_drains_takes_nothing_new_and_has_a_deadline() -> None:
    admission, view = admitted(empty())
    admission = admission.drain("r", now_s=1.0).state

    admission, view = talk(admission, view, 1.0)

    with pytest.raises(Unavailable, match="draining"):
        view.may_serve(1, "low", now_s=1.0)
    assert not view.must_abort(now_s=30.0)
    assert view.must_abort(now_s=31.0)
    assert stage(admission.gone("r", 1).state) is Stage.GONE


@pytest.mark.parametrize(
    "changes",
    [{"ttl_s": 0.0}, {"join_s": float("inf")}, {"skew": 0.5}, {"safe_share": 2.0}, {"grace": (Grace(risk="high", ttl_s=1.0),)},
     {"pools": TERMS.pools * 2}, {"pools": (Pool(name="p", artifacts="a", quota=1, needs=Need(pool="p", each=1)),)}],
)  # fmt: skip
def test_terms_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        msgspec.structs.replace(TERMS, **changes)


def test_a_stranger_is_refused_everywhere() -> None:
    admission, view = admitted(empty())
    beat = view.beat(now_s=1.0)[1]
    for changes in ({"replica": "s"}, {"key": "k"}, {"incarnation": 7}, {"number": 1}):
        with pytest.raises(TautError):
            admission.hear(msgspec.structs.replace(beat, **changes), now_s=1.0)
    with pytest.raises(NotFound):
        admission.quarantine("s", "unknown")


def test_holds_count_the_most_that_each_may_be_using() -> None:
    def hold(holder: str, quota: int, until_s: float) -> Hold:
        return Hold(pool="p", holder=holder, quota=quota, length_s=5.0, until_s=until_s)

    holds = with_hold(with_hold(with_hold((), hold("a", 50, 5.0)), hold("a", 30, 6.0)), hold("b", 20, 6.0))

    assert reserved(holds, "p", besides="") == 70
    assert reserved(in_force(holds, 5.0), "p", besides="") == 50
    assert reserved(holds, "p", besides="a") == 20
    assert len(with_hold(holds, hold("a", 50, 7.0))) == 2
