"""`taut stream` in an installation: who may, what was put aside, and the answer explained."""

from __future__ import annotations

import json

from installation import ORDER, Installation, Json

from taut.adapters.bus.records import RecordsBus
from taut.adapters.records import open_sqlite
from taut.adapters.world import SystemClock, SystemRandom
from taut.core.cloudevents import Event
from taut.ports.bus import Delivery

WORDS = ("--from", "orders")


def publish(installation: Installation, *rows: Json) -> None:
    records = open_sqlite(installation.home / "taut.db")
    bus = RecordsBus(records, SystemClock(), SystemRandom())
    bus.publish(
        "orders",
        [
            Event(id=f"o{index}", source="shop", type="order", data=json.dumps(row).encode())
            for index, row in enumerate(rows)
        ],
    )
    records.close()


def all_of(installation: Installation, topic: str) -> list[Delivery]:
    records = open_sqlite(installation.home / "taut.db")
    found = RecordsBus(records, SystemClock(), SystemRandom()).peek(topic, "never-subscribed", limit=1000)
    records.close()
    return found


def test_a_stream_is_answered_explained_and_what_was_put_aside_is_listed_and_replayed(
    released: Installation,
) -> None:
    publish(released, ORDER, {**ORDER, "items": "many"}, {**ORDER, "distance_km": 3.0})

    counts = released("stream", "run", "late", *WORDS, "--to", "late-orders", "--until-empty")

    assert (counts["received"], counts["answered"], counts["dead"]) == (3, 2, 1)
    answers = [delivery.event for delivery in all_of(released, "late-orders")]
    assert [answer.inputid for answer in answers if answer] == ["o0", "o2"]
    assert answers[0] is not None
    said = json.loads(answers[0].data)
    assert said["model_version"] == "late@1"
    why = released("why", said["request_id"])
    assert (why["request"]["release"], why["request"]["principal"]) == (said["release"], "stream")
    assert released("predict", "late", "--data", json.dumps(ORDER))["predictions"] == said["predictions"]

    status = released("stream", "status", "late", *WORDS)
    assert (status["length"], status["waiting"], status["pending"]) == (3, 0, 0)
    assert status["dead_letters"] == {"length": 1, "waiting": 1, "pending": 0}
    (letter,) = released("stream", "dead-letters", "late", *WORDS)["dead_letters"]
    assert (letter["id"], letter["code"], letter["event"]["data"]["items"]) == ("o1", "invalid_input", "many")
    assert "items" in letter["reason"]
    refused = released("why", letter["request_id"])
    assert refused["request"]["status"] == 422

    replayed = released("stream", "replay", "late", *WORDS, "--to", "late-orders")
    assert (replayed["received"], replayed["answered"], replayed["dead"]) == (1, 0, 1)
    assert [
        item["replays"] for item in released("stream", "dead-letters", "late", *WORDS)["dead_letters"]
    ] == [1]
    shown = released("ledger", "show")
    assert "stream.begun" in {leaf["kind"] for leaf in shown["leaves"]}


def test_who_may_not_run_or_look_at_a_stream_is_refused(released: Installation) -> None:
    publish(released, ORDER)
    auditor = released("token", "create", "--principal", "eve", "--role", "auditor")["token"]
    for words in (
        ("stream", "status", "late", *WORDS),
        ("stream", "dead-letters", "late", *WORDS),
        ("stream", "run", "late", *WORDS, "--to", "late-orders", "--until-empty"),
    ):
        released.refused("--token", auditor, *words, exit_code=4, code="denied")
    assert all_of(released, "late-orders") == []


def test_words_that_could_never_work_are_refused(released: Installation) -> None:
    run = ("stream", "run", "late")
    for words, code in (
        ((*run, "--from", "orders", "--to", "orders"), "invalid_input"),
        ((*run, "--from", "orders", "--to", "a b"), "invalid_input"),
        ((*run, "--from", "amqp://127.0.0.1/orders", "--to", "out"), "invalid_input"),
        ((*run, "--from", "redis://127.0.0.1:1", "--to", "out"), "invalid_input"),
        ((*run, "--from", "redis://127.0.0.1:1/0/orders?duplicates=1s", "--to", "out"), "invalid_input"),
    ):
        released.refused(*words, exit_code=2, code=code)
    nobody = ("stream", "run", "nobody", *WORDS, "--to", "out", "--until-empty")
    assert "nobody" in released.refused(*nobody, exit_code=3, code="not_found")
