"""A finding begins once, is renewed while it lasts, and ends by a person's word or by time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.findings import Findings, Sighting, metadata
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata

CLIMBS = Sighting(
    kind="abuse.inversion", principal="eve", resource="endpoint:delay", score=21.0, evidence={"climbs": 9}
)
KINDS = ["abuse.inversion", "abuse.boundary"]


class House:
    def __init__(self, root: Path) -> None:
        self.records = memory_records(metadata, ledger_metadata)
        self.clock = ManualClock()
        ids, keys = SequenceIds(), FileKeys(root / "keys", random=SeededRandom())
        self.ledger = Ledger(self.records, keys, self.clock, ids, origin="test")
        self.findings = Findings(self.records, self.ledger, self.clock, ids)

    def leaves(self) -> list[str]:
        self.ledger.sequence()
        return sorted(leaf.kind for leaf in self.ledger.show(limit=100))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.records.close()


def test_what_is_seen_again_renews_its_finding_and_leaves_one_leaf(house: House) -> None:
    (first,) = house.findings.report([CLIMBS])
    house.clock.advance(60)
    weaker = Sighting(**{**_fields(CLIMBS), "score": 3.0, "evidence": {"climbs": 11}})
    (again,) = house.findings.report([weaker])

    assert (again.id, again.since, again.state) == (first.id, first.since, "open")
    assert again.seen - again.since == timedelta(seconds=60)
    assert (again.score, again.evidence) == (21.0, {"climbs": 11})
    assert house.findings.list(state="open") == (again,)
    assert house.leaves() == ["finding.opened"]


def test_another_kind_principal_group_or_resource_is_another_finding(house: House) -> None:
    others = [
        Sighting(**{**_fields(CLIMBS), "kind": "abuse.boundary"}),
        Sighting(**{**_fields(CLIMBS), "principal": "ada"}),
        Sighting(**{**_fields(CLIMBS), "principal": "", "group": "made-by:eve"}),
        Sighting(**{**_fields(CLIMBS), "resource": "endpoint:other"}),
    ]
    assert len({one.id for one in house.findings.report([CLIMBS, *others])}) == 5


def test_what_a_person_dismissed_is_not_held_against_the_same_one_for_a_week(house: House) -> None:
    (found,) = house.findings.report([CLIMBS])
    with pytest.raises(InvalidInput):
        house.findings.dismiss(found.id, " ", actor="ada")
    ended = house.findings.dismiss(found.id, "a  load\ttest", actor="ada")

    assert (ended.state, ended.ended_by, ended.reason) == ("dismissed", "ada", "a load test")
    assert house.findings.report([CLIMBS]) == ()
    with pytest.raises(Conflict):
        house.findings.dismiss(found.id, "again", actor="ada")
    house.clock.advance(timedelta(days=7, seconds=1))
    (later,) = house.findings.report([CLIMBS])
    assert later.id != found.id
    assert house.leaves() == ["finding.dismissed", "finding.opened", "finding.opened"]


def test_what_is_not_seen_any_more_lapses_and_may_begin_again(house: House) -> None:
    (found,) = house.findings.report([CLIMBS])
    house.clock.advance(timedelta(hours=23))
    assert house.findings.lapse(KINDS, unseen_for=timedelta(days=1)) == ()
    house.clock.advance(timedelta(hours=2))
    assert house.findings.lapse(["share"], unseen_for=timedelta(days=1)) == ()
    assert [one.id for one in house.findings.lapse(KINDS, unseen_for=timedelta(days=1))] == [found.id]
    (again,) = house.findings.report([CLIMBS])
    assert again.id != found.id
    assert house.findings.get(found.id).state == "lapsed"


def test_a_sighting_of_nobody_is_refused_and_an_unknown_finding_not_found(house: House) -> None:
    with pytest.raises(InvalidInput, match="name one of them"):
        house.findings.report([Sighting(kind="abuse.x", resource="endpoint:delay", score=1.0)])
    with pytest.raises(NotFound):
        house.findings.get("finding_none")


def _fields(one: Sighting) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__struct_fields__}
