"""From answers of a real model to figures of its traffic, alerts, and back after a restart."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime
from typing import Any

from installation import Installation, Json

from taut.bootstrap.platform import Platform, open_platform
from taut.lifecycle.monitoring.outcomes import Outcomes


def test_traffic_is_watched_from_the_log_and_what_was_seen_outlives_the_process(
    released: Installation,
) -> None:
    choose = random.Random(1)
    (nothing,) = released("monitor", "late")["endpoints"]
    assert (nothing["endpoint"], nothing["why_not"]) == ("late", "no request has been answered yet")
    with open_platform(released.home, environ=os.environ) as platform:
        usual = platform.training.requests(_run(platform), rows=400)[1].to_dicts()
    ask(released, [choose.choice(usual) for _ in range(300)])
    (first,) = released("monitor", "late")["endpoints"]
    assert (first["rows"], first["version"], first["why_not"]) == (300, "late@1", "")
    named = {one["column"]: one for one in first["columns"]}
    assert {"items", "distance_km", "carrier", "(score)", "(confidence)"} <= set(named)
    assert all(one["faulty"] == [] for one in first["columns"])
    assert 0.5 < first["quality"]["estimated"] <= 1.0
    (again,) = released("monitor", "late")["endpoints"]
    assert again == first  # nothing is read twice

    strange = [{**choose.choice(usual), "distance_km": 9_999.0, "carrier": "zeppelin"} for _ in range(200)]
    ask(released, strange)
    (then,) = released("monitor")["endpoints"]
    assert then["rows"] == 500
    faulty = {one["column"] for one in then["columns"] if one["faulty"]}
    assert faulty == {"distance_km", "carrier"}
    assert then["moved_row"] is not None
    (alert,) = [one for one in released("alerts", "list")["alerts"] if one["kind"] == "model.faults"]
    assert (alert["resource"], alert["group"]) == ("endpoint:late", "late@1")
    assert alert["evidence"]["columns"] == 2

    with open_platform(released.home, environ=os.environ) as platform:
        monitor = platform.watches.monitor(platform)
        assert monitor.look() == 0
        assert monitor.said["late", "late@1"].rows == 500
    told = released.told("monitor", "nowhere")
    assert told.code == 3


def ask(released: Installation, rows: list[Json]) -> list[dict[str, Any]]:
    path = released.write("rows.json", json.dumps({"instances": rows}))
    found: list[Json] = released("predict", "late", "--data", f"@{path}")["predictions"]
    assert len(found) == len(rows)
    return found


def _run(platform: Platform) -> str:
    with platform.records.read() as tx:
        version = platform.releases.routes(tx)[0].version
    return platform.registry.show(version).candidate.run


def test_outcomes_find_their_answers_late_corrected_and_by_entity(released: Installation) -> None:
    with open_platform(released.home, environ=os.environ) as platform:
        rows = platform.training.requests(_run(platform), rows=60)[1].to_dicts()[:60]
    rows[0]["distance_km"] = 17.25  # nobody else asks about that
    path = released.write("rows.json", json.dumps({"instances": rows}))
    answer = released("predict", "late", "--data", f"@{path}")
    said = [one["label"] for one in answer["predictions"]]
    request, other = answer["request_id"], not said[0]

    def tell(*outcomes: Json, **more: Any) -> Any:
        return released.told("feedback", "late", "--data", json.dumps(list(outcomes)), **more)

    def quality() -> Json:
        (found,) = released("monitor", "late")["endpoints"]
        return {**found["quality"], "unmatched": found["unmatched"]}

    all_right = [{"request_id": request, "row": at, "label": label} for at, label in enumerate(said)]
    assert tell(*all_right).document["taken"] == 60
    assert (quality()["labelled"], quality()["right"]) == (60, 1.0)
    assert tell(*all_right).code == 0  # again: nothing changes
    assert quality()["labelled"] == 60
    tell(
        {"request_id": request, "row": 1, "label": not said[1]},
        {"request_id": request, "row": 1, "label": said[1]},
    )
    assert quality()["right"] == 1.0  # they contradict one another: the last one counts
    told_at = datetime.now(UTC).isoformat()
    tell({"entity": {"distance_km": 17.25}, "at": told_at, "label": other})
    now = quality()
    assert (now["labelled"], round(now["right"] * 60)) == (60, 59)

    with open_platform(released.home, environ=os.environ) as platform:
        key = platform.data_keys.versions("outcomes")
        outcomes = Outcomes(lambda: key, platform.random)
        outcomes.ready()
        with platform.records.read() as tx:
            assert [one.label for one in outcomes.history(tx, request, 0)] == [said[0], other]
            assert [one.label for one in outcomes.history(tx, request, 1)] == [said[1], not said[1], said[1]]
        leaves = platform.ledger.show(kind="outcomes.taken", limit=10)
        assert (
            sum(leaf.body["outcomes"] for leaf in leaves) == 63
        )  # a leaf for each look, not for each outcome
        assert len(leaves) == 3
        assert platform.predictions.find_all({request, "req_0", f"req_{26 * '0'}"}).keys() == {request}
    unknown = released.told("feedback", "nowhere", "--data", '{"request_id": "x", "label": 1}')
    assert unknown.error[0] == "not_found"
