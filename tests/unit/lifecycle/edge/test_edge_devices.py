"""What devices report: once, for their own principal, in the words of the bundle that they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from taut.adapters.keys.file import FileKeys
from taut.core.edge import Counts, Moments, Report
from taut.core.errors import Conflict, Exhausted, InvalidInput, NotFound
from taut.entrypoints.operations.edge import drift
from taut.lifecycle.edge import BundleFacts, Devices, metadata
from taut.testing.records import memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger import metadata as ledger_metadata

DEVICE = "device_" + "0" * 26
EXPECTED = {"rows": 100, "shares": {"no": 0.75, "yes": 0.25}, "mean": None, "deviation": None}
FACTS = BundleFacts(
    version="delay@2", origin="delay@1", columns=("x", "y"), classes=("no", "yes"), expected=EXPECTED, digest="sha256:f",
    size_bytes=1,
)  # fmt: skip
COUNTS = Counts(
    requests=2, rows=3, edge_rows=3, errors={"malformed": 1}, latency={4: 2}, labels={"no": 2, "yes": 1}
)


class Room(NamedTuple):
    devices: Devices
    ledger: Ledger
    clock: ManualClock


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    records, clock = memory_records(metadata, ledger_metadata), ManualClock()
    ledger = Ledger(records, FileKeys(tmp_path, random=SeededRandom()), clock, SequenceIds(), origin="test")
    made = Devices(records=records, ledger=ledger, clock=clock, devices_max=2)
    assert made.keep("edge_a", b"first", FACTS, actor="ada") == b"first"
    yield Room(made, ledger, clock)
    records.close()


def report(sequence: int = 1, counts: Counts = COUNTS, **more: Any) -> Report:
    told = {"device": DEVICE, "bundle": "edge_a", "began_us": 1, "ended_us": 2, **more}
    return Report(sequence=sequence, counts=counts, **told)


def test_the_same_report_twice_changes_nothing(room: Room) -> None:
    assert room.devices.report(report(), principal="kiosk") == 1
    (before,) = room.devices.list()
    room.clock.advance(60)

    assert room.devices.report(report(), principal="kiosk") == 1
    assert room.devices.list() == (before,)
    assert room.devices.report(report(2), principal="kiosk") == 2
    assert room.devices.report(report(), principal="kiosk") == 2
    (after,) = room.devices.list()
    assert (after.counts, after.reports) == (COUNTS.plus(COUNTS), 2)
    assert after.last_seen > before.last_seen


def test_a_second_report_of_one_sequence_that_says_something_else_is_a_copied_device(room: Room) -> None:
    room.devices.report(report(1), principal="kiosk")

    with pytest.raises(Conflict, match="was copied"):
        room.devices.report(report(1, counts=Counts(requests=7)), principal="kiosk")
    (one,) = room.devices.list()
    assert one.counts == COUNTS


def test_reports_that_never_came_are_counted(room: Room) -> None:
    room.devices.report(report(2), principal="kiosk")
    room.devices.report(report(6, dropped=5), principal="kiosk")

    (one,) = room.devices.list(version="delay@1")
    assert (one.missed, one.dropped, one.sequence) == (4, 5, 6)
    assert room.devices.list(version="delay@9") == ()


def test_a_report_counts_for_its_own_principal_only(room: Room) -> None:
    room.devices.report(report(), principal="kiosk")
    room.devices.report(report(counts=Counts(requests=9)), principal="stranger")

    found = {one.principal: one.counts.requests for one in room.devices.list()}
    assert found == {"kiosk": 2, "stranger": 9}


def test_a_bundle_is_kept_once_with_the_statement_that_was_first(room: Room) -> None:
    assert room.devices.keep("edge_a", b"second", FACTS, actor="bob") == b"first"
    assert room.devices.statement("edge_a") == b"first"
    assert room.devices.statement("edge_b") is None


@pytest.mark.parametrize(
    ("told", "error", "said"),
    [
        (report(bundle="edge_b"), NotFound, "no bundle 'edge_b'"),
        (report(device="device_x"), InvalidInput, "no device"),
        (report(0), InvalidInput, "sequence"),
        (report(counts=Counts(labels={"perhaps": 1})), InvalidInput, "'perhaps'"),
        (report(counts=Counts(nulls={"z": 1})), InvalidInput, "'z'"),
        (report(counts=Counts(outside={"z": 1})), InvalidInput, "'z'"),
        (report(counts=Counts(errors={"Bad code": 1})), InvalidInput, "codes"),
        (report(counts=Counts(errors={f"code_{'a' * at}": 1 for at in range(33)})), InvalidInput, "codes"),
        (report(counts=Counts(latency={64: 1})), InvalidInput, "buckets"),
        (report(counts=Counts(confidence={-1: 1})), InvalidInput, "steps"),
        (report(counts=Counts(requests=-1)), InvalidInput, "below 0"),
        (report(counts=Counts(rows=2**60)), InvalidInput, "beyond"),
        (report(counts=Counts(values=Moments(total=float("nan")))), InvalidInput, "finite"),
    ],
)  # fmt: skip
def test_a_report_that_its_bundle_cannot_have_made_is_refused(
    room: Room, told: Report, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        room.devices.report(told, principal="kiosk")
    assert room.devices.list() == ()


def test_the_devices_of_a_principal_are_bounded(room: Room) -> None:
    for number in range(2):
        room.devices.report(report(device=f"device_{number:026d}"), principal="kiosk")

    with pytest.raises(Exhausted, match="2 devices"):
        room.devices.report(report(device=f"device_{9:026d}"), principal="kiosk")
    room.devices.report(report(2), principal="kiosk")  # those that are known go on
    room.devices.report(report(device=f"device_{9:026d}"), principal="other")


def test_codes_of_errors_stay_bounded_over_many_reports(room: Room) -> None:
    for number in range(1, 9):
        errors = {f"code_{chr(96 + number)}_{chr(97 + at)}": 1 for at in range(20)}
        room.devices.report(report(number, counts=Counts(errors=errors)), principal="kiosk")

    (one,) = room.devices.list()
    assert len(one.counts.errors) <= 32
    assert sum(one.counts.errors.values()) == 160


def test_drift_is_the_distance_of_shares_and_of_means(room: Room) -> None:
    same, turned = Counts(labels={"no": 75, "yes": 25}), Counts(labels={"yes": 100})
    regressor = {"rows": 10, "shares": {}, "mean": 10.0, "deviation": 2.0}
    values = Counts(values=Moments(count=200, total=2600.0))

    assert drift(same, EXPECTED) == 0.0
    assert drift(turned, EXPECTED) == 0.75
    assert drift(values, regressor) == 1.5
    assert drift(Counts(labels={"no": 99}), EXPECTED) is None
    assert drift(same, None) is None


def test_a_report_is_the_same_after_its_journey_as_json() -> None:
    sent = msgspec.json.decode(msgspec.json.encode(report(counts=COUNTS)))

    assert msgspec.convert(sent, Report, str_keys=True) == report()
