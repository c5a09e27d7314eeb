"""What the guards cost where a model takes its time: one gateway with its guards and without, request beside request.

A model of about 5 ms, in a worker process, as it runs by default. The gateway's process (`guards_main`) has two doors: behind
one is the product's own core; behind the other nothing guards: no identity, policy, quota, freshness of the snapshot, check
of headers, deadline of the caller's, request id, meters, prediction-log record, nor any of the headers that tell of them.
What stays at both, since without it nothing would be served: the HTTP limits of the protocol, decoding against the signature,
the queue and the worker with its time limit, and the check of the model's answer. So "off" is what a careful server without
governance would do, no less. Loop, worker and memory are the same for both, so that nothing else differs.

One client with a connection to each door asks blocks of requests in turn, in the order on, off, off, on; a ratio is of two
neighbouring blocks. CPU is of the gateway with its worker, to the microsecond. Intervals come from drawing pairs of blocks
anew (bootstrap), since requests within a block are no independent samples.
"""

from __future__ import annotations

import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks import procs
from benchmarks.planes import INFER, WIDTH, bodies, endpoint, log_key, open_plane, request

if TYPE_CHECKING:
    from benchmarks.report import Report

PAIRS, BLOCK, MODEL_MS = 800, 5, 5.0
DRAWS: Final = 2000


class Block(msgspec.Struct, frozen=True):
    """One block of requests. us: how long each took. cpu_us: of the whole server, a request."""

    us: list[float]
    cpu_us: float

    @property
    def p50_us(self) -> float:
        return statistics.median(self.us)


def run(report: Report) -> None:
    from taut.testing.serving import slow_model

    layers = _layers()
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work, model = Path(folder), slow_model(WIDTH, layers=layers)
        body, plane = bodies(work)["v2-1"].read_bytes(), open_plane(work / "home")
        plane.issue(
            endpoint(plane, "m", model), endpoint(plane, "safe", model, audit="power-safe"), log_key=log_key()
        )
        token = plane.token(ttl_s=7200)
        with (
            _gateway(plane.home) as (pid, on_port, off_port),
            _connected(on_port) as on,
            _connected(off_port) as off,
        ):
            pids = procs.tree(pid)
            plain, safe = request(INFER, body, token), request("/v2/models/safe/infer", body, token)
            arms: dict[str, Callable[[], Any]] = {
                "on": lambda: _block(pids, on, plain),
                "off": lambda: _block(pids, off, plain),
                "power-safe": lambda: _block(pids, on, safe),
            }
            for arm in arms.values():
                arm()
            pairs = [_pair(arms, turn) for turn in range(PAIRS)]
            durable = [arms["power-safe"]() for _ in range(PAIRS // 8)]
    _tell(report, pairs, durable)


def _layers() -> int:
    """Return how many layers make a model of 5 ms here."""
    import numpy as np

    from taut.core.ort import load_onnxruntime, session_options
    from taut.testing.serving import slow_model

    session = load_onnxruntime().InferenceSession(slow_model(WIDTH, layers=100), session_options())
    feed = {"input": np.zeros((1, WIDTH), dtype=np.float32)}
    took_ms = []
    for _ in range(40):
        start = time.perf_counter()
        session.run(None, feed)
        took_ms.append((time.perf_counter() - start) * 1e3)
    return max(1, round(100 * MODEL_MS / statistics.median(took_ms)))


def _pair(arms: dict[str, Callable[[], Block]], turn: int) -> tuple[Block, Block]:
    if turn % 2:
        off = arms["off"]()
        return arms["on"](), off
    return arms["on"](), arms["off"]()


def _tell(report: Report, pairs: Sequence[tuple[Block, Block]], safe: Sequence[Block]) -> None:
    p50 = [on.p50_us / off.p50_us for on, off in pairs]
    cpu = [on.cpu_us / off.cpu_us for on, off in pairs]
    off_p50 = statistics.median(off.p50_us for _, off in pairs)
    off_cpu = statistics.median(off.cpu_us for _, off in pairs)
    said = f"{len(pairs)} interleaved pairs of {BLOCK} requests, one connection, the model in a worker"
    report.figure(
        "guards on against off, a 5 ms model: p50", p50, "×", wanted="≤ 1.01",
        note=f"off {off_p50:,.0f} µs; 95% of the median {_interval(p50, statistics.median)}; {said}",
    )  # fmt: skip
    report.figure(
        "guards on against off, a 5 ms model: CPU a request", cpu, "×", wanted="≤ 1.01",
        note=f"off {off_cpu:,.0f} µs, gateway and worker; 95% of the median {_interval(cpu, statistics.median)}",
    )  # fmt: skip
    p99_on, p99_off = (_p99([us for pair in pairs for us in pair[arm].us]) for arm in (0, 1))
    report.figure(
        "guards on against off, a 5 ms model: p99", [p99_on / p99_off], "×",
        note=f"on {p99_on:,.0f} µs, off {p99_off:,.0f} µs; 95% {_interval(pairs, _p99_ratio)}",
    )  # fmt: skip
    report.figure(
        "guards on, audit power-safe, a 5 ms model: p50", [one.p50_us / off_p50 for one in safe], "×",
        note=f"against guards off; each answer waits for the disk; CPU {statistics.median(one.cpu_us for one in safe):,.0f} µs a request",
    )  # fmt: skip


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _p99_ratio(pairs: Sequence[tuple[Block, Block]]) -> float:
    return _p99([us for on, _ in pairs for us in on.us]) / _p99([us for _, off in pairs for us in off.us])


def _interval(values: Sequence[Any], statistic: Callable[[Sequence[Any]], float]) -> str:
    """Return the middle 95% of a statistic over samples drawn anew, with replacement."""
    dice = random.Random(7)
    found = sorted(statistic(dice.choices(values, k=len(values))) for _ in range(DRAWS))
    return f"{found[int(DRAWS * 0.025)]:.4f} … {found[int(DRAWS * 0.975)]:.4f}"


def _block(pids: Sequence[int], client: socket.socket, asked: bytes) -> Block:
    before = sum(map(procs.precise_cpu_s, pids))
    took_us = []
    for _ in range(BLOCK):
        start = time.perf_counter()
        _ask(client, asked)
        took_us.append((time.perf_counter() - start) * 1e6)
    used_s = sum(map(procs.precise_cpu_s, pids)) - before
    return Block(took_us, used_s / BLOCK * 1e6)


def _ask(client: socket.socket, asked: bytes) -> None:
    client.sendall(asked)
    got = b""
    while True:
        got += client.recv(65536)
        head, ended, rest = got.partition(b"\r\n\r\n")
        if not ended:
            continue
        assert head.startswith(b"HTTP/1.1 200"), got
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(rest) >= length:
            return


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


@contextmanager
def _gateway(home: Path) -> Iterator[tuple[int, int, int]]:
    """Run the gateway; yield its process, the port of the guarded door, and that of the other."""
    from taut.testing.serving import GatewayProcess

    port_file = home / "off.port"
    with GatewayProcess(home, main="benchmarks.guards_main") as process:
        process.start("--off-port-file", str(port_file))
        assert process.process is not None
        yield process.process.pid, process.port, int(port_file.read_text())
