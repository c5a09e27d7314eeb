"""Watching a platform that runs: figures that are right, survive control, and go with their gateway; traces; logs."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from collector import Collector
from installation import ORDER, Installation, Up, free_ports, until
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.xdist_group("watching")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PLANTED = "planted-hunter2"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().running() as running:
        yield running


@pytest.fixture(scope="module")
def up(
    released_template: Installation, tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> Iterator[Up]:
    """One running platform of two gateways for this file, which traces what asks for it."""
    shop = released_template.copy_to(tmp_path_factory.mktemp("watching") / "shop")
    shop.environ = {
        "TAUT_OTLP": collector.url, "TAUT_OTLP_RATIO": "0", "TAUT_OTLP_HEADERS": f"x-key={PLANTED}-header",
    }  # fmt: skip
    with shop.up(gateways=2) as running:
        yield running


@pytest.fixture(scope="module")
def token(up: Up) -> str:
    return up.token()


def figures(up: Up) -> dict[tuple[str, str], float]:
    """Sums of what /metrics shows, by name and gateway; without strangers, as whom admission probes gateways when it likes."""
    text = httpx.get(f"{up.control}/metrics", timeout=60.0).text
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("status") == "401":
                continue
            key = sample.name, sample.labels.get("gateway", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def requests_of(up: Up) -> dict[str, float]:
    """Requests by gateway; fails while control does not answer."""
    return {gateway: count for (name, gateway), count in figures(up).items() if name == "taut_requests_total"}


def test_every_request_is_in_the_figures_whichever_gateway_had_it(up: Up, token: str) -> None:
    before = sum(requests_of(up).values())
    statuses = [up.ask(token).status_code for _ in range(40)]
    statuses.append(up.ask("forged").status_code)
    statuses.append(up.ask(token, {**ORDER, "items": "three"}).status_code)

    assert sorted(set(statuses)) == [200, 401, 422]
    until(lambda: sum(requests_of(up).values()) == before + 41, said=lambda: str(figures(up)))
    found = figures(up)
    assert sum(v for (name, _), v in found.items() if name == "taut_request_duration_seconds_count") >= 40
    assert found["taut_ledger_leaves", ""] > 0
    assert found["taut_gateway_up", "gateway-0"] == found["taut_gateway_up", "gateway-1"] == 1


def test_figures_survive_control_and_begin_anew_with_a_gateways_process(up: Up, token: str) -> None:
    counted = sum(requests_of(up).values())
    for _ in range(20):
        assert up.ask(token).status_code == 200
    until(lambda: sum(requests_of(up).values()) == counted + 20)
    before = requests_of(up)

    up.kill("control")
    up.await_ready()
    until(lambda: shown(up) == {"gateway-0", "gateway-1"})
    assert requests_of(up) == before

    up.kill("gateway-1")
    up.await_ready()
    until(lambda: shown(up) == {"gateway-0", "gateway-1"})
    after = requests_of(up)
    assert after.get("gateway-0") == before.get("gateway-0")
    assert after.get("gateway-1", 0.0) == 0.0


def shown(up: Up) -> set[str]:
    try:
        return {gateway for (name, gateway) in figures(up) if name == "taut_gateway_start_time_seconds"}
    except httpx.TransportError:
        return set()


def test_top_shows_what_happens_now_by_gateway_and_in_all(up: Up, token: str) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.005):
            up.ask(token)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        found = up.installation.done("top", "--once", "--interval", "2")
        told = up.installation.process("top", "--once")
    finally:
        stop.set()
        asking.join()

    rows = {(row["endpoint"], row["gateway"]): row for row in found["rows"]}
    assert set(rows) == {("late", "all"), ("late", "gateway-0"), ("late", "gateway-1")}
    whole = rows["late", "all"]
    assert whole["requests_per_s"] > 0
    assert 0 < whole["p50_ms"] <= whole["p99_ms"]
    assert whole["guard_us"] > 0
    assert (whole["version"], whole["errors_per_s"]) == ("late@1", 0)
    assert [one["ready"] for one in found["gateways"]] == [True, True]
    assert told.code == 0


def test_a_service_has_a_page_with_its_traffic_promises_and_changes(up: Up, token: str) -> None:
    def events() -> int:
        (found,) = up.installation("slo", "show", "late")["objectives"]
        return int(found["budget"]["events"])

    before = events()
    for _ in range(10):
        assert up.ask(token).status_code == 200
    until(lambda: events() >= before + 10, said=lambda: str(events()))
    page = up.installation("status", "late")

    assert (page["live"]["version"], page["release"], page["frozen"]) == ("late@1", None, [])
    (promise,) = page["objectives"]
    assert promise["promise"] == "95% of answers within 20 ms"
    assert page["traffic"]["requests_per_s"] > 0
    assert [(one["version"], one["strategy"], one["state"]) for one in page["changes"]] == [
        ("late@1", "direct", "live")
    ]
    assert page["alerts"] is not None
    text = httpx.get(f"{up.control}/metrics", timeout=60.0).text
    assert 'taut_slo_target{endpoint="late",objective="latency"} 0.95' in text


def test_quota_shows_what_each_gateway_may_let_pass(up: Up, token: str) -> None:
    def lent() -> bool:
        found = up.installation("quota")
        held = {one["gateway"]: one["share"] for one in found["gateways"]}
        return held == {"gateway-0": 0.5, "gateway-1": 0.5} and not found["trouble"]

    assert up.ask(token).status_code == 200
    until(lent)

    assert [one["endpoint"] for one in up.installation("quota")["limits"]] == ["late"]


def test_a_request_of_a_trace_arrives_at_the_collector_with_its_stages(
    up: Up, token: str, collector: Collector
) -> None:
    def mine() -> list[dict[str, Any]]:
        return [span for span in collector.spans() if span["traceId"] == TRACE]

    headers = {"authorization": f"Bearer {token}", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = httpx.post(
        f"{up.data}/v1/predict/late", json={"instances": [ORDER]}, headers=headers, timeout=60.0
    )
    unsampled = {**headers, "traceparent": f"00-{'1' * 32}-{SPAN}-00"}
    httpx.post(f"{up.data}/v1/predict/late", json={"instances": [ORDER]}, headers=unsampled, timeout=60.0)
    until(lambda: len(mine()) >= 5, said=lambda: str(collector.requests))

    own, *stages = mine()
    path, sent, _ = collector.requests[-1]
    assert (path, sent["content-type"], sent["x-key"]) == (
        "/v1/traces",
        "application/json",
        f"{PLANTED}-header",
    )
    assert own["parentSpanId"] == SPAN
    assert own["name"] == "POST /v1/predict/{endpoint}"
    said = {one["key"]: one["value"] for one in own["attributes"]}
    assert said["taut.request_id"]["stringValue"] == answer.headers["taut-request-id"]
    assert said["http.response.status_code"]["intValue"] == "200"
    assert [stage["name"] for stage in stages][:2] == ["guard", "decode"]
    assert {stage["parentSpanId"] for stage in stages} == {own["spanId"]}
    assert int(own["startTimeUnixNano"]) <= int(stages[0]["startTimeUnixNano"])
    assert int(stages[-1]["endTimeUnixNano"]) <= int(own["endTimeUnixNano"])
    assert not [span for span in collector.spans() if span["traceId"] == "1" * 32]
    until(lambda: figures(up).get(("taut_trace_spans_total", "gateway-0"), 0.0)
          + figures(up).get(("taut_trace_spans_total", "gateway-1"), 0.0) >= 5)  # fmt: skip


def test_logs_are_lines_of_json_that_hold_no_secret_and_no_body(up: Up, token: str) -> None:
    order = {**ORDER, "carrier": f"{PLANTED}-carrier"}
    up.ask(token, order)
    up.ask(f"{PLANTED}-bearer", order)
    httpx.post(f"{up.data}/v1/predict/late", content=f'{{"{PLANTED}-broken'.encode(), timeout=60.0)
    httpx.post(
        f"{up.control}/api/v1/status/show",
        json={PLANTED: PLANTED},
        headers={"authorization": PLANTED},
        timeout=60.0,
    )
    up.kill("gateway-0")
    up.await_ready()

    logs = {path.name: path.read_text() for path in (up.installation.home / "log").glob("*.log")}
    lines = {name: [json.loads(line) for line in text.splitlines()] for name, text in logs.items()}
    assert {"control.log", "gateway-0.log", "gateway-1.log", "grpc-0.log", "supervisor.log"} <= set(lines)
    for name in lines:
        assert lines[name] or name == "gateway-zygote.log", name  # it says nothing as long as it can fork
        for line in lines[name]:
            assert {"time", "level", "process", "event"} <= set(line), line
    events = [line["event"] for line in lines["supervisor.log"]]
    assert {"listening", "started", "ready", "all-ready", "exited"} <= set(events)
    for name, text in {**logs, "up.log": (up.installation.folder / "up.log").read_text()}.items():
        assert PLANTED not in text, name
        assert token not in text, name


def test_without_a_platform_top_says_so_and_starts_nothing(released: Installation, tmp_path: Path) -> None:
    message = released.refused("top", exit_code=7, code="unavailable")
    assert "taut up" in message
    nowhere = Installation(tmp_path)
    assert "taut up" in nowhere.refused("top", "--once", exit_code=7, code="unavailable")
    assert not nowhere.home.exists()


def test_wrong_settings_of_traces_are_said_before_anything_starts(released: Installation) -> None:
    released.environ = {"TAUT_OTLP": "localhost:4318"}
    told = released.process("up", "--port", str(free_ports()))

    assert (told.code, told.error[0]) == (2, "invalid_input")
    assert "TAUT_OTLP" in told.error[1]


def test_top_in_a_terminal_draws_until_it_is_interrupted(up: Up) -> None:
    import os
    import pty
    import select
    import subprocess
    import sys
    import time

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "taut.entrypoints.cli", "top", "--interval", "1"],
        cwd=up.installation.folder, env={**up.installation.whole_environ(), "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown, deadline_s = b"", time.monotonic() + 90
    try:
        while any(word not in shown for word in (b"guard", b"late@1", b"2 of 2 gateways ready")):
            assert time.monotonic() < deadline_s, shown[-3000:]
            if select.select([leader], [], [], 0.2)[0]:
                shown += os.read(leader, 65_536)
        process.send_signal(signal.SIGINT)
        while process.poll() is None and time.monotonic() < deadline_s:
            if select.select([leader], [], [], 0.1)[0]:
                try:
                    shown += os.read(leader, 65_536)
                except OSError:
                    break
        assert process.wait(timeout=90) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
