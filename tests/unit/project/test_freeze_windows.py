"""Times in which releases wait: as they are declared, and which of them hold now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taut.core.errors import InvalidInput
from taut.project.freeze import check_references
from taut.project.manifest import EndpointSpec, FreezeSpec, Manifest
from taut.project.windows import window

WEEKEND = FreezeSpec(name="weekend", weekly="fri 16:00 - mon 08:00")
FRIDAY = datetime(2026, 1, 2, 16, tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "frozen"),
    [(timedelta(seconds=-1), False), (timedelta(), True), (timedelta(days=2), True), (timedelta(hours=64), False), (timedelta(days=7), True)],
)  # fmt: skip
def test_a_weekly_freeze_holds_over_the_end_of_the_week(after: timedelta, frozen: bool) -> None:
    assert (window(WEEKEND, FRIDAY + after) is not None) is frozen


def test_a_freeze_of_one_time_holds_from_its_beginning_to_before_its_end() -> None:
    once = FreezeSpec(name="sale", since="2026-01-02T17:00:00+01:00", until="2026-01-03T00:00:00Z")
    assert window(once, FRIDAY) == (FRIDAY, datetime(2026, 1, 3, tzinfo=UTC))
    assert window(once, datetime(2026, 1, 3, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"weekly": "friday"}, {"weekly": "fri 24:00 - sat 08:00"}, {"weekly": "fri 08:00 - fri 08:00"}, {"weekly": "abc 08:00 - fri 08:00"},
        {"since": "2026-01-02", "until": "2026-01-03T00:00:00Z"}, {"since": "2026-01-03T00:00:00Z", "until": "2026-01-03T00:00:00Z"},
    ],
)  # fmt: skip
def test_times_that_are_none_are_refused_also_where_a_manifest_was_sent(wrong: dict[str, Any]) -> None:
    spec = FreezeSpec(name="sale", **wrong)
    with pytest.raises(InvalidInput, match="Freeze 'sale'"):
        window(spec, FRIDAY)
    (said,) = check_references(Manifest(freezes=(spec,)))
    assert said[:2] == ("freeze", "sale")


def test_a_freeze_of_an_endpoint_that_is_not_there_is_refused() -> None:
    spec = FreezeSpec(name="weekend", weekly=WEEKEND.weekly, endpoints=("lat",))
    found = check_references(Manifest(freezes=(spec,), endpoints=(EndpointSpec(name="late", model="late"),)))
    assert any("no endpoint 'lat'" in said for _, _, said in found)


def test_a_freeze_is_declared_beside_endpoints(tmp_path: Path) -> None:
    from taut.project.load import load_project

    path = tmp_path / "project.py"
    path.write_text(
        "import taut\ntaut.Freeze('weekend', weekly='fri 16:00 - mon 08:00', reason='nobody looks')\n"
    )
    assert load_project(path).manifest.freezes == (
        FreezeSpec(name="weekend", weekly=WEEKEND.weekly, reason="nobody looks"),
    )
    path.write_text("import taut\ntaut.Freeze('weekend')\n")
    with pytest.raises(InvalidInput, match="write weekly"):
        load_project(path)
