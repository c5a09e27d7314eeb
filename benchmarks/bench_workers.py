"""Models in worker processes: what the way to one costs, and what a second one brings."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import wrk
from benchmarks.planes import WIDTH, bodies, endpoint, open_plane, server_of, train

if TYPE_CHECKING:
    from benchmarks.report import Report
    from taut.testing.serving import DataPlane, GatewayProcess

REPEATS, SECONDS = 7, 1
SLOW_LAYERS = 200  # more than 10 ms a row, and batches gain nothing
BUSY_LAYERS = 240
SLO_MS = 100
OVERLOAD_S = 4
CLOSED = 12  # connections that keep a worker busy and overflow no line


def run(report: Report) -> None:
    if not wrk.installed():
        report.missing("models in workers", wrk.NO_WRK)
        return
    from taut.testing.serving import GatewayProcess

    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        plane = _plane(Path(folder) / "home")
        with GatewayProcess(plane.home) as gateway:
            gateway.start()
            _way(report, plane, gateway)
            _second(report, plane, gateway)
            _overload(report, plane, gateway)
            _neighbour(report, plane, gateway)


def _plane(home: Path) -> DataPlane:
    from taut.testing.serving import row_model, slow_model

    plane = open_plane(home)
    slow, busy = row_model(WIDTH, layers=SLOW_LAYERS), slow_model(WIDTH, layers=BUSY_LAYERS)
    plane.issue(
        endpoint(plane, "inline", train(), runtime="inline"),
        endpoint(plane, "worker", train(), runtime="worker"),
        endpoint(plane, "one", slow, runtime="worker", latency_ms=100),
        endpoint(plane, "busy", busy, runtime="worker", latency_ms=SLO_MS),
        endpoint(plane, "two", slow, runtime="worker", workers=2, latency_ms=100),
    )
    bodies(home)
    return plane


def _way(report: Report, plane: DataPlane, gateway: GatewayProcess) -> None:
    above, inline, by_worker = [], [], []
    for turn in range(REPEATS + 1):
        here = _measure(plane, gateway, "inline", connections=1)
        there = _measure(plane, gateway, "worker", connections=1)
        if turn:
            above.append(there[1] - here[1])
            inline.append(here[1])
            by_worker.append(there[1])
    report.figure(
        "a model in a worker, p50 above the same model inline", above, "µs", wanted="≤ 80",
        note=f"one connection, interleaved; p50 inline {statistics.median(inline):.0f} µs, in a worker {statistics.median(by_worker):.0f} µs",
    )  # fmt: skip


def _second(report: Report, plane: DataPlane, gateway: GatewayProcess) -> None:
    one, two, machine = [], [], []
    for turn in range(REPEATS):
        machine.append(_alone(2) / _alone(1))
        first = _measure(plane, gateway, "one", connections=8)
        second = _measure(plane, gateway, "two", connections=8)
        if turn:
            one.append(first[0])
            two.append(second[0])
    latency_ms = _measure(plane, gateway, "one", connections=1)[1] / 1e3
    report.ratio(
        "two workers against one, a slow model", two, one, "req/s", wanted="≥ 1.8", more_is_better=True,
        note=f"a model of {latency_ms:.0f} ms whose batches gain nothing, 8 connections of one row, the client on the same two "
        f"cores; two processes that do nothing but run it do {statistics.median(machine):.2f} times the work of one here",
    )  # fmt: skip


def _alone(processes: int) -> float:
    """Return how many times a second so many processes run the slow model together, with no server around it."""
    code = "import sys; from benchmarks.bench_workers import spin; spin()"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for one in running:
        assert one.stdout is not None
        one.stdout.readline()
    for one in running:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.flush()
    return sum(float(one.communicate()[0]) for one in running)


def spin() -> None:
    """Run the slow model for a second, from the moment that standard input says so, and print how often a second it ran."""
    import numpy as np

    from taut.core.ort import load_onnxruntime
    from taut.testing.serving import row_model

    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        row_model(WIDTH, layers=SLOW_LAYERS), options, providers=["CPUExecutionProvider"]
    )
    feed = {"input": np.zeros((1, WIDTH), np.float32)}
    session.run(None, feed)
    print("ready", flush=True)
    sys.stdin.readline()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        session.run(None, feed)
        done += 1
    print(done / (time.perf_counter() - began))


def _overload(report: Report, plane: DataPlane, gateway: GatewayProcess) -> None:
    """Goodput: answers within the SLO, against what the same worker answers when it always has enough to do."""
    for times in (1.3, 3.0):
        good, ideal, p99_ms, cpu_s, late_ms = [], [], [], [], []
        for turn in range(REPEATS // 2 + 1):
            capacity = _measure(plane, gateway, "busy", connections=CLOSED)[0]
            found = _open_loop(plane, gateway, "busy", rate=times * capacity, seconds=OVERLOAD_S, seed=turn)
            if turn:
                good.append(found["good"] / OVERLOAD_S)
                ideal.append(capacity)
                p99_ms.append(found["p99_us"] / 1e3)
                cpu_s.append(found["cpu_s"] / OVERLOAD_S)
                late_ms.append(found["late_us"] / 1e3)
        note = (
            f"open loop, answers within {SLO_MS} ms; capacity by {CLOSED} connections in a closed loop; the generator took "
            f"{statistics.median(cpu_s):.0%} of a core"
        )
        report.ratio(
            f"goodput at {times:g} times the capacity", good, ideal, "req/s", wanted="≥ 0.97",
            more_is_better=True, note=note,
        )  # fmt: skip
        report.figure(
            f"p99 of what is answered at {times:g} times the capacity",
            p99_ms,
            "ms",
            wanted=f"≤ {SLO_MS}",
            note=f"from the moment each was due; the generator itself sent 1% of them {statistics.median(late_ms):.1f} ms or more "
            "after it",
        )


def _neighbour(report: Report, plane: DataPlane, gateway: GatewayProcess) -> None:
    capacity = _measure(plane, gateway, "busy", connections=CLOSED)[0]
    alone, beside = [], []
    for turn in range(REPEATS):
        first = _open_loop(plane, gateway, "inline", rate=200, seconds=2, seed=turn)
        with _overloading(plane, gateway, rate=3 * capacity, seconds=3):
            second = _open_loop(plane, gateway, "inline", rate=200, seconds=2, seed=turn)
        if turn:
            alone.append(first["p50_us"])
            beside.append(second["p50_us"])
    report.ratio(
        "an endpoint's p50 while its neighbour has three times its capacity", beside, alone, "µs", wanted="≤ 1.1",
        more_is_better=True,
        note="200 req/s inline beside an overloaded worker, one gateway, two generators, two cores in all",
    )  # fmt: skip


@contextmanager
def _overloading(plane: DataPlane, gateway: GatewayProcess, *, rate: float, seconds: float) -> Iterator[None]:
    command, environment = _open_loop_command(plane, gateway, "busy", rate=rate, seconds=seconds, seed=99)
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        time.sleep(0.8)
        yield
        process.wait()


def _open_loop(plane: DataPlane, gateway: GatewayProcess, endpoint: str, **more: Any) -> dict[str, Any]:
    command, environment = _open_loop_command(plane, gateway, endpoint, **more)
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _open_loop_command(
    plane: DataPlane, gateway: GatewayProcess, endpoint: str, *, rate: float, seconds: float, seed: int
) -> tuple[list[str], dict[str, str]]:
    given = {
        "port": gateway.port, "path": f"/v2/models/{endpoint}/infer", "bearer": plane.token(ttl_s=3600),
        "body": (plane.home / "v2-1.json").read_text(), "rate": rate, "seconds": seconds, "seed": seed,
        "deadline_ms": SLO_MS,
    }  # fmt: skip
    return [sys.executable, "-m", "benchmarks.open_loop", json.dumps(given)], {**os.environ}


def _measure(
    plane: DataPlane, gateway: GatewayProcess, name: str, *, connections: int
) -> tuple[float, float]:
    """Return requests a second and the p50 in microseconds."""
    found = (
        server_of(gateway)
        .cell(
            f"/v2/models/{name}/infer", plane.home / "v2-1.json", bearer=plane.token(ttl_s=3600), connections=connections
        )
        .measure(seconds=SECONDS)
    )  # fmt: skip
    return found.per_s, found.p50_us
