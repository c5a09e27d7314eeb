"""A second machine: it follows control, serves by itself, and hands its records back, whatever is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from installation import Installation, Up, alive, logged_ids, until
from machines import ask, joined, release_without_features

from taut.serving.predictions import PredictionReader

pytestmark = pytest.mark.xdist_group("machines")


@pytest.fixture(scope="module")
def first(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    shop = released_template.copy_to(tmp_path_factory.mktemp("first") / "shop")
    release_without_features(shop)
    with shop.up() as up:
        yield up


@pytest.fixture(scope="module")
def second(first: Up, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with joined(first, tmp_path_factory.mktemp("second")) as up:
        until(lambda: ask(up, token).status_code == 200, said=up.said)
        yield up


@pytest.fixture(scope="module")
def token(first: Up) -> str:
    return first.token()


def test_a_second_machine_serves_what_the_first_released(first: Up, second: Up, token: str) -> None:
    answer = ask(second, token)
    assert answer.json()["predictions"] == ask(first, token).json()["predictions"]
    status = first.installation("status")
    assert [(one["machine"], one["gateways"]) for one in status["machines"]] == [("m2", 1)]
    assert {one["gateway"] for one in first.installation("top", "--once")["gateways"]} == {
        "gateway-0",
        "gateway-0@m2",
    }


def test_an_endpoint_with_features_is_not_ready_there_says_why_and_is_answered_by_the_first(
    first: Up, second: Up, token: str
) -> None:
    ready = httpx.get(
        f"{second.data}/v2/models/late/ready", headers={"authorization": f"Bearer {token}"}, timeout=60.0
    )

    assert ready.status_code == 503
    assert "SQLite on the installation's first machine" in ready.text
    answer = second.ask(token)
    assert (answer.status_code, answer.headers.get("taut-hop")) == (200, "first")
    assert answer.json()["predictions"] == first.ask(token).json()["predictions"]
    assert answer.json()["request_id"] in logged_ids(first.installation.home)
    assert second.ask("nobody").status_code == 401


def test_a_rollback_reaches_the_second_machine(first: Up, second: Up, token: str) -> None:
    """Within a second where it can: control waits for it as for its own gateways, as long as the machine speaks."""
    shop = first.installation
    before = ask(second, token).headers["taut-release"]
    began = shop("release", "start", "quick", "2")["release"]
    until(lambda: ask(second, token).headers["taut-release"] == began)

    back = shop("rollback", "quick")["release"]

    until(lambda: ask(second, token).headers["taut-release"] == back)
    assert began not in (before, back)


def test_a_machine_speaks_for_itself_alone_and_nobody_else_for_a_machine(
    first: Up, second: Up, token: str, tmp_path: Path
) -> None:
    stranger = Installation(tmp_path)
    for text in (token, "nobody"):
        refused = stranger.refused(
            "up", "--join", first.control, "--port", "2", "--token", text, exit_code=4, code="unauthenticated"
        )
        assert "taut machine invite" in refused
    taken = second.installation.environ["TAUT_TOKEN"]
    again = stranger.refused(
        "up", "--join", first.control, "--port", "2", "--token", taken, exit_code=4, code="unauthenticated"
    )
    assert "taken already, by another machine" in again
    stranger.refused(
        "data", "list", "--url", first.control, "--token", taken, exit_code=4, code="unauthenticated"
    )
    said = {"instance": "0" * 32, "url": "http://127.0.0.1:2", "gateways": 1, "states": "[]"}
    bearer = httpx.post(
        f"{first.control}/api/v1/fleet/report",
        json=said,
        headers={"authorization": f"Bearer {token}"},
        timeout=60.0,
    )
    assert (bearer.status_code, bearer.json()["error"]["code"]) == (403, "denied")


@pytest.mark.crash
def test_kill_9_of_each_process_of_both_sides_loses_no_record(first: Up, second: Up, token: str) -> None:
    answered = []
    for up, name in ((second, "link"), (second, "gateway-0@m2"), (first, "control")):
        answered += [_answered(second, token) for _ in range(3)]
        pid = up.pid(name)
        up.kill(name)
        until(lambda up=up, name=name, pid=pid: _again(up, name, pid))  # type: ignore[misc]  # bound now on purpose

    until(lambda: set(answered[:6]) <= logged_ids(first.installation.home), said=second.said)
    assert "late@2" in str(first.installation("why", answered[0]))
    ids = list(PredictionReader(first.installation.home / "log" / "predictions").ids())
    assert len(ids) == len(set(ids))
    assert not list((second.installation.home / "log" / "predictions").glob("*.closed"))


def test_a_machine_takes_over_other_authorities_and_serves_nothing_once_it_is_revoked_until_it_joins_anew(
    first: Up, second: Up, token: str
) -> None:
    shop, bundle = first.installation, second.installation.home / "svid" / "bundle.json"
    shop("keys", "rotate", "svid")
    until(lambda: len(json.loads(bundle.read_bytes())["keys"]) == 2, said=second.said)
    until(lambda: ask(second, token).status_code == 200)

    shop("machine", "revoke", "m2")
    until(lambda: _answers_nothing(second, token), said=second.said)
    assert [(row["machine"], row["state"]) for row in shop("machine", "list")["machines"]] == [
        ("m2", "revoked")
    ]
    second.close()
    refused = second.installation.refused(
        "up", "--join", first.control, "--port", "2", exit_code=4, code="unauthenticated"
    )
    assert "taut machine invite" in refused

    second.installation.environ["TAUT_TOKEN"] = shop("machine", "invite", "m2")["invitation"]
    second.start()
    until(lambda: ask(second, token).status_code == 200, said=second.said)
    assert [row["state"] for row in shop("machine", "list")["machines"]] == ["live"]


@pytest.mark.crash
def test_without_control_a_machine_serves_on_starts_again_and_hands_over_afterwards(
    first: Up, second: Up, token: str
) -> None:
    control = first.pid("control")
    first.kill("supervisor")
    until(lambda: not alive(control))
    answered = [ask(second, token).json()["request_id"]]
    second.close()
    second.start()
    assert "goes on with what it served last" in second.said()
    answered.append(ask(second, token).json()["request_id"])

    first.start()

    until(lambda: bool(first.installation("status")["machines"]))
    second.close()
    assert set(answered) <= logged_ids(first.installation.home)


def test_a_home_is_either_an_installation_or_a_machine_of_one(first: Up, second: Up) -> None:
    own = first.installation.refused(
        "up", "--join", "http://127.0.0.1:9", "--token", "x", exit_code=5, code="conflict"
    )
    assert own
    assert "--url" in second.installation.refused("status", exit_code=5, code="conflict")
    assert "--url" in second.installation.refused("up", exit_code=5, code="conflict")


def _answers_nothing(up: Up, token: str) -> bool:
    try:
        return ask(up, token).status_code == 503
    except httpx.TransportError:
        return True


def _answered(up: Up, bearer: str) -> str:
    """Ask until there is an answer, and return its id: whose lease ran out on a busy machine says 503 until it has the next."""
    given: list[httpx.Response] = []

    def said() -> str:
        return given[-1].text

    def there() -> bool:
        given.append(ask(up, bearer))
        assert given[-1].status_code in (200, 503), given[-1].text
        return given[-1].status_code == 200

    until(there, said=said)
    return str(given[-1].json()["request_id"])


def _again(up: Up, name: str, pid: int) -> bool:
    child = next(child for child in up.state()["children"] if child["name"] == name)
    return child["state"] == "ready" and child["pid"] != pid
