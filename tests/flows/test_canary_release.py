"""Releases on a running platform: callers are divided by a canary, a side lies ready for a switch, a shadow is heard by nobody."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from installation import ORDER, Installation, Up, until

pytestmark = pytest.mark.xdist_group("canary")

STEPS = 'release=taut.Canary(steps=(0.3, 0.6), every="1s", least=5, guardrails=[taut.errors(), taut.prediction_drift(), taut.quality()])'


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


def tell(up: Up, bearer: str, *, first: int = 0) -> int:
    """Ask for 20 subjects and tell of each answer that the other label came true; return how many outcomes were taken.

    first: number of the first subject; of each only his first outcome counts.
    """
    with httpx.Client(headers={"authorization": f"Bearer {bearer}"}, timeout=60.0) as client:
        answers = [
            client.post(
                f"{up.data}/v1/predict/late", json={"instances": [ORDER]}, headers={"taut-subject": f"t{at}"}
            ).json()
            for at in range(first, first + 20)
        ]
        outcomes = [
            {"request_id": one["request_id"], "label": not one["predictions"][0]["label"]} for one in answers
        ]
        told = client.post(f"{up.data}/v1/feedback", json={"endpoint": "late", "outcomes": outcomes})
    return int(told.json()["taken"])


class World(NamedTuple):
    """An installation that is up, with a token of somebody who may predict."""

    made: Installation
    up: Up
    bearer: str


@pytest.fixture(scope="module")
def world(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = released_template.copy_to(tmp_path_factory.mktemp("releases") / "shop")
    declare(made, STEPS)
    with made.up(gateways=2) as up:
        yield World(made, up, up.token())


def test_a_version_tried_against_itself_is_paused_resumed_and_takes_over(world: World) -> None:
    released, up, bearer = world
    before = released("release", "status", "late")["release"]
    begun = released("release", "start", "late", "1", "--reason", "a calibration")
    assert (begun["strategy"], begun["state"], begun["step"]) == ("canary", "started", 0)
    assert begun["weight"] == 0.3
    assert any("traffic" in line or "requests a second" in line for line in begun["foreseen"])
    released.refused("release", "start", "late", "1", exit_code=5, code="conflict")
    released("release", "pause", "late", "--reason", "lunch")
    assert ask(up, bearer) == {before, begun["release"]}

    paused = released("release", "status", "late")
    assert (paused["paused"], paused["waits"]) == (True, "lunch")
    assert paused["calibration"].startswith("a calibration: two equal versions look alike")
    assert tell(up, bearer) == 20

    def learned() -> bool:
        of = {one["guardrail"]: one for one in released("release", "status", "late")["guardrails"]}["quality"]
        return bool(of["canary"] + of["baseline"] >= 20)

    until(learned, within_s=90.0, said=up.said)
    released("release", "resume", "late", "--reason", "back")
    asked = {before}
    told = itertools.count(20, 20)

    def over() -> bool:
        asked.update(ask(up, bearer))
        tell(up, bearer, first=next(told))  # each step waits for outcomes of both sides
        return str(released("release", "status", begun["release"])["state"]) == "live"

    until(over, within_s=90.0, said=up.said)
    until(lambda: ask(up, bearer, 5) == {begun["release"]}, said=up.said)
    kinds = [
        leaf["kind"]
        for leaf in released("ledger", "show", "--subject", f"release:{begun['release']}")["leaves"]
    ]
    assert {"release.canary.begun", "release.canary.paused", "release.canary.resumed", "release.canary.judged", "release.promoted"} <= set(kinds)  # fmt: skip


def test_a_side_that_lies_ready_takes_over_at_once_and_the_way_back_is_as_short(world: World) -> None:
    made, up, bearer = world
    before = made("release", "status", "late")["release"]
    begun = made("release", "start", "late", "1", "--strategy", "blue-green")
    assert (begun["strategy"], begun["state"], begun["weight"]) == ("blue-green", "started", 0.0)
    made.refused("release", "start", "late", "1", exit_code=5, code="conflict")
    assert ask(up, bearer, 10) == {before}

    until(lambda: made("release", "status", "late")["passed"], within_s=90.0, said=up.said)
    assert len(made("release", "status", "late")["ready"]) == 2
    switched = made("release", "promote", "late", "--reason", "it is noon")
    assert (switched["state"], switched["kept_until"] is None) == ("live", False)
    until(lambda: ask(up, bearer, 10) == {begun["release"]}, said=up.said)
    back = made("rollback", "late", "--reason", "it was the wrong noon")
    until(lambda: ask(up, bearer, 10) == {back["release"]}, said=up.said)


def test_a_shadow_is_asked_what_was_answered_and_answers_nobody(world: World) -> None:
    made, up, bearer = world
    before = made("release", "status", "late")["release"]
    begun = made("release", "start", "late", "1", "--strategy", "shadow")
    asked: set[str] = set()

    def compared() -> bool:
        asked.update(ask(up, bearer, 30))
        return int(made("release", "status", "late")["pairs"]) > 0

    until(compared, within_s=90.0, said=up.said)
    assert asked == {before}
    status = made("release", "status", "late")
    assert [one["decision"] for one in status["guardrails"]] == ["admit"] * 4
    assert "of 1000 that are needed" in status["waits"]
    assert made("release", "abort", "late", "--reason", "seen enough")["state"] == "aborted"
    leaves = made("ledger", "show", "--subject", f"release:{begun['release']}")["leaves"]
    assert {"release.shadow.begun", "release.aborted"} <= {leaf["kind"] for leaf in leaves}
