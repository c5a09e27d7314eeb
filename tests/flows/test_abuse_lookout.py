"""From requests that a real gateway answered to an alert that a person reads and dismisses."""

from __future__ import annotations

import json
import os
import random

from installation import Installation, Json

from taut.bootstrap.housekeeping import seal_segments
from taut.bootstrap.platform import Platform, open_platform
from taut.workflows.abuse import Lookout


def test_who_sweeps_an_endpoint_is_an_alert_and_who_asks_of_orders_is_none(released: Installation) -> None:
    choose = random.Random(1)
    with open_platform(released.home, environ=os.environ) as platform:
        lookout = platform.watches.lookout(platform)
        assert _look(lookout, platform) == ()
        released_rows = platform.training.requests(_run(platform), rows=400)[1].to_dicts()
    honest = [choose.choice(released_rows) for _ in range(400)]
    answered = [one["probability"] for one in _ask(released, honest)]
    with open_platform(released.home, environ=os.environ) as platform:
        assert _look(platform.watches.lookout(platform), platform) == ()
        assert platform.watches.findings.list() == ()

    swept: list[Json] = []
    for _ in range(10):
        order = choose.choice(released_rows)
        swept += [{**order, "distance_km": float(at) * 12} for at in range(40)]
    _ask(released, swept)
    with open_platform(released.home, environ=os.environ) as platform:
        kinds = _look(platform.watches.lookout(platform), platform)
        assert "abuse.extraction" in kinds
        leaves = [leaf.kind for leaf in platform.ledger.show(kind="finding.opened", limit=10)]
        assert len(leaves) == len(kinds)

    found = {one["kind"]: one for one in released("alerts", "list")["alerts"]}["abuse.extraction"]
    assert (found["resource"], found["principal"]) == ("endpoint:late", "command-line")
    assert "sweeps" in (found["evidence"]["signal"], *found["evidence"]["also"].split())
    assert found["evidence"]["share"] > found["evidence"]["bound"]
    project = released.folder / "project.py"
    project.write_text(
        project.read_text().replace("latency_p95_ms=20)", "latency_p95_ms=20), round_suspects=1")
    )
    released("apply")
    with open_platform(released.home, environ=os.environ) as platform:
        platform.publish()  # as the housekeeper does
    scores = [one["probability"] for one in _ask(released, honest[:50])]
    assert scores == [round(score, 1) for score in scores] != answered[:50]
    assert scores == [round(score, 1) for score in answered[:50]]
    released("alerts", "dismiss", found["id"], "--reason", "a curve for the board")
    assert "abuse.extraction" not in {one["kind"] for one in released("alerts", "list")["alerts"]}


def _ask(released: Installation, rows: list[Json]) -> list[Json]:
    path = released.write("rows.json", json.dumps({"instances": rows}))
    found: list[Json] = released("predict", "late", "--data", f"@{path}")["predictions"]
    assert len(found) == len(rows)
    return found


def _look(lookout: Lookout, platform: Platform) -> tuple[str, ...]:
    seal_segments(platform)
    lookout.look()
    return tuple(sorted(one.kind for one in platform.watches.findings.list(state="open")))


def _run(platform: Platform) -> str:
    with platform.records.read() as tx:
        version = platform.releases.routes(tx)[0].version
    return platform.registry.show(version).candidate.run
