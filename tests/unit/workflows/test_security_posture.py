"""Figures of security: right where there is something to measure, and honest where there is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taut.bootstrap.config import Config
from taut.bootstrap.platform import Platform
from taut.bootstrap.schema import all_metadata
from taut.core.errors import Denied
from taut.entrypoints import security_view
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.ports.records import transact
from taut.serving.meters import EndpointReading, HistogramReading, MeterReading
from taut.testing.records import memory_records
from taut.testing.world import ManualClock
from taut.trust.identity import OWNER, Principal
from taut.trust.ledger import Entry
from taut.workflows.posture import MINUTE_US, guard_share, linearity_of, provisioning, quantile

HERE = Caller(principal=OWNER, local=True)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Platform]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = Platform(Config(home=home), stack)
        made.clock = ManualClock(datetime(2026, 1, 1, 12, tzinfo=UTC))
        records = memory_records(*all_metadata())
        stack.callback(records.close)
        made.records = records
        yield made


def reported(house: Platform, caller: Caller = HERE) -> dict[str, object]:
    return perform(
        operation_table(), house, caller, "security.report", {"days": 7}, lambda _said, _share: None
    )


def test_a_fresh_installation_says_that_nothing_was_measured(
    house: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    found = reported(house)
    security_view.report(found)

    assert found["notices"] == []
    assert found["provisioning"] == {
        "replicas": 0, "p50_s": None, "p99_s": None, "worst_s": None, "worst": "", "waiting": 0,
        "said": "no replica was admitted in this time",
    }  # fmt: skip
    assert "no gateway told" in str(found["guard"])
    assert "minutes had 20 requests" in str(found["linearity"])
    assert found["coverage"]["undecided"] == []  # type: ignore[index]
    assert found["coverage"]["decided"] + len(found["coverage"]["open"]) == len(operation_table())  # type: ignore[index]
    said = capsys.readouterr().out
    assert "no notice" in said
    assert "no replica was admitted" in said


def test_a_new_administrator_and_many_denials_are_alerts_with_their_leaves(house: Platform) -> None:
    house.identity.create_principal("eve", kind="human", roles=["builder"], actor="owner")
    eve = Caller(principal=Principal(id="eve", kind="human", roles=("builder",)))
    for _ in range(12):
        with pytest.raises(Denied):
            reported(house, eve)
    house.identity.set_roles("eve", ["builder", "admin"], actor="owner")

    found = reported(house)

    notices = found["notices"]
    assert isinstance(notices, list)
    assert {one["rule"] for one in notices} == {"new_admin", "many_denials"}
    denied = next(one for one in notices if one["rule"] == "many_denials")
    assert house.ledger.get(denied["leaf"]).body == {"action": "security.read", "times": 10}


def test_provisioning_is_measured_from_the_invitation_to_the_admission_that_follows_it(
    house: Platform,
) -> None:
    def note(kind: str, replica: int) -> None:
        entry = Entry(kind, f"spiffe://taut/g/{replica}/1", "admission", {})
        transact(house.records, lambda tx: house.ledger.append(tx, entry))

    for replica in range(4):
        note("fleet.provisioned", replica)
    for replica in range(3):
        house.clock.advance(0.5)  # type: ignore[attr-defined]  # a manual clock
        note("fleet.admitted", replica)
    note("fleet.admitted", 0)  # admitted anew after a grace: that was no provisioning

    found = provisioning(house, since=house.clock.now() - timedelta(days=1))

    assert (found.replicas, found.waiting, found.said) == (3, 1, "")
    assert (found.p50_s, found.p99_s, found.worst_s) == (1.0, 1.5, 1.5)
    assert found.worst.endswith("/2/1")


def test_the_share_of_the_guard_is_over_all_endpoints_of_all_gateways() -> None:
    def reading(guard: int, total: int, count: int) -> MeterReading:
        stages = {"guard": HistogramReading((count,), guard), "total": HistogramReading((count,), total)}
        one = EndpointReading(endpoint="late", version="late@1", stages=stages)
        return MeterReading(layout=1, started_us=0, up_us=1, in_flight=0, slots=1, endpoints=(one,))

    found = guard_share([reading(10_000, 1_000_000, 1), reading(30_000, 3_000_000, 3)])

    assert (found.requests, found.gateways, found.mean_us, found.share) == (4, 2, 10.0, 0.01)


@pytest.mark.parametrize(("busy_us", "flat"), [(10, True), (11, True), (13, False)])
def test_a_guard_that_costs_more_under_load_is_not_flat(busy_us: int, flat: bool) -> None:
    quiet = [(minute * MINUTE_US + n, 10) for minute in range(6) for n in range(25)]
    busy = [(minute * MINUTE_US + n, busy_us) for minute in range(6, 8) for n in range(500)]

    found = linearity_of([*quiet, *busy])

    assert (found.minutes, found.quiet_us, found.busy_us, found.flat) == (8, 10.0, float(busy_us), flat)


def test_a_quantile_is_a_value_that_was_seen() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.01, 0.5, 0.99, 1.0)] == [1.0, 2.0, 4.0, 4.0]
