"""Alerts become incidents: which join, which come back, and what people say about them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.errors import Conflict, InvalidInput, NotFound
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.findings import Finding, Findings, Sighting
from taut.trust.findings import metadata as findings_metadata
from taut.trust.identity import metadata as identity_metadata
from taut.trust.incidents import Incident, Incidents, metadata
from taut.trust.incidents.incidents import RECURS, WINDOW
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata

DRIFT = Sighting(
    kind="model.drift", group="late@2", resource="endpoint:late", score=0.4, severity="critical",
    summary="distance_km of late is not as late@2 learned", evidence={"shift": 0.4},
)  # fmt: skip
FAULTS = msgspec.structs.replace(
    DRIFT, kind="model.faults", severity="warning", summary="items of late are absent"
)
SHARE = Sighting(
    kind="share", principal="app", resource="endpoint:any", score=20.0, severity="critical", summary="app"
)


class House:
    """Findings whose changes incidents hear of, as control furnishes them."""

    def __init__(self, root: Path) -> None:
        self.records = memory_records(metadata, findings_metadata, ledger_metadata, identity_metadata)
        self.clock, ids = ManualClock(), SequenceIds()
        keys = FileKeys(root / "keys", random=SeededRandom())
        self.ledger = Ledger(self.records, keys, self.clock, ids, origin="test")
        self.incidents = Incidents(self.records, self.ledger, self.clock, ids)
        self.findings = Findings(self.records, self.ledger, self.clock, ids, hear=self.hear)

    def hear(self, tx: Any, finding: Finding, change: Any) -> None:
        self.incidents.hear(tx, finding, change, opens=finding.severity == "critical")

    def see(self, *seen: Sighting) -> tuple[str, ...]:
        return tuple(one.id for one in self.findings.report(seen))

    def only(self) -> Incident:
        (found,) = self.incidents.list(all=True)
        return found

    def leaves(self) -> list[str]:
        found = self.ledger.show(subject=f"incident:{self.only().id}", limit=100)
        return [leaf.kind.removeprefix("incident.") for leaf in sorted(found, key=lambda leaf: leaf.id)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.records.close()


def test_a_critical_alert_opens_an_incident_and_what_is_about_the_same_endpoint_joins_it(
    house: House,
) -> None:
    drift, faults = house.see(DRIFT, FAULTS)
    house.see(DRIFT, FAULTS)

    found = house.only()
    assert (found.severity, found.status, found.endpoint, found.opened_by) == (
        "critical",
        "open",
        "late",
        "control",
    )
    assert found.title == DRIFT.summary
    assert [one.alert for one in house.incidents.alerts(found.id)] == [drift, faults]
    assert house.leaves() == ["opened", "joined", "joined"]


def test_alerts_that_have_nothing_in_common_are_two_incidents(house: House) -> None:
    other = msgspec.structs.replace(DRIFT, resource="endpoint:price", group="price@1")
    crowd = msgspec.structs.replace(SHARE, principal="eve")
    house.see(DRIFT, other, SHARE, crowd)

    assert len(house.incidents.list()) == 4


def test_a_warning_opens_nothing_and_opens_an_incident_when_it_becomes_critical(house: House) -> None:
    house.see(FAULTS)
    assert not house.incidents.list()
    house.see(msgspec.structs.replace(FAULTS, severity="critical"))

    assert (house.only().severity, house.leaves()) == ("critical", ["opened", "joined"])


def test_a_graver_alert_raises_its_incident(house: House) -> None:
    found = house.incidents.open("answers look wrong", severity="info", resource="endpoint:late", actor="ada")
    house.see(FAULTS)

    assert (house.only().id, house.only().severity) == (found.id, "warning")
    assert house.leaves() == ["opened", "joined", "raised"]


def test_what_comes_long_after_is_an_incident_of_its_own_unless_the_old_one_still_hurts(house: House) -> None:
    house.see(DRIFT)
    house.clock.advance(WINDOW * 3)
    house.see(FAULTS)
    assert len(house.incidents.alerts(house.only().id)) == 2  # the first alert is open all the while

    house.findings.observe([DRIFT.kind, FAULTS.kind], [])
    house.clock.advance(WINDOW + timedelta(seconds=1))
    house.see(msgspec.structs.replace(DRIFT, kind="model.quality"))
    assert len(house.incidents.list()) == 2


def test_an_incident_is_mitigated_when_nothing_is_seen_of_it_and_open_again_when_something_is(
    house: House,
) -> None:
    house.see(DRIFT, FAULTS)
    house.findings.observe([DRIFT.kind], [])
    assert house.only().status == "open"
    house.findings.observe([FAULTS.kind], [])
    assert (house.only().status, house.only().ended_by) == ("mitigated", "control")

    house.see(DRIFT)
    assert (house.only().status, house.only().times, house.only().ended_at) == ("open", 1, None)
    assert house.leaves()[-3:] == ["mitigated", "joined", "reopened"]


def test_what_comes_back_after_it_was_resolved_opens_its_incident_again_without_an_owner(
    house: House,
) -> None:
    house.see(DRIFT)
    house.incidents.assign(house.only().id, "owner", actor="ada")
    house.findings.observe([DRIFT.kind], [])
    house.incidents.resolve(house.only().id, "a sensor was mended", actor="ada")
    assert not house.incidents.list()

    house.clock.advance(RECURS - timedelta(seconds=1))
    house.see(DRIFT)
    assert (house.only().status, house.only().times, house.only().owner) == ("open", 2, "")

    house.findings.observe([DRIFT.kind], [])
    house.incidents.resolve(house.only().id, "now it is", actor="ada")
    house.clock.advance(RECURS + timedelta(seconds=1))
    house.see(DRIFT)
    assert len(house.incidents.list(all=True)) == 2


def test_an_alert_that_goes_on_after_its_incident_was_resolved_leaves_it_so(house: House) -> None:
    house.see(DRIFT)
    house.incidents.resolve(house.only().id, "it is known", actor="ada")
    house.see(DRIFT)

    assert house.only().status == "resolved"


def test_people_say_who_answers_how_grave_it_is_and_that_it_is_over(house: House) -> None:
    id_ = house.incidents.open("wrong since noon", severity="warning", actor="ada").id
    house.incidents.note(id_, "the  supplier\nwas called", actor="ada")
    house.incidents.assign(id_, "owner", actor="ada")
    house.incidents.grade(id_, "critical", actor="ada", reason="it is the flagship")
    house.incidents.mitigate(id_, "traffic moved", actor="ada")
    found = house.incidents.resolve(id_, "a new version", actor="bob")

    assert (found.status, found.owner, found.severity, found.ended_by) == (
        "resolved",
        "owner",
        "critical",
        "bob",
    )
    assert house.leaves() == ["opened", "noted", "assigned", "graded", "mitigated", "resolved"]
    (note,) = house.ledger.show(kind="incident.noted", details=True)
    assert note.details == {"text": "the supplier was called"}
    leaves = house.ledger.show(subject=f"incident:{id_}", details=True)
    for words in (
        "wrong",
        "supplier",
        "flagship",
        "traffic",
        "new version",
    ):  # what people write can be erased
        assert words not in str([leaf.body for leaf in leaves])
        assert words in str([leaf.details for leaf in leaves])


@pytest.mark.parametrize(
    ("do", "error"),
    [
        (lambda house, id_: house.incidents.open(" ", severity="info", actor="a"), InvalidInput),
        (lambda house, id_: house.incidents.open("x", severity="loud", actor="a"), InvalidInput),
        (lambda house, id_: house.incidents.open("x", severity="info", principal="eve", actor="a"), NotFound),
        (lambda house, id_: house.incidents.note("incident_x", "y", actor="a"), NotFound),
        (lambda house, id_: house.incidents.note(id_, "y" * 5000, actor="a"), InvalidInput),
        (lambda house, id_: house.incidents.resolve(id_, "again", actor="a"), Conflict),
        (lambda house, id_: house.incidents.mitigate(id_, "late", actor="a"), Conflict),
        (lambda house, id_: house.incidents.assign(id_, "owner", actor="a"), Conflict),
        (lambda house, id_: house.incidents.grade(id_, "info", actor="a", reason="x"), Conflict),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    house: House, do: Any, error: type[Exception]
) -> None:
    id_ = house.incidents.open("it hurts", severity="info", actor="ada").id
    house.incidents.resolve(id_, "no more", actor="ada")
    before = len(house.leaves())
    with pytest.raises(error):
        do(house, id_)
    assert len(house.leaves()) == before
