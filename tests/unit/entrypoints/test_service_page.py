"""A service's page, and how objectives look: what is there is shown, and what a caller may not see is left out."""

from __future__ import annotations

from typing import Any

import pytest
from test_operations import OWNER_HERE, do, person, request_of

from taut.bootstrap.platform import Platform
from taut.core.errors import Conflict, Denied, NotFound
from taut.entrypoints import objectives_view, service_view
from taut.entrypoints.operations.objectives import standing_json
from taut.lifecycle.objectives import Objective, Tally, judge
from taut.serving.meters import TIME_NS
from taut.trust.findings import Sighting
from taut.workflows.objectives.counting import Counters, Events, Recent

NOW_S = 20_000 * 86_400.0
PROJECT = """
import taut
orders = taut.Dataset("orders", source=taut.files("orders.csv"), contract=taut.Contract([
    taut.column("id", "int", unique=True), taut.column("at", "datetime"), taut.column("late", "bool"),
]), entity="id", event_time="at")
@taut.model("late", dataset=orders, request=["id"], label="late", split=taut.by_time(test="1d"))
def train(ctx): ...
taut.Endpoint("late", model=train, slo=taut.SLO(availability=0.999, freeze=True))
taut.Endpoint("plain", model=train)
"""


@pytest.fixture
def applied(platform: Platform, tmp_path: Any) -> Platform:
    do(platform, "plan.apply", **request_of(tmp_path / "project", PROJECT))
    return platform


def test_a_service_that_was_never_released_has_a_page_too(
    applied: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    page = do(applied, "service.show", endpoint="late")

    assert (page["live"], page["release"], page["frozen"], page["changes"], page["alerts"]) == (
        None,
        None,
        [],
        [],
        [],
    )
    assert [(one["promise"], one["state"]) for one in page["objectives"]] == [
        ("99.9% of requests answered", "too few events")
    ]
    service_view.show(page)
    assert "nothing yet" in capsys.readouterr().out
    assert do(applied, "service.show", endpoint="plain")["objectives"] == []
    with pytest.raises(NotFound, match="did you mean 'late'"):
        do(applied, "service.show", endpoint="lade")


def test_alerts_about_a_service_are_for_who_may_see_alerts(applied: Platform) -> None:
    seen = Sighting(
        kind="slo.burn", group="availability", resource="endpoint:late", score=1.0, summary="it burns"
    )
    other = Sighting(kind="slo.burn", group="availability", resource="endpoint:plain", score=1.0)
    applied.watches.findings.report([seen, other])
    (alert,) = do(applied, "service.show", endpoint="late")["alerts"]
    assert (alert["kind"], alert["summary"]) == ("slo.burn", "it burns")
    with pytest.raises(Denied):
        do(applied, "service.show", person("predictor"), endpoint="late")
    with pytest.raises(Conflict, match="the next outage would be silent too"):
        do(applied, "alerts.dismiss", alert=alert["id"], reason="we know")


def test_objectives_are_written_as_openslo_and_dashboards_as_files(applied: Platform) -> None:
    text = do(applied, "slo.export", endpoint="late")["openslo"]
    assert "service: late" in text
    assert do(applied, "slo.export")["openslo"] == text
    with pytest.raises(NotFound, match="nothing is promised"):
        do(applied, "slo.export", endpoint="plain")
    assert set(do(applied, "dashboards.export")["files"]) >= {"late.rules.yaml", "plain.dashboard.json"}


def test_only_a_person_with_the_right_starts_a_release_despite_a_freeze(applied: Platform) -> None:
    request = {"endpoint": "late", "version": "1", "despite": "it mends the outage"}
    with pytest.raises(Denied, match=r"release\.unfreeze"):
        do(applied, "release.start", person("operator"), **request)
    with pytest.raises(NotFound, match="late@1"):  # a person who may: it is the version that is not there
        do(applied, "release.start", OWNER_HERE, **request)


def burning() -> dict[str, Any]:
    tally = Tally(28 * 86_400.0)
    tally.add(500, 10_000, until_s=NOW_S)
    return standing_json(judge(Objective(endpoint="late", name="availability", target=0.999), tally, NOW_S))


def test_a_page_says_in_a_line_what_burns(capsys: pytest.CaptureFixture[str]) -> None:
    objectives_view.show({"objectives": [burning()]})
    said = capsys.readouterr().out
    assert "burns 50 times as fast as it may (500 of 10,000 bad); page from 14.4 on" in said
    assert "95.000%" in said
    assert "50x!" in said


def test_all_parts_of_a_page_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    page = {
        "endpoint": "late", "model": "late", "live": {"version": "late@1", "release": "rel_1", "since": "2026-01-01T00:00:00+00:00", "by": "ana"},
        "release": {"version": "late@2", "strategy": "canary", "weight": 0.05, "step": 1, "steps": [0.01, 0.05], "waits": "a look"},
        "frozen": ["the budget is spent"], "not_ready": [{"gateway": "gateway-0", "endpoint": "late", "reasons": ["stale"]}],
        "traffic": {"seconds": 300.0, "requests_per_s": 12.5, "failed": 0.01, "stood_in": 0.5, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0},
        "objectives": [burning()],
        "model_state": [
            {"version": "late@1", "rows": 1, "drifted": ["items"], "faulty": ["carrier"], "right": 0.9, "outcomes": 40, "estimated": 0.8, "stale_s": 86_400.0}
        ],
        "alerts": [{"id": "finding_1", "kind": "slo.burn", "severity": "critical", "since": "2026-01-01T00:00:00+00:00", "summary": "it burns"}],
        "changes": [
            {"release": "rel_1", "version": "late@1", "strategy": "direct", "state": "live", "by": "ana", "reason": "better", "at": "2026-01-01T00:00:00+00:00"}
        ],
    }  # fmt: skip
    service_view.show(page)
    said = capsys.readouterr().out
    for part in (
        "late@2 as canary at 5.0%, step 2 of 2; waits: a look", "the budget is spent", "gateway-0: stale", "12.5 requests/s over 5 min, 1.00% failed",
        "p50 1 ms, p95 2 ms, p99 3 ms, 50.00% by a stand-in", "items", "90.0% of 40 outcomes", "it burns", "better",
    ):  # fmt: skip
        assert part in said


def test_traffic_is_of_the_last_minutes_and_of_looks_that_followed_one_another() -> None:
    recent = Recent()
    assert recent.of("late", 0.0).seconds == 0.0
    times = [0] * (len(TIME_NS) + 1)
    times[10] = 9
    for at in range(100):
        recent.add(at * 5.0, at * 5.0 + 5.0, {"late": Events(Counters(9, 1, 3, tuple(times)))})
    found = recent.of("late", 500.0)

    assert (found.seconds, found.requests_per_s) == (300.0, 2.0)
    assert (found.failed, found.stood_in) == (pytest.approx(0.1), pytest.approx(1 / 3))
    assert found.p50_ms is not None
    assert found.p99_ms is not None
    assert TIME_NS[9] / 1e6 < found.p50_ms < found.p99_ms <= TIME_NS[10] / 1e6
    assert recent.of("other", 500.0).requests_per_s == 0.0
