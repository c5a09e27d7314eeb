"""A database that goes away and comes back: said with a code, answers go on, nothing acknowledged is lost."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from installation import Asking, Installation, Up, assert_clear, logged_ids, until
from scaled import Scaled

pytestmark = pytest.mark.xdist_group("scaled")
# httpcore leaves a socket that found nobody listening to the garbage collector (control is being started again)
left_sockets = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def shop(scaled: Scaled) -> Installation:
    scaled.shop("apply")
    return scaled.shop


@pytest.fixture(scope="module")
def up(shop: Installation) -> Iterator[Up]:
    with shop.up() as running:
        yield running


@contextmanager
def away(scaled: Scaled) -> Iterator[None]:
    """The database is killed, with every session, and started again when the block ends."""
    scaled.postgres.kill()
    try:
        yield
    finally:
        scaled.postgres.start()


class Writing:
    """An operator who adds services through control's API without pause. acknowledged: those it answered 200 for."""

    def __init__(self, up: Up, prefix: str) -> None:
        token = up.installation("token", "create", "-p", "boss", "-r", "admin", "--enrol", "service")["token"]
        self._url, self._headers = f"{up.control}/api/v1/user/add", {"authorization": f"Bearer {token}"}
        self._prefix = prefix
        self.acknowledged: list[str] = []
        self.refused: list[tuple[int, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=90)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(headers=self._headers, timeout=60.0) as client:
            for number in itertools.count():
                if self._stop.wait(0.005):
                    return
                name = f"{self._prefix}-{number}"
                answer = client.post(
                    self._url, json={"principal": name, "roles": ["builder"], "kind": "service"}
                )
                if answer.status_code == 200:
                    self.acknowledged.append(name)
                else:
                    error = answer.json()["error"]
                    assert_clear(error["message"])
                    self.refused.append((answer.status_code, error["code"]))

    def more(self, count: int = 5, *, within_s: float = 90.0) -> None:
        goal = len(self.acknowledged) + count
        until(lambda: len(self.acknowledged) >= goal, within_s=within_s, said=lambda: str(self.refused[-3:]))


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("data", "ingest", "orders"),
    ("train", "late"),
    ("ledger", "verify"),
    ("apply",),
)


@left_sockets
def test_commands_without_a_platform_say_that_the_database_is_away_and_work_when_it_is_back(
    scaled: Scaled, shop: Installation
) -> None:
    before = shop("data", "show", "orders")

    with away(scaled):
        for words in COMMANDS:
            told = shop.told(*words)
            assert (told.code, told.error[0]) == (7, "unavailable"), (words, told)
            assert_clear(told.error[1])
            assert "database" in told.error[1], words
            assert "retry" in told.error[1], words
            assert told.err == "", words  # nothing was done, so there is nothing more to say
        doctor = shop("doctor", expect=7)

    assert [finding["name"] for finding in doctor["findings"] if finding["state"] == "bad"] == ["database"]
    assert shop("data", "show", "orders") == before
    assert shop("ledger", "verify")["ok"] is True


@left_sockets
def test_while_the_database_is_killed_and_started_answers_go_on_and_no_acknowledged_change_is_lost(
    scaled: Scaled, up: Up
) -> None:
    shop = up.installation
    with Asking(up, up.token()) as asking, Writing(up, "robot") as writing:
        for _ in range(3):
            writing.more()
            with away(scaled):
                message = shop.refused("data", "list", exit_code=7, code="unavailable")
                assert "database" in message
                asking.more(30)
                until(lambda: len(writing.refused) > 0)
            writing.more()
        asking.more(10)

    assert asking.refused == []
    assert asking.broken == 0
    assert set(asking.answered) <= logged_ids(shop.home)
    assert {status for status, _ in writing.refused} == {503}
    assert {code for _, code in writing.refused} == {"unavailable"}
    users = [user["id"] for user in shop("user", "list")["users"]]
    assert len(users) == len(set(users))
    assert set(writing.acknowledged) <= set(users)
    leaves = shop("ledger", "show", "--kind", "identity.principal.created", "--limit", "10000")["leaves"]
    assert {leaf["subject"] for leaf in leaves} >= {f"principal:{name}" for name in writing.acknowledged}
    assert {child["restarts"] for child in up.state()["children"]} == {0}, up.said()
    assert shop("ledger", "verify")["ok"] is True


def unfinished(scaled: Scaled) -> list[tuple[str, str]]:
    """Stories that have not ended."""
    with psycopg.connect(scaled.postgres.url) as database:
        found = database.execute(
            "SELECT name, state FROM story_stories WHERE state IN ('running', 'waiting')"
        )
        return [(str(name), str(state)) for name, state in found.fetchall()]


def runs(shop: Installation) -> dict[str, str]:
    told = shop.told("run", "list")
    return {run["run"]: run["state"] for run in told.document["runs"]} if told.code == 0 else {}


@left_sockets
def test_a_training_that_the_database_interrupts_ends_by_itself_with_one_version(
    scaled: Scaled, up: Up
) -> None:
    shop = up.installation
    before, known = versions(shop), runs(shop)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(shop.process, "train", "late")
        until(lambda: len(runs(shop)) > len(known))
        for _ in range(3):
            with away(scaled):
                time.sleep(0.2)
            time.sleep(0.3)
        told = training.result(timeout=120)

    assert told.code == 0 or (told.code, told.error[0]) == (7, "unavailable"), told
    until(lambda: not unfinished(scaled), within_s=90, said=up.said)
    made = {id_: state for id_, state in runs(shop).items() if id_ not in known}
    assert len(versions(shop)) == len(before) + 1
    assert list(made.values()).count("done") == 1
    assert "running" not in made.values()
    assert shop("ledger", "verify")["ok"] is True


def versions(shop: Installation) -> list[str]:
    return [version["version"] for version in shop("model", "list")["versions"]]


@left_sockets
def test_a_release_that_the_database_interrupts_ends_by_itself_with_one_live(scaled: Scaled, up: Up) -> None:
    shop = up.installation
    before = len(shop("release", "history", "late")["releases"])
    with ThreadPoolExecutor(1) as pool:
        for delay_s in (0.0, 0.02, 0.05, 0.1):
            releasing = pool.submit(shop.process, "release", "start", "late", "1")
            until(lambda told=releasing: bool(unfinished(scaled)) or told.done())  # type: ignore[misc]  # quicker than a look
            time.sleep(delay_s)
            with away(scaled):
                time.sleep(0.2)
            told = releasing.result(timeout=90)
            assert told.code == 0 or (told.code, told.error[0]) == (7, "unavailable"), told
            until(lambda: not unfinished(scaled), within_s=90, said=up.said)
    releases = shop("release", "history", "late")["releases"]
    assert before <= len(releases) <= before + 4
    assert [release["state"] for release in releases].count("live") == 1
    assert {release["state"] for release in releases} <= {
        "live",
        "replaced",
        "aborted",
    }  # what was not pushed
    assert up.ask(up.token()).json()["release"] == next(
        release["release"] for release in releases if release["state"] == "live"
    )
    assert shop("ledger", "verify")["ok"] is True


@left_sockets
def test_a_control_that_dies_while_the_database_is_away_comes_back_with_it(scaled: Scaled, up: Up) -> None:
    shop = up.installation
    with Asking(up, up.token()) as asking:
        with away(scaled):
            before = restarts(up, "control")
            up.kill("control")
            until(lambda: restarts(up, "control") >= before + 2)  # the kill, and an end of its own
            message = shop.refused("status", exit_code=7, code="unavailable")
            asking.more(30)
        up.await_ready()
        until(lambda: shop.told("status").code == 0)
        asking.more(10)

    assert "control ended" in message
    assert "database" in message
    assert asking.refused == []
    assert set(asking.answered) <= logged_ids(shop.home)
    assert shop("data", "ingest", "orders")["unchanged"] is True


def restarts(up: Up, name: str) -> int:
    return int(next(child["restarts"] for child in up.state()["children"] if child["name"] == name))


@left_sockets
def test_a_platform_that_is_started_while_the_database_is_away_answers_and_is_whole_when_it_is_back(
    scaled: Scaled, up: Up
) -> None:
    shop, bearer = up.installation, up.token()
    before = up.ask(bearer).json()["predictions"]
    up.close()
    with away(scaled):
        up.launch()
        until(lambda: answered(up, bearer) == before, said=up.said)
        shop.refused("status", exit_code=7, code="unavailable")
    up.await_ready()

    assert shop("status")["data_plane"] == up.data
    assert shop("ledger", "verify")["ok"] is True


def answered(up: Up, bearer: str) -> Any:
    try:
        return up.ask(bearer).json().get("predictions")
    except httpx.TransportError:
        return None
