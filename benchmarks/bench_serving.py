"""Serving: the guarded gateway against unguarded servers with the same model, and what the guard itself costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.report import Report

WIDTH, CONNECTIONS, SECONDS, REPEATS = 30, 16, 2, 5
_SCRIPT = """
local f = io.open(os.getenv("BODY"), "rb"); wrk.method = "POST"; wrk.body = f:read("*a"); f:close()
wrk.headers["Content-Type"] = "application/json"
if os.getenv("JSON_BYTES") then wrk.headers["Inference-Header-Content-Length"] = os.getenv("JSON_BYTES") end
if os.getenv("BEARER") then wrk.headers["Authorization"] = "Bearer " .. os.getenv("BEARER") end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format("RESULT %d %d %d\\n", s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        model = _train()
        (work / "model.onnx").write_bytes(model)
        _guard(report, work, model)
        _start_up(report, work, model)
        if shutil.which("wrk") is None:
            report.missing("gateway against the raw ASGI floor", "wrk is not installed (apt-get install wrk)")
            return
        _over_http(report, work, model)


def _train() -> bytes:
    """Return the classifier that all peers were measured with: 100 trees of depth 3 over 30 columns."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = load_breast_cancer(return_X_y=True)
    fitted = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=0).fit(x, y)
    made: bytes = to_onnx(
        fitted,
        initial_types=[("input", FloatTensorType([None, WIDTH]))],
        options={id(fitted): {"zipmap": False}},
        target_opset=17,
    ).SerializeToString()
    return made


def _row() -> list[float]:
    from sklearn.datasets import load_breast_cancer

    x, _ = load_breast_cancer(return_X_y=True)
    return [round(float(value), 5) for value in x[0]]


def _bodies(work: Path) -> dict[str, Path]:
    row = _row()
    made = {}
    for rows in (1, 32):
        bare = {"instances": [row] * rows}
        v2 = {"inputs": [{"name": "input", "shape": [rows, WIDTH], "datatype": "FP32", "data": row * rows}]}
        v1 = {"instances": [{f"x{index}": value for index, value in enumerate(row)}] * rows}
        for name, document in (("bare", bare), ("v2", v2), ("v1", v1)):
            made[f"{name}-{rows}"] = work / f"{name}-{rows}.json"
            made[f"{name}-{rows}"].write_text(json.dumps(document))
        # what a client sends that holds its rows as FP32: their numbers written out in full
        full = {**v2["inputs"][0], "data": struct.unpack(f"<{rows * WIDTH}f", _raw(row, rows))}
        made[f"full-{rows}"] = work / f"full-{rows}.json"
        made[f"full-{rows}"].write_text(json.dumps({"inputs": [full]}))
    return made


def _raw(row: list[float], rows: int) -> bytes:
    return struct.pack(f"<{len(row)}f", *row) * rows


def _raw_body(work: Path, rows: int) -> tuple[Path, int]:
    """Return the same rows as raw tensors, answered raw, and how many bytes of the body are JSON."""
    data = _raw(_row(), rows)
    tensor = {
        "name": "input", "shape": [rows, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    path = work / f"raw-{rows}.bin"
    path.write_bytes(head + data)
    return path, len(head)


def _plane(home: Path, model: bytes, **endpoint: Any) -> Any:
    from taut.adapters.keys.file import FileKeys
    from taut.adapters.world import SystemRandom
    from taut.serving.snapshot import EndpointConfig
    from taut.testing.serving import DataPlane, matrix_signature
    from taut.trust.quota import Limit

    home.mkdir(parents=True)
    plane = DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))
    served = plane.served(model, matrix_signature(WIDTH), version="m@1")
    plane.issue(EndpointConfig(name="m", live=served, quota=Limit(rate_per_s=1e9, burst=1e9), **endpoint))
    return plane


def _guard(report: Report, work: Path, model: bytes) -> None:
    """The core with and without its guards, alternately in one process."""
    from taut.adapters.world import SystemRandom
    from taut.serving.gateway import compile_snapshot
    from taut.serving.gateway.answers import render
    from taut.serving.snapshot import open_snapshot
    from taut.testing.serving import open_gateway

    plane = _plane(work / "core", model)
    body = _bodies(work)["v2-1"].read_bytes()
    with open_gateway(plane.home, SystemRandom(), segment_bytes=32 * 2**20) as gateway:
        snapshot = open_snapshot(plane.store.newest(), plane.trust.read())
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

    plane = _plane(work / "start", model)
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
    bodies = _bodies(work)
    script = work / "post.lua"
    script.write_text(_SCRIPT)
    plane = _plane(work / "http", model)
    safe = _plane(work / "safe", model, audit="power-safe")
    with ExitStack() as stack:
        bare = stack.enter_context(_rival("bare", work))
        fast = stack.enter_context(_rival("fast", work))
        ours = stack.enter_context(_gateway(plane.home))
        durable = stack.enter_context(_gateway(safe.home))
        cells = {
            "bare 1": _Cell(script, bare, "/predict", bodies["bare-1"]),
            "taut 1": _Cell(
                script, ours, "/v2/models/m/infer", bodies["v2-1"], bearer=plane.token(ttl_s=3600)
            ),
            "taut v1 1": _Cell(script, ours, "/v1/predict/m", bodies["v1-1"], bearer=plane.token(ttl_s=3600)),
            "fast 1": _Cell(script, fast, "/predict", bodies["bare-1"]),
            "bare 32": _Cell(script, bare, "/predict", bodies["bare-32"]),
            "taut 32": _Cell(
                script, ours, "/v2/models/m/infer", bodies["v2-32"], bearer=plane.token(ttl_s=3600)
            ),
            "taut v1 32": _Cell(
                script, ours, "/v1/predict/m", bodies["v1-32"], bearer=plane.token(ttl_s=3600)
            ),
            "taut full 32": _Cell(
                script, ours, "/v2/models/m/infer", bodies["full-32"], bearer=plane.token(ttl_s=3600)
            ),
            "taut raw 32": _Cell(
                script, ours, "/v2/models/m/infer", *_raw_body(work, 32), bearer=plane.token(ttl_s=3600)
            ),
            "safe 1": _Cell(
                script, durable, "/v2/models/m/infer", bodies["v2-1"], bearer=safe.token(ttl_s=3600)
            ),
        }
        for cell in cells.values():
            cell.measure(seconds=1)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in cells}
        for _ in range(REPEATS):
            for name, cell in cells.items():
                found[name].append(cell.measure(seconds=SECONDS))
    rate = {name: [per_s for per_s, _ in pairs] for name, pairs in found.items()}
    cpu = {name: [us for _, us in pairs] for name, pairs in found.items()}
    for name, ours_, theirs, wanted in (
        ("gateway, one row, all guards, against the raw ASGI floor", "taut 1", "bare 1", "≥ 0.6"),
        ("the same by /v1/predict with named columns", "taut v1 1", "bare 1", "≥ 0.6"),
        ("gateway, 32 rows, against the raw ASGI floor", "taut 32", "bare 32", "≥ 0.75"),
        ("gateway, one row, all guards, against unguarded FastAPI", "taut 1", "fast 1", "≥ 2"),
        (
            "raw tensors, 32 rows, against JSON with numbers written in full",
            "taut raw 32",
            "taut full 32",
            "≥ 2",
        ),
        ("the same against JSON with 5 decimals", "taut raw 32", "taut 32", ""),
        ("the same against /v1/predict with named columns", "taut raw 32", "taut v1 32", ""),
    ):
        note = f"{CONNECTIONS} connections, one process each, wrk; CPU {_middle(cpu[ours_]):.0f} and {_middle(cpu[theirs]):.0f} µs a request"
        report.ratio(name, rate[ours_], rate[theirs], "req/s", wanted=wanted, note=note, more_is_better=True)
    report.figure(
        "gateway, one row, audit power-safe", rate["safe 1"], "req/s", note="each answer waits for the disk"
    )


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


class _Cell:
    """One server with one body."""

    def __init__(
        self,
        script: Path,
        server: tuple[int, int],
        path: str,
        body: Path,
        json_bytes: int = 0,
        bearer: str = "",
    ) -> None:
        self._pid, port = server
        self._command = [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}{path}",
        ]
        self._environment = {
            "BODY": str(body),
            "PATH": os.environ["PATH"],
            **({"BEARER": bearer} if bearer else {}),
            **({"JSON_BYTES": str(json_bytes)} if json_bytes else {}),
        }

    def measure(self, *, seconds: int) -> tuple[float, float]:
        """Return requests a second and the server's CPU microseconds a request."""
        before = _cpu_s(self._pid)
        command = [*self._command[:3], f"-d{seconds}s", *self._command[3:]]
        said = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=True
        ).stdout
        used = _cpu_s(self._pid) - before
        match = re.search(r"RESULT (\d+) (\d+) (\d+)", said)
        assert match is not None, said
        requests, microseconds, errors = map(int, match.groups())
        assert errors == 0, f"{errors} requests failed: {said}"
        return requests / microseconds * 1e6, used / requests * 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _rival(name: str, work: Path) -> Iterator[tuple[int, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.serving_rivals:{name}", "--factory", "--host", "127.0.0.1",
        "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error",
        "--lifespan", "off",
    ]  # fmt: skip
    environment = {**os.environ, "BENCH_MODEL": str(work / "model.onnx")}
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, f"{name} did not start"
                time.sleep(0.05)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


@contextmanager
def _gateway(home: Path) -> Iterator[tuple[int, int]]:
    from taut.testing.serving import GatewayProcess

    with GatewayProcess(home) as gateway:
        gateway.start()
        assert gateway.process is not None
        yield gateway.process.pid, gateway.port
