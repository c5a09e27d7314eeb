"""Both ends with real keys and bytes between them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import select

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Conflict, Corrupt, Denied, Unavailable
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import AdmissionStore, Bundle, Holder, Pool, Terms, metadata
from taut.fleet.admission.tables import state
from taut.fleet.log import ScaleEvent
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

TERMS = Terms(
    pools=(
        Pool(name="gateway", artifacts="sha256:g", quota=1000, follows=True),
        Pool(name="model", artifacts="sha256:m", quota=1000),
    )
)


class Control:
    """Admission as control has it, and what the fleet does around it."""

    def __init__(self, records: MemoryRecords, keys: FileKeys, clock: ManualClock) -> None:
        self.records, self.keys, self.clock, self.ids = records, keys, clock, SequenceIds()
        self.floors: dict[str, int] = {}
        self.store = self.open()
        for seq, pool in enumerate(("gateway", "model"), start=1):
            event = ScaleEvent(seq=seq, scale_id=f"s{seq}", pool=pool, n=3, reason="load", at_us=0)
            self.store.step(lambda it, _, event=event: it.scaled(event))  # type: ignore[misc]

    def open(self) -> AdmissionStore:
        ledger = Ledger(self.records, self.keys, self.clock, self.ids, origin="example.org/taut")
        return AdmissionStore(
            records=self.records, ledger=ledger, keys=self.keys, clock=self.clock, random=SeededRandom(),
            terms=TERMS, bundle=Bundle(epoch=1, policy="p1"),
        )  # fmt: skip

    def start(self, replica: str, pool: str) -> Holder:
        return Holder(
            self.store.provision(replica, pool), TERMS, artifacts=f"sha256:{pool[0]}",
            trusted=self.keys.public_keys(purpose="admission"), clock=self.clock,
            floor=self.floors.get(replica, 0), keep_floor=lambda floor: self.floors.update({replica: floor}),
        )  # fmt: skip

    def talk(self, holder: Holder) -> None:
        holder.hear(self.store.hear(holder.beat()))
        for bundle in holder.view.own.offered:
            holder.load(bundle)

    def admit(self, replica: str, pool: str) -> Holder:
        holder = self.start(replica, pool)
        assert self.store.hear(holder.attest()) == b""
        self.talk(holder)
        self.talk(holder)
        for what, names in (
            ("warmed", ("golden", "latency")),
            ("probed", ("must_block", "must_pass", "tenant_isolation")),
        ):
            checks = tuple(Check(name=name, outcome=Outcome.PASSED) for name in names)
            self.store.step(lambda it, _, what=what, checks=checks: getattr(it, what)(replica, 1, checks))  # type: ignore[misc]
        self.talk(holder)
        return holder

    def use(self, gateway: Holder, worker: Holder) -> int:
        """Let a request go through both sides, and return the epoch under which it was served."""
        pin = gateway.pin("high")
        own = worker.view.own
        gateway.check(own.invitation.replica, own.invitation.incarnation, own.key, pin, "high")
        return worker.may_serve(pin.epoch, "high").bundle.epoch


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def control(keys: FileKeys) -> Iterator[Control]:
    records = memory_records(ledger_tables, metadata)
    yield Control(records, keys, ManualClock())
    records.close()


def test_a_request_passes_both_sides_through_a_change_of_policy_and_a_death_of_control(
    control: Control,
) -> None:
    worker, gateway = control.admit("w", "model"), control.admit("g", "gateway")
    assert control.use(gateway, worker) == 1

    control.store.step(lambda it, now_s: it.prepare(Bundle(epoch=2, policy="p2"), now_s=now_s))
    control.store = control.open()
    for _ in range(6):
        control.clock.advance(1.0)
        control.talk(worker)
        control.talk(gateway)
        control.store.step(lambda it, now_s: it.tick(now_s=now_s))
        control.use(gateway, worker)
    control.talk(worker)
    gateway.hear(control.store.push("g"))

    assert control.use(gateway, worker) == 2
    assert control.floors == {"w": 2, "g": 2}


def test_another_process_in_the_place_of_an_admitted_one_is_not_used(control: Control) -> None:
    control.admit("w", "model")
    gateway = control.admit("g", "gateway")
    other = control.start("v", "model")

    with pytest.raises(Denied, match="no ticket with its key"):
        gateway.check("w", 1, other.view.own.key, gateway.pin("high"), "high")


def test_a_replica_whose_floor_cannot_be_kept_does_not_go_there(control: Control) -> None:
    def full(_floor: int) -> None:
        raise Unavailable("the disk is full")

    holder = Holder(
        control.store.provision("w", "model"), TERMS, artifacts="sha256:m",
        trusted=control.keys.public_keys(purpose="admission"), clock=control.clock, keep_floor=full,
    )  # fmt: skip
    control.store.hear(holder.attest())

    with pytest.raises(Unavailable, match="disk is full"):
        control.talk(holder)

    assert holder.view.own.floor == 0


def test_an_answer_that_was_changed_or_comes_again_is_refused(control: Control) -> None:
    worker = control.admit("w", "model")
    answer = control.store.hear(worker.beat())
    worker.hear(answer)

    with pytest.raises(Conflict, match="overtaken"):
        worker.hear(answer)
    with pytest.raises((Corrupt, Denied)):
        worker.hear(answer.replace(b"signatures", b"signaturez"))


def test_no_secret_of_an_invitation_is_stored_once_it_was_used(control: Control) -> None:
    worker = control.admit("w", "model")

    with control.records.read() as tx:
        stored = tx.execute(select(state.c.state)).scalar_one()

    assert worker.view.own.invitation.token not in stored
    assert msgspec.json.decode(stored)["members"]["w"]["token"] == ""
