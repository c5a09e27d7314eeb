"""Admission in control: what it says is on disk and on record before it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Conflict, Denied, InvalidInput, Unavailable
from taut.core.evidence import Check, Outcome
from taut.fleet.admission import AdmissionStore, Bundle, Pool, ReplicaView, Stage, Terms, metadata
from taut.fleet.log import ScaleLog
from taut.fleet.log import metadata as log_tables
from taut.ports.records import transact
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables

TERMS = Terms(pools=(Pool(name="model", artifacts="sha256:m", quota=100),))
FIRST = Bundle(epoch=1, policy="p1")
WARM = tuple(Check(name=name, outcome=Outcome.PASSED) for name in ("golden", "latency"))
PROBES = tuple(
    Check(name=name, outcome=Outcome.PASSED) for name in ("must_block", "must_pass", "tenant_isolation")
)


class House:
    """Admission and the scale log over one database, as control has them."""

    def __init__(self, records: MemoryRecords, keys: FileKeys) -> None:
        self.records, self.keys, self.clock, ids = records, keys, ManualClock(), SequenceIds()
        self.ledger = Ledger(records, keys, self.clock, ids, origin="example.org/taut")
        self.log = ScaleLog(records=records, ledger=self.ledger, keys=keys, clock=self.clock, ids=ids)
        self.store = self.open()

    def open(self, terms: Terms = TERMS) -> AdmissionStore:
        return AdmissionStore(
            records=self.records, ledger=self.ledger, keys=self.keys, clock=self.clock, random=SeededRandom(), terms=terms,
            bundle=FIRST,
        )  # fmt: skip

    def scale(self, n: int) -> None:
        transact(
            self.records, lambda tx: self.log.append(tx, pool="model", n=n, reason="load", actor="autoscaler")
        )
        self.store.follow(self.log)

    def talk(self, view: ReplicaView) -> ReplicaView:
        now_s = self.clock.monotonic_s()
        view, beat = view.beat(now_s=now_s)
        answer = self.store.step(lambda it, at_s: it.hear(beat, now_s=at_s)).answer
        assert answer is not None
        view = view.hear(answer, now_s=now_s)
        for bundle in view.offered:
            view = view.load(bundle)
        return view

    def admit(self, replica: str) -> ReplicaView:
        invitation = self.store.provision(replica, "model")
        view = ReplicaView(terms=TERMS, invitation=invitation, key=f"key-{replica}", artifacts="sha256:m")
        self.store.step(lambda it, now_s: it.attest(view.attest(), now_s=now_s))
        view = self.talk(self.talk(view))
        self.store.step(lambda it, _: it.warmed(replica, 1, WARM))
        self.store.step(lambda it, _: it.probed(replica, 1, PROBES))
        return self.talk(view)

    def kinds(self) -> list[str]:
        return [leaf.kind for leaf in reversed(self.ledger.show(kind="fleet.", limit=100))]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def records() -> Iterator[MemoryRecords]:
    store = memory_records(ledger_tables, log_tables, metadata)
    yield store
    store.close()


@pytest.fixture
def house(records: MemoryRecords, keys: FileKeys) -> House:
    return House(records, keys)


def test_a_replica_goes_through_every_step_and_each_is_a_leaf(house: House) -> None:
    house.scale(1)

    view = house.admit("model-1")

    assert view.may_serve(1, "high", now_s=house.clock.monotonic_s()).bundle == FIRST
    assert house.kinds() == [
        "fleet.scale-intended", "fleet.scaled", "fleet.provisioned", "fleet.attested", "fleet.synced",
        "fleet.warmed", "fleet.probed", "fleet.admitted",
    ]  # fmt: skip


def test_the_alert_of_a_scale_event_is_written_once_whoever_reads_the_log_how_often(house: House) -> None:
    house.scale(1)
    house.store.follow(house.log)
    again = house.open()
    again.follow(house.log)

    alerts = again.untold()

    assert [alert.body["n"] for alert in alerts] == [1]
    again.told(alerts[0].scale_id)
    assert again.untold() == ()
    assert house.kinds().count("fleet.scaled") == 1


def test_what_a_killed_admission_said_is_known_to_the_next(house: House) -> None:
    house.scale(1)
    view = house.admit("model-1")

    house.clock.advance(1.0)
    house.store = house.open()
    house.talk(view)

    member = house.store.state.members["model-1"]
    assert (member.stage, member.incarnation) == (Stage.ADMITTED, 1)


def test_a_used_join_token_stays_used_after_a_restart(house: House) -> None:
    house.scale(1)
    view = house.admit("model-1")
    thief = ReplicaView(terms=TERMS, invitation=view.invitation, key="thief", artifacts="sha256:m")

    house.store = house.open()

    with pytest.raises(Denied, match="once"):
        house.store.step(lambda it, now_s: it.attest(thief.attest(), now_s=now_s))


def test_a_renewal_writes_nothing(house: House) -> None:
    house.scale(1)
    view = house.talk(house.admit("model-1"))
    version = house.store._version

    for _ in range(5):
        house.clock.advance(1.0)
        view = house.talk(view)

    assert house.store._version == version
    assert view.lease is not None
    assert view.lease.until_s > house.clock.monotonic_s()


def test_of_two_admissions_the_one_that_was_overtaken_says_nothing_more(house: House) -> None:
    house.scale(2)
    old = house.store
    house.store = house.open()
    house.store.provision("model-1", "model")

    with pytest.raises(Conflict, match="let this one end"):
        old.provision("model-2", "model")

    assert "model-2" not in old.state.members


def test_where_the_state_cannot_be_stored_nothing_changes_and_nothing_is_said(house: House) -> None:
    house.scale(1)
    before = house.store.state

    class Full(MemoryRecords):
        def begin(self) -> None:  # type: ignore[override]
            raise Unavailable("the disk is full")

    house.store._records = Full()
    with pytest.raises(Unavailable, match="disk is full"):
        house.store.provision("model-1", "model")

    assert house.store.state is before
    house.store._records.close()


def test_a_pool_that_still_has_replicas_cannot_be_left_out(house: House) -> None:
    house.scale(1)
    house.admit("model-1")

    with pytest.raises(InvalidInput, match="declared no more"):
        house.open(Terms(pools=(Pool(name="other", artifacts="sha256:o", quota=1),)))


def test_an_epoch_that_was_committed_stays_committed_after_a_restart(house: House, tmp_path: Path) -> None:
    house.store.step(lambda it, now_s: it.prepare(Bundle(epoch=2, policy="p2"), now_s=now_s))
    house.clock.advance(2.0)
    house.store.step(lambda it, now_s: it.tick(now_s=now_s))

    assert house.store.state.epochs.floor == 2
    assert house.open().state.epochs.floor == 2
