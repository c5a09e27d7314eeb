"""An emergency has a reason, an end, and a leaf for everything."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.breakglass import BreakGlass, emergency, is_emergency, metadata
from taut.trust.identity import OWNER, Principal
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata

HALF_AN_HOUR = timedelta(minutes=30)


class House:
    def __init__(self, root: Path) -> None:
        self.records = memory_records(metadata, ledger_metadata)
        self.clock = ManualClock()
        ids, keys = SequenceIds(), FileKeys(root / "keys", random=SeededRandom())
        self.ledger = Ledger(self.records, keys, self.clock, ids, origin="test")
        self.glass = BreakGlass(self.records, self.ledger, self.clock, ids)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.records.close()


def test_an_emergency_holds_until_it_is_ended_and_no_longer_than_it_may(house: House) -> None:
    begun = house.glass.begin("nobody can\tsign in", HALF_AN_HOUR, actor="owner")

    assert house.glass.holding() == begun
    assert (begun.reason, begun.until - begun.begun_at) == ("nobody can sign in", HALF_AN_HOUR)
    with pytest.raises(Conflict, match="holds already"):
        house.glass.begin("again", HALF_AN_HOUR, actor="owner")
    ended = house.glass.end(actor="ada")
    assert (ended.ended_by, house.glass.holding()) == ("ada", None)
    with pytest.raises(NotFound):
        house.glass.end(actor="ada")

    second = house.glass.begin("the disk", HALF_AN_HOUR, actor="owner")
    house.clock.advance(HALF_AN_HOUR.total_seconds())
    assert house.glass.holding() is None
    assert [one.id for one in house.glass.history()] == [second.id, begun.id]


def test_everything_about_it_is_a_leaf(house: House) -> None:
    begun = house.glass.begin("fire", HALF_AN_HOUR, actor="owner")
    house.glass.note(emergency(begun.id), "user.add", "principal:eve")
    house.glass.end(actor="owner")

    leaves = house.ledger.show(kind="break_glass.")
    assert sorted(leaf.kind for leaf in leaves) == [
        "break_glass.act",
        "break_glass.begun",
        "break_glass.ended",
    ]
    act = next(leaf for leaf in leaves if leaf.kind == "break_glass.act")
    assert (act.subject, act.body["operation"], act.body["as"]) == (
        "principal:eve",
        "user.add",
        f"break-glass:{begun.id}",
    )


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 501, "bell \a"])
def test_without_a_reason_there_is_no_emergency(house: House, reason: str) -> None:
    with pytest.raises(InvalidInput, match="reason"):
        house.glass.begin(reason, HALF_AN_HOUR, actor="owner")


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=59), timedelta(hours=8, seconds=1)])
def test_an_emergency_is_neither_endless_nor_a_moment(house: House, ttl: timedelta) -> None:
    with pytest.raises(InvalidInput, match="8h"):
        house.glass.begin("fire", ttl, actor="owner")


def test_nobody_acts_in_an_emergency_by_the_name_of_his_credential_alone() -> None:
    assert is_emergency(emergency("x"))
    assert not is_emergency(OWNER)
    assert not is_emergency(Principal(id="owner", kind="human", roles=("admin",), credential="break-glass:x"))
