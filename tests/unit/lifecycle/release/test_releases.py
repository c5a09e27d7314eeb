"""The release room: one live release an endpoint, a history that never loses anything, a way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, NotFound
from taut.core.evidence import Check, Evidence, Outcome
from taut.core.refs import VersionRef
from taut.lifecycle.release import Releases, ReleaseState, metadata
from taut.ports.records import Records
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_tables
from taut.trust.lineage import Lineage
from taut.trust.lineage import metadata as lineage_tables


class Room:
    """The room with everything real around it but time and ids."""

    def __init__(self, folder: Path) -> None:
        self.records: Records = memory_records(metadata, ledger_tables, lineage_tables)
        self.clock, ids = ManualClock(), SequenceIds()
        keys = FileKeys(folder, random=SeededRandom())
        self.ledger = Ledger(self.records, keys, self.clock, ids, origin="test")
        self.releases = Releases(
            records=self.records, ledger=self.ledger, lineage=Lineage(self.clock), clock=self.clock, ids=ids
        )

    def release(self, number: int, endpoint: str = "delay") -> str:
        self.clock.advance(1)
        with self.records.begin() as tx:
            release = self.releases.start(
                tx,
                endpoint=endpoint,
                version=VersionRef("delay", number),
                strategy="direct",
                actor="ann",
                reason="test",
            )
            self.releases.promote(tx, release, actor="ann")
        return release

    def roll_back(self, to: str | None = None) -> str:
        self.clock.advance(1)
        with self.records.begin() as tx:
            info, _ = self.releases.roll_back(tx, endpoint="delay", to=to, actor="ann", reason="it is bad")
        return info.version

    def live(self) -> dict[str, str]:
        with self.records.read() as tx:
            return {route.endpoint: str(route.version) for route in self.releases.routes(tx)}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "keys")


def test_a_promoted_release_replaces_the_live_one_and_raises_the_epoch(room: Room) -> None:
    first = room.release(1)
    second = room.release(2)

    with room.records.read() as tx:
        assert room.releases.epoch(tx) == 2
    assert room.live() == {"delay": "delay@2"}
    assert room.releases.show(first).state is ReleaseState.REPLACED
    assert room.releases.show(second).replaces == first


def test_a_second_release_cannot_start_while_one_is_under_way(room: Room) -> None:
    with room.records.begin() as tx:
        room.releases.start(
            tx, endpoint="delay", version=VersionRef("delay", 1), strategy="direct", actor="ann", reason=""
        )

    with pytest.raises(Conflict, match="already being released"), room.records.begin() as tx:
        room.releases.start(
            tx, endpoint="delay", version=VersionRef("delay", 2), strategy="direct", actor="bob", reason=""
        )


def test_an_aborted_release_leaves_what_was_live(room: Room) -> None:
    room.release(1)
    with room.records.begin() as tx:
        second = room.releases.start(
            tx, endpoint="delay", version=VersionRef("delay", 2), strategy="direct", actor="ann", reason=""
        )
        room.releases.abort(tx, second, actor="ann", reason="the gate refused it")

    assert room.live() == {"delay": "delay@1"}
    with pytest.raises(Conflict, match="aborted"), room.records.begin() as tx:
        room.releases.promote(tx, second, actor="ann")


def test_rolling_back_twice_goes_two_states_back(room: Room) -> None:
    for number in (1, 2, 3):
        room.release(number)

    assert [room.roll_back(), room.roll_back()] == ["delay@2", "delay@1"]
    assert room.live() == {"delay": "delay@1"}
    with pytest.raises(NotFound, match="replaced nothing"):
        room.roll_back()


def test_a_named_earlier_state_can_be_returned_to(room: Room) -> None:
    first = room.release(1)
    room.release(2)
    room.release(3)

    assert room.roll_back(first) == "delay@1"


def test_there_is_no_way_back_to_what_never_carried_traffic_or_belongs_to_another(room: Room) -> None:
    room.release(1)
    other = room.release(7, endpoint="other")
    with room.records.begin() as tx:
        never = room.releases.start(
            tx, endpoint="delay", version=VersionRef("delay", 2), strategy="direct", actor="ann", reason=""
        )
        room.releases.abort(tx, never, actor="ann", reason="")

    with pytest.raises(Conflict, match="never carried traffic"):
        room.roll_back(never)
    with pytest.raises(Conflict, match="of endpoint other"):
        room.roll_back(other)
    with pytest.raises(NotFound, match="no release"):
        room.roll_back("rel_unknown")
    assert room.live() == {"delay": "delay@1", "other": "delay@7"}


def test_a_rollback_ends_the_release_that_was_under_way(room: Room) -> None:
    room.release(1)
    room.release(2)
    with room.records.begin() as tx:
        third = room.releases.start(
            tx, endpoint="delay", version=VersionRef("delay", 3), strategy="direct", actor="ann", reason=""
        )

    assert room.roll_back() == "delay@1"
    assert room.releases.show(third).state is ReleaseState.ABORTED


def test_every_transition_is_a_leaf(room: Room) -> None:
    room.release(1)
    room.release(2)
    room.roll_back()

    kinds = [leaf.kind for leaf in reversed(room.ledger.show(limit=20))]
    assert kinds == [
        "release.started", "release.promoted", "release.started", "release.promoted",
        "release.started", "release.rolled_back",
    ]  # fmt: skip


@pytest.mark.parametrize("absent", ["approved", "verified", "runtime", "compatible", "strategy", "unfrozen"])
def test_the_release_gate_refuses_when_a_required_check_is_missing(room: Room, absent: str) -> None:
    checks = tuple(
        Check(name=name, outcome=Outcome.PASSED)
        for name in ("approved", "verified", "runtime", "compatible", "strategy", "unfrozen")
        if name != absent
    )
    with room.records.begin() as tx:
        verdict = room.releases.judge(tx, Evidence(subject="release:rel_x", checks=checks), actor="ann")

    assert not verdict.admitted
    assert absent in verdict.reasons[0]
