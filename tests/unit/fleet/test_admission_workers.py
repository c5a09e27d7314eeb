"""Workers in admission's books: what a gateway vouches for is judged, kept, revoked, and ends with it."""

from __future__ import annotations

import msgspec
import pytest

from taut.core.errors import Conflict, Denied
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import (
    Admission,
    Beat,
    Bundle,
    Epochs,
    Leaving,
    Loaded,
    Member,
    Pool,
    Stage,
    Terms,
    Vouched,
    Worker,
    worker_svid,
)
from taut.fleet.admission.delegates import WORKERS_MAX
from taut.fleet.admission.judge import Answered, Fact, Judge
from taut.fleet.admission.messages import proof_of

NAMES = ("token", "nonce", "artifacts", "golden", "latency", "must_block", "must_pass", "tenant_isolation")
SHOWED = tuple(Check(name=name, outcome=Outcome.PASSED) for name in NAMES)
FIRST, SECOND = (worker_svid("g", 1, "m@1", number) for number in (1, 2))


def gateway(stage: Stage = Stage.ADMITTED) -> Admission:
    bundle = Bundle(epoch=1, policy="p")
    terms = Terms(pools=(Pool(name="gateway", artifacts="a", quota=0, follows=True),))
    member = Member(
        replica="g", pool="gateway", scale_id="s", incarnation=1, token="", nonce="n", since_s=0.0, heard_s=0.0,
        stage=stage, key="k", proved=(1,),
    )  # fmt: skip
    state = Admission(terms=terms, epochs=Epochs(committed=bundle), members={"g": member})
    loaded = (Loaded(epoch=1, mac=proof_of(bundle, nonce="n")),)
    return state.hear(Beat(replica="g", incarnation=1, key="k", number=1, loaded=loaded), now_s=0.0).state


def worker(
    number: int = 1,
    stage: Stage = Stage.ADMITTED,
    checks: tuple[Check, ...] = SHOWED,
    reason: str = "",
) -> Worker:
    return Worker(
        name="m@1", incarnation=number, artifact="sha256:m", stage=stage, checks=checks, reason=reason
    )


def vouched(*workers: Worker, number: int = 1, key: str = "k") -> Vouched:
    return Vouched(replica="g", incarnation=1, key=key, number=number, workers=workers)


def test_a_worker_that_showed_everything_is_on_record_and_in_its_gateways_answers() -> None:
    step = gateway().heeded(vouched(worker(1), worker(2)), now_s=1.0)

    assert [(one.kind, one.subject) for one in step.events] == [
        ("fleet.admitted", FIRST), ("fleet.admitted", SECOND),
    ]  # fmt: skip
    assert step.events[0].body == {"pool": "worker", "gateway": "g", "incarnation": 1, "artifact": "sha256:m"}
    assert step.answer is not None
    assert step.answer.workers == (FIRST, SECOND)
    assert step.state.durable() != gateway().durable()
    again = step.state.heeded(vouched(worker(1), number=2), now_s=2.0)
    assert again.events == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("outcome", [Outcome.FAILED, None])
def test_a_worker_that_shows_less_is_quarantined_whatever_its_gateway_says(
    name: str, outcome: Outcome | None
) -> None:
    checks = tuple(one for one in SHOWED if one.name != name)
    if outcome is not None:
        checks = (*checks, Check(name=name, outcome=outcome))

    step = gateway().heeded(vouched(worker(checks=checks)), now_s=1.0)

    assert [one.kind for one in step.events] == ["fleet.quarantined"]
    assert name in str(step.events[0].body["reason"])
    assert step.answer is not None
    assert step.answer.workers == ()


def test_who_vouches_must_be_admitted_speak_with_its_key_and_say_nothing_twice() -> None:
    state = gateway()

    with pytest.raises(Denied, match="another key"):
        state.heeded(vouched(worker(), key="thief"), now_s=1.0)
    with pytest.raises(Conflict, match="not admitted"):
        gateway(Stage.QUARANTINED).heeded(vouched(worker()), now_s=1.0)
    heard = state.heeded(vouched(worker()), now_s=1.0).state
    ended = heard.heeded(vouched(worker(stage=Stage.GONE), number=2), now_s=2.0).state
    with pytest.raises(Conflict, match="comes again"):
        ended.heeded(vouched(worker()), now_s=3.0)  # else who has ended would be admitted once more
    assert ended.workers == {"g": {}}


def test_a_worker_drains_and_ends_and_each_is_on_record() -> None:
    state = gateway().heeded(vouched(worker()), now_s=1.0).state

    drains = state.heeded(vouched(worker(stage=Stage.DRAINING), number=2), now_s=2.0)
    gone = drains.state.heeded(vouched(worker(stage=Stage.GONE, reason="made room"), number=3), now_s=3.0)

    assert [one.kind for one in drains.events] == ["fleet.draining"]
    assert drains.answer is not None
    assert drains.answer.workers == ()
    assert [(one.kind, one.body["reason"]) for one in gone.events] == [("fleet.gone", "made room")]


def test_a_worker_that_is_revoked_is_taken_off_the_answers_and_never_comes_back() -> None:
    state = gateway().heeded(vouched(worker(1), worker(2)), now_s=1.0).state

    revoked = state.revoke(FIRST)

    assert [(one.kind, one.subject) for one in revoked.events] == [
        ("fleet.revoked", FIRST), ("fleet.quarantined", FIRST),
    ]  # fmt: skip
    answer = revoked.state.answer("g", now_s=2.0).answer
    assert answer is not None
    assert (answer.workers, answer.revoked) == ((SECOND,), (FIRST,))
    again = revoked.state.heeded(vouched(worker(1), number=2), now_s=3.0)
    assert [one.kind for one in again.events] == ["fleet.quarantined"]


@pytest.mark.parametrize("how", ["gone", "quarantine", "provision"])
def test_workers_end_with_their_gateway(how: str) -> None:
    state = gateway().heeded(vouched(worker()), now_s=1.0).state
    state = msgspec.structs.replace(state, targets={"gateway": _target()})

    match how:
        case "gone":
            step = state.gone("g", 1)
        case "quarantine":
            step = state.quarantine("g", "silent")
        case _:
            step = state.provision("g", "gateway", token="t", nonce="n", now_s=2.0)

    assert ("fleet.gone", FIRST) in [(one.kind, one.subject) for one in step.events]
    assert step.state.workers == {}


def test_a_gateway_that_drains_says_so_and_gets_no_lease_any_more() -> None:
    step = gateway().heeded(Leaving(replica="g", incarnation=1, key="k"), now_s=1.0)

    assert [one.kind for one in step.events] == ["fleet.draining"]
    assert step.answer is not None
    assert (step.answer.ticket, step.answer.drain_s) == (None, 30.0)
    assert step.state.roster(now_s=1.0) == ()
    assert step.state.heeded(Leaving(replica="g", incarnation=1, key="k"), now_s=2.0).events == ()


def test_a_gateway_vouches_for_a_bounded_number_of_workers() -> None:
    state = gateway().heeded(vouched(*(worker(number) for number in range(WORKERS_MAX))), now_s=1.0).state

    step = state.heeded(vouched(worker(WORKERS_MAX), number=2), now_s=2.0)

    assert [one.kind for one in step.events] == ["fleet.quarantined"]


@pytest.mark.parametrize(
    ("named", "at_us", "fault"),
    [
        ("m@1#1", 3_000_000, ""),
        ("m@1#1,m@1#2", 3_000_000, ""),
        ("m@1#1", 14_400_000, ""),
        ("m@1#1", 14_600_000, "its worker m@1#1 had ended 4.600 s before"),
        ("m@1#3", 3_000_000, "its worker m@1#3 was never admitted"),
        ("m@1#1,m@1#3", 3_000_000, "its worker m@1#3 was never admitted"),
        ("nonsense", 3_000_000, "its worker nonsense was never admitted"),
    ],
)
def test_records_are_judged_by_their_workers_too(named: str, at_us: int, fault: str) -> None:
    judge = Judge(
        "gateway",
        (
            Fact(kind="fleet.admitted", subject="spiffe://taut/gateway/g/1", at_us=1_000_000),
            Fact(kind="fleet.admitted", subject=FIRST, at_us=2_000_000),
            Fact(kind="fleet.admitted", subject=SECOND, at_us=2_000_000),
            Fact(kind="fleet.gone", subject=FIRST, at_us=10_000_000),
        ),
        ttl_s=4.5,
    )
    answer = Answered(replica="g", incarnation=1, degraded=False, epoch=1, at_us=at_us, worker=named)

    found = judge.judge([answer])

    assert (found.guarded, found.unguarded) == ((1, 0) if not fault else (0, 1))
    assert fault in "".join(found.faults)
    by_grace = judge.judge([msgspec.structs.replace(answer, worker=named + "~")])
    assert (by_grace.by_grace, by_grace.unguarded) == (1, 0)


def _target() -> object:
    from taut.fleet.admission.books import Target

    return Target(scale_id="s", n=1)
