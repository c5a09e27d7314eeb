"""Models in worker processes: what the way to one costs, and what a second one brings."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench_serving import WIDTH, _row, _train

if TYPE_CHECKING:
    from benchmarks.report import Report
    from taut.testing.serving import DataPlane, GatewayProcess

REPEATS, SECONDS = 7, 1
SLOW_LAYERS = 120  # several ms a row
BUSY_LAYERS = 240
SLO_MS = 100
OVERLOAD_S = 4
CLOSED = 12  # connections that keep a worker busy and overflow no line
_SCRIPT = """
local f = io.open(os.getenv("BODY"), "rb"); wrk.method = "POST"; wrk.body = f:read("*a"); f:close()
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BEARER")
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("RESULT %d %d %d %d\\n", s.requests, s.duration, l:percentile(50), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def run(report: Report) -> None:
    if shutil.which("wrk") is None:
        report.missing("models in workers", "wrk is not installed (apt-get install wrk)")
        return
    from taut.testing.serving import GatewayProcess

    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        plane = _plane(Path(folder) / "home")
        script = Path(folder) / "post.lua"
        script.write_text(_SCRIPT)
        with GatewayProcess(plane.home) as gateway:
            gateway.start()
            _way(report, plane, gateway, script)
            _second(report, plane, gateway, script)
            _overload(report, plane, gateway, script)
            _neighbour(report, plane, gateway, script)


def _plane(home: Path) -> DataPlane:
    from taut.adapters.keys.file import FileKeys
    from taut.adapters.world import SystemRandom
    from taut.serving.snapshot import EndpointConfig
    from taut.testing.serving import DataPlane, matrix_signature, slow_model
    from taut.trust.quota import Limit

    home.mkdir()
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    quick = plane.served(_train(), matrix_signature(WIDTH), version="quick@1")
    slow = plane.served(slow_model(WIDTH, layers=SLOW_LAYERS), matrix_signature(WIDTH), version="slow@1")
    busy = plane.served(slow_model(WIDTH, layers=BUSY_LAYERS), matrix_signature(WIDTH), version="busy@1")
    quota = Limit(rate_per_s=1e9, burst=1e9)
    plane.issue(
        EndpointConfig(name="inline", live=quick, quota=quota, runtime="inline"),
        EndpointConfig(name="worker", live=quick, quota=quota, runtime="worker"),
        EndpointConfig(name="one", live=slow, quota=quota, runtime="worker", workers=1, latency_ms=50),
        EndpointConfig(name="busy", live=busy, quota=quota, runtime="worker", workers=1, latency_ms=SLO_MS),
        EndpointConfig(name="two", live=slow, quota=quota, runtime="worker", workers=2, latency_ms=50),
    )
    row = _row()
    for rows in (1, 8):
        tensor = {"name": "input", "shape": [rows, WIDTH], "datatype": "FP32", "data": row * rows}
        (home / f"body-{rows}.json").write_text(json.dumps({"inputs": [tensor]}))
    return plane


def _way(report: Report, plane: DataPlane, gateway: GatewayProcess, script: Path) -> None:
    above, inline, by_worker = [], [], []
    for turn in range(REPEATS + 1):
        here = _measure(plane, gateway, script, "inline", connections=1)
        there = _measure(plane, gateway, script, "worker", connections=1)
        if turn:
            above.append(there[1] - here[1])
            inline.append(here[1])
            by_worker.append(there[1])
    report.figure(
        "a model in a worker, p50 above the same model inline", above, "µs", wanted="≤ 80",
        note=f"one connection, interleaved; p50 inline {_middle(inline):.0f} µs, in a worker {_middle(by_worker):.0f} µs",
    )  # fmt: skip


def _second(report: Report, plane: DataPlane, gateway: GatewayProcess, script: Path) -> None:
    one, two = [], []
    for turn in range(REPEATS):
        first = _measure(plane, gateway, script, "one", connections=8)
        second = _measure(plane, gateway, script, "two", connections=8)
        if turn:
            one.append(first[0])
            two.append(second[0])
    latency_ms = _measure(plane, gateway, script, "one", connections=1)[1] / 1e3
    report.ratio(
        "two workers against one, a slow model", two, one, "req/s", wanted="≥ 1.8", more_is_better=True,
        note=f"a model of {latency_ms:.0f} ms, 8 connections of one row, two cores with the client on them",
    )  # fmt: skip


def _overload(report: Report, plane: DataPlane, gateway: GatewayProcess, script: Path) -> None:
    """Goodput: answers within the SLO, against what the same worker answers when it always has enough to do."""
    for times in (1.3, 3.0):
        good, ideal, p99_ms, cpu_s = [], [], [], []
        for turn in range(REPEATS // 2 + 1):
            capacity = _measure(plane, gateway, script, "busy", connections=CLOSED)[0]
            found = _open_loop(plane, gateway, "busy", rate=times * capacity, seconds=OVERLOAD_S, seed=turn)
            if turn:
                good.append(found["good"] / OVERLOAD_S)
                ideal.append(capacity)
                p99_ms.append(found["p99_us"] / 1e3)
                cpu_s.append(found["cpu_s"] / OVERLOAD_S)
        note = (
            f"open loop, answers within {SLO_MS} ms; capacity by {CLOSED} connections in a closed loop; the generator took "
            f"{_middle(cpu_s):.0%} of a core"
        )
        report.ratio(
            f"goodput at {times:g} times the capacity", good, ideal, "req/s", wanted="≥ 0.97",
            more_is_better=True, note=note,
        )  # fmt: skip
        report.figure(
            f"p99 of what is answered at {times:g} times the capacity", p99_ms, "ms", wanted=f"≤ {SLO_MS}"
        )


def _neighbour(report: Report, plane: DataPlane, gateway: GatewayProcess, script: Path) -> None:
    capacity = _measure(plane, gateway, script, "busy", connections=CLOSED)[0]
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
        "body": (plane.home / "body-1.json").read_text(), "rate": rate, "seconds": seconds, "seed": seed,
        "deadline_ms": SLO_MS,
    }  # fmt: skip
    return [sys.executable, "-m", "benchmarks.open_loop", json.dumps(given)], {**os.environ}


def _measure(
    plane: DataPlane, gateway: GatewayProcess, script: Path, endpoint: str, *, connections: int
) -> tuple[float, float]:
    """Return requests a second and the p50 in microseconds."""
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(script),
        f"http://127.0.0.1:{gateway.port}/v2/models/{endpoint}/infer",
    ]  # fmt: skip
    environment = {
        "BODY": str(plane.home / "body-1.json"), "PATH": os.environ["PATH"], "BEARER": plane.token(ttl_s=3600),
    }  # fmt: skip
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", said)
    assert match is not None, said
    requests, microseconds, p50, errors = map(int, match.groups())
    assert errors == 0, f"{errors} requests failed: {said}"
    return requests / microseconds * 1e6, p50


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
