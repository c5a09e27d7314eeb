"""What the serving benchmarks serve: one model, its bodies, installations without control, gateways, rivals on uvicorn."""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks import procs
from benchmarks.demo_run import free_port
from benchmarks.wrk import Cell

if TYPE_CHECKING:
    from taut.testing.serving import DataPlane, GatewayProcess

WIDTH: Final = 30
INFER: Final = "/v2/models/m/infer"


class Server(msgspec.Struct, frozen=True):
    """A server that listens. pid: the process at the top of its tree."""

    pid: int
    port: int

    def cell(self, path: str, body: Path, **more: Any) -> Cell:
        return Cell(self.pid, f"http://127.0.0.1:{self.port}{path}", body, **more)


@cache
def train() -> bytes:
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


@cache
def row() -> tuple[float, ...]:
    from sklearn.datasets import load_breast_cancer

    x, _ = load_breast_cancer(return_X_y=True)
    return tuple(round(float(value), 5) for value in x[0])


def v2(values: Any, rows: int) -> dict[str, Any]:
    """Return a request of the open inference protocol."""
    return {"inputs": [{"name": "input", "shape": [rows, WIDTH], "datatype": "FP32", "data": values}]}


def bodies(work: Path) -> dict[str, Path]:
    """Write the same rows in every form; return the files: `bare-1`, `v2-1`, `v1-1`, `full-1`, the same with 32."""
    one = list(row())
    made = {}
    for rows in (1, 32):
        documents = {
            "bare": {"instances": [one] * rows},
            "v2": v2(one * rows, rows),
            "v1": {"instances": [{f"x{index}": value for index, value in enumerate(one)}] * rows},
            # what a client sends that holds its rows as FP32: their numbers written out in full
            "full": v2(struct.unpack(f"<{rows * WIDTH}f", _raw(rows)), rows),
        }
        for name, document in documents.items():
            made[f"{name}-{rows}"] = work / f"{name}-{rows}.json"
            made[f"{name}-{rows}"].write_text(json.dumps(document))
    return made


def raw_body(work: Path, rows: int) -> tuple[Path, int]:
    """Return the same rows as raw tensors, answered raw, and how many bytes of the body are JSON."""
    data = _raw(rows)
    tensor = {
        "name": "input", "shape": [rows, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    path = work / f"raw-{rows}.bin"
    path.write_bytes(head + data)
    return path, len(head)


def _raw(rows: int) -> bytes:
    return struct.pack(f"<{WIDTH}f", *row()) * rows


def request(path: str, body: bytes, token: str) -> bytes:
    """Return a whole HTTP request, ready to be written."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def open_plane(home: Path) -> DataPlane:
    """Return an installation as control would leave it, without endpoints."""
    from taut.adapters.keys.file import FileKeys
    from taut.adapters.world import SystemRandom
    from taut.testing.serving import DataPlane

    home.mkdir(parents=True)
    return DataPlane(home, FileKeys(home / "keys", random=SystemRandom()))


def endpoint(plane: DataPlane, name: str, model: bytes, **more: Any) -> Any:
    """Return an endpoint over 30 columns that no quota holds up, but which takes it for each request."""
    from taut.serving.snapshot import EndpointConfig
    from taut.testing.serving import matrix_signature
    from taut.trust.quota import Limit

    served = plane.served(model, matrix_signature(WIDTH), version=f"{name}@1")
    return EndpointConfig(name=name, live=served, quota=Limit(rate_per_s=1e9, burst=1e9), **more)


def plane_of(home: Path, model: bytes, **more: Any) -> DataPlane:
    """Return an installation with one endpoint `m`."""
    plane = open_plane(home)
    plane.issue(endpoint(plane, "m", model, **more), log_key=log_key())
    return plane


def log_key() -> str:
    """Return what the prediction log is sealed to, as in every installation; nobody here reads it."""
    from taut.serving.predictions import SegmentKeys

    return SegmentKeys(lambda: (bytes(range(32)),)).public


@contextmanager
def gateway(home: Path) -> Iterator[Server]:
    """Run a gateway as `taut up` runs it."""
    from taut.testing.serving import GatewayProcess

    with GatewayProcess(home) as process:
        process.start()
        yield server_of(process)


def server_of(process: GatewayProcess) -> Server:
    assert process.process is not None
    return Server(process.process.pid, process.port)


@contextmanager
def on_uvicorn(name: str, model: Path) -> Iterator[Server]:
    """Run one of `serving_rivals`."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", f"benchmarks.serving_rivals:{name}", "--factory", "--host", "127.0.0.1",
        "--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error",
        "--lifespan", "off",
    ]  # fmt: skip
    with procs.running(
        command, env={**os.environ, "BENCH_MODEL": str(model), "ORT_DISABLE_TELEMETRY": "1"}
    ) as process:
        procs.wait_until(lambda: listens(port), name, within_s=30)
        yield Server(process.pid, port)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
