"""Alerts and containments by the operations that the command line and the API share, with the rights that they need."""

from __future__ import annotations

from typing import Any

import pytest

from taut.bootstrap.platform import Platform
from taut.core.errors import Conflict, Denied, InvalidInput, NotFound
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.trust.findings import Sighting
from taut.trust.identity import OWNER, Principal

TABLE = operation_table()
ADA = Principal(id="ada", kind="service", roles=("operator",))
BOB = Principal(id="bob", kind="service", roles=("builder",))
CROWDS = Sighting(kind="share", principal="app", resource="endpoint:any", score=20.0, evidence={"share": 0.8})


def act(platform: Platform, name: str, who: Principal = OWNER, **request: Any) -> Any:
    caller = Caller(principal=who, local=True)
    return perform(TABLE, platform, caller, name, request, lambda _said, _share: None)


@pytest.fixture
def alert(platform: Platform) -> str:
    platform.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
    (found,) = platform.watches.findings.report([CROWDS])
    return found.id


def test_an_alert_is_listed_shown_and_dismissed(platform: Platform, alert: str) -> None:
    (listed,) = act(platform, "alerts.list", BOB)["alerts"]
    assert (listed["id"], listed["state"]) == (alert, "open")
    held = act(
        platform,
        "contain.begin",
        principal="app",
        action="throttle",
        per_s=5.0,
        reason="crowds out",
        alert=alert,
    )
    shown = act(platform, "alerts.show", BOB, alert=alert)
    assert [one["id"] for one in shown["containments"]] == [held["id"]]
    assert (shown["evidence"], tuple(shown["deliveries"])) == ({"share": 0.8}, ())

    with pytest.raises(Denied):
        act(platform, "alerts.dismiss", BOB, alert=alert, reason="I am sure")
    assert act(platform, "alerts.dismiss", ADA, alert=alert, reason="the new app")["state"] == "dismissed"
    assert not act(platform, "alerts.list")["alerts"]
    assert not act(platform, "contain.list")["containments"]
    assert len(act(platform, "alerts.list", all=True)["alerts"]) == 1
    with pytest.raises(Conflict):
        act(platform, "alerts.dismiss", ADA, alert=alert, reason="again")


def test_an_operator_lifts_and_only_an_administrator_contains(platform: Platform, alert: str) -> None:
    order = {"principal": "app", "action": "revoke", "reason": "stolen", "alert": alert, "lasts": "2h"}
    with pytest.raises(Denied):
        act(platform, "contain.begin", ADA, **order)
    held = act(platform, "contain.begin", **order)
    assert [one.principal for one in platform.alarms.contained()] == ["app"]
    with pytest.raises(Denied):
        act(platform, "contain.lift", BOB, containment=held["id"], reason="no")
    assert (
        act(platform, "contain.lift", ADA, containment=held["id"], reason="found again")["lifted_by"] == "ada"
    )
    assert platform.alarms.contained() == ()


@pytest.mark.parametrize(
    ("name", "request_", "error"),
    [
        ("contain.begin", {"principal": "app", "action": "shout", "reason": "x"}, InvalidInput),
        ("contain.begin", {"principal": "nobody", "action": "revoke", "reason": "x"}, NotFound),
        (
            "contain.begin",
            {"principal": "app", "action": "revoke", "reason": "x", "lasts": "100d"},
            InvalidInput,
        ),
        ("contain.lift", {"containment": "hold_x", "reason": "x"}, NotFound),
        ("alerts.show", {"alert": "finding_x"}, NotFound),
        ("alerts.list", {"limit": 0}, InvalidInput),
    ],
)
def test_what_makes_no_sense_is_refused(
    platform: Platform, alert: str, name: str, request_: dict[str, Any], error: type[Exception]
) -> None:
    assert alert
    with pytest.raises(error):
        act(platform, name, **request_)
