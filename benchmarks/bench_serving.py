"""Serving: the guarded gateway against the raw server under it with the same model, and what the guard itself costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import wrk
from benchmarks.planes import INFER, WIDTH, Server, bodies, gateway, on_uvicorn, plane_of, raw_body, train
from benchmarks.wrk import CONNECTIONS, Cell, in_turn, middle, rates

if TYPE_CHECKING:
    from benchmarks.report import Report

SECONDS, REPEATS = 2, 5
# name, whose figure is told, against which, what is wanted
RATIOS: Final = (
    ("gateway, one row, all guards, against the raw ASGI floor", "taut 1", "bare 1", "≥ 0.6"),
    ("the same by /v1/predict with named columns", "taut v1 1", "bare 1", "≥ 0.6"),
    ("gateway, 32 rows, against the raw ASGI floor", "taut 32", "bare 32", "≥ 0.75"),
    ("raw tensors, 32 rows, against JSON with numbers written in full", "taut raw 32", "taut full 32", "≥ 2"),
    ("the same against JSON with 5 decimals", "taut raw 32", "taut 32", ""),
    ("the same against /v1/predict with named columns", "taut raw 32", "taut v1 32", ""),
)


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        model = train()
        (work / "model.onnx").write_bytes(model)
        _guard(report, work, model)
        _start_up(report, work, model)
        if wrk.installed():
            _over_http(report, work, model)
        else:
            report.missing("gateway against the raw ASGI floor", wrk.NO_WRK)


def _guard(report: Report, work: Path, model: bytes) -> None:
    """The core with and without its guards, alternately in one process."""
    from taut.adapters.world import SystemRandom
    from taut.serving.gateway import compile_snapshot
    from taut.serving.gateway.answers import render
    from taut.serving.snapshot import open_snapshot
    from taut.testing.serving import open_gateway

    plane = plane_of(work / "core", model)
    body = bodies(work)["v2-1"].read_bytes()
    with open_gateway(plane.home, SystemRandom(), segment_bytes=32 * 2**20) as gateway:
        signed = plane.store.newest()
        assert signed is not None
        snapshot = open_snapshot(signed, plane.trust.read())
        gateway.install(compile_snapshot(snapshot, home=plane.home, before=None))
        assert gateway.active is not None
        endpoint = gateway.active.endpoints["m"]
        headers = [
            (b"host", b"127.0.0.1"), (b"content-type", b"application/json"),
            (b"authorization", b"Bearer " + plane.token(ttl_s=3600).encode()),
        ]  # fmt: skip

        def guarded() -> None:
            gateway.answer("POST", "/v2/models/m/infer", headers, body)

        def unguarded() -> None:
            request = endpoint.tensors.decode(body)
            outputs = endpoint.live.score(request.batch, ())
            render("v2", endpoint, endpoint.live.served, outputs, "", request.id, request.outputs)

        pairs = [(_time_us(guarded), _time_us(unguarded)) for _ in range(15)]
    report.figure(
        "guards a one-row request, all of them on", [on - off for on, off in pairs], "µs", wanted="≤ 12",
        note="CPU of identity, policy, quota, headers, deadline, response head and prediction-log record",
    )  # fmt: skip


def _time_us(action: Callable[[], None], calls: int = 2000) -> float:
    start = time.process_time()
    for _ in range(calls):
        action()
    return (time.process_time() - start) / calls * 1e6


def _start_up(report: Report, work: Path, model: bytes) -> None:
    """How long a gateway takes to be ready, and a push to be served."""
    from taut.serving.snapshot import Publisher
    from taut.testing.serving import GatewayProcess

    plane = plane_of(work / "start", model)
    ready_s, pushed_ms = [], []
    for _ in range(3):
        with GatewayProcess(plane.home) as gateway:
            start = time.perf_counter()
            gateway.start()
            ready_s.append(time.perf_counter() - start)
            with Publisher(plane.store, plane.home / "run" / "stream.sock") as publisher:
                while not publisher.gateways():
                    time.sleep(0.01)
                for version in range(5):
                    endpoint = plane.endpoint(width=WIDTH, name=f"e{version}")
                    statement = plane.sign(plane.snapshot(endpoint))
                    start = time.perf_counter()
                    snapshot = publisher.publish(statement)
                    publisher.wait(snapshot.epoch, timeout_s=5)
                    pushed_ms.append((time.perf_counter() - start) * 1e3)
    report.figure("gateway process from start to ready", ready_s, "s", wanted="≤ 3 for the whole platform")
    report.figure("a new epoch from publish to served", pushed_ms, "ms", wanted="≤ 1000, aim 50")


def _over_http(report: Report, work: Path, model: bytes) -> None:
    plane = plane_of(work / "http", model)
    safe = plane_of(work / "safe", model, audit="power-safe")
    with (
        on_uvicorn("bare", work / "model.onnx") as bare,
        gateway(plane.home) as ours,
        gateway(safe.home) as durable,
    ):
        cells = _cells(work, bare, ours, {"bearer": plane.token(ttl_s=3600)})
        cells["safe 1"] = durable.cell(INFER, bodies(work)["v2-1"], bearer=safe.token(ttl_s=3600))
        found = in_turn(cells, repeats=REPEATS, seconds=SECONDS)
    for name, one, other, wanted in RATIOS:
        mine, theirs = found[one], found[other]
        note = (
            f"{CONNECTIONS} connections, one process each, wrk; CPU {middle(mine, 'cpu_us'):.0f} and "
            f"{middle(theirs, 'cpu_us'):.0f} µs a request, p50 {middle(mine, 'p50_us'):.0f} and {middle(theirs, 'p50_us'):.0f} µs"
        )
        report.ratio(name, rates(mine), rates(theirs), "req/s", wanted=wanted, note=note, more_is_better=True)
    report.figure(
        "gateway, one row, audit power-safe", rates(found["safe 1"]), "req/s",
        note=f"each answer waits for the disk; CPU {middle(found['safe 1'], 'cpu_us'):.0f} µs a request",
    )  # fmt: skip


def _cells(work: Path, bare: Server, ours: Server, given: dict[str, Any]) -> dict[str, Cell]:
    files, (raw, json_bytes) = bodies(work), raw_body(work, 32)
    return {
        "bare 1": bare.cell("/predict", files["bare-1"]),
        "taut 1": ours.cell(INFER, files["v2-1"], **given),
        "taut v1 1": ours.cell("/v1/predict/m", files["v1-1"], **given),
        "bare 32": bare.cell("/predict", files["bare-32"]),
        "taut 32": ours.cell(INFER, files["v2-32"], **given),
        "taut v1 32": ours.cell("/v1/predict/m", files["v1-32"], **given),
        "taut full 32": ours.cell(INFER, files["full-32"], **given),
        "taut raw 32": ours.cell(INFER, raw, json_bytes=json_bytes, **given),
    }
