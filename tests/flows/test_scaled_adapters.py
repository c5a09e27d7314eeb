"""The small project on PostgreSQL, S3 and Redis: the same project file, the same commands, the same model as on a laptop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from installation import ORDER, Asking, Installation, Up, free_ports, logged_ids, until
from machines import joined
from scaled import Scaled
from test_bad_input_data import file_of, rows

from taut.entrypoints.templates import PROJECT

pytestmark = pytest.mark.xdist_group("scaled")


@pytest.fixture(scope="module")
def up(scaled: Scaled) -> Iterator[Up]:
    with scaled.shop.up() as running:
        yield running


def test_the_same_project_file_goes_from_files_to_a_release_on_the_large_adapters(
    scaled: Scaled, released_template: Installation
) -> None:
    told, shop = scaled.told, scaled.shop

    assert (shop.folder / "project.py").read_text() == PROJECT
    assert told["apply"]["verdict"] == told["train late"]["verdict"] == "admit"
    assert told["data ingest orders"]["rows"] == 5981
    assert told["release start late 1"]["state"] == "live"
    laptop = released_template("model", "verify", "late@1")["files"]["model.onnx"]
    assert shop("model", "verify", "late@1")["files"]["model.onnx"] == laptop
    assert not (shop.home / "taut.db").exists()
    assert not (shop.home / "blobs").exists()


def test_an_answer_is_explained_back_to_its_rows_and_the_ledger_verifies(up: Up) -> None:
    shop = up.installation
    answer = up.ask(up.token())
    assert answer.status_code == 200, answer.text
    asked = shop("predict", "late", "--data", json.dumps(ORDER))

    assert answer.json()["predictions"] == asked["predictions"]
    why = json.dumps(shop("why", answer.json()["request_id"]))
    for named in ("late@1", "orders@1", "backlog@1", "orders-1.csv", "approve"):
        assert named in why, named
    assert shop("ledger", "verify")["ok"] is True


def test_online_features_lie_in_redis_where_further_machines_read_them_too(
    up: Up, scaled: Scaled, tmp_path: Path
) -> None:
    token = up.token()
    assert up.ask(token).status_code == 200
    assert not (scaled.shop.home / "online.db").exists()
    with joined(up, tmp_path / "second", environ={"TAUT_ONLINE": scaled.redis.url}) as second:
        until(lambda: second.ask(token).status_code == 200, said=second.said)
        there = second.ask(token)

        assert "taut-hop" not in there.headers, "it needs nobody for the features"
        assert there.json()["predictions"] == up.ask(token).json()["predictions"]
        scaled.redis.stop()
        try:
            lost = [one.ask(token) for one in (up, second)]
            until(lambda: not is_ready(second, token))
            why = ready(second, token).text
        finally:
            scaled.redis.start()
        until(lambda: {one.ask(token).status_code for one in (up, second)} == {200})
        until(lambda: is_ready(second, token))

    assert {(one.status_code, one.json()["error"]["code"]) for one in lost} == {(503, "unavailable")}
    assert "redis://127.0.0.1" in why


def ready(up: Up, token: str) -> httpx.Response:
    return httpx.get(
        f"{up.data}/v2/models/late/ready", headers={"authorization": f"Bearer {token}"}, timeout=60.0
    )


def is_ready(up: Up, token: str) -> bool:
    return ready(up, token).status_code == 200


def test_an_object_store_that_goes_away_is_said_answers_go_on_and_work_too_when_it_is_back(
    up: Up, scaled: Scaled
) -> None:
    shop = up.installation
    path = str(shop.write("more.csv", file_of(rows(100, first=800_000))))
    with Asking(up, up.token()) as asking:
        asking.more(10)
        scaled.s3.shut()
        try:
            message = shop.refused(
                "data", "ingest", "orders", "--from", path, exit_code=7, code="unavailable"
            )
            asking.more(50)
        finally:
            scaled.s3.open()
        assert shop("data", "ingest", "orders", "--from", path)["rows"] == 100
        asking.more(10)

    assert "s3://" in message
    assert asking.refused == []
    assert set(asking.answered) <= logged_ids(shop.home)
    assert {child["restarts"] for child in up.state()["children"]} == {0}
    assert shop("ledger", "verify")["ok"] is True


def test_a_second_installation_on_the_same_database_is_refused_before_it_changes_anything(
    up: Up, scaled: Scaled, tmp_path: Path
) -> None:
    Installation(tmp_path)("init", "other")
    other = Installation(tmp_path / "other", environ=scaled.shop.environ)

    for words in (("apply",), ("data", "ingest", "orders"), ("token", "create", "-p", "x", "-r", "admin")):
        message = other.refused(*words, exit_code=5, code="conflict")
        assert "belongs to another installation" in message, words
        assert "TAUT_RECORDS" in message, words
    platform = other.process("up", "--port", str(free_ports()))  # does not start its control for ever
    assert (platform.code, platform.error[0]) == (5, "conflict"), platform
    assert "belongs to another installation" in platform.error[1]
    assert len(scaled.shop("plan", "history")["plans"]) == 1
    assert up.ask(up.token()).status_code == 200
