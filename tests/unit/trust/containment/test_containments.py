"""Whoever is contained is so for a time, for a reason, with a leaf; and somebody is always left who can end it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound
from taut.ports.records import Tx
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.containment import Contained, Containments, Order, metadata, refusal
from taut.trust.identity import Identity
from taut.trust.identity.tables import metadata as identity_metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata

AN_HOUR = timedelta(hours=1)


def throttle(who: str = "app", **more: object) -> Order:
    fields = {"principal": who, "action": "throttle", "lasts": AN_HOUR, "reason": "crowds out", "per_s": 5.0}
    return Order(**{**fields, **more})  # type: ignore[arg-type]  # each test gives the right types


class House:
    def __init__(self, root: Path) -> None:
        self.records = memory_records(metadata, identity_metadata, ledger_metadata)
        self.clock = ManualClock()
        ids, keys = SequenceIds(), FileKeys(root / "keys", random=SeededRandom())
        self.ledger = Ledger(self.records, keys, self.clock, ids, origin="test")
        identity = Identity(self.records, keys, self.ledger, self.clock, ids, SeededRandom())
        for name, kind, roles in (
            ("app", "service", ["predictor"]),
            ("root", "service", ["admin"]),
            ("ada", "human", ["admin"]),
            ("bob", "human", ["operator"]),
        ):
            identity.create_principal(name, kind=kind, roles=roles, actor="owner")  # type: ignore[arg-type]  # literals above
        self.identity = identity
        self.cut: list[str] = []
        self.holds = Containments(self.records, self.ledger, self.clock, ids, cut_off=self._cut_off)

    def _cut_off(self, _tx: Tx, principal: str, _actor: str) -> None:
        self.cut.append(principal)

    def leaves(self) -> list[tuple[str, str]]:
        found = self.ledger.show(kind="containment.", limit=100)
        return [(leaf.kind, leaf.actor) for leaf in reversed(found)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.records.close()


def test_a_containment_ends_by_itself_or_when_it_is_lifted_and_each_act_is_a_leaf(house: House) -> None:
    first = house.holds.begin(throttle(), actor="policy")
    other = house.holds.begin(throttle("bob"), actor="ada")
    assert [one.principal for one in house.holds.contained()] == ["app", "bob"]

    lifted = house.holds.lift(other.id, actor="ada", why="a false alarm")
    assert (lifted.lifted_by, house.holds.holding("bob")) == ("ada", ())
    with pytest.raises(Conflict, match="is over"):
        house.holds.lift(other.id, actor="ada", why="again")

    house.clock.advance(AN_HOUR)
    assert house.holds.contained() == ()
    assert {one.id for one in house.holds.list(over=True)} == {first.id, other.id}
    assert house.leaves() == [
        ("containment.begun", "policy"),
        ("containment.begun", "ada"),
        ("containment.lifted", "ada"),
    ]


def test_a_second_order_prolongs_the_first_and_never_shortens_it(house: House) -> None:
    first = house.holds.begin(throttle(), actor="policy")
    house.clock.advance(600)
    again = house.holds.begin(throttle(), actor="policy")
    shorter = house.holds.begin(throttle(lasts=timedelta(seconds=5)), actor="policy")

    assert (again.id, shorter.id) == (first.id, first.id)
    assert shorter.until == again.until == first.until + timedelta(seconds=600)


def test_the_last_who_administers_is_never_contained(house: House) -> None:
    with pytest.raises(Denied, match="the last"):
        house.holds.begin(throttle("ada", action="revoke", per_s=0.0), actor="root")
    house.holds.begin(
        throttle("root", action="revoke", per_s=0.0), actor="ada"
    )  # a program is not the last person

    house.identity.create_principal("eve", kind="human", roles=["admin"], actor="owner")
    house.holds.begin(throttle("ada", action="quarantine", per_s=0.0), actor="eve")
    with pytest.raises(Denied, match="the last"):  # the other one is shut out already
        house.holds.begin(throttle("eve", action="revoke", per_s=0.0), actor="policy")


def test_nobody_lifts_what_holds_himself(house: House) -> None:
    held = house.holds.begin(throttle("bob"), actor="ada")
    with pytest.raises(Denied, match="somebody else"):
        house.holds.lift(held.id, actor="bob", why="it is me")


def test_a_step_up_ends_what_was_proved_before(house: House) -> None:
    order = throttle("bob", action="step_up", per_s=0.0)
    house.holds.begin(order, actor="ada")
    house.holds.begin(order, actor="ada")
    assert house.cut == ["bob"]


@pytest.mark.parametrize(
    "bad",
    [
        {"per_s": 0.0}, {"per_s": -1.0}, {"per_s": float("nan")}, {"action": "revoke"}, {"allowed": ("status",)},
        {"lasts": timedelta(0)}, {"lasts": timedelta(days=31)}, {"reason": ""}, {"reason": "\x07"},
    ],
)  # fmt: skip
def test_an_order_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        throttle(**bad)


def test_who_is_not_there_is_not_contained(house: House) -> None:
    with pytest.raises(NotFound):
        house.holds.begin(throttle("nobody"), actor="ada")
    with pytest.raises(NotFound):
        house.holds.lift("hold_x", actor="ada", why="nothing")


def test_what_each_action_leaves() -> None:
    def refused(action: str, endpoint: str | None, *, key: bool = True) -> str | None:
        held = Contained(id="h", principal="p", action=action, until_us=1, allowed=("status",))  # type: ignore[arg-type]  # literals below
        found = refusal(held, endpoint=endpoint, key=key)
        return None if found is None else found.code

    assert refused("throttle", "delay") is None
    assert (refused("quarantine", "delay"), refused("quarantine", "status")) == ("denied", None)
    assert (refused("quarantine", None), refused("revoke", "status"), refused("revoke", None)) == (
        "denied",
    ) * 3
    assert (refused("step_up", "delay"), refused("step_up", "delay", key=False)) == ("step_up", None)
