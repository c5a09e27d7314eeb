"""A model is trained anew by itself: what is refused to be learned from, what is trained, waits for a person, and is released."""

from __future__ import annotations

import os
from typing import Any

from installation import HEADER, Installation

from taut.bootstrap.platform import Platform, open_platform
from taut.bootstrap.retraining import look_at_triggers

TRIGGERS = """    triggers=[taut.on_new_data(orders, rows=100), taut.on_drift()],
    retraining=taut.Retraining(settle="0s", contributor="carrier", share=0.6),
"""


def test_new_data_is_screened_then_trained_on_and_the_version_waits_for_a_person(
    released: Installation,
) -> None:
    project = (released.folder / "project.py").read_text().replace('"trees": 60', '"trees": 8')
    released.write("project.py", project.replace("    params={", f"{TRIGGERS}    params={{"))
    released("apply")
    with open_platform(released.home, environ=os.environ) as platform:
        look_at_triggers(platform)  # from here on it watches
    ingest(released, 10_000, ["bike"])
    with open_platform(released.home, environ=os.environ) as platform:
        (refused,) = work(platform, runs=1)
        assert refused["decision"] == "not trained"
        assert "100.0% of 300 new rows come from 'bike' by carrier, where 60% may" in refused["reasons"][0]
        (alert,) = platform.watches.findings.list(state="open")
        assert (alert.kind, alert.resource) == ("training.failed.late", "model:late")
        assert "bike" not in alert.summary  # which is in the ledger, for ever
        look_at_triggers(platform)
        assert "nothing" in standing(platform)["waits"] or standing(platform)["waits"].startswith("no ")

    ingest(released, 20_000, ["post", "van"])  # what was refused is still new: the half of it is by bike
    with open_platform(released.home, environ=os.environ) as platform:
        look_at_triggers(platform)
        platform.stories.work(until_idle=True)
        look_at_triggers(platform)
        assert standing(platform)["firings"][0]["ended_at"] is None  # the candidate waits for a person
    assert released("trigger", "list")["models"][0]["story"]
    told = released.told("trigger", "fire", "late", "--reason", "now")
    assert told.code == 5
    released("model", "approve", "late@2")
    with open_platform(released.home, environ=os.environ) as platform:
        newest, _ = work(platform, runs=2)
        assert (newest["decision"], newest["version"]) == ("approved", "late@2")
        assert newest["releases"][0]["state"] == "live"
        assert platform.watches.findings.list(state="open") == ()
        leaves = platform.ledger.show(subject="model:late", limit=100)
        kinds = [leaf.kind for leaf in reversed(leaves) if leaf.kind.startswith("trigger.")]
        assert kinds == ["trigger.fired", "trigger.judged", "trigger.ended"] * 2
    assert released("trigger", "pause", "late", "--reason", "audit")["paused"] == "by owner: audit"
    assert released("trigger", "resume", "late", "--reason", "done")["paused"] == ""
    assert released.told("trigger", "list", "nothing").code == 3


def ingest(released: Installation, first: int, carriers: list[str]) -> None:
    """Bring in 300 orders of these carriers."""
    rows = [
        f"{first + at},2026-04-0{1 + at % 5}T0{at % 9}:00:00Z,north,{carriers[at % len(carriers)]},3,{10 + at % 90}.5,"
        f"2026-04-07T10:00:00Z,{'true' if at % 90 > 50 else 'false'}"
        for at in range(300)
    ]
    released.write(f"data/orders-{first}.csv", "\n".join([HEADER, *rows]) + "\n")
    assert released("data", "ingest", "orders")["rows"] > 0


def work(platform: Platform, *, runs: int) -> list[dict[str, Any]]:
    """Look, carry out what begins, look again; return what became of the runs, the newest first."""
    look_at_triggers(platform)
    platform.stories.work(until_idle=True)
    look_at_triggers(platform)
    firings = standing(platform)["firings"]
    assert len(firings) == runs
    return [firing["outcome"] for firing in firings]


def standing(platform: Platform) -> dict[str, Any]:
    from taut.bootstrap.retraining import triggers_of
    from taut.entrypoints.operations.operation import to_json

    triggers, seen = triggers_of(platform, "late")
    found: dict[str, Any] = to_json(triggers.standing(seen))
    return found
