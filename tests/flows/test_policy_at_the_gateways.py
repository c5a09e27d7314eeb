"""Policies of the project reach running gateways, and an emergency is seen from outside."""

from __future__ import annotations

import httpx
from installation import Installation, until

CLOSED = '@id("closed")\nforbid(principal == Principal::"app", action == Action::"predict", resource)\nwhen { resource has risk };\n'
FIRST = "spiffe://taut/gateway/gateway-0/1"
LIFE = [
    "fleet.provisioned",
    "fleet.attested",
    "fleet.synced",
    "fleet.warmed",
    "fleet.probed",
    "fleet.admitted",
]


def _admitted_again(released: Installation) -> bool:
    """The process that took a killed one's place is another incarnation, and began from the beginning."""
    leaves = released("ledger", "show", "--kind", "fleet.")["leaves"]
    kinds = [leaf["kind"] for leaf in reversed(leaves) if leaf["subject"] == f"{FIRST[:-1]}2"]
    return kinds == LIFE


def stages(released: Installation) -> dict[str, str]:
    return {one["replica"]: one["stage"] for one in released("fleet", "status")["replicas"]}


def test_a_policy_that_is_applied_is_heard_by_gateways_and_one_with_a_fault_is_not(
    released: Installation,
) -> None:
    with released.up() as up:
        app, other = up.token("app"), up.token("other")
        assert (up.ask(app).status_code, up.ask(other).status_code) == (200, 200)

        released.write("policies/closed.cedar", CLOSED)
        released("apply")
        until(lambda: up.ask(app).status_code == 403, said=up.said)
        assert "forbidden by closed" in up.ask(app).json()["error"]["message"]
        assert up.ask(other).status_code == 200
        kinds = [
            (leaf["kind"], leaf["subject"])
            for leaf in released("ledger", "show", "--kind", "fleet.")["leaves"]
        ]
        assert [kind for kind, subject in reversed(kinds) if subject == FIRST] == LIFE
        assert [kind for kind, _ in kinds].count("fleet.committed") == 2

        up.kill("gateway-0")
        until(lambda: _admitted_again(released), said=up.said)
        scaled = released("fleet", "scale", "gateway", "2", "--reason", "more to do")
        until(lambda: stages(released) == {"gateway-0": "admitted", "gateway-1": "admitted"}, said=up.said)
        assert released("fleet", "events")["events"][-1]["scale_id"] == scaled["scale_id"]
        assert "no replica" in released.refused("fleet", "revoke", "gateway-7", exit_code=5, code="conflict")
        released("fleet", "revoke", "gateway-1")
        assert stages(released) == {"gateway-0": "admitted", "gateway-1": "quarantined"}
        judged = released("fleet", "verify")
        assert (judged["verdict"], judged["unguarded"], judged["guarded"] > 0) == ("admit", 0, True)
        released("fleet", "scale", "gateway", "1")
        until(lambda: "gateway-1" not in {one["name"] for one in up.state()["children"]}, said=up.said)
        until(lambda: up.ask(other).status_code == 200, said=up.said)

        released.write("policies/closed.cedar", "permit(principal, action")
        assert "policies/closed.cedar:1" in " ".join(released("apply", expect=10)["reasons"])
        assert (up.ask(app).status_code, up.ask(other).status_code) == (403, 200)
        changed = released("policy", "review", "--days", "1")["principals"]
        assert {one["principal"]: one["did"].get("predict", 0) > 0 for one in changed}["app"]

        begun = released("break-glass", "start", "--reason", "a drill", "--ttl", "5m")
        assert "\ntaut_emergency 1.0" in httpx.get(f"{up.control}/metrics", timeout=60.0).text
        assert released("status")["emergency"]["id"] == begun["id"]
        assert up.ask(app).status_code == 403  # gateways are no part of it
        released("break-glass", "end")
        assert "\ntaut_emergency 0.0" in httpx.get(f"{up.control}/metrics", timeout=60.0).text
