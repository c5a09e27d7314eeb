"""Figures and traces of models in worker processes, of a real gateway: its line, its batches, its waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import msgspec
import pytest
from installation import until

from taut.entrypoints.metrics import gateway_families
from taut.serving.meters import MeterReading, decode_reading
from taut.serving.snapshot import Publisher
from taut.testing.serving import DataPlane, GatewayProcess

ROW = {"x0": 0.5, "x1": 0.25, "x2": -0.25}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def collector(spans: list[dict[str, Any]]) -> Iterator[str]:
    """A collector that keeps what it gets, and is away for the first delivery."""
    away = iter((503, 200))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
            status = next(away, 200)
            if status == 200:
                for resource in document["resourceSpans"]:
                    spans.extend(resource["scopeSpans"][0]["spans"])
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_workers_are_in_the_figures_and_a_stream_is_traced_part_by_part(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[dict[str, Any]] = []
    plane.issue(plane.endpoint(runtime="worker", workers=2))
    headers = {"authorization": f"Bearer {plane.token()}"}
    with (
        collector(spans) as url,
        Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher,
        GatewayProcess(plane.home) as gateway,
    ):
        monkeypatch.setenv("TAUT_OTLP", url)
        monkeypatch.setenv("TAUT_OTLP_RATIO", "0")
        gateway.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}", headers=headers, timeout=60) as client:

            def ask(number: int) -> int:
                return client.post(
                    "/v1/predict/delay", json={"instances": [ROW] * (1 + number % 3)}
                ).status_code

            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(ask, range(60))) == {200}
            said = client.post(
                "/v1/predict/delay", json={"instances": [ROW] * 3},
                headers={"accept": "text/event-stream", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
            )  # fmt: skip
            assert (said.status_code, said.text.count('"predictions"')) == (200, 3)

            def reading() -> MeterReading | None:
                beats = [state.beat for state in publisher.gateways() if state.beat is not None]
                return decode_reading(beats[0].meters) if beats else None

            def told() -> bool:
                found = reading()
                return found is not None and found.traces is not None and found.traces.exported >= 9

            until(told, said=lambda: f"{reading()} {spans}")
        found = reading()
        families = gateway_families(publisher.gateways(), now_s=0.0)

    assert found is not None
    assert 0 < found.cpu_us < 600 * 10**6
    assert 2**20 < found.resident_bytes < 2**36
    (endpoint,), (lane,) = found.endpoints, found.lanes
    counts = {stage: times.count for stage, times in endpoint.stages.items()}
    assert counts == {"guard": 63, "queue": 63, "model": 63, "total": 63}
    totals = {stage: times.total for stage, times in endpoint.stages.items()}
    assert totals["guard"] + totals["queue"] + totals["model"] <= totals["total"]
    assert (lane.endpoints, lane.version, lane.workers, lane.wanted) == ("delay", "delay@1", 2, 2)
    assert lane.batch_rows.total == 120 + 3
    assert 1 <= lane.batch_rows.count <= 63
    assert {sample.name for family in families for sample in family.samples} >= {
        "taut_workers",
        "taut_batch_rows_sum",
    }
    _check_parts([span for span in spans if span["traceId"] == TRACE])


def _check_parts(spans: list[dict[str, Any]]) -> None:
    """Three parts under the caller's span, each with stages that lie within it, one after the other."""
    parts = [span for span in spans if span["parentSpanId"] == "00f067aa0ba902b7"]
    assert len(parts) == 3
    for number, part in enumerate(parts):
        stages = [span for span in spans if span["parentSpanId"] == part["spanId"]]
        names = [span["name"] for span in stages if span["name"] != "queue"]
        assert names == (["guard", "decode"] if number == 0 else []) + ["model", "answer"]
        times = [int(span[f"{edge}TimeUnixNano"]) for span in stages for edge in ("start", "end")]
        assert times == sorted(times)
        assert int(part["startTimeUnixNano"]) <= times[0]
        assert times[-1] <= int(part["endTimeUnixNano"])
