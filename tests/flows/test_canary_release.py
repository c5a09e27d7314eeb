"""A canary on a running platform: callers are divided, it takes over when its time is over, and people have their say."""

from __future__ import annotations

import httpx
import pytest
from installation import ORDER, Installation, Up, until

pytestmark = pytest.mark.xdist_group("canary")

STEPS = 'release=taut.Canary(steps=(0.3, 0.6), every="1s", least=5, guardrails=[taut.errors(), taut.prediction_drift()])'


def declare(made: Installation, strategy: str) -> None:
    project = made.folder / "project.py"
    project.write_text(project.read_text().replace("release=taut.Direct()", strategy))
    made("apply")


def ask(up: Up, bearer: str, count: int = 60) -> set[str]:
    """Ask for many subjects; return the releases that answered."""
    with httpx.Client(headers={"authorization": f"Bearer {bearer}"}, timeout=60.0) as client:
        answers = [
            client.post(
                f"{up.data}/v1/predict/late",
                json={"instances": [ORDER]},
                headers={"taut-subject": f"s{at}"},
            )
            for at in range(count)
        ]
    assert {one.status_code for one in answers} == {200}
    return {one.headers["taut-release"] for one in answers}


def test_a_version_tried_against_itself_is_paused_resumed_and_takes_over(released: Installation) -> None:
    declare(released, STEPS)
    with released.up(gateways=2) as up:
        bearer = up.token()
        before = released("release", "status", "late")["release"]
        begun = released("release", "start", "late", "1", "--reason", "a calibration")
        assert (begun["strategy"], begun["state"], begun["step"]) == ("canary", "started", 0)
        assert begun["weight"] == 0.3
        released.refused("release", "start", "late", "1", exit_code=5, code="conflict")
        released("release", "pause", "late", "--reason", "lunch")
        assert ask(up, bearer) == {before, begun["release"]}

        paused = released("release", "status", "late")
        assert (paused["paused"], paused["waits"]) == (True, "lunch")
        released("release", "resume", "late", "--reason", "back")
        asked = {before}

        def over() -> bool:
            asked.update(ask(up, bearer))
            return str(released("release", "status", begun["release"])["state"]) == "live"

        until(over, within_s=90.0, said=up.said)
        until(lambda: ask(up, bearer, 5) == {begun["release"]}, said=up.said)
        kinds = [
            leaf["kind"]
            for leaf in released("ledger", "show", "--subject", f"release:{begun['release']}")["leaves"]
        ]
        assert {"release.canary.begun", "release.canary.paused", "release.canary.resumed", "release.canary.judged", "release.promoted"} <= set(kinds)  # fmt: skip
