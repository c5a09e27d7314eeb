"""`taut load` against a platform: by rate, by profile, made-up, replayed; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installation import ORDER, Installation, until

SPIKE = "- {from: 0, to: 200, duration: 1s}\n- {rate: 400, duration: 500ms}\n"


def test_an_endpoint_is_driven_by_a_schedule_and_by_what_it_was_asked_before(released: Installation) -> None:
    released.write("spike.yaml", SPIKE)
    with released.up() as up:
        driven = released.done(
            "load", "late", "--rate", "100", "--duration", "2s", "--ramp", "1s", "--constant", "--data", json.dumps(ORDER)
        )  # fmt: skip
        assert driven["offered"] == driven["answered"] == 150
        assert driven["answers"]["200"]["count"] == 150
        assert driven["errors"] == {}
        assert 0 < driven["latency_ms"]["p50"] <= driven["latency_ms"]["p99"] <= driven["latency_ms"]["max"]
        assert sum(step["count"] for step in driven["histogram"]) == 150

        spiked = released.done("load", "late", "--profile", "spike.yaml", "--rows", "3")
        assert spiked["answered"] == spiked["offered"] > 200
        assert set(spiked["answers"]) <= {
            "200",
            "422",
        }  # words that a signature allows may mean nothing to it

        until(lambda: len(released("load", "late", "--replay", "--speed", "1000")["answers"]) > 0)
        replayed = released.done("load", "late", "--replay", "--speed", "10")
        assert replayed["offered"] >= 150 + 200
        assert replayed["schedule"] == {"replay": True, "speed": 10.0}
        assert replayed["answers"].get("200", {"count": 0})["count"] > 0

        people = released.process(
            "load", "late", "--rate", "50", "--duration", "1s", "--data", json.dumps(ORDER)
        )
        assert people.code == 0, people
        _refusals(released, up.data)


def _refusals(shop: Installation, data_plane: str) -> None:
    assert "not served" in shop.refused("load", "nothing", exit_code=3, code="not_found")
    assert "--token" in shop.refused("--url", data_plane, "load", "late", exit_code=2, code="invalid_input")
    assert "control plane" in shop.refused(
        "--url",
        data_plane,
        "--token",
        "taut_x",
        "load",
        "late",
        "--replay",
        exit_code=2,
        code="invalid_input",
    )
    shop.refused(
        "--url", data_plane, "--token", "taut_x", "load", "late", exit_code=4, code="unauthenticated"
    )
    assert "0 requests" in shop.refused("load", "late", "--rate", "0", exit_code=2, code="invalid_input")
    assert "leave --data" in shop.refused(
        "load", "late", "--replay", "--data", "{}", exit_code=2, code="invalid_input"
    )
    assert "connections" in shop.refused(
        "load", "late", "--connections", "0", exit_code=2, code="invalid_input"
    )


def test_where_nothing_runs_there_is_nothing_to_drive(released: Installation, tmp_path: Path) -> None:
    assert "taut up" in released.refused("load", "late", exit_code=7, code="unavailable")
    elsewhere = Installation(tmp_path)
    assert "taut up" in elsewhere.refused("load", "late", exit_code=7, code="unavailable")
    assert not elsewhere.home.exists()
    assert "--url" in released.refused(
        "--url", "127.0.0.1:1", "load", "late", exit_code=7, code="unavailable"
    )


@pytest.mark.parametrize("role", ["builder", "predictor"])
def test_a_replay_is_for_who_may_read_the_log(released: Installation, role: str) -> None:
    token = released("token", "create", "--principal", "pat", "--role", role, "--enrol", "service")["token"]
    with released.up() as up:
        message = released.refused(
            "--url", up.control, "--token", token, "load", "late", "--replay", exit_code=4, code="denied"
        )
    assert "log.read" in message or "status.read" in message
