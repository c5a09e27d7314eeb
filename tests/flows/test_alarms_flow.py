"""A caller who crowds out all others: seen by what gateways count, told of, held back at them, and let go by a person. Then drills: one
that nothing notices fails and names the broken link, one whose fault is noticed is paged and rolled back by a playbook."""

from __future__ import annotations

import os
import time
from pathlib import Path

from collector import Collector
from installation import Asking, Installation, Json, until

from taut.bootstrap.platform import open_platform
from taut.trust.shares import Hour, Hours, ShareWatch

DECLARED = """
ops = taut.Webhook("ops", url="{url}/alerts", secret="alerts/ops", inside=True)
taut.Contain("crowding", on="share", severity="critical", action="quarantine", lasts="1h")
taut.Playbook(
    "burning", when=taut.alert("slo", at=[late]), acts_as="responder",
    do=[taut.page(ops), taut.rollback(), taut.notify(ops, "{{endpoint}} answers as before")],
)
taut.Drill("unnoticed", at=late, fault=taut.slow("1ms"), alarm="release.rolled_back", alarm_within="1s")
taut.Drill(
    "failing", at=late, fault=taut.failing(), alarm="slo", alarm_within="2m", page=ops, page_within="2m",
    rollback_within="2m",
)
"""


def learn(home: Path) -> None:
    """Let control know of an hour in which `eve` sent a tenth of all requests."""
    hour = int(time.time() // 3600) - 1
    with open_platform(home, environ=os.environ) as platform:
        known = {"app": 900.0, "eve": 100.0}
        Hours(platform.records).keep(Hour(hour=hour, known=known, strangers={}), ShareWatch())


def test_who_crowds_out_the_others_is_told_of_and_held_back_until_a_person_says_that_it_is_right(
    released: Installation,
) -> None:
    collector = Collector()
    project = released.folder / "project.py"
    text = project.read_text().replace("taut.SLO(", "taut.SLO(availability=0.99, ")
    released.write("project.py", text + DECLARED.format(url=collector.url))
    assert "no such service" in released.told("apply").out
    released("user", "add", "responder", "--kind", "service", "--role", "responder")
    released("apply")
    released("secret", "put", "alerts/ops", "--value", "s3cret")
    learn(released.home)
    released.environ["TAUT_WATCH_WINDOW"] = "1s"
    with collector.running(), released.up() as up:
        app, eve = up.token("app"), up.token("eve")
        assert (up.ask(app).status_code, up.ask(eve).status_code) == (200, 200)
        with Asking(up, eve):
            until(lambda: bool(shares(released)), within_s=90.0, said=up.said)
            until(lambda: up.ask(eve).status_code == 403, within_s=90.0, said=up.said)
            assert up.ask(app).status_code == 200
            (alert,) = shares(released)
            assert (alert["principal"], alert["severity"]) == ("eve", "critical")
            (held,) = released("contain", "list")["containments"]
            assert (held["principal"], held["alert"], held["begun_by"]) == ("eve", alert["id"], "policy")
            until(lambda: "opened" in delivered(released, alert["id"]), within_s=90.0, said=up.said)

            released("alerts", "dismiss", alert["id"], "--reason", "their yearly load test")
            until(lambda: up.ask(eve).status_code == 200, within_s=90.0, said=up.said)
        drill(released, collector)

    path, headers, event = next(one for one in collector.requests if one[2]["data"]["id"] == alert["id"])
    assert (path, event["type"]) == ("/alerts", "taut.alert.opened")
    assert headers["webhook-signature"].startswith("v1,")
    shown = released("alerts", "show", alert["id"])
    assert (shown["state"], shown["reason"], shown["ended_by"]) == (
        "dismissed",
        "their yearly load test",
        "owner",
    )
    assert shown["containments"][0]["lifted_by"] == "owner"
    everything = released("alerts", "list", "--all")["alerts"]
    assert any(one["kind"] == "scale" and one["evidence"]["pool"] for one in everything)
    assert released("ledger", "verify")["ok"]


def drill(released: Installation, collector: Collector) -> None:
    """Run both drills; what was live before is live after each."""
    before = released("release", "status", "late")["release"]
    missed = released("drill", "run", "unnoticed", expect=10)
    assert (missed["verdict"], missed["broken"]) == ("reject", "alarm")
    assert missed["asked"] > 0

    found = released("drill", "run", "failing")
    assert (found["verdict"], found["broken"], found["failed"] > 0) == ("admit", "", True), found
    assert [one["name"] for one in found["checks"]] == ["fault", "alarm", "page", "rollback"]
    history = {one["release"]: one for one in released("release", "history", "late")["releases"]}
    assert history[found["release"]]["state"] == "rolled_back"
    assert {one["version"] for one in history.values()} == {"late@1"}
    assert before in history
    [incident] = [
        one for one in released("incident", "list")["incidents"] if one["resource"] == "endpoint:late"
    ]
    said = [one["said"] for one in released("incident", "show", incident["id"])["timeline"]]
    assert any(one.startswith("playbook burning, rollback: late answers by late@1 again") for one in said), (
        said
    )
    until(lambda: "late answers as before" in str(collector.requests))
    assert {one["name"]: one["verdict"] for one in released("drill", "list")["drills"]} == {
        "failing": "admit",
        "unnoticed": "reject",
    }


def shares(installation: Installation) -> list[Json]:
    return [one for one in installation("alerts", "list")["alerts"] if one["kind"] == "share"]


def delivered(installation: Installation, alert: str) -> set[str]:
    told = installation("alerts", "show", alert)["deliveries"]
    return {one["change"] for one in told if one["state"] == "delivered"}
