"""From answers of a real model to figures of its traffic, alerts, and back after a restart."""

from __future__ import annotations

import json
import os
import random
from typing import Any

from installation import Installation, Json

from taut.bootstrap.platform import Platform, open_platform


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
