"""Incidents by the operations that the command line and the API share, with the rights that they need."""

from __future__ import annotations

from typing import Any

import pytest

from taut.bootstrap.platform import Platform
from taut.core.errors import Denied
from taut.entrypoints.operations import Caller, operation_table, perform
from taut.trust.findings import Sighting
from taut.trust.identity import OWNER, Principal

TABLE = operation_table()
ADA = Principal(id="ada", kind="service", roles=("operator",))
EYE = Principal(id="eye", kind="service", roles=("auditor",))
BOB = Principal(id="bob", kind="service", roles=("predictor",))
CROWDS = Sighting(
    kind="share", principal="app", resource="endpoint:any", score=20.0, severity="critical",
    summary="app sent | 66% of <all>", evidence={"share": 0.66},
)  # fmt: skip
WRITES = {
    "incident.note": {"text": "their loop"},
    "incident.assign": {},
    "incident.grade": {"severity": "warning", "reason": "they are small"},
    "incident.mitigate": {"reason": "held back"},
    "incident.resolve": {"reason": "their loop is mended"},
}


def act(platform: Platform, name: str, who: Principal = OWNER, **request: Any) -> Any:
    caller = Caller(principal=who, local=True)
    return perform(TABLE, platform, caller, name, request, lambda _said, _share: None)


@pytest.fixture
def incident(platform: Platform) -> str:
    platform.identity.create_principal("app", kind="service", roles=["predictor"], actor="owner")
    platform.identity.create_principal("ada", kind="service", roles=["operator"], actor="owner")
    platform.watches.findings.report([CROWDS])
    (found,) = act(platform, "incident.list")["incidents"]
    return str(found["id"])


def test_an_incident_is_lived_through_and_told_from_the_ledger(platform: Platform, incident: str) -> None:
    (alert,) = platform.watches.findings.list()
    act(platform, "contain.begin", principal="app", action="throttle", per_s=5.0, reason="crowds out", alert=alert.id)  # fmt: skip
    for name, more in WRITES.items():
        act(platform, name, ADA, incident=incident, **more)

    shown = act(platform, "incident.show", EYE, incident=incident)
    assert (shown["status"], shown["owner"], shown["severity"]) == ("resolved", "ada", "warning")
    assert [one["alert"] for one in shown["alerts"]] == [alert.id]
    said = [one["said"] for one in shown["timeline"]]
    for words in (
        f"seen: {CROWDS.summary}",
        "throttle of app: crowds out",
        "their loop",
        "ada answers for it",
    ):
        assert words in said
    assert not act(platform, "incident.list")["incidents"]

    page = act(platform, "incident.report", EYE, incident=incident)["markdown"]
    assert page.startswith("# app sent \\| 66% of &lt;all>\n")
    assert "**share**, critical, of app at endpoint:any" in page
    for words in ("ada, ", "their loop is mended", "What was the cause"):
        assert words in page
    assert "Nobody took it" not in page

    leaves = platform.ledger.show(subject=f"incident:{incident}")
    with platform.records.begin() as tx:
        assert sum(platform.ledger.erase_details(tx, leaf.id) for leaf in leaves) >= 4
    said = [one["said"] for one in act(platform, "incident.show", EYE, incident=incident)["timeline"]]
    assert {"opened, critical: (erased)", "(erased)", "resolved"} <= set(said)


def test_a_person_opens_one_about_an_endpoint_and_the_report_says_what_is_not_known(
    platform: Platform,
) -> None:
    opened = act(platform, "incident.open", title="wrong since noon", endpoint="late", severity="critical")
    page = act(platform, "incident.report", incident=opened["id"])["markdown"]

    assert opened["opened_by"] == "owner"
    for words in (
        "No alert: a person saw it.",
        "Nobody took it",
        "No watch saw it",
        "nothing was asked meanwhile",
    ):
        assert words in page
    assert "Nothing was released to late in the 6 hours before it" in page


def test_each_act_has_a_right_of_its_own_and_none_of_them_is_a_callers(
    platform: Platform, incident: str
) -> None:
    names = {one.name: one.action for one in TABLE if one.name.startswith("incident.")}
    assert {action for name, action in names.items() if name in (*WRITES, "incident.open")} == {
        *WRITES,
        "incident.open",
    }
    for name, more in {**WRITES, "incident.show": {}, "incident.report": {}}.items():
        with pytest.raises(Denied):
            act(platform, name, BOB, incident=incident, **more)
    for name, more in WRITES.items():
        with pytest.raises(Denied):
            act(platform, name, EYE, incident=incident, **more)
    with pytest.raises(Denied):
        act(platform, "incident.open", EYE, title="x")
