"""Both ends of a connection: a process comes, shows that it enforces, and has a lease until it has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from test_admission_store import PROBES, WARM, House

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, Denied
from taut.fleet.admission import Bundle, Reception, Seat, Stage, metadata
from taut.fleet.admission.words import Answered, Refused, decode_down, encode
from taut.fleet.log import metadata as log_tables
from taut.testing.records import MemoryRecords, memory_records
from taut.trust.ledger import metadata as ledger_tables


class Hall(House):
    """Control with a reception; its processes live as long as they are in `alive`."""

    def __init__(self, records: MemoryRecords, keys: FileKeys) -> None:
        super().__init__(records, keys)
        self.alive: set[int] = set()
        self.reception = self.receive()
        self.reception.expect(2, reason="load", actor="autoscaler")

    def receive(self) -> Reception:
        return Reception(
            self.store, pool="model", records=self.records, log=self.log, runs=self.alive.__contains__,
            trusted=lambda: self.keys.public_keys(purpose="admission"), credentials=lambda: {"insider": "token"},
        )  # fmt: skip

    def stage(self, replica: str = "model-1") -> Stage:
        return self.store.state.members[replica].stage


class Process:
    """A replica's process: its seat, and what it says over its connection."""

    def __init__(self, hall: Hall, pid: int, *, name: str = "model-1", artifacts: str = "sha256:m") -> None:
        self.hall, self.pid, self.name = hall, pid, name
        self.policies = {"p1"}
        self.floors: list[int] = []
        hall.alive.add(pid)
        self.seat = Seat(
            artifacts=artifacts, enforces=lambda one: one.policy in self.policies, clock=hall.clock, floor=0,
            keep_floor=self.floors.append,
        )  # fmt: skip

    def say(self, *words: bytes) -> None:
        """Say words and whatever they lead to."""
        waiting = list(words)
        while waiting:
            for name, data in self.hall.reception.hear(self.name, self.pid, waiting.pop(0)):
                if name == self.name:
                    waiting += self.seat.take(data)

    def beat(self) -> None:
        self.say(self.seat.beat())

    def join(self) -> Process:
        self.beat()
        self.say(self.seat.shown("warmed", WARM), self.seat.shown("probed", PROBES), self.seat.beat())
        return self

    @property
    def serves(self) -> bool:
        own, now_s = self.seat.view, self.hall.clock.monotonic_s()
        return own is not None and own.lease is not None and now_s < own.lease.until_s


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def hall(keys: FileKeys) -> Iterator[Hall]:
    records = memory_records(ledger_tables, log_tables, metadata)
    yield Hall(records, keys)
    records.close()


def test_a_process_has_no_lease_before_it_showed_everything_and_one_afterwards(hall: Hall) -> None:
    process = Process(hall, 1)
    process.beat()
    assert (hall.stage(), process.seat.synced, process.serves) == (Stage.SYNCED, True, False)
    process.say(process.seat.shown("warmed", WARM))
    process.beat()
    assert not process.serves
    process.say(process.seat.shown("probed", PROBES))

    process.beat()

    assert (hall.stage(), process.serves, process.seat.why) == (Stage.ADMITTED, True, "")
    assert process.seat.credentials == {"insider": "token"}


def test_a_lease_that_nobody_renews_is_over(hall: Hall) -> None:
    process = Process(hall, 1).join()
    hall.clock.advance(4.0)
    assert process.serves
    process.beat()
    hall.clock.advance(4.0)
    assert process.serves

    hall.clock.advance(1.0)

    assert not process.serves


def test_a_probe_that_failed_is_quarantine_and_only_another_process_comes_out_of_it(hall: Hall) -> None:
    process = Process(hall, 1)
    process.beat()
    process.say(process.seat.shown("warmed", WARM), process.seat.shown("probed", PROBES[1:]))
    process.beat()
    assert (hall.stage(), process.serves) == (Stage.QUARANTINED, False)
    assert "trusts this incarnation no more" in process.seat.over

    hall.alive.discard(1)
    other = Process(hall, 2).join()

    assert (other.serves, other.seat.incarnation) == (True, 2)


def test_what_runs_something_else_is_quarantined(hall: Hall) -> None:
    process = Process(hall, 1, artifacts="sha256:other")

    process.beat()

    assert (hall.stage(), bool(process.seat.over)) == (Stage.QUARANTINED, True)


def test_a_process_that_lives_keeps_its_name(hall: Hall) -> None:
    first = Process(hall, 1).join()
    second = Process(hall, 2)

    second.beat()

    assert "runs already, as process 1" in second.seat.why
    first.beat()
    assert first.serves


def test_a_process_that_ended_holds_nothing_and_its_name_is_free(hall: Hall) -> None:
    first = Process(hall, 1).join()
    hall.alive.discard(1)
    hall.reception.tick()
    assert (hall.stage(), hall.store.state.holds) == (Stage.GONE, ())

    second = Process(hall, 2).join()

    assert second.serves
    first.beat()
    assert first.seat.over


def test_nobody_comes_who_was_not_asked_for(hall: Hall) -> None:
    for pid, name in enumerate(("model-1", "model-2"), start=1):
        Process(hall, pid, name=name).join()
    third = Process(hall, 3, name="model-3")

    third.beat()

    assert "scale first" in third.seat.why
    hall.reception.expect(3, reason="load", actor="autoscaler")
    assert third.join().serves


def test_a_policy_is_enforced_once_all_have_it_and_the_last_one_brings_it_about(hall: Hall) -> None:
    first, second = (Process(hall, pid, name=f"model-{pid}").join() for pid in (1, 2))
    hall.reception.offer(5, "p2")
    first.policies.add("p2")
    first.beat()
    assert hall.store.state.epochs.floor == 1
    second.policies.add("p2")

    second.beat()

    assert hall.store.state.epochs.floor == 5
    first.beat()
    own = first.seat.view
    assert own is not None
    assert (own.floor, first.floors, first.serves) == (5, [1, 5], True)


def test_who_does_not_load_a_policy_is_not_waited_for_and_gets_no_lease_any_more(hall: Hall) -> None:
    first, second = (Process(hall, pid, name=f"model-{pid}").join() for pid in (1, 2))
    first.policies.add("p2")
    hall.reception.offer(5, "p2")
    first.beat()
    second.beat()
    hall.clock.advance(1.1)

    letters = hall.reception.tick()

    assert sorted(name for name, _ in letters) == ["model-1", "model-2"]
    for process in (first, second):
        process.say(
            *[word for name, data in letters if name == process.name for word in process.seat.take(data)]
        )
    assert (first.serves, second.serves) == (True, False)
    assert "has not loaded policy epoch 5" in second.seat.why


def test_a_policy_that_is_replaced_before_it_was_committed_is_withdrawn(hall: Hall) -> None:
    Process(hall, 1).join()
    hall.reception.offer(5, "p2")
    hall.reception.offer(6, "p3")
    assert hall.store.state.epochs.prepared == Bundle(epoch=6, policy="p3")

    hall.reception.offer(7, "p1")

    assert hall.store.state.epochs.bundles == (Bundle(epoch=1, policy="p1"),)


def test_a_restored_admission_commits_nothing_below_what_replicas_heard(hall: Hall) -> None:
    """A database from before epoch 9: its own epoch is refused by everybody, so the same policy gets a later one."""
    process = Process(hall, 1)
    hall.reception.offer(12, "p1", least=9)

    process.join()

    assert hall.store.state.epochs.committed == Bundle(epoch=12, policy="p1")
    assert process.serves
    assert hall.reception.offer(13, "p1", least=9) == []


def test_a_revocation_is_told_at_once(hall: Hall) -> None:
    process = Process(hall, 1).join()

    letters = hall.reception.revoke("model-1")

    assert [name for name, _ in letters] == ["model-1"]
    for _, data in letters:
        process.seat.take(data)
    assert not process.serves
    again = Process(hall, 2)
    hall.alive.discard(1)
    again.beat()
    assert "was revoked" in again.seat.why


def test_a_restarted_admission_knows_its_replicas_and_ends_those_that_have_no_place(hall: Hall) -> None:
    process = Process(hall, 1).join()
    Process(hall, 2, name="model-2").join()
    hall.store = hall.open()
    hall.reception = hall.receive()
    hall.reception.only({"model-1"}, of=lambda _name: True)

    process.beat()

    assert (process.serves, process.seat.incarnation) == (True, 1)
    assert hall.stage("model-2") is Stage.GONE


def test_a_replica_speaks_for_no_other(hall: Hall) -> None:
    process = Process(hall, 1).join()
    thief = Process(hall, 2, name="model-2")

    told = hall.reception.hear("model-2", 2, process.seat.beat())

    assert isinstance(decode_down(told[0][1]), Refused)
    assert "speaks for model-1" in decode_down(told[0][1]).message  # type: ignore[union-attr]
    assert thief.seat.view is None


def test_noise_changes_nothing_on_either_side(hall: Hall) -> None:
    process = Process(hall, 1).join()
    for noise in (b"", b"\xff", b"{}", b'{"type":"join","more":1', b'{"type":"said","data":"e30="}'):
        with pytest.raises(Corrupt):
            hall.reception.hear("model-1", 1, noise)
    with pytest.raises(Corrupt):
        process.seat.take(b"{}")
    with pytest.raises((Corrupt, Denied)):
        process.seat.take(encode(Answered(data=b"{}")))
    process.beat()
    assert process.serves


def test_what_many_say_at_once_is_said_once(hall: Hall) -> None:
    before, gate = len(hall.log.read(after=0)), threading.Barrier(8)

    def say() -> None:
        gate.wait()
        hall.reception.expect(7, reason="load", actor="autoscaler")

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [event.n for event in hall.log.read(after=0)[before:]] == [7]
